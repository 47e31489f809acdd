"""Functions drawn from Gaussian processes, of which only the kind is known.

A function is a sum of random waves (Rahimi and Recht 2007, Random Features for Large-Scale Kernel
Machines): with normal frequencies a draw of a process with a squared exponential kernel, with
those of Student's t distribution one with a Matern kernel. So smoothness and lengthscales are
known, and no knowledge of hyperparameters applies. Some functions are then given what training
has: a cliff beyond which all is lost, a plateau on which nothing changes, choices, steps. The best
value is the lowest of a search; the middle is the median of random configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import functools

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from benchmarks.race import kept
from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions
from benchmarks.race.task import draw
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task


N_WAVES = 512
N_SEARCH = 2**15
N_ROUNDS = 60
_N_KEPT = 64
_STEPS = 4


@dataclass(frozen=True)
class Kind:
    """A kind of function."""

    n_numbers: int
    lengthscale: float
    """Of the numbers that matter, in units of their range."""
    smoothness: float
    """nu of the Matern kernel; infinite for the squared exponential one."""
    n_idle: int = 0
    """Numbers that change nothing, or hardly anything."""
    choices: tuple[int, ...] = ()
    """Sizes of the nominal parameters."""
    n_integers: int = 0
    """How many of the numbers are integers of 1 to 8."""
    cliff: float = 0.0
    """Share of the first number's range beyond which all is lost."""
    lost: float = 4.0
    """The value beyond the cliff; the others are about as far from 0 as 1."""
    levels: tuple[int, ...] = ()
    """Levels of each number; a value between them has the function's value at the nearest one."""
    plateau: float = 0.0
    """Share of all configurations, the worse ones, among which nothing is left to tell apart."""


KINDS = {
    "smooth-3": Kind(3, 0.4, np.inf),
    "smooth-5": Kind(5, 0.6, np.inf),
    "smooth-8": Kind(8, 0.9, np.inf, n_idle=3),
    "rough-4": Kind(4, 0.5, 1.5),
    "mixed-6": Kind(4, 0.7, 2.5, n_integers=2, choices=(3, 4)),
    "mixed-9": Kind(7, 1.0, 2.5, n_idle=2, n_integers=3, choices=(2, 5)),
    "cliff-5": Kind(5, 0.8, 2.5, n_idle=2, cliff=0.35),
    "collapse-6": Kind(6, 1.0, 2.5, n_idle=2, cliff=0.4, lost=1000.0),
    "grid-5": Kind(5, 0.8, 2.5, levels=(6, 4, 3, 3, 2)),
    "grid-6": Kind(6, 1.0, 2.5, n_idle=1, levels=(6, 4, 3, 2, 2, 3)),
    "plateau-4": Kind(4, 0.5, 2.5, n_idle=1, plateau=0.6),
}


def tasks() -> dict[str, Callable[[], Task]]:
    """Return a factory for each kind."""
    return {f"draws-{name}": functools.partial(make, name) for name in KINDS}


def make(name: str) -> Task:
    """Make the task of one kind; the default is the middle of all ranges and the first choices."""
    known, space = kept.read(f"draws-{name}"), space_of(KINDS[name])
    function = value_of(name)
    return Task(
        name=f"draws-{name}",
        family="draws",
        sentence="an unknown function of numbers and choices",
        distributions=space,
        suggest=suggest_all(space),
        value=lambda configuration: float(function([configuration])[0]),
        best=known.best,
        middle=known.middle,
        default={key: _middle(distribution) for key, distribution in space.items()},
    )


def space_of(kind: Kind) -> Distributions:
    """Return the search space: integers first, then real numbers, then choices."""
    space: dict[str, object] = {}
    for i in range(kind.n_numbers):
        is_integer = i >= kind.n_numbers - kind.n_integers
        space[f"x{i}"] = IntDistribution(1, 8) if is_integer else FloatDistribution(0.0, 1.0)
    for i, size in enumerate(kind.choices):
        space[f"c{i}"] = CategoricalDistribution([f"{i}{chr(97 + j)}" for j in range(size)])
    return space  # type: ignore[return-value]


