"""The kept result of the search over LLaMA-Factory as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.console import table


def report(record: dict[str, Any]) -> str:
    """Format what was found, the trials, and the kills."""
    return "\n\n".join([_found(record), _trials(record), _kills(record)])


def _found(record: dict[str, Any]) -> str:
    """Format the losses of the base model, the control and the best configuration."""
    final = record["final"]
    rows = [["model as it is", "", "", f"{final['base']:.3f}", ""]]
    for name, title in (("default", "LLaMA-Factory's values"), ("best", "best found")):
        trial = next(one for one in record["trials"] if one["number"] == record[name])
        losses = final[name]
        rows.append(
            [
                title,
                f"#{trial['number']}",
                f"{trial['value']:.3f}",
                f"{statistics.mean(losses):.3f}",
                ", ".join(f"{loss:.3f}" for loss in losses),
            ]
        )
    head = ["loss, nats", "trial", "validation, in the search", "test, on all data", "by seed"]
    return table(head, rows)


def _trials(record: dict[str, Any]) -> str:
    """Format what came of each trial."""
    names = list(record["trials"][0]["params"])
    rows = [
        [
            f"#{trial['number']}",
            *(f"{trial['params'][n]:.3g}" if n in trial["params"] else "" for n in names),
            f"{trial['value']:.3f}" if trial["value"] is not None else "",
            outcome(trial),
        ]
        for trial in record["trials"]
    ]
    return table(["trial", *(f"`{name}`" for name in names), "validation loss", "outcome"], rows)


def outcome(trial: dict[str, Any]) -> str:
    """How a trial ended, in words."""
    if trial["state"] == "FAIL":
        return "killed with the search" if trial["killed"] else trial["reason"]
    return trial["reason"] if trial["state"] == "PRUNED" else trial["state"].lower()


def _kills(record: dict[str, Any]) -> str:
    """Format what was left of the search after each kill."""
    rows = [
        [
            str(i),
            str(kill["finished"]),
            ", ".join(f"#{number}" for number in kill["running"]) or "none",
            str(kill["processes"]),
            f"{kill['seconds_until_gone']:.1f}",
            str(kill["left"]),
            str(len(kill["lost"]) + len(kill["changed"])),
        ]
        for i, kill in enumerate(record["kills"], 1)
    ]
    head = [
        "kill",
        "trials finished",
        "running",
        "processes then",
        "seconds until gone",
        "left running",
        "results lost or changed",
    ]
    return table(head, rows)
