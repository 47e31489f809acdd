"""One trial's turn: what it is going to try is chosen, published, and written down.

The part of the sampler between Optuna's interface and the method: which parameters are chosen
together, the start-up, what other workers have taken, all randomness, warnings.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import time
from typing import Any
import zlib

import numpy as np
from optuna.distributions import BaseDistribution
import optuna.logging
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.study import compat
from optuna_llmbo.study import published
from optuna_llmbo.study.branches import latest_distributions
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import sign_of
from optuna_llmbo.study.transfer import best_value
from optuna_llmbo.suggestion import provenance
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.decide import Decision
from optuna_llmbo.suggestion.decide import Suggestion
from optuna_llmbo.suggestion.engine import Advisor
from optuna_llmbo.suggestion.provenance import ChosenBy
from optuna_llmbo.suggestion.startup import advised_value
from optuna_llmbo.suggestion.startup import start


_logger = optuna.logging.get_logger(f"optuna.{__name__}")


_ATTEMPTS = 3
"""How often to choose anew what another worker has just chosen."""

_Chosen = tuple[ChosenBy, Configuration, Decision | None]


@dataclass
class Planner:
    """Chooses for one trial at a time; keeps nothing of a study but which warnings were said.

    Raises:
        InputError: if there cannot be so many start-up trials, or such a seed.
    """

    advisor: Advisor
    n_startup_trials: int
    provenance: bool
    """Whether to write into the trials who chose them."""
    seed: int
    _warned: set[tuple[int, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        check_at_least("n_startup_trials", self.n_startup_trials, 0)
        check_at_least("seed", self.seed, 0)

    def has_started(self, known: Sequence[FrozenTrial]) -> bool:
        """Whether there are enough informative trials for the model."""
        return len(known) >= max(1, self.n_startup_trials)

    def first_value(
        self, trial: FrozenTrial, name: str, axis: Axis, *, or_middle: bool
    ) -> Any | None:
        """A parameter's value in a study's first trial, which has no search space yet.

        What was best in another study; what the packs recommend, as far as the names so far tell;
        else the middle of the range, or None.
        """
        if not self.advisor.design.recommended_first:
            return None
        best = best_value(self.advisor.source_studies, name)
        if best is not None and axis.contains(best):
            return best
        knowledge = self.advisor.knowledge.relevant([*trial.params, name])
        advice = advised_value(knowledge, 0, axis, name)
        # Out of range, it is most likely advice for another kind of study.
        if advice is not None and advice == knowledge.recommended_value(0, name):
            return advice
        return axis.from_unit(0.5) if or_middle else None

    def plan_shared(
        self,
        study: Study,
        trial: FrozenTrial,
        known: Sequence[FrozenTrial],
        search_space: Mapping[str, BaseDistribution],
    ) -> Configuration:
        """Choose the parameters that all trials share, and those that their values lead to.

        Args:
            study: the study.
            trial: which begins.
            known: the study's informative trials.
            search_space: the parameters that are asked for.

        Returns:
            The configuration, as published; empty if no model can be fitted.
        """
        has_started = self.has_started(known)
        others = latest_distributions(known) if has_started else {}
        structure = read_branches(known, {**others, **search_space}, always=search_space)
        # A parameter that all trials have and that is not asked for is fixed somewhere else.
        latest = known[-1].params if known else {}
        fixed = {
            name: latest[name]
            for name in structure.space.shared
            if name in latest and name not in search_space
        }
        region = Region(structure, {**fixed, **_given(trial)})
        choose = self._choose if has_started else self._start
        return self._settle(study, trial, region, choose)

    def plan_rest(
        self,
        study: Study,
        trial: FrozenTrial,
        known: Sequence[FrozenTrial],
        name: str,
        distribution: BaseDistribution,
    ) -> Configuration:
        """Choose one more parameter and what may follow it, given what the trial has suggested.

        Returns:
            The configuration, as published; empty if there is no choice or no fitted model.
        """
        if distribution.single():
            return {}
        latest = {**latest_distributions(known), **trial.distributions, name: distribution}
        distributions = {other: d for other, d in latest.items() if not d.single()}
        region = Region(read_branches(known, distributions), _given(trial), (name,))
        return self._settle(study, trial, region, self._choose)

    def _settle(
        self,
        study: Study,
        trial: FrozenTrial,
        region: Region,
        choose: Callable[[Study, Suggestion, int], _Chosen],
    ) -> Configuration:
        """Choose and publish, and again if another worker has published the same meanwhile."""
        began = time.perf_counter()
        for _ in range(_ATTEMPTS):
            suggestion = self.advisor.suggestion(
                study, region, current=trial.number, seed=self.seed_of(trial.number)
            )
            path, configuration, choice = choose(study, suggestion, trial.number)
            published.publish(study, trial, configuration, region.space.distributions)
            if not configuration or not _is_taken(study, trial, suggestion, configuration):
                break
        if self.provenance:
            provenance.record(
                study,
                trial,
                path,
                seconds=time.perf_counter() - began,
                decision=choice,
                signs=[sign_of(direction) for direction in study.directions],
                text=self.advisor.text_of(suggestion) if self._used_text(path) else None,
            )
        return configuration

    def _start(self, study: Study, suggestion: Suggestion, number: int) -> _Chosen:
        design = self.advisor.design
        configuration, is_advised = start(
            suggestion.space,
            suggestion.knowledge if design.recommended_first else None,
            suggestion.sources,
            suggestion.history,
            suggestion.prior.warp if design.prior_start else lambda points: points,
            index=number,
            rng=self.rng("start-up"),
        )
        return "default" if is_advised else "start-up", configuration, None

    def _choose(self, study: Study, suggestion: Suggestion, number: int) -> _Chosen:
        if not suggestion.history.n_observed:  # none of the trials is of use in this space
            return self._start(study, suggestion, number)
        answer = self.advisor.choose(suggestion, self.warner(study))
        if answer is None:
            return "independent", {}, None
        choice, kernel = answer
        path: ChosenBy = "model" if kernel == self.advisor.kernel else "fallback"
        return path, choice.configuration, choice

    def _used_text(self, path: ChosenBy) -> bool:
        return path == "model" and self.advisor.kernel != "numeric"

    def record_alone(self, study: Study, trial: FrozenTrial, path: ChosenBy) -> None:
        """Write down who chose a parameter alone, unless what chose the others is written."""
        if self.provenance and not provenance.is_recorded(trial):
            provenance.record(study, trial, path, seconds=0.0)

    def seed_of(self, number: int) -> int:
        """Of the suggestion for a trial."""
        return int(self.rng(number, "suggestion").integers(2**31))

    def rng(self, *purpose: int | str) -> np.random.Generator:
        """Random numbers of the seed and a purpose, the same in every process."""
        words = [zlib.crc32(str(word).encode()) for word in purpose]
        return np.random.default_rng([self.seed, *words])

    def warner(self, study: Study) -> Callable[[str], None]:
        """Says a warning of one kind, the text before its first colon, once a study."""
        return lambda message: self._warn_once(study, message)

    def _warn_once(self, study: Study, message: str) -> None:
        key = (compat.study_id(study), message.split(":")[0])
        if key not in self._warned:
            self._warned.add(key)
            _logger.warning(message)


def _given(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial that are chosen already: enqueued, or suggested before."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _is_taken(
    study: Study, trial: FrozenTrial, suggestion: Suggestion, configuration: Configuration
) -> bool:
    """Whether another trial has come to try the same since the suggestion looked at the study.

    Called once the own plan is published, so that of two workers that choose the same at one
    moment at least one sees the other's. What was known before is tried again on purpose.
    """
    space = suggestion.space
    key = space.key(configuration)
    if key in suggestion.history.seen:
        return False
    others = (t for t in compat.all_trials(study) if t.number != trial.number)
    intended = (space.restrict(published.intended(t, space.distributions)) for t in others)
    return any(other is not None and space.key(other) == key for other in intended)