@functools.cache
def value_of(name: str) -> Callable[[Sequence[Configuration]], np.ndarray]:
    """Return the function of a kind: the values of configurations, (n,); lower is better."""
    kind = KINDS[name]
    rng = np.random.default_rng([len(name), *name.encode()])
    width = kind.n_numbers + sum(kind.choices)
    scales = np.full(width, kind.lengthscale)
    scales[kind.n_numbers - kind.n_idle : kind.n_numbers] = 10 * kind.lengthscale
    scales[kind.n_numbers :] = np.sqrt(2) * max(kind.lengthscale, 0.7)
    frequencies = rng.normal(size=(N_WAVES, width))
    if np.isfinite(kind.smoothness):
        degrees = 2 * kind.smoothness
        frequencies *= np.sqrt(degrees / rng.chisquare(degrees, size=(N_WAVES, 1)))
    frequencies /= scales
    phases = rng.uniform(0, 2 * np.pi, N_WAVES)
    weights = rng.normal(size=N_WAVES) * np.sqrt(2 / N_WAVES)

    def smooth(features: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.cos(features @ frequencies.T + phases) @ weights
        return values

    space = space_of(kind)
    level = np.inf
    if kind.plateau:
        values = smooth(_features(space, draw(space, N_SEARCH // 8, seed=1)))
        level = float(np.quantile(values, 1 - kind.plateau))

    def function(configurations: Sequence[Configuration]) -> np.ndarray:
        features = _features(space, configurations)
        for column, n in enumerate(kind.levels):
            features[:, column] = np.rint(features[:, column] * (n - 1)) / (n - 1)
        values = np.minimum(smooth(features), level)
        if kind.cliff:
            # The edge depends on a second number, as that of a rate on the batch size.
            over = features[:, 0] + 0.2 * (features[:, 1] - 0.5) - (1 - kind.cliff)
            values = np.where(over > 0, kind.lost * (1 + 0.1 * np.tanh(10 * over)), values)
        return values

    return function


def _features(space: Distributions, configurations: Sequence[Configuration]) -> np.ndarray:
    """Numbers in [0, 1], choices one-hot, (n, columns)."""
    columns: list[np.ndarray] = []
    for name, distribution in space.items():
        values = [configuration[name] for configuration in configurations]
        if isinstance(distribution, CategoricalDistribution):
            columns += [np.array([v == c for v in values], float) for c in distribution.choices]
        elif isinstance(distribution, IntDistribution):
            columns.append((np.array(values, float) - 0.5) / 8)
        else:
            columns.append(np.array(values, float))
    return np.stack(columns, axis=1)


def _middle(distribution: object) -> object:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return 4 if isinstance(distribution, IntDistribution) else 0.5


def search(name: str) -> kept.Known:
    """Find the best value by a random search that closes in, and the middle of random ones."""
    kind = KINDS[name.removeprefix("draws-")]
    function, space = value_of(name.removeprefix("draws-")), space_of(kind)
    found: list[Configuration] = list(draw(space, N_SEARCH, seed=0))
    values = function(found)
    middle = float(np.median(values))
    rng = np.random.default_rng(0)
    for i in range(N_ROUNDS):
        order = np.argsort(values, kind="stable")[:_N_KEPT]
        found, values = [found[j] for j in order], values[order]
        step = 0.2 * 0.85**i
        moved = [_moved(space, one, step, rng) for one in found for _ in range(_STEPS**3)]
        found, values = [*found, *moved], np.concatenate([values, function(moved)])
    return kept.Known(best=float(values.min()), middle=middle)


def _moved(
    space: Distributions, one: Configuration, step: float, rng: np.random.Generator
) -> Configuration:
    moved = dict(one)
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            if rng.random() < 0.1:
                moved[name] = distribution.choices[int(rng.integers(len(distribution.choices)))]
        elif isinstance(distribution, IntDistribution):
            moved[name] = int(np.clip(round(moved[name] + rng.normal() * 8 * step), 1, 8))
        else:
            moved[name] = float(np.clip(moved[name] + rng.normal() * step, 0, 1))
    return moved
