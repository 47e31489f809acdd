"""How a search ends: the result, and how to go on."""

from __future__ import annotations

import shlex

import optuna
import typer

from optuna_llmbo.cli import events
from optuna_llmbo.cli.storages import shown
from optuna_llmbo.cli.summary import summary
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.searched import Searched


def conclude(
    study: optuna.Study,
    objective: Searched,
    output: Output,
    storage: str,
    n_trials: int,
    ended: str,
) -> None:
    """Print the result; exit with code 1 if the user interrupted the search.

    Args:
        study: the study.
        objective: what was searched.
        output: where to print.
        storage: what `--storage` names.
        n_trials: finished trials that the study should have.
        ended: what `Search.run` returned.
    """
    goals, base_loss = objective.goals, objective.base_loss
    output.result(*summary(study, goals, base_loss))
    output.event("summary", events.summary(study, goals, base_loss, ended=ended))
    look = f"optuna-llmbo dashboard {shlex.quote(study.study_name)} --storage {shown(storage)}"
    output.say(f"To look at the study: {look}")
    have = f"{progress_of(study).n_finished} of {n_trials} trials are there"
    if ended == "timeout":
        output.say(f"The time is over: {have}. The same command goes on from here.")
    if ended == "elsewhere":
        output.say(f"{have}; other workers run the rest.")
    if ended == "interrupted":
        output.say("Interrupted. The same command goes on from here.")
        raise typer.Exit(1)
