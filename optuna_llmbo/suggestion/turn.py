"""One trial's turn: what it is going to try is chosen, published and written down."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
import random
import time
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.study import compat
from optuna_llmbo.study import published
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.branches import latest_distributions
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import sign_of
from optuna_llmbo.suggestion import provenance
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.decision import Decision
from optuna_llmbo.suggestion.engine import Engine
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.provenance import ChosenBy
from optuna_llmbo.suggestion.startup import first_value
from optuna_llmbo.suggestion.startup import is_begun
from optuna_llmbo.suggestion.startup import start


_ATTEMPTS = 8
"""How often to choose what no other worker has just chosen."""
_LONGEST_PAUSE = 8.0
"""Of a pause before the next attempt, in times that a choice takes."""
_chance = random.SystemRandom()
"""Not to be seeded: workers that draw the same would meet again."""

_Chosen = tuple[ChosenBy, Configuration, Decision | None]


@dataclass(frozen=True)
class Turn:
    """A trial that is about to run; keeps nothing that the storage does not hold."""

    engine: Engine
    study: Study
    trial: FrozenTrial

    @cached_property
    def informed(self) -> list[FrozenTrial]:
        """The study's trials with a value, when the turn began to choose."""
        return informative(compat.all_trials(self.study))

    @property
    def has_started(self) -> bool:
        """Whether there are enough informative trials for the model."""
        return len(self.informed) >= max(1, self.engine.n_startup(self.informed))

    def was_seen(self, name: str) -> bool:
        """Whether an informative trial had a parameter."""
        return any(name in trial.params for trial in self.informed)

    def is_new(self, name: str) -> bool:
        """Whether a parameter belongs to a branch that the study now enters: no trial has had it.

        The study's first trial, and those that run beside it, enter none: all is new to them.
        """
        others = (t for t in compat.all_trials(self.study) if t.number != self.trial.number)
        return bool(self.informed) and not any(name in other.params for other in others)

    def begin(self) -> None:
        """Clear what a retried trial has inherited, and note an enqueued one."""
        published.forget(self.study, self.trial)
        provenance.forget(self.study, self.trial)
        if self.engine.options.provenance and self.trial.system_attrs.get("fixed_params"):
            provenance.record(self.study, self.trial, "enqueued", seconds=0.0)

    def end(self) -> None:
        """Warn if a complete trial was enqueued with names that its objective did not ask for."""
        for name in self.trial.system_attrs.get("fixed_params", {}):
            if name not in self.trial.params:
                self.engine.warn(
                    self.study,
                    f"a trial was enqueued with {name!r}: its objective did not suggest it, and "
                    f"the value is lost.{did_you_mean(name, self.trial.params)}",
                )

    def choose_shared(self, search_space: Mapping[str, BaseDistribution]) -> Configuration:
        """Choose the parameters that all trials share, and those that their values lead to.

        Args:
            search_space: the parameters that Optuna asks for.

        Returns:
            The configuration, as published; empty if no model can be fitted.
        """
        others = latest_distributions(self.informed) if self.has_started else {}
        branches = read_branches(self.informed, {**others, **search_space}, always=search_space)
        # A parameter that all trials have and that is not asked for is fixed somewhere else.
        latest = self.informed[-1].params if self.informed else {}
        fixed = {
            name: latest[name]
            for name in branches.space.shared
            if name in latest and name not in search_space
        }
        region = Region(branches, {**fixed, **self._given})
        return self._settle(region, self._decide if self.has_started else self._start)

    def choose_alone(
        self, name: str, distribution: BaseDistribution, *, or_middle: bool
    ) -> Configuration:
        """Choose a parameter that was not chosen together with the others.

        It is what was planned for it; in the study's first trial, and the first of a branch, what
        is advised; else the model chooses it together with what may follow, given the parameters
        that the trial has.

        Args:
            name: the parameter.
            distribution: its distribution.
            or_middle: whether such a first trial takes the middle of the range without advice.

        Returns:
            A configuration that holds the parameter; without it if nobody can choose it.
        """
        axis = Axis(distribution)
        planned = published.intended(self.trial, {**self.trial.distributions, name: distribution})
        if name in planned and axis.contains(planned[name]):
            return planned
        if self.trial.number == 0 or self.is_new(name):
            knowledge, suggested = self.engine.knowledge(self.study), self.trial.params
            options = replace(self.engine.options, knowledge=knowledge)
            advice = first_value(options, suggested, name, axis, or_middle=or_middle)
            if advice is not None and (axis.is_nominal or not self._is_intended(name, advice)):
                self.record("default")
                return {name: advice}
        # An empty plan: the model has failed for this trial already.
        if self.has_started and self.was_seen(name) and not published.is_empty(self.trial):
            return self._choose_rest(name, distribution)
        return {}

    def _is_intended(self, name: str, value: Any) -> bool:
        """Whether another trial is trying all that this one has suggested, and this value."""
        mine = {**self.trial.params, name: value}
        others = [t for t in compat.all_trials(self.study) if t.number != self.trial.number]
        distributions = latest_distributions(others)
        plans = (published.intended(other, distributions) for other in others)
        return any(mine.items() <= plan.items() for plan in plans)

    def record(self, chosen_by: ChosenBy) -> None:
        """Write down who chose a parameter alone, unless who chose the others is written."""
        if self.engine.options.provenance and not provenance.is_recorded(self.trial):
            provenance.record(self.study, self.trial, chosen_by, seconds=0.0)

    @property
    def _given(self) -> dict[str, Any]:
        """The parameters that are chosen already: enqueued, or suggested before."""
        return {**self.trial.system_attrs.get("fixed_params", {}), **self.trial.params}

    def _choose_rest(self, name: str, distribution: BaseDistribution) -> Configuration:
        """Choose one more parameter and what may follow it, given what the trial has suggested.

        Returns:
            The configuration, as published; empty if there is no choice or no fitted model.
        """
        if distribution.single():
            return {}
        latest = latest_distributions(self.informed)
        latest = {**latest, **self.trial.distributions, name: distribution}
        distributions = {other: d for other, d in latest.items() if not d.single()}
        region = Region(read_branches(self.informed, distributions), self._given, (name,))
        return self._settle(region, self._decide)

    def _settle(self, region: Region, choose: Callable[[Known], _Chosen]) -> Configuration:
        """Choose and publish, and again if another worker has published the same meanwhile.

        Workers that have met would do so at every attempt, as they choose alike and at the same
        time: each pauses for a time of its own, from twice as long an interval as before.
        """
        began = time.perf_counter()
        took = 0.0
        for attempt in range(_ATTEMPTS):
            if attempt > 0:
                time.sleep(took * _chance.uniform(0.0, min(2.0 ** (attempt - 1), _LONGEST_PAUSE)))
            started = time.perf_counter()
            trials = compat.all_trials(self.study)
            known = self.engine.known(self.study, trials, region, self.trial.number)
            chosen_by, configuration, decision = choose(known)
            published.publish(self.study, self.trial, configuration, region.space.distributions)
            if not configuration or not self._is_taken(known, configuration, trials):
                break
            took = time.perf_counter() - started
        if self.engine.options.provenance:
            provenance.record(
                self.study,
                self.trial,
                chosen_by,
                seconds=time.perf_counter() - began,
                decision=decision,
                signs=[sign_of(direction) for direction in self.study.directions],
                text=self.engine.text_id(self.study, known) if chosen_by == "model" else None,
            )
        return configuration

    def _start(self, known: Known) -> _Chosen:
        options = self.engine.options
        configuration, is_advised = start(
            known.space,
            known.knowledge if options.ablation.recommended_first else None,
            known.sources,
            known.history,
            known.prior.warp if options.ablation.prior_start else lambda points: points,
            index=self.trial.number,
            rng=options.rng("start-up"),
        )
        return "default" if is_advised else "start-up", configuration, None

    def _decide(self, known: Known) -> _Chosen:
        if not known.history.n_observed:  # none of the trials is of use in this space
            return self._start(known)
        answer = self.engine.decide(self.study, known)
        if answer is None:
            return "independent", {}, None
        decision, is_as_asked = answer
        by: ChosenBy = "model" if is_as_asked else "fallback"
        return by, decision.configuration, decision

    def _is_taken(
        self, known: Known, configuration: Configuration, before: Sequence[FrozenTrial]
    ) -> bool:
        """Whether another trial has come to try the same since the study was read.

        Called once the own plan is published, so that of two workers that choose the same at one
        moment at least one sees the other's. What was known before is tried again on purpose.

        Args:
            known: what was known when it was chosen.
            configuration: what was chosen.
            before: the study's trials then.
        """
        space = known.space
        key = space.key(configuration)
        if key in known.history.seen:
            return False
        unchanged = {t.number for t in before if t.state.is_finished()} | {self.trial.number}
        others = (t for t in compat.all_trials(self.study) if t.number not in unchanged)
        whole, begun = [], []
        for params in (published.intended(other, space.distributions) for other in others):
            if (other := space.restrict(params)) is not None:
                whole.append(other)
            elif (part := space.part(params)) is not None:
                begun.append(part)
        taken = space.keys(space.to_unit(whole))
        return key in taken or is_begun(space, configuration, begun)
