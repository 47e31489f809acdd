"""Ax, HEBO and SMAC3 as Optuna samplers, for tasks with a fixed search space.

They need an environment of their own, described in `rivals.txt`. Each is asked for one
configuration per trial and told of all finished trials, including enqueued and failed ones; what
it makes of a failure is described at its class. Categorical parameters are passed as unordered
indices of their choices.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import random
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


SMAC_TRIALS = 30
"""Number of trials announced to SMAC, after which results are read; a quarter of them are its
initial design."""


class Optimizer(Protocol):
    """An optimizer with an ask-and-tell interface."""

    def ask(self) -> Configuration:
        """Return a configuration to try."""

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of a configuration: nan if its trial failed."""


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
        seed: seed of the global generators of Python, NumPy and torch, which Ax and HEBO draw
            from.
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
        states = (TrialState.COMPLETE, TrialState.FAIL)
        for finished in study.get_trials(deepcopy=False, states=states):
            if finished.number not in self._told:
                value = math.nan if finished.value is None else finished.value
                self._told.add(finished.number)
                self._optimizer.tell(finished.params, value)
        if "fixed_params" in trial.system_attrs:
            return {}
        _seed_globals(self._seed, trial.number)
        return dict(self._optimizer.ask())

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Draw at random; needed only for an enqueued trial that lacks a parameter."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)


class Ax:
    """Ax (Olson et al. 2025, AutoML, openreview.net/forum?id=U1f6wHtG1g), default settings.

    A failed trial is marked as abandoned, which is Ax's status for configurations that always
    fail: no value is learned from it, but it is not suggested again. Ax's failed trials are those
    to be retried.

    Args:
        distributions: the search space.
        seed: seed of its initial Sobol sequence.
    """

    def __init__(self, distributions: Distributions, seed: int) -> None:
        from ax.api.client import Client
        from ax.utils.common.logger import set_stderr_log_level

        set_stderr_log_level(logging.WARNING)  # every suggestion would be printed
        self._distributions = distributions
        self._client = Client()
        self._client.configure_experiment([_ax_parameter(n, d) for n, d in distributions.items()])
        self._client.configure_optimization("-value")
        self._client.configure_generation_strategy(initialization_random_seed=seed)
        self._asked: int | None = None

    def ask(self) -> Configuration:
        """Return one suggestion."""
        ((self._asked, row),) = self._client.get_next_trials(max_trials=1).items()
        return {name: _from_rival(d, row[name]) for name, d in self._distributions.items()}

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of the configuration asked for, or of one that Ax does not know."""
        index = self._asked
        if index is None:
            row = {n: _to_rival(d, configuration[n]) for n, d in self._distributions.items()}
            index = self._client.attach_trial(row)
        if math.isnan(value):
            self._client.mark_trial_abandoned(index)
        else:
            self._client.complete_trial(index, {"value": value})
        self._asked = None


class Hebo:
    """HEBO (Cowen-Rivers et al. 2022, arXiv:2012.03826) with its default settings.

    HEBO leaves out what has no finite value: it neither learns from failed trials nor counts them.

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
        """Report the value of a configuration, which HEBO leaves out if it is nan."""
        import pandas

        row = {name: _to_rival(d, configuration[name]) for name, d in self._distributions.items()}
        self._optimizer.observe(pandas.DataFrame([row]), np.array([[value]]))


class Smac:
    """SMAC3 (Lindauer et al. 2022, arXiv:2109.09831), the facade for hyperparameters.

    A failed trial is told as crashed. SMAC's model counts these as observations of a cost that the
    user chooses: here the highest value so far, as its forest cannot be fitted to the infinite
    one that is SMAC's default. It is told again when that rises, and only once there is a value.

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
        self._crashed: list[Any] = []
        self._worst = -math.inf

    def ask(self) -> Configuration:
        """Return one suggestion."""
        self._asked = self._facade.ask()
        values = dict(self._asked.config)
        return {name: _from_rival(d, values[name]) for name, d in self._distributions.items()}

    def tell(self, configuration: Configuration, value: float) -> None:
        """Report the value of the configuration asked for, or of one that SMAC does not know."""
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        info = self._asked if self._asked is not None else self._unknown(configuration)
        self._asked = None
        if math.isnan(value):
            self._crashed.append(info)
        else:
            self._worst = max(self._worst, value)
            self._facade.tell(info, TrialValue(cost=value), save=False)
        if math.isfinite(self._worst):
            crash = TrialValue(cost=self._worst, status=StatusType.CRASHED)
            for crashed in self._crashed:
                self._facade.tell(crashed, crash, save=False)

    def _unknown(self, configuration: Configuration) -> Any:
        from ConfigSpace import Configuration as Known
        from smac.runhistory.dataclasses import TrialInfo

        row = {n: _to_rival(d, configuration[n]) for n, d in self._distributions.items()}
        return TrialInfo(config=Known(self._space, values=row), seed=0)


OPTIMIZERS: dict[str, Callable[[Distributions, int], Optimizer]] = {
    "ax": Ax,
    "hebo": Hebo,
    "smac": Smac,
}


def _ax_parameter(name: str, distribution: Any) -> Any:
    from ax.api.configs import ChoiceParameterConfig
    from ax.api.configs import RangeParameterConfig

    if isinstance(distribution, CategoricalDistribution):
        indices = list(range(len(distribution.choices)))
        return ChoiceParameterConfig(name, indices, parameter_type="int", is_ordered=False)
    _check(name, distribution)
    return RangeParameterConfig(
        name,
        bounds=(distribution.low, distribution.high),
        parameter_type="int" if isinstance(distribution, IntDistribution) else "float",
        scaling="log" if distribution.log else "linear",
    )


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
    random.seed(int(state[0]))
    np.random.seed(state)
    torch.manual_seed(int(state[0]))
