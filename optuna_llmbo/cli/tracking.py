"""Trackers that are told of every trial when it has ended: MLflow, Weights & Biases, TensorBoard.

Offline unless the tracker's own environment variables say otherwise. MLflow and Weights & Biases
are written by Optuna's own callbacks; the one for TensorBoard needs TensorFlow, so that PyTorch's
writer is used instead.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import importlib
import logging
import os
from pathlib import Path
import shlex
from typing import Any
import warnings

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_llmbo.cli.options import TrackerName
from optuna_llmbo.cli.storages import shown
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import seconds_of
from optuna_llmbo.study.trial_facts import trial_facts


FOLDER = "tracking"
"""Where local trackers write unless told otherwise."""
PROJECT = "optuna-llmbo"
"""Project of Weights & Biases unless its environment variable names one."""

_NEEDED = {
    TrackerName.mlflow: {"optuna_integration": "optuna-integration", "mlflow": "mlflow"},
    TrackerName.wandb: {"optuna_integration": "optuna-integration", "wandb": "wandb"},
    TrackerName.tensorboard: {"torch.utils.tensorboard": "tensorboard"},
}
"""For each tracker the modules that are imported, and the packages that they come with."""


@dataclass(frozen=True)
class Tracker:
    """A tracker that is ready to be told of trials."""

    name: TrackerName
    place: str
    """Where it writes."""
    look: str
    """The command that shows what it has written."""
    tell: Callable[[optuna.Study, FrozenTrial], None]
    """An Optuna callback."""

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell the tracker of a trial; what it cannot track is a warning, and costs no trial."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the callbacks' deprecation
                self.tell(study, trial)
        except Exception as error:
            warn_once(f"{self.name} cannot track a trial: {type(error).__name__}: {error}")


def check(names: Sequence[TrackerName], folder: str | os.PathLike[str] | None) -> None:
    """Check that trackers can be used, and that one writes where something is to be written.

    Raises:
        InputError: if a package is missing, or a folder is named without a tracker.
    """
    if folder is not None and not names:
        raise InputError("--track-to: expected a --track that writes there, got none.")
    check_installed(names)


def check_installed(names: Sequence[TrackerName]) -> None:
    """Import what the trackers need.

    Raises:
        InputError: if a package is missing.
    """
    for name in names:
        for module, package in _NEEDED[name].items():
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise InputError(
                    f"--track {name} needs the package {package} ({error}): pip install "
                    f"{' '.join(_NEEDED[name].values())}."
                ) from error


def trackers(
    names: Sequence[TrackerName], folder: str | os.PathLike[str] | None, goals: Sequence[Goal]
) -> list[Tracker]:
    """The trackers of a search, for its `callbacks`.

    Args:
        names: which ones.
        folder: where they write, each under its own name; None: in `FOLDER`, or where the
            tracker's environment variables say.
        goals: metrics of the search; trials are tracked with their names.

    Raises:
        InputError: if a package is missing, or the folder cannot be made.
    """
    check_installed(names)
    place = Path(folder or FOLDER).expanduser().absolute()
    metrics = [goal.name for goal in goals]
    return [_TRACKERS[name](place, folder is not None, metrics) for name in dict.fromkeys(names)]


def introduce(some: Sequence[Tracker], output: Output) -> None:
    """Say where trackers write, and how to look at it."""
    for one in some:
        output.say(f"Tracking with {one.name} in {one.place}; to look at it: {one.look}")


def _mlflow(place: Path, is_named: bool, metrics: list[str]) -> Tracker:
    """A run of MLflow for each trial, in the experiment with the study's name."""
    from optuna_integration.mlflow import MLflowCallback

    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it writes into the live view
    elsewhere = None if is_named else os.environ.get("MLFLOW_TRACKING_URI")
    uri = elsewhere or f"sqlite:///{_made(place) / 'mlflow.db'}"
    look = f"mlflow ui --backend-store-uri {shlex.quote(shown(uri))}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        tell = MLflowCallback(tracking_uri=uri, metric_name=metrics)
    return Tracker(TrackerName.mlflow, shown(uri), look, tell)


def _wandb(place: Path, is_named: bool, metrics: list[str]) -> Tracker:
    """A run of Weights & Biases for each trial, in the group with the study's name.

    One run for all trials would lose those that end out of order.
    """
    from optuna_integration.wandb import WeightsAndBiasesCallback
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    folder = _made(place if is_named else Path(os.environ.get("WANDB_DIR", place)))

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        run = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "group": study.study_name,
            "name": study.study_name,  # the callback adds the trial's number
            "mode": mode,
            "dir": str(folder),
            "config": {"trial": _facts(trial)},
            "settings": wandb.Settings(silent=True, console="off"),
        }
        try:
            WeightsAndBiasesCallback(metrics, run, as_multirun=True)(study, trial)
        finally:
            wandb.finish()  # else the next trial would go on with a run that failed

    look = f"wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*"
    if mode == "online":
        look = "wandb.ai"
    return Tracker(TrackerName.wandb, str(folder / "wandb"), look, tell)


def _tensorboard(place: Path, is_named: bool, metrics: list[str]) -> Tracker:
    """A run of TensorBoard for each trial, with its hyperparameters, values and reports."""
    from torch.utils.tensorboard import SummaryWriter

    folder = _made(place / "tensorboard")

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        run = folder / study.study_name / f"trial-{trial.number}"
        params = {name: _plain(value) for name, value in trial.params.items()}
        is_complete = trial.state is TrialState.COMPLETE  # else the value is the last report's
        values = dict(zip(metrics, trial.values if is_complete else (), strict=False))
        with SummaryWriter(str(run)) as writer:
            writer.add_hparams(params, values, run_name=".")
            for step, value in trial.intermediate_values.items():
                writer.add_scalar(f"reports/{metrics[0]}", value, step)
            facts = "  \n".join(f"{name}: {value}" for name, value in _facts(trial).items())
            writer.add_text("trial", facts)

    look = f"tensorboard --logdir {shlex.quote(str(folder))}"
    return Tracker(TrackerName.tensorboard, str(folder), look, tell)


def _made(folder: Path) -> Path:
    """The folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--track-to: the folder {folder} cannot be made: {error}.") from error
    return folder


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    facts = trial_facts(trial)
    return {
        "number": facts.number,
        "outcome": facts.outcome,
        "reason": facts.reason or None,
        "is_default": facts.is_default,
        "seconds": seconds_of(trial),
    }


def _plain(value: Any) -> Any:
    """A choice as TensorBoard takes it."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


_TRACKERS: dict[TrackerName, Callable[[Path, bool, list[str]], Tracker]] = {
    TrackerName.mlflow: _mlflow,
    TrackerName.wandb: _wandb,
    TrackerName.tensorboard: _tensorboard,
}
