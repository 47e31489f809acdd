"""What the method says of a study: the next configuration, a prediction, a recommendation.

The part of the sampler that is not Optuna's interface: it reads the study, asks the surrogate, and
holds the language model.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import hashlib
import threading
from typing import Any
from typing import Literal
from typing import TypeVar

import optuna.logging
from optuna.study import Study

from optuna_llmbo._util.torch_state import isolated_torch
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.language_model import ModelSource
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.embedding.truncated import POOLINGS
from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.prior import Range
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.study import compat
from optuna_llmbo.study.branches import informative
from optuna_llmbo.study.branches import latest_distributions
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import read_history
from optuna_llmbo.study.history import sign_of
from optuna_llmbo.study.outcome import outcome_of
from optuna_llmbo.study.transfer import read_source
from optuna_llmbo.study.transfer import SourceStudy
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.decide import Decision
from optuna_llmbo.suggestion.decide import Prediction
from optuna_llmbo.suggestion.decide import Reader
from optuna_llmbo.suggestion.decide import Suggestion
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.acquisition import ACQUISITIONS
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.covariance import KERNELS


_logger = optuna.logging.get_logger(f"optuna.{__name__}")

T = TypeVar("T")

MAX_OBJECTIVES = 4

Question = Callable[[Suggestion, KernelName, Reader | None], T]
"""What one may want to know of a study: asked with the kernel and the language model."""


def check_objectives(study: Study) -> None:
    """Raises ValueError if a study has more objectives than the method takes."""
    n = len(study.directions)
    if n > MAX_OBJECTIVES:
        raise ValueError(
            f"LLMBOSampler takes at most {MAX_OBJECTIVES} objectives, the study has {n}: the "
            "hypervolume of more is too slow to compute. Combine some, or use NSGAIISampler."
        )


@dataclass(frozen=True)
class Recommendation:
    """The trial to take away from a study."""

    number: int
    """The trial's number."""
    params: dict[str, Any]
    """Its parameters, those that other trials lack among them."""
    prediction: Prediction
    """What the surrogate expects of it."""


