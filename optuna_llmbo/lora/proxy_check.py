"""How well a part of the data agrees with all of it on which configuration is better."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
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
from optuna_llmbo.lora.proxy_agreement import Agreement
from optuna_llmbo.lora.proxy_agreement import ProxyCheck
from optuna_llmbo.space.search_space import SearchSpace


_FEWEST = 4
"""Minimum number of configurations; a rank correlation of fewer is meaningless."""


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
