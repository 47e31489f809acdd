"""HEBO and SMAC3 as Optuna samplers, for tasks with a fixed search space.

They need an environment of their own, described in `rivals.txt`. Both are asked for one
configuration per trial and told of all finished trials, including enqueued ones. Categorical
parameters are passed as unordered indices of their choices.
"""

from __future__ import annotations

from collections.abc import Callable
import math
import tempfile
from typing import Any
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from benchmarks.race.task import Configuration
from benchmarks.race.task import Distributions
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError


SMAC_TRIALS = 60
"""Number of trials announced to SMAC; a quarter of them are its initial design."""


class Optimizer(Protocol):
    """An optimizer with an ask-and-tell interface."""

    def ask(self) -> Configuration:
        """Return a configuration to try."""

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of a configuration."""


def make_sampler(method: str, task: Task, seed: int) -> RivalSampler:
    """Make a new sampler for one study.

    Raises:
        InputError: if the task's search space is not fixed, or the package is not installed.
    """
    if task.distributions is None:
        raise InputError(
            f"{method} cannot search {task.name!r}, whose parameters depend on the values of "
            "others: leave out one of them."
        )
    try:
        optimizer = OPTIMIZERS[method](task.distributions, seed)
    except ImportError as error:
        raise InputError(
            f"{method} is not installed here ({error}): run the race with the interpreter of an "
            "environment that benchmarks/race/rivals.txt describes."
        ) from error
    return RivalSampler(task.distributions, optimizer, seed)


class RivalSampler(BaseSampler):
    """Wrap another project's optimizer as an Optuna sampler.

    Args:
        distributions: the whole search space.
        optimizer: a new optimizer, for one study.
        seed: seed of NumPy's and torch's global generators, which HEBO draws from.
    """

    def __init__(self, distributions: Distributions, optimizer: Optimizer, seed: int) -> None:
        self._distributions = dict(distributions)
        self._optimizer = optimizer
        self._seed = seed
        self._told: set[int] = set()
        self._fallback = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space, from the first trial on."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Tell the new results, then ask; enqueued trials are only told, once finished."""
        for finished in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if finished.number not in self._told:
                assert finished.value is not None
                self._told.add(finished.number)
                self._optimizer.tell(finished.params, finished.value)
        if "fixed_params" in trial.system_attrs:
            return {}
        _seed_globals(self._seed, trial.number)
        return dict(self._optimizer.ask())

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Draw at random; needed only for an enqueued trial that lacks a parameter."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)


class Hebo:
    """HEBO (Cowen-Rivers et al. 2022, arXiv:2012.03826) with its default settings.

    Args:
        distributions: the search space.
        seed: seed of its initial Sobol sequence.
    """

    def __init__(self, distributions: Distributions, seed: int) -> None:
        from pymoo.config import Config

        Config.warnings["not_compiled"] = False  # would be printed on import

        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        self._distributions = distributions
        space = [_hebo_parameter(name, d) for name, d in distributions.items()]
        self._optimizer = HEBO(DesignSpace().parse(space), scramble_seed=seed)

    def ask(self) -> Configuration:
        """Return one suggestion."""
        row = self._optimizer.suggest(n_suggestions=1).iloc[0]
        return {name: _from_rival(d, row[name]) for name, d in self._distributions.items()}

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of a configuration."""
        import pandas

        row = {name: _to_rival(d, configuration[name]) for name, d in self._distributions.items()}
        self._optimizer.observe(pandas.DataFrame([row]), np.array([[value]]))


class Smac:
    """SMAC3 (Lindauer et al. 2022, arXiv:2109.09831), the facade for hyperparameters.

    Args:
        distributions: the search space.
        seed: seed of all its randomness.
    """

    def __init__(self, distributions: Distributions, seed: int) -> None:
        from ConfigSpace import ConfigurationSpace
        from smac import HyperparameterOptimizationFacade
        from smac import Scenario

        self._distributions = distributions
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        self._space = ConfigurationSpace(seed=seed)
        self._space.add([_smac_parameter(name, d) for name, d in distributions.items()])
        scenario = Scenario(
            self._space,
            deterministic=True,
            n_trials=SMAC_TRIALS,
            seed=seed,
            output_directory=self._folder.name,
        )
        self._facade = HyperparameterOptimizationFacade(
            scenario, _not_called, logging_level=False, overwrite=True
        )
        self._asked: Any = None

    def ask(self) -> Configuration:
        """Return one suggestion."""
        self._asked = self._facade.ask()
        values = dict(self._asked.config)
        return {name: _from_rival(d, values[name]) for name, d in self._distributions.items()}

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of the configuration asked for, or of one that SMAC does not know."""
        from ConfigSpace import Configuration as Known
        from smac.runhistory.dataclasses import TrialInfo
        from smac.runhistory.dataclasses import TrialValue

        info = self._asked
        if info is None:
            row = {n: _to_rival(d, configuration[n]) for n, d in self._distributions.items()}
            info = TrialInfo(config=Known(self._space, values=row), seed=0)
        self._facade.tell(info, TrialValue(cost=value))
        self._asked = None


OPTIMIZERS: dict[str, Callable[[Distributions, int], Optimizer]] = {"hebo": Hebo, "smac": Smac}


def _hebo_parameter(name: str, distribution: Any) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        indices = list(range(len(distribution.choices)))
        return {"name": name, "type": "cat", "categories": indices}
    _check(name, distribution)
    kinds = {(float, False): "num", (float, True): "pow", (int, False): "int"}
    kinds[int, True] = "pow_int"
    kind = kinds[type(distribution.low), distribution.log]
    return {"name": name, "type": kind, "lb": distribution.low, "ub": distribution.high}


def _smac_parameter(name: str, distribution: Any) -> Any:
    from ConfigSpace import Categorical
    from ConfigSpace import Float
    from ConfigSpace import Integer

    if isinstance(distribution, CategoricalDistribution):
        return Categorical(name, list(range(len(distribution.choices))))
    _check(name, distribution)
    make = Integer if isinstance(distribution, IntDistribution) else Float
    return make(name, (distribution.low, distribution.high), log=distribution.log)


def _check(name: str, distribution: FloatDistribution | IntDistribution) -> None:
    if distribution.step not in (None, 1):
        raise InputError(f"{name} has a step ({distribution}): expected a range without.")


def _to_rival(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    return value


def _from_rival(distribution: Any, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(value)]
    if isinstance(distribution, IntDistribution):
        return min(max(round(float(value)), distribution.low), distribution.high)
    return min(max(float(value), distribution.low), distribution.high)  # logarithms round


def _not_called(config: Any, seed: int) -> float:
    """Stand in for the target function, which ask and tell replace."""
    return math.nan


def _seed_globals(seed: int, trial_number: int) -> None:
    import torch

    state = np.random.SeedSequence([seed, trial_number]).generate_state(1)
    np.random.seed(state)
    torch.manual_seed(int(state[0]))