@dataclass
class Advisor:
    """The method and its options, which are those of `LLMBOSampler`; pickled without the model.

    Raises:
        InputError: if an option is not one of those that there are.
    """

    kernel: KernelName
    source: ModelSource | None
    """Of the language model; None for the numeric kernel."""
    device: str | None
    pooling: Pooling | None
    layer: int | None
    knowledge: Knowledge
    task: str | None
    prior: Mapping[str, Range]
    source_studies: tuple[SourceStudy, ...]
    n_candidates: int
    acquisition: AcquisitionName
    cost_aware: bool
    design: Ablation
    _encoder: tuple[str, Encoder] | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("acquisition", self.acquisition, ACQUISITIONS)
        if self.pooling is not None:
            check_choice("pooling", self.pooling, POOLINGS)
        if self.layer is not None:
            check_at_least("layer", self.layer, 1)
        check_at_least("n_candidates", self.n_candidates, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock and the language model, which is loaded again when needed."""
        return {**self.__dict__, "_lock": None, "_encoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def suggestion(self, study: Study, region: Region, *, current: int, seed: int) -> Suggestion:
        """What is known of a study, and how to choose its trial number `current`."""
        space = region.space
        knowledge = self.knowledge.relevant(space.names)
        typical = {name: knowledge.typical_range(name) for name in space.names}
        ranges = {name: expected for name, expected in typical.items() if expected is not None}
        return Suggestion(
            region=region,
            history=read_history(compat.all_trials(study), study.directions, space, current),
            sources=tuple(
                read_source(source, space, len(study.directions)) for source in self.source_studies
            ),
            knowledge=knowledge,
            prior=Prior(space, {**ranges, **self.prior}),
            design=self.design,
            n_candidates=self.n_candidates,
            acquisition=self.acquisition,
            cost_aware=self.cost_aware,
            seed=seed,
        )

    def choose(
        self, suggestion: Suggestion, warn: Callable[[str], None]
    ) -> tuple[Decision, KernelName] | None:
        """The next configuration and the kernel that chose it; None if none can be fitted."""
        return self._ask(suggestion, suggestion.choose, warn)

    def text_of(self, suggestion: Suggestion) -> str:
        """The language model and a hash of the prompt that it reads for a suggestion."""
        passage = Prompt(suggestion.space, suggestion.knowledge, self.task).passage
        return f"{self.source} {hashlib.sha256(passage.encode()).hexdigest()[:12]}"

    def predict(
        self, study: Study, params: Mapping[str, Any], *, seed: int, warn: Callable[[str], None]
    ) -> Prediction:
        """See `LLMBOSampler.predict`."""
        suggestion = self._informed(study, seed)
        return self._predict(study, suggestion, [suggestion.space.checked(params)], warn)[0]

    def ask(
        self, study: Study, question: Question[T], *, seed: int, warn: Callable[[str], None]
    ) -> T:
        """See `LLMBOSampler.ask`."""
        return self._answer(self._informed(study, seed), question, warn)

    def rank(
        self, study: Study, *, seed: int, warn: Callable[[str], None]
    ) -> list[Recommendation]:
        """See `LLMBOSampler.rank`."""
        suggestion = self._informed(study, seed)
        trials = [t for t in compat.all_trials(study) if outcome_of(t) == "complete"]
        tried = [(t, c) for t in trials if (c := suggestion.space.restrict(t.params)) is not None]
        if not tried:
            raise InputError(
                "the study has no complete and feasible trial to recommend: run some first."
            )
        predictions = self._predict(study, suggestion, [c for _, c in tried], warn)
        sign = sign_of(study.direction)
        ranked = [
            Recommendation(trial.number, dict(trial.params), prediction)
            for (trial, _), prediction in zip(tried, predictions, strict=True)
        ]
        return sorted(ranked, key=lambda one: -sign * one.prediction.mean)

    def _informed(self, study: Study, seed: int) -> Suggestion:
        """What is known of a study that has something to learn from."""
        trials = compat.all_trials(study)
        known = informative(trials)
        structure = read_branches(known, latest_distributions(known))
        suggestion = None
        if structure.space.names:
            region = Region(structure)
            suggestion = self.suggestion(study, region, current=len(trials), seed=seed)
        if suggestion is None or not suggestion.history.n_observed:
            raise InputError(
                "the study has no trials with values and common parameters to learn from: "
                "run some first."
            )
        return suggestion

    def _predict(
        self,
        study: Study,
        suggestion: Suggestion,
        configurations: Sequence[Configuration],
        warn: Callable[[str], None],
    ) -> list[Prediction]:
        predictions = self._answer(
            suggestion, lambda asked, *how: asked.predict(configurations, *how), warn
        )
        return [-p for p in predictions] if sign_of(study.direction) < 0 else predictions

    def _answer(
        self, suggestion: Suggestion, question: Question[T], warn: Callable[[str], None]
    ) -> T:
        answer = self._ask(suggestion, lambda *how: question(suggestion, *how), warn)
        if answer is None:
            raise SurrogateFitError("no model could be fitted to the study: see the warnings.")
        return answer[0]

    def _ask(
        self,
        suggestion: Suggestion,
        question: Callable[[KernelName, Reader | None], T],
        warn: Callable[[str], None],
    ) -> tuple[T, KernelName] | None:
        """Ask with the kernel that was chosen, else with the numeric one; None if both fail."""
        kernels: tuple[KernelName, ...] = (self.kernel, "numeric")
        for kernel in dict.fromkeys(kernels):
            try:
                with self._lock, isolated_torch(suggestion.seed):
                    read = None if kernel == "numeric" else self._reader(suggestion)
                    return question(kernel, read), kernel
            except SurrogateFitError as error:
                warn(f"kernel={kernel!r} failed and was left out: {error}")
        return None

    def _reader(self, suggestion: Suggestion) -> Reader:
        prompt = Prompt(suggestion.space, suggestion.knowledge, self.task)
        if self._encoder is None or self._encoder[0] != prompt.passage:
            assert self.source is not None
            _logger.info(f"The language model is {self.source}.")
            model = load_shared_model(self.source, self.device)
            layer: Literal["early"] | int = "early" if self.layer is None else self.layer
            encoder = Encoder(model, prompt.passage, pooling=self.pooling, layer=layer)
            self._encoder = (prompt.passage, encoder)
        read = self._encoder[1].read
        return lambda configurations: read([prompt.assignment(c) for c in configurations])
