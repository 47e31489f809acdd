"""The time that a trial may take, and when the running trials stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import numbers
import time

import optuna
from optuna.trial import BaseTrial

from optuna_llmbo._util.duration import exact_duration
from optuna_llmbo.errors import InputError
from optuna_llmbo.study.trial_attributes import INFEASIBLE
from optuna_llmbo.study.trial_attributes import INTERRUPTED
from optuna_llmbo.study.trial_attributes import PRUNED_REASON


class TrialTimedOut(optuna.TrialPruned):
    """A trial has taken longer than a trial may: its configuration counts as infeasible."""


class SearchTimedOut(Exception):
    """The time of the search is over while a trial runs, which says nothing about the trial."""


@dataclass
class TimeLimits:
    """The limits of an objective's trials; a search sets `ends_at`.

    Raises:
        InputError: if the time of a trial is not above 0.
    """

    trial_seconds: float | None = None
    """Most seconds that a trial may take, from its start in this process; None: any."""
    ends_at: float | None = None
    """When running trials stop, on the clock of `time.monotonic`; None: they end by themselves."""

    def __post_init__(self) -> None:
        seconds = self.trial_seconds
        if seconds is not None and not (isinstance(seconds, numbers.Real) and seconds > 0):
            raise InputError(
                f"trial_timeout={seconds!r}: expected the seconds that a trial may "
                "take, above 0, or None."
            )

    def check(
        self, trial: BaseTrial, started: float, *, agree: Callable[[bool], bool] = bool
    ) -> None:
        """Stop a trial that is over a limit; an objective calls this whenever it can stop.

        Args:
            trial: the running trial, which is told why it stops.
            started: when it started, on the clock of `time.monotonic`.
            agree: whether any of the processes that train the trial together says so; called in
                all of them.

        Raises:
            SearchTimedOut: if the time of the search is over. The trial is then `interrupted`.
            TrialTimedOut: if the trial has taken too long. It is then `infeasible`.
        """
        now = time.monotonic()
        if self.ends_at is not None and agree(now >= self.ends_at):
            trial.set_user_attr(INTERRUPTED, True)
            raise SearchTimedOut("the time of the search is over")
        if self.trial_seconds is not None and agree(now - started >= self.trial_seconds):
            reason = f"over the time limit of a trial, {exact_duration(self.trial_seconds)}"
            trial.set_user_attr(INFEASIBLE, True)
            trial.set_user_attr(PRUNED_REASON, reason)
            raise TrialTimedOut(reason)
