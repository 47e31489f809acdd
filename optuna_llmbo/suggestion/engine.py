"""Reads a study, holds the language model, and falls back where a model cannot be fitted."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
import hashlib
from typing import Any
from typing import Literal
from typing import TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
import optuna.logging
from optuna.study import Study
from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial

from optuna_llmbo._util.torch_state import TorchThread
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.truncated import checked_layer
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study import compat
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.branches import latest_distributions
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import read_history
from optuna_llmbo.study.history import sign_of
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.transfer import check_objectives_of
from optuna_llmbo.study.transfer import read_source
from optuna_llmbo.study.transfer import SourceStudy
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.choice_reader import ChoiceReader
from optuna_llmbo.suggestion.decide import consider
from optuna_llmbo.suggestion.decide import decide
from optuna_llmbo.suggestion.decide import predict
from optuna_llmbo.suggestion.decision import Decision
from optuna_llmbo.suggestion.decision import Prediction
from optuna_llmbo.suggestion.fitted import FittedModel
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.known import ReadTexts
from optuna_llmbo.suggestion.meaning import Meaning
from optuna_llmbo.suggestion.notices import notices
from optuna_llmbo.suggestion.options import SamplerOptions


_logger = optuna.logging.get_logger(f"optuna.{__name__}")

T = TypeVar("T")

Answer = Callable[[SamplerOptions, Known, ReadTexts | None], T]
"""Called with the options, what is known, choices that were read included, and what reads whole
configurations."""

MAX_OBJECTIVES = 4

Question = Callable[[FittedModel, np.ndarray], T]
"""Called with the fitted model and the candidates (m, d) it chooses from, the best first."""


def check_objectives(study: Study) -> None:
    """Raises InputError if a study has more objectives than the method takes."""
    n = len(study.directions)
    if n > MAX_OBJECTIVES:
        raise InputError(
            f"LLMBOSampler takes at most {MAX_OBJECTIVES} objectives, the study has {n}: the "
            "hypervolume of more is too slow to compute. Combine some, or use NSGAIISampler."
        )


def check_one_objective(study: Study, what: str) -> None:
    """Raises InputError if it is no study, or has several objectives."""
    if not isinstance(study, Study):
        raise InputError(f"{what} takes a study first; got {type(study).__name__}.")
    n = len(study.directions)
    if n > 1:
        raise InputError(
            f"{what} is for studies with one objective; this one has {n}. Its best trials are "
            "study.best_trials, the Pareto front."
        )


@dataclass(frozen=True)
class Recommendation:
    """The trial to take away from a study."""

    number: int
    """The trial's number."""
    params: dict[str, Any]
    """Its parameters, including those that other trials lack."""
    prediction: Prediction
    """What the surrogate expects of it."""


