"""What a promotion needs of an objective: a protocol, whatever the trainer is."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from optuna_llmbo.lora.merge import Merged
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.study.progress import Goal


class PromotedFit(Protocol):
    """A configuration that has been trained on all of the data."""

    @property
    def seconds(self) -> float:
        """Seconds of the training."""


class Promotable(Protocol):
    """Trains configurations of a study on all of the data, with the trainer of its objective.

    A recipe is whatever the objective trains with: two equal ones are one configuration.
    """

    @property
    def goal(self) -> Goal:
        """The only metric of the search, which decides here too."""

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that determines a result besides the hyperparameters, as in the study."""

    @property
    def n_examples(self) -> int:
        """Number of all training examples."""

    @property
    def n_searched(self) -> int:
        """Number of training examples of a trial."""

    @property
    def has_test(self) -> bool:
        """Whether there are test examples, which no trial has read."""

    @property
    def base_loss(self) -> float | None:
        """Validation loss of the base model; None where it is not known."""

    @property
    def base(self) -> Base:
        """The base model, as saved adapters name it."""

    @property
    def data_name(self) -> str:
        """What the training data are called on a model card."""

    @property
    def default(self) -> tuple[Mapping[str, Any], Any] | None:
        """Parameters and recipe of the default configuration; None if there is none."""

    def recipe_of(self, trial: FrozenTrial) -> Any:
        """The recipe that a trial was trained with, whatever the objective's space is now.

        Raises:
            InputError: if the trial does not say it.
        """

    def values_of(self, recipe: Any) -> dict[str, Any]:
        """A recipe in plain values, for files."""

    def fit(self, recipe: Any, *, seed: int, name: str) -> PromotedFit:
        """Train a configuration on all of the data, or read the result if it is kept."""

    def validation(self, recipe: Any, fit: Any, *, seed: int) -> float:
        """The metric on the validation examples; infinitely bad if the training diverged."""

    def test(self, recipe: Any, fit: Any, *, seed: int) -> float:
        """The metric on the test examples."""

    def save(self, recipe: Any, fit: Any, folder: Path, *, seed: int) -> None:
        """Write a fit's adapter, which peft and transformers can load alone."""

    def check_merge(self, folder: Path) -> None:
        """Check, before any training, that `merge` can write to a folder.

        Raises:
            InputError: if not.
        """

    def merge(self, adapter: Path, folder: Path) -> Merged:
        """Write a model that needs no adapter: the base with an adapter that `save` wrote.

        Raises:
            InputError: if it does not give the adapter's logits.
        """


class PromotableObjective(Protocol):
    """An objective whose studies can be promoted."""

    def check_study(self, study: optuna.Study) -> None:
        """Check that a study's results are this objective's.

        Raises:
            InputError: if not.
        """

    def promotable(self, folder: Path, tell: Callable[[str], None] | None = None) -> Promotable:
        """Load the model and the data.

        Args:
            folder: keeps the fits, so that an interrupted call resumes.
            tell: called before each training with a description of it.

        Raises:
            InputError: if the metric does not tell configurations apart by the trained model.
        """
