"""Live view of a search: one line per finished trial, and the running ones below."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
from dataclasses import field
import logging
import math
import sys
import time

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.console import ConsoleOptions
from rich.console import RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optuna_llmbo._util.duration import format_duration
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.sparkline import sparkline
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.study.progress import format_metric
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.progress import seconds_of
from optuna_llmbo.study.report_axis import Axis
from optuna_llmbo.study.report_axis import axis_of
from optuna_llmbo.study.report_axis import said
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.study.trial_facts import trial_facts


_ENOUGH = 0.5
"""Finished trials needed before the time left is estimated."""
_WIDE = 60
"""Minimum number of columns to label the training loss."""


@dataclass
class _Running:
    """A trial that is training."""

    fraction: float | None = None
    """Fraction of the training done; None while it is not known."""
    losses: list[float] = field(default_factory=list)
    """Training losses that it has told."""

    @property
    def done(self) -> float:
        """Fraction of the training that is known to be done."""
        return self.fraction or 0.0

    @property
    def at(self) -> str:
        """How far it is, in a word."""
        if self.fraction is None:
            return "running"
        return f"{self.fraction:.0%}" if self.fraction < 1 else "measuring"


class LiveView:
    """Prints one line per finished trial; on a terminal also, below them, the state of the search
    and a progress bar and training loss for each running trial.

    Output that is not a terminal with a movable cursor gets the lines alone.

    The estimated time left is the time of this call per trial (parts of trials included), times
    the number of missing trials. Pruned trials count like the others: the estimate assumes that
    the share of pruned trials stays the same. No trial is expected to take longer than it may, and
    no search; one whose trials end by themselves takes what the running ones still need.

    Args:
        console: where to print.
        study: the study being optimized.
        goals: metrics that it optimizes.
        budget: how many finished trials the study should have at the end, and the time.
        deadline: when no further trial begins, on the clock of `time.monotonic`; None: never.
        limits: of the running trials.
        step: how the step of a report is written, unless the study says what it is.
    """

    def __init__(
        self,
        console: Console,
        study: optuna.Study,
        goals: Sequence[Goal],
        budget: Budget,
        deadline: float | None = None,
        limits: TimeLimits | None = None,
        *,
        step: str = "{}%",
    ) -> None:
        self._console = console
        self._goals = goals
        self._n_trials = budget.n_trials
        self._stops = budget.stops
        self._deadline = deadline
        self._trial_seconds = None if limits is None else limits.trial_seconds
        self._step = step
        self._axis: Axis | None = None
        self._running: dict[int, _Running] = {}
        self._standing = progress_of(study)
        self._n_ended = 0
        self._began = time.monotonic()
        self._is_live = console.is_interactive and console.file.isatty()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> LiveView:
        self._began = time.monotonic()
        if self._is_live and not self._console.quiet:
            both = sys.stderr.isatty()  # else it would take what goes to a file
            self._open.enter_context(
                Live(self, console=self._console, transient=True, redirect_stderr=both)
            )
            if both:
                self._open.enter_context(_logging_above())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def on_step(self, progress: TrainingProgress) -> None:
        """Show news of a running trial; the objective calls it, as after each optimizer step."""
        running = self._running.setdefault(progress.trial_number, _Running())
        if progress.fraction is not None:
            running.fraction = progress.fraction
        if progress.loss is not None:
            running.losses.append(progress.loss)

    def on_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print the line of a finished trial; an Optuna callback."""
        now = progress_of(study)
        self._running.pop(trial.number, None)
        self._n_ended, self._standing = self._n_ended + 1, now
        self._axis = axis_of(study)
        self._console.print(self._line(trial), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render what stands below the lines."""
        yield Text(self._status())
        running = sorted(self._running.items())
        if not running and self._standing.n_finished < self._n_trials:
            yield Text("choosing a configuration", style="dim")
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        for _ in range(3):
            grid.add_column(no_wrap=True, justify="right")
        is_wide = options.max_width >= _WIDE
        for number, one in running:
            loss = f"{one.losses[-1]:.3f}" if one.losses else ""
            grid.add_row(
                f"#{number}",
                ProgressBar(total=None if one.fraction is None else 1.0, completed=one.done),
                one.at,
                f"training loss {loss}" if is_wide and loss else loss,
                sparkline(one.losses, options.max_width // 4, ascii_only=options.ascii_only),
            )
        yield grid

    def _status(self) -> str:
        counts = self._standing.counts
        shown = [
            f"{n} {outcome}" for outcome, n in counts.items() if n > 0 or outcome == "complete"
        ]
        best = self._best()
        if self._standing.best and len(self._goals) == 1:
            best = best.replace("best", f"best {self._goals[0].name}")
        parts = [f"{self._standing.n_finished} of {self._n_trials} trials", *shown, best]
        return ", ".join([*parts, *self._left()])

    def _line(self, trial: FrozenTrial) -> Text:
        head = f"trial {self._standing.n_finished:>2}/{self._n_trials} #{trial.number}"
        parts = [head, self._outcome(trial), f"{seconds_of(trial):4.0f} s", self._best()]
        if not self._is_live:
            parts += self._left()
        values = ", ".join(f"{name}={format_value(v)}" for name, v in trial.params.items())
        return Text.assemble("  ".join([*parts, ""]), (values, "dim"))

    def _outcome(self, trial: FrozenTrial) -> str:
        facts = trial_facts(trial)
        if facts.outcome == "complete":
            pairs = zip(self._goals, facts.values, strict=True)
            return ", ".join(f"{goal.name} {format_metric(value):>8}" for goal, value in pairs)
        if facts.outcome == "pruned" and facts.value is not None:
            return f"pruned {format_metric(facts.value)} at {self._at(trial)}"
        if facts.outcome == "infeasible":
            return f"infeasible ({facts.reason})"
        if facts.outcome == "failed" and facts.reason:
            return f"failed ({facts.reason})"
        return facts.outcome

    def _at(self, trial: FrozenTrial) -> str:
        step = trial.last_step
        if self._axis is None or step is None:
            return self._step.format(step)
        return said(step, self._axis)

    def _best(self) -> str:
        best = self._standing.best
        if not best:
            return "none complete yet"
        if len(self._goals) > 1:
            return f"{len(best)} on the Pareto front"
        return f"best {format_metric(best[0].values[0])} (#{best[0].number})"

    def _left(self) -> list[str]:
        """The estimated time left; before there is an estimate the most that it can be, or an
        empty list."""
        running = list(self._running.values())
        parts = sum(one.done for one in running)
        done, missing = self._n_ended + parts, self._n_trials - self._standing.n_finished - parts
        if missing <= 0:
            return []
        now = time.monotonic()
        each, word = self._trial_seconds or math.inf, "at most"
        if done >= _ENOUGH:
            # trials that run side by side may each take as long
            each = min((now - self._began) / done, each / max(len(running), 1))
            word = "about"
        seconds = each * missing
        if self._deadline is not None:
            ends = [each * len(running) * (1 - one.done) for one in running if one.done < 1]
            rest = max(ends, default=0.0) if not self._stops else 0.0
            seconds = min(seconds, max(self._deadline - now, rest))
        return [f"{word} {format_duration(seconds)} left"] if math.isfinite(seconds) else []


@contextlib.contextmanager
def _logging_above() -> Iterator[None]:
    """Print Optuna's warnings above the live view: its handler holds the original stream."""
    plain = getattr(sys.stderr, "rich_proxied_file", None)
    handlers = [
        handler
        for handler in logging.getLogger("optuna").handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is plain
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(plain)