@dataclass
class Engine:
    """What one sampler keeps: its options, the loaded language model, and which warnings it gave.

    Pickled without the model, which is loaded again when needed.
    """

    options: SamplerOptions
    _encoder: tuple[str, Encoder] | None = field(default=None, init=False)
    _reader: ChoiceReader | None = field(default=None, init=False)
    _warned: set[tuple[int, str]] = field(default_factory=set, init=False)
    _checked: list[tuple[str, BaseDistribution]] = field(default_factory=list, init=False)
    _thread: TorchThread = field(default_factory=lambda: TorchThread(n_threads=1), init=False)

    def load(self) -> None:
        """Load the language model, if the user has asked for one.

        Loading changes state that all threads see, such as the default dtype, so it is done when
        the sampler is created; in a process that was sent the sampler, when it is needed. One that
        nobody has named is loaded when it is needed, as most studies do without.

        Raises:
            InputError: if it cannot be loaded, or lacks the layer that is asked for.
        """
        if self.options.model is None or not self.options.is_model_named:
            return
        model = load_shared_model(self.options.model, self.options.device)
        if self.options.layer is not None:
            checked_layer(self.options.layer, model)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the language model."""
        return {**self.__dict__, "_encoder": None, "_reader": None}

    def check(self, study: Study, distributions: Mapping[str, BaseDistribution]) -> None:
        """Check that a study is one for the method, before a trial takes its parameters.

        Args:
            study: the study.
            distributions: what the trial is about to be given.

        Raises:
            InputError: if the study does not fit the method or a source study, if something is
                described that is no choice of a parameter, or if a choice is too long for the
                language model.
        """
        check_objectives(study)
        for source in self.options.source_studies:
            check_objectives_of(source, len(study.directions))
        for name, distribution in distributions.items():
            if (name, distribution) not in self._checked:
                self.options.descriptions.check(name, distribution)
                space = SearchSpace({name: distribution})
                self._thread.run(partial(self._choice_reader.check, self._texts(study, space)))
                self._checked.append((name, distribution))

    def n_startup(self, informed: Sequence[FrozenTrial]) -> int:
        """Number of observed trials that the model needs, by what these have chosen from."""
        return self.options.n_startup(latest_distributions(informed).values())

    def knowledge(self, study: Study) -> Knowledge:
        """All packs, in the context that the sampler was told, completed by the study's."""
        return self.options.knowledge.within(compat.user_attribute(study, CONTEXT))

    def known(
        self, study: Study, trials: Sequence[FrozenTrial], region: Region, number: int
    ) -> Known:
        """Read what is known of a study.

        Args:
            study: the study.
            trials: its trials, in any state.
            region: where the next configuration may lie.
            number: the trial that a configuration is chosen for; its own entry is left out.
        """
        options, space = self.options, region.space
        knowledge = self.knowledge(study).relevant(space.names)
        typical = {name: knowledge.typical_range(name) for name in space.names}
        ranges = {name: expected for name, expected in typical.items() if expected is not None}
        n_objectives = len(study.directions)
        return Known(
            region=region,
            history=read_history(trials, study.directions, space, number),
            sources=tuple(
                read_source(source, space, n_objectives) for source in self._others(study, trials)
            ),
            knowledge=knowledge,
            prior=Prior(space, {**ranges, **options.prior}),
            seed=options.seed_of(number),
        )

    def decide(self, study: Study, known: Known) -> tuple[Decision, bool] | None:
        """The next configuration, and whether all that was asked for chose it; None if no model
        can be fitted."""
        self._notice(study, known)
        return self._with_fallback(
            study, known, lambda options, known, read: decide(known, options, read)
        )

    def predict(self, study: Study, params: Mapping[str, Any] | BaseTrial) -> Prediction:
        """See `LLMBOSampler.predict`."""
        known = self._informed(study)
        trials = compat.all_trials(study)
        others = {name: d for trial in trials for name, d in trial.distributions.items()}
        configuration = known.space.checked(params, others)
        expected = known.region.structure.expected_names(known.space.to_unit([configuration])[0])
        if expected != sorted(configuration):
            self.warn(
                study,
                f"predict is asked of {', '.join(sorted(configuration))}: trials with such values "
                f"have {', '.join(expected)}.",
            )
        return self._predict(study, known, [configuration])[0]

    def rank(self, study: Study) -> list[Recommendation]:
        """See `LLMBOSampler.rank`."""
        known = self._informed(study)
        trials = complete(compat.all_trials(study))
        tried = [(t, c) for t in trials if (c := known.space.restrict(t.params)) is not None]
        if not tried:
            raise InputError(
                "the study has no complete and feasible trial to recommend: run some first."
            )
        predictions = self._predict(study, known, [c for _, c in tried])
        sign = sign_of(study.direction)
        ranked = [
            Recommendation(trial.number, dict(trial.params), prediction)
            for (trial, _), prediction in zip(tried, predictions, strict=True)
        ]
        return sorted(ranked, key=lambda one: -sign * one.prediction.mean)

    def ask(self, study: Study, question: Question[T]) -> T:
        """See `LLMBOSampler.ask`."""
        known = self._informed(study)

        def considered(options: SamplerOptions, known: Known, read: ReadTexts | None) -> T:
            return question(*consider(known, options, read))

        return self._answer(study, known, considered)

    def text_id(self, study: Study, known: Known) -> str | None:
        """Name the language model and what it reads, by a hash; None if it reads nothing."""
        if not self.options.reads_text:
            return self._choice_reader.identity(self._texts(study, known.space))
        passage = Prompt(known.space, known.knowledge, self.options.task).passage
        return f"{self.options.model} {hashlib.sha256(passage.encode()).hexdigest()[:12]}"

    def warn(self, study: Study, message: str) -> None:
        """Log a warning once for each study and kind, which is the text before the first colon."""
        key = (compat.study_id(study), message.split(":")[0])
        if key not in self._warned:
            self._warned.add(key)
            _logger.warning(message)

    def _others(self, study: Study, trials: Sequence[FrozenTrial]) -> list[SourceStudy]:
        """The source studies but for an earlier state of the study itself."""
        name, sources = study.study_name, self.options.source_studies
        others = [source for source in sources if not source.is_of(name, trials)]
        if len(others) < len(sources):
            self.warn(study, f"the source study {name!r} is this study: it is left out.")
        return others

    def _notice(self, study: Study, known: Known) -> None:
        """Warn of what was given in vain, when the model first chooses and when names are new."""
        key = (compat.study_id(study), ", ".join(known.space.names))
        if key not in self._warned:
            self._warned.add(key)
            trials = compat.all_trials(study)
            suggested = {name for trial in trials for name in trial.params}
            for message in notices(known, self.options, self._others(study, trials), suggested):
                self.warn(study, message)

    def _informed(self, study: Study) -> Known:
        """Read a study that has something to learn from."""
        trials = compat.all_trials(study)
        informed = informative(trials)
        branches = read_branches(informed, latest_distributions(informed))
        if branches.space.names:
            known = self.known(study, trials, Region(branches), len(trials))
            if known.history.n_observed:
                self._notice(study, known)
                return known
        raise InputError(
            "the study has no trials with values and common parameters to learn from: "
            "run some first."
        )

    def _predict(
        self, study: Study, known: Known, configurations: Sequence[Configuration]
    ) -> list[Prediction]:
        predictions = self._answer(
            study,
            known,
            lambda options, known, read: predict(known, options, read, configurations),
        )
        return [-p for p in predictions] if sign_of(study.direction) < 0 else predictions

    def _answer(self, study: Study, known: Known, function: Answer[T]) -> T:
        answer = self._with_fallback(study, known, function)
        if answer is None:
            raise SurrogateFitError("no model could be fitted to the study: see the warnings.")
        return answer[0]

    def _with_fallback(
        self, study: Study, known: Known, function: Answer[T]
    ) -> tuple[T, bool] | None:
        """Call with what the language model reads, else without.

        Returns:
            What the function returned, and whether it was called as asked for; None if both fail.
        """
        attempts = [self.options]
        if self.options.model is not None:
            attempts.append(self.options.without_model())
        for options in attempts:
            try:
                answer = self._thread.run(partial(self._call, study, function, options, known))
                return answer, options is self.options
            except SurrogateFitError as error:
                what = options.model if options.model is not None else "the numeric model"
                self.warn(study, f"{what} failed and was left out: {error}")
        return None

    def _call(self, study: Study, function: Answer[T], options: SamplerOptions, known: Known) -> T:
        read = self._read(known) if options.reads_text else None
        if options.reads_choices:
            known = replace(known, meaning=self._read_choices(study, known))
        return function(options, known, read)

    def _read_choices(self, study: Study, known: Known) -> Meaning | None:
        meaning = self._choice_reader.read(self._texts(study, known.space))
        if meaning is not None:
            self._say_what_is_read(study, known.space, meaning)
        return meaning

    def _say_what_is_read(self, study: Study, space: SearchSpace, meaning: Meaning) -> None:
        """Log once for each study and set of parameters."""
        pairs = zip(space.nominal, meaning.views, strict=True)
        said = ", ".join(f"{name} ({len(view)})" for name, view in pairs if view is not None)
        key = (compat.study_id(study), f"read {said}")
        if key not in self._warned:
            self._warned.add(key)
            _logger.info(
                f"{self.options.model} has read the choices of {said}, to tell which are alike; "
                "llm=None switches this off."
            )

    @property
    def _choice_reader(self) -> ChoiceReader:
        if self._reader is None:
            self._reader = ChoiceReader(self.options)
        return self._reader

    def _texts(self, study: Study, space: SearchSpace) -> ChoiceTexts:
        knowledge = self.knowledge(study).relevant(space.names)
        return ChoiceTexts(space, knowledge, self.options.descriptions, self.options.task)

    def _read(self, known: Known) -> ReadTexts:
        prompt = Prompt(known.space, known.knowledge, self.options.task)
        if self._encoder is None or self._encoder[0] != prompt.passage:
            assert self.options.model is not None
            _logger.info(f"The language model is {self.options.model}.")
            model = load_shared_model(self.options.model, self.options.device)
            layer: Literal["early"] | int = self.options.layer or "early"
            encoder = Encoder(model, prompt.passage, pooling=self.options.pooling, layer=layer)
            self._encoder = (prompt.passage, encoder)
        read = self._encoder[1].read
        return lambda configurations: read([prompt.assignment(c) for c in configurations])
