"""How well a part of the data agrees with all of it on which configuration is better."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial
from scipy import stats

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.fit import Fit
from optuna_llmbo.lora.fit import Fits
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.space.search_space import SearchSpace


FILE = "proxy-check.json"
LEAST_AGREEMENT = 0.8
"""Minimum Spearman correlation among live runs to recommend a fraction: a convention."""
_FEWEST = 4
"""Minimum number of configurations; a rank correlation of fewer is meaningless."""


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


def check_proxy(
    objective: LoRAObjective,
    *,
    folder: str | os.PathLike[str],
    fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.3),
    n_configs: int = 12,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> ProxyCheck:
    """Train the same configurations at each fraction and on all data, and compare their order.

    The configurations are the default and a scrambled Sobol sequence of the space; those whose
    batch is larger than the smallest fraction are left out of the sequence.

    Args:
        objective: its own `proxy` only bounds the batch sizes of its space, and `proxy_by` says
            how the parts are chosen.
        folder: keeps the fits, so that an interrupted call resumes.
        fractions: of the training examples, each in (0, 1).
        n_configs: at least 4. The cost is a little more than that of as many full runs.
        seed: seed of the sequence; the training uses the objective's.
        tell: called before each training with a description of it.

    Raises:
        InputError: for a fraction or a number out of range, or a space given as a function.
    """
    check_at_least("n_configs", n_configs, _FEWEST)
    prepared = objective.prepare()
    ordered = sorted(set(fractions))
    counts = [_count(fraction, len(prepared.pool)) for fraction in ordered]
    params = _configurations(prepared, n_configs, counts[0], seed)
    fits = Fits(prepared, Path(folder).expanduser() / "fits", tell)
    runs = [
        [
            fits.fit(
                prepared.space.suggest(FixedTrial(one)),
                prepared.pool[:count],
                seed=objective.options.seed,
                name=f"configuration {i + 1} of {len(params)}",
            )
            for i, one in enumerate(params)
        ]
        for count in (*counts, len(prepared.pool))
    ]
    losses = np.array([[fit.loss for fit in row] for row in runs])
    live = losses[-1] < prepared.base_loss
    agreements = tuple(
        _agreement(fraction, count, losses[i], losses[-1], live, runs[i], runs[-1])
        for i, (fraction, count) in enumerate(zip(ordered, counts, strict=True))
    )
    return ProxyCheck(tuple(params), losses, int(live.sum()), agreements, prepared.base_loss)


def _count(fraction: float, n: int) -> int:
    if not 0 < fraction < 1:
        raise InputError(f"fractions: {fraction!r} is not above 0 and below 1.")
    count = round(fraction * n)
    if count < 1:
        raise InputError(f"fractions: {fraction} of {n} examples is less than one.")
    return count


def _configurations(
    prepared: Prepared, n: int, n_examples: int, seed: int
) -> list[dict[str, Any]]:
    """The default and n - 1 points of a scrambled Sobol sequence whose batch fits `n_examples`."""
    space = prepared.space
    if space.function is not None or space.default_params is None:
        raise InputError(
            "the proxy is checked on a space of distributions; the function given as space has "
            "no points to spread. Give a dict or a TOML file."
        )
    distributions: dict[str, BaseDistribution] = dict(space.distributions)
    searched = SearchSpace(distributions)
    points = stats.qmc.Sobol(len(searched.names), seed=seed).random(1 << (8 * n).bit_length())
    found = [dict(space.default_params), *map(dict, searched.from_unit(points))]
    fitting = [one for one in found if space.recipe(one).batch_size <= n_examples]
    if len(fitting) < n:
        raise InputError(
            f"only {len(fitting)} of {len(found)} configurations of the space have a batch of at "
            f"most {n_examples} examples, the smallest fraction: raise it, or lower the batch."
        )
    return [{name: one[name] for name in distributions} for one in fitting[:n]]


def _agreement(
    fraction: float,
    count: int,
    here: np.ndarray,
    full: np.ndarray,
    live: np.ndarray,
    runs: Sequence[Fit],
    full_runs: Sequence[Fit],
) -> Agreement:
    finite = np.isfinite(here) & np.isfinite(full)
    order = np.argsort(here, kind="stable")
    best = np.minimum.accumulate(full[order]) - full.min()
    seconds, all_seconds = (sum(fit.seconds for fit in row) for row in (runs, full_runs))
    return Agreement(
        fraction=fraction,
        n_examples=count,
        spearman=_correlation(stats.spearmanr, here, full),
        spearman_live=_correlation(stats.spearmanr, here[live], full[live]),
        pearson=_correlation(stats.pearsonr, here[finite], full[finite]),
        pearson_live=_correlation(stats.pearsonr, here[finite & live], full[finite & live]),
        regret=tuple(map(float, best)),
        seconds=seconds,
        saved=1 - seconds / all_seconds,
    )


def _correlation(of: Callable[..., Any], a: np.ndarray, b: np.ndarray) -> float:
    """Correlation; nan where undefined: fewer than three points, or all equal."""
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan
    return float(of(a, b).statistic)


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
