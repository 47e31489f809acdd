"""What a search can run: the objectives of this package, and any other with these parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol

import optuna

from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress


class Searched(Protocol):
    """An objective that `optuna-llmbo` can search.

    A trial ends by returning its value or values; by `optuna.TrialPruned`; by `TrialCrashed`, if
    its failure is no result; or by `SearchTimedOut`, from `limits.check`. Any other exception ends
    the search.
    """

    progress: Callable[[TrainingProgress], None] | None
    """Called while a trial runs, if there is news of it; the search sets it."""
    limits: TimeLimits
    """What `limits.check` is called on whenever a trial can stop; the search sets `ends_at`."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metrics that it returns, in their order."""

    @property
    def default_params(self) -> dict[str, Any] | None:
        """The configuration to compare with, which is tried first; None if there is none."""

    @property
    def base_loss(self) -> float | None:
        """Loss of the model before training; None if it is not known."""

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Run a trial."""
