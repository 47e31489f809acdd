"""What `optuna-llmbo tune` shows while it runs, and the table at its end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.table import Table

from optuna_llmbo.lora.run import default_trial
from optuna_llmbo.lora.run import Progress as TrialProgress
from optuna_llmbo.prompt import format_value


FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class LiveView:
    """A line a finished trial, and below them a bar for the one that runs.

    Where the output is no terminal, the lines alone.

    Args:
        console: where to print.
        study: the study that is optimized.
        n_trials: how many finished trials the study is to have at the end.
    """

    def __init__(self, console: Console, study: optuna.Study, n_trials: int) -> None:
        self._console = console
        self._study = study
        self._n_trials = n_trials
        self._seconds: list[float] = []
        self._trial_started = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("loading", total=1.0, note="")

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._bar.start()
        self._start_trial()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_step(self, progress: TrialProgress) -> None:
        """Move the bar; the objective calls it after each optimizer step."""
        note = f"step {progress.fraction:.0%}, training loss {progress.loss:.3f}{self._outlook()}"
        self._bar.update(self._task, completed=progress.fraction, note=note)

    def on_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print the line of a finished trial; an Optuna callback."""
        self._seconds.append(time.monotonic() - self._trial_started)
        self._console.print(self._line(trial), highlight=False, soft_wrap=True)
        self._start_trial()

    def _line(self, trial: FrozenTrial) -> str:
        values = ", ".join(f"{name}={format_value(v)}" for name, v in trial.params.items())
        head = f"trial {self._n_finished:>2}/{self._n_trials} #{trial.number}"
        return (
            f"{head}  {_outcome(trial)}  {self._seconds[-1]:4.0f} s  "
            f"best {self._best()}  [dim]{values}[/dim]"
        )

    def _start_trial(self) -> None:
        self._trial_started = time.monotonic()
        number = min(self._n_finished + 1, self._n_trials)
        self._bar.update(
            self._task,
            completed=0.0,
            description=f"trial {number}/{self._n_trials}",
            note=f"choosing the configuration{self._outlook()}",
        )

    def _outlook(self) -> str:
        best = f", best {self._best()}"
        if not self._seconds:
            return best
        mean = sum(self._seconds) / len(self._seconds)
        spent = time.monotonic() - self._trial_started
        left = mean * (self._n_trials - self._n_finished) - min(spent, mean)
        return f"{best}, {left / 60:.0f} min left" if left >= 60 else f"{best}, {left:.0f} s left"

    @property
    def _n_finished(self) -> int:
        return len(self._study.get_trials(deepcopy=False, states=FINISHED))

    def _best(self) -> str:
        best = best_trial(self._study)
        return "none yet" if best is None else f"{best.value:.4f}"


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The study's best trial, or None if none is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(complete, key=lambda trial: trial.value or 0.0, default=None)


def summary(study: optuna.Study, base_loss: float) -> Table:
    """Base model, default configuration, best found: loss, gain over the base, parameters."""
    table = Table(title=f"Study {study.study_name!r}, validation loss in nats per response token")
    table.add_column("", no_wrap=True)
    for column in ("loss", "gain over base", "gain over default"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("hyperparameters", overflow="fold")
    table.add_row("base model", f"{base_loss:.4f}", "", "", "no adapter")
    default, best = default_trial(study), best_trial(study)
    for name, trial in (("default", default), ("best found", best)):
        if trial is not None:
            table.add_row(*_summary_row(name, trial, base_loss, default))
    return table


def _summary_row(
    name: str, trial: FrozenTrial, base_loss: float, default: FrozenTrial | None
) -> list[str]:
    loss: Any = trial.value
    over_default = "" if default is None else f"{default.value - loss:+.4f}"  # type: ignore[operator]
    values = "\n".join(f"{key} = {format_value(value)}" for key, value in trial.params.items())
    label = f"{name} (#{trial.number})"
    return [label, f"{loss:.4f}", f"{base_loss - loss:+.4f}", over_default, values]


def _outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"loss   {trial.value:.4f}"
    if trial.state == TrialState.PRUNED and trial.last_step is not None:
        value = trial.intermediate_values[trial.last_step]
        return f"pruned {value:.4f} at {trial.last_step}%"
    return trial.state.name.lower()
