"""Plan the runs of a tier's table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import itertools
from typing import Any

import pandas
from scipy.stats import qmc

from benchmarks.lora_table.defaults import DEFAULTS
from benchmarks.lora_table.tables import configurations
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import FRACTIONS
from benchmarks.lora_table.tiers import PROXY
from benchmarks.lora_table.tiers import Tier
from optuna_llmbo.space.search_space import SearchSpace


_DIGITS = 4  # significant digits, so that a configuration can be written down


@dataclass(frozen=True)
class Planned:
    """One run to make."""

    design: str
    """Why it is made: default, grid, random or promoted."""
    params: dict[str, Any]
    fraction: float
    seed: int


def first_stage(tier: Tier) -> list[Planned]:
    """Plan all runs that do not depend on results, the most useful first."""
    random = random_configurations(tier)
    defaults = list(DEFAULTS.values())
    fidelity = random[: tier.n_fidelity]
    return [
        *(Planned("default", c, f, s) for f in FRACTIONS for s in tier.seeds for c in defaults),
        *(Planned("random", c, PROXY, 0) for c in random),
        *(Planned("random", c, f, 0) for c in fidelity for f in FRACTIONS if f != PROXY),
        *(Planned("grid", c, PROXY, 0) for c in grid_configurations(tier)),
    ]


def second_stage(tier: Tier, table: pandas.DataFrame) -> list[Planned]:
    """Plan the promoted runs and the other seeds, which depend on a complete first stage.

    Half of the configurations with all seeds are promoted ones, to tell the best apart; the
    others are the first of the Sobol sequence, which represent the whole space.
    """
    promoted = best_configurations(tier, table)
    random = [c for c in random_configurations(tier) if c not in promoted]
    groups = (("promoted", promoted), ("random", random))
    seeded = [(d, c) for d, group in groups for c in group[: tier.n_seeded // 2]]
    return [
        *(Planned("promoted", c, 1.0, tier.seeds[0]) for c in promoted),
        *(Planned(d, c, f, s) for s in tier.seeds[1:] for f in (1.0, PROXY) for d, c in seeded),
    ]


def best_configurations(tier: Tier, table: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return the best configurations at `PROXY` with the first seed, best first."""
    proxy = table[(table.fraction == PROXY) & (table.seed == tier.seeds[0])]
    best = proxy[proxy.design != "default"].nsmallest(tier.n_promoted, "loss")
    return configurations(best)


def random_configurations(tier: Tier) -> list[dict[str, Any]]:
    """Return the first `n_random` of a scrambled Sobol sequence over the tier's space."""
    sequence = qmc.Sobol(len(PARAMS), scramble=True, seed=0)
    cube = sequence.random_base2((tier.n_random - 1).bit_length())[: tier.n_random]
    space = SearchSpace({name: tier.space[name] for name in PARAMS})
    return [
        {name: _rounded(configuration[name]) for name in PARAMS}
        for configuration in space.from_unit(cube)
    ]


def grid_configurations(tier: Tier) -> Iterator[dict[str, Any]]:
    """Yield every combination of the grid's levels; none if the tier has no grid."""
    if tier.grid:
        for values in itertools.product(*(tier.grid[name] for name in PARAMS)):
            yield dict(zip(PARAMS, values, strict=True))


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
