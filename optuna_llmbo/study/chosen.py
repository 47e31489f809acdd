"""The trial of a study that a command is to go on with."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.errors import InputError
from optuna_llmbo.study.outcome import complete


def chosen_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """A complete trial: the one of that number, or the best one that breaks no constraint.

    Raises:
        InputError: if there is none, or the study has several objectives and so no best one.
    """
    trials = study.get_trials(deepcopy=False)
    if number is None:
        if not complete(trials):
            raise InputError(
                f"the study {study.study_name!r} has no complete trial yet that breaks no "
                "constraint; name one with --trial to export it anyway."
            )
        if len(study.directions) > 1:
            front = ", ".join(str(trial.number) for trial in study.best_trials)
            raise InputError(
                f"the study {study.study_name!r} has several objectives and so no best trial: "
                f"choose one by its number; on the Pareto front are {front}."
            )
        return study.best_trial
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    for trial in ended:
        if trial.number == number:
            return trial
    numbers = ", ".join(str(trial.number) for trial in ended[:20]) or "none"
    more = f" and {len(ended) - 20} more" if len(ended) > 20 else ""
    raise InputError(
        f"the study {study.study_name!r} has no complete trial {number}; complete are "
        f"{numbers}{more}."
    )
