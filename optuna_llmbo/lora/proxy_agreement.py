"""What a check of the proxy found: kept on disk, as a table and as a figure.

Reading it loads neither a model nor the training.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from optuna_llmbo.errors import InputError


FILE = "proxy-check.json"
LEAST_AGREEMENT = 0.8
"""Minimum Spearman correlation among live runs to recommend a fraction: a convention."""


@dataclass(frozen=True)
class Agreement:
    """One fraction of the data against all of it. Losses in nats per response token."""

    fraction: float
    n_examples: int
    spearman: float
    """Over all runs; diverged ones rank last. nan if all are equal."""
    spearman_live: float
    """Over the configurations whose full run ends below the base model's loss."""
    pearson: float
    """Over runs that diverged neither here nor on all data."""
    pearson_live: float
    regret: tuple[float, ...]
    """For the best 1, 2, ... configurations here: how much worse the best of them is on all data
    than the best of all."""
    seconds: float
    """Total time of all runs at this fraction, validation included."""
    saved: float
    """1 - seconds / seconds of all full runs."""


@dataclass(frozen=True)
class ProxyCheck:
    """The same configurations, trained at several fractions and on all data."""

    params: tuple[dict[str, Any], ...]
    """Parameters of the n configurations, the default first."""
    losses: np.ndarray
    """(fractions + 1, n) validation losses; the last row on all data. inf: diverged."""
    n_live: int
    agreements: tuple[Agreement, ...]
    base_loss: float

    @property
    def recommended(self) -> float | None:
        """The smallest fraction that, like all larger ones, ranks the live runs well enough."""
        good = [a.spearman_live >= LEAST_AGREEMENT for a in self.agreements]
        first = len(good) - next((i for i, ok in enumerate(good[::-1]) if not ok), len(good))
        return self.agreements[first].fraction if first < len(good) else None


def save_check(check: ProxyCheck, folder: Path) -> Path:
    """Write a check to `proxy-check.json` in a folder; non-finite numbers become null."""
    path = folder / FILE
    record = {**asdict(check), "losses": check.losses.tolist()}
    path.write_text(json.dumps(_finite_or_null(record), indent=1, allow_nan=False) + "\n")
    return path


def read_check(path: Path) -> ProxyCheck:
    """Read a check that `save_check` wrote.

    Args:
        path: the file, or the folder that it is in.

    Raises:
        InputError: if there is none.
    """
    path = path / FILE if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
        losses = [[math.inf if loss is None else loss for loss in row] for row in record["losses"]]
        agreements = tuple(_read_agreement(one) for one in record["agreements"])
        return ProxyCheck(
            params=tuple(record["params"]),
            losses=np.array(losses, dtype=np.float64),
            n_live=record["n_live"],
            agreements=agreements,
            base_loss=record["base_loss"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected a proxy check at {path}, the folder of `optuna-llmbo proxy-check --out` or "
            f"the {FILE} in it; got {type(error).__name__}: {error}. Run that command again: it "
            "takes the fits that it has made."
        ) from error


def _read_agreement(record: dict[str, Any]) -> Agreement:
    numbers: dict[str, Any] = {n: math.nan if v is None else v for n, v in record.items()}
    numbers["regret"] = tuple(math.inf if loss is None else loss for loss in record["regret"])
    return Agreement(**numbers)


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite_or_null(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report(check: ProxyCheck) -> str:
    """The table in Markdown."""
    lines = [
        f"{len(check.params)} configurations, {check.n_live} of them live: better than the base "
        f"model ({check.base_loss:.4f}) after training on all data.",
        "",
        "| fraction | examples | Spearman | live | Pearson | live | regret of the best 1 | of 3 | "
        "time saved |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for a in check.agreements:
        lines.append(
            f"| {a.fraction:g} | {a.n_examples} | {a.spearman:.2f} | {a.spearman_live:.2f} | "
            f"{a.pearson:.2f} | {a.pearson_live:.2f} | {a.regret[0]:.4f} | {a.regret[2]:.4f} | "
            f"{a.saved:.0%} |"
        )
    recommended = check.recommended
    verdict = (
        f"Recommended: {recommended:g}, from which on the live runs' ranks agree "
        f"(Spearman of at least {LEAST_AGREEMENT})."
        if recommended is not None
        else f"None of these fractions agrees well enough (Spearman of at least "
        f"{LEAST_AGREEMENT} among live runs): take a larger one."
    )
    return "\n".join([*lines, "", verdict])


def draw(check: ProxyCheck, path: Path) -> None:
    """Plot losses at each fraction against those on all data, one panel per fraction.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("the figure needs matplotlib: pip install matplotlib.") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    n = len(check.agreements)
    figure, panels = pyplot.subplots(
        1, n, figsize=(3 * n, 3), sharey=True, squeeze=False, layout="constrained"
    )
    full = check.losses[-1]
    for panel, agreement, here in zip(panels[0], check.agreements, check.losses, strict=False):
        live = full < check.base_loss
        panel.scatter(here[live], full[live], label="live")
        panel.scatter(here[~live], full[~live], marker="x", label="not better than the base")
        panel.axhline(check.base_loss, linestyle=":", color="grey")
        panel.set_title(f"{agreement.fraction:g}: Spearman {agreement.spearman_live:.2f} live")
        panel.set_xlabel(f"loss on {agreement.n_examples} examples")
    panels[0][0].set_ylabel("loss on all data")
    panels[0][0].legend(fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)
