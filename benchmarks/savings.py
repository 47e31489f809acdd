"""Print what makes a LoRA search cheaper, or was meant to: all saved results in one table.

Each row gives the seconds with a measure over those without, within one run or on one table, and
how much worse the final loss is: the base model loaded once, several adapters trained at once
(both `benchmarks.training`), torch.compile (`benchmarks.compile`), pruned trials
(`benchmarks.pruning`), and a search on a part of the data whose best 3 are trained again on all of
it (`benchmarks.proxy_savings`). Each was measured separately, on two models, so their product
means nothing. If a run has several cases, the row gives their range.

    python -m benchmarks.savings
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import compile as compiling
from benchmarks import console
from benchmarks import pruning
from benchmarks.proxy_savings import TOPS
from benchmarks.proxy_savings import TRIALS
from benchmarks.training import ONE
from benchmarks.training import RELOAD


RESULTS = Path(__file__).parent / "results"
HEAD = ("what", "seconds, of those without", "loss, worse than without")
Row = tuple[str, str, str]


def rows(folder: Path = RESULTS) -> list[Row]:
    """List each measure with its relative seconds and difference in loss."""
    return [
        *of_training(_read(folder / "training" / "cpu.json")),
        *of_compiling([_read(path) for path in sorted((folder / "compile").glob("*.json"))]),
        *of_pruning(_read(folder / "pruning.json")),
        *of_proxy(_read(folder / "proxy_savings.json")),
    ]


def of_training(record: dict[str, Any]) -> Iterator[Row]:
    """Compare the base loaded once with once per trial, and packed trials with single ones."""
    cases = list(record["cases"].values())
    packed = [way for way in cases[0] if way not in (ONE, RELOAD)]
    pairs = [("base loaded once", ONE, RELOAD), *((way, way, ONE) for way in packed)]
    for name, way, other in pairs:
        ratios = [_of_a_trial(case[way]) / _of_a_trial(case[other]) for case in cases]
        worse = [_worse(case[way]["losses"], case[other]["losses"]) for case in cases]
        yield name, _range(ratios), _range(worse, "+.4f")


def of_compiling(records: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Compare all trials of a way, including the compilation that they share."""
    cases = [case for record in records for case in record["cases"].values()]
    for way in [way for way in compiling.WAYS if way != compiling.NONE]:
        pairs = [(case[way], case[compiling.NONE]) for case in cases if way in case]
        ratios = [_sum(a, "cpu_seconds") / _sum(b, "cpu_seconds") for a, b in pairs]
        worse = [(_sum(a, "loss") - _sum(b, "loss")) / len(a) for a, b in pairs]
        if pairs:
            yield (
                f"torch.compile, {way}, {len(pairs[0][0])} trials",
                _range(ratios),
                _range(worse, "+.4f"),
            )


def of_pruning(record: dict[str, Any]) -> Iterator[Row]:
    """Summarize over seeds, as `benchmarks.pruning` does."""
    without = [one for one in record["studies"] if one["pruner"] == "none"]
    for name in [name for name in pruning.PRUNERS if name != "none"]:
        ours = [one for one in record["studies"] if one["pruner"] == name]
        pairs = list(zip(ours, without, strict=True))
        ratio = float(np.median([a["seconds"] / b["seconds"] for a, b in pairs]))
        worse = float(np.mean([a["best"] - b["best"] for a, b in pairs]))
        yield f"pruner {name}", f"{ratio:.2f}", f"{worse:+.4f}"


def of_proxy(record: dict[str, Any]) -> Iterator[Row]:
    """Compare at the same number of trials, then at the same loss if it is reached."""
    for one in [one for one in record["searches"] if one["top"] == max(TOPS)]:
        name = f"proxy of {one['fraction']:.0%}"
        yield f"{name}, {TRIALS} trials", f"{one['time'][0]:.2f}", f"{one['worse'][0]:+.4f}"
        trials, saved = one[f"trials {TRIALS}"][0], one[f"saved {TRIALS}"][0]
        if saved is not None:
            yield f"{name}, {trials:.0f} trials", f"{1 - saved:.2f}", "the same"


def _of_a_trial(cost: dict[str, Any]) -> float:
    return float(cost["cpu_seconds"] / cost["trials"])


def _worse(losses: Sequence[float], others: Sequence[float]) -> float:
    """Average the difference over the trials that both ways made."""
    n = min(len(losses), len(others))
    return float(np.mean(losses[:n]) - np.mean(others[:n]))


def _sum(trials: Sequence[dict[str, Any]], what: str) -> float:
    return float(sum(trial[what] for trial in trials))


def _range(values: Sequence[float], form: str = ".2f") -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def main() -> None:
    """Print the table."""
    print(console.table(HEAD, rows()))


if __name__ == "__main__":
    main()
