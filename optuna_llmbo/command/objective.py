"""The objective of a study of any program: parameters in, what it writes out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import hashlib
import json
import os
from pathlib import Path
import queue
import shlex
import threading
from typing import Any
import weakref

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial

from optuna_llmbo.command import folders
from optuna_llmbo.command.defaults import Control
from optuna_llmbo.command.defaults import find_control
from optuna_llmbo.command.options import command_options
from optuna_llmbo.command.options import SEARCHED
from optuna_llmbo.command.run import Run
from optuna_llmbo.errors import differences
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.context import read_context
from optuna_llmbo.study import compat
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.time_limits import TimeLimits
from optuna_llmbo.study.training_progress import TrainingProgress
from optuna_llmbo.study.trial_attributes import COMMAND
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.study.trial_attributes import FINGERPRINT


class CommandObjective:
    """Run a program with the parameters of a trial, and return the metric that it writes.

    Works under every Optuna sampler, pruner and storage, for any program that reads its
    hyperparameters from a file, its arguments or the environment: a fine-tuning tool, a script, a
    container. A trial

    1. gets its parameters from the study's sampler,
    2. writes a copy of the program's own configuration, with these values, into a folder of its
       own, `folder/trial-0007`,
    3. runs the command, whose output goes to `log.txt` there,
    4. reads the metric while it runs, reports it to the pruner, and stops a command that is
       pruned, diverges or is over a limit: it is asked to (SIGTERM), and killed after `grace`
       seconds, with all processes that it started. They end as well when this process dies,
    5. returns the metric.

    The first trial of a search should be `default_params`, the configuration as it is: the
    control, which is never pruned. A trial that retries one whose search was killed runs the
    command again, unless it had ended well by then.

    Placeholders: `{config}` is the copy's path, `{folder}` the trial's folder (absolute),
    `{trial}` its number, `{gpus}` its devices, `{learning_rate}` a parameter, and
    `{rank * alpha_ratio}` is computed. `{{x}}` stands for `{x}`.

    The reported step is the percentage of the training, in steps of five, where the program tells
    how far it is; else the optimizer's step, a hundredth of an epoch, or the number of the
    evaluation, whichever comes first. The study says which (`report_axis`).

    Each trial records as user attributes `folder`, `config`, `seconds`, `exit_code`, `is_default`,
    and `log_end` if it does not complete. One that lacks memory, is killed, diverges, or takes
    longer than `trial_timeout` is pruned with `pruned_reason` and `infeasible`. One that ends with
    another exit code than 0, or without a metric, fails with `failed_reason`.

    Args:
        command: the program and its arguments, in one text (divided as a shell does, but there is
            no shell: for one write `bash -c "..."`) or as a list.
        space: distributions by parameter, or a TOML file with them. A parameter goes to the
            configuration's key of the same name, unless `assign`, a placeholder or `env` has it.
        metric: name of the metric, as the program writes it. Names within tables are dotted.
        config: the program's own YAML, JSON or TOML file. It is not changed.
        assign: what other keys are set to, by key (`"training.lr"`, `"layers.0"`): a parameter
            ("learning_rate"), arithmetic with parameters ("round(rank * alpha_ratio)"), text with
            placeholders ("{folder}/output") or JSON ('"text"', "3"); or any other value. A key
            that the file lacks has a plus before it: "+lora_dropout".
        env: texts of environment variables, with placeholders.
        direction: "minimize" or "maximize".
        take: which value of the metric counts, "last" or "best".
        metric_regex: regular expression that finds the metric in the output, line by line, in the
            group `value` or the first one; groups `step`, `total`, `epoch` and `percent` say when.
        metric_files: patterns of the files to read (JSON, or JSON lines; with `metric_regex` any
            text), in the trial's folder. Without them and `metric_regex`, all of
            `trainer_state.json`, `*.jsonl`, `all_results.json` and `eval_results.json` in there
            is read, and the dicts that the program prints.
        folder: where the trials' folders are made; a folder belongs to one study.
        defaults: parameters of the control, where the configuration does not say them.
        gpus: for trials that run at once, the devices of each as CUDA_VISIBLE_DEVICES has them,
            such as ["0,1", "2,3"]; no more trials run than there are entries. Empty: all devices
            for all.
        trial_timeout: most seconds of a trial.
        grace: seconds from asking a command to stop until it is killed.
        stop_command: run as well when a command is to stop, such as "docker stop trial-{trial}".
        context: what `LLMBOSampler(context=...)` takes, such as {"method": "lora"}; it is written
            into the study.
        progress: called with a `TrainingProgress` whenever there is news of a trial.

    Raises:
        InputError: for every mistake in the arguments.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        space: Mapping[str, BaseDistribution] | str | os.PathLike[str],
        metric: str,
        *,
        config: str | os.PathLike[str] | None = None,
        assign: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        direction: str = "minimize",
        take: str = "last",
        metric_regex: str | None = None,
        metric_files: Sequence[str] = (),
        folder: str | os.PathLike[str] = "runs",
        defaults: Mapping[str, Any] | None = None,
        gpus: Sequence[str] = (),
        trial_timeout: float | None = None,
        grace: float = 10.0,
        stop_command: str | Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self.options = command_options(
            command,
            space,
            metric,
            config=config,
            assign=assign or {},
            env=env or {},
            direction=direction,
            take=take,
            metric_regex=metric_regex,
            metric_files=metric_files,
            folder=folder,
            gpus=gpus,
            grace=grace,
            stop_command=stop_command,
        )
        self.progress = progress
        self.limits = TimeLimits(trial_timeout)
        self.control: Control = find_control(self.options.plan, defaults or {})
        """The parameters that the configuration has now, or why they are not known."""
        self.context = read_context(context).known
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._free: queue.Queue[str] = queue.Queue()
        for devices in self.options.gpus:
            self._free.put(devices)
        self._checked_studies: weakref.WeakSet[optuna.Study] = weakref.WeakSet()

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metric."""
        return (Goal(self.options.metric, self.options.direction),)

    @property
    def default_params(self) -> dict[str, Any] | None:
        """The parameters that the configuration has now; None if the space does not have them all,
        see `control`."""
        return None if self.control.params is None else dict(self.control.params)

    @property
    def base_loss(self) -> None:
        """None: what the model's loss is before training is not known."""
        return None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines a result besides the parameters; JSON-serializable."""
        return self.options.fingerprint

    def check_study(self, study: optuna.Study) -> None:
        """Check that a study's results are comparable with this objective's, and mark it.

        Raises:
            InputError: if the study's direction is another one, it holds the results of another
                command, configuration or metric, or the folder belongs to another study.
        """
        direction = self.options.direction
        if [one.name.lower() for one in study.directions] != [direction]:
            raise InputError(
                f"the objective has {self.options.metric} to {direction}: create the study with "
                f'direction="{direction}".'
            )
        attributes = study.user_attrs
        if FINGERPRINT not in attributes:
            study.set_user_attr(FINGERPRINT, self.fingerprint)
            study.set_user_attr(COMMAND, shlex.join(self.options.plan.command))
        elif differ := _differences(attributes[FINGERPRINT], self.fingerprint):
            raise InputError(
                f"the study {study.study_name!r} holds results of another command or "
                f"configuration, which differs in {differ}. They cannot be compared: use another "
                "study name."
            )
        if CONTEXT not in attributes and self.context:
            study.set_user_attr(CONTEXT, self.context)
        folders.claim(self.options.folder, _id_of(study), study.study_name)

    def __call__(self, trial: BaseTrial) -> float:
        """Run one trial.

        Raises:
            InputError: for a mistake in the inputs, see `check_study`.
            optuna.TrialPruned: if the pruner says so, or the configuration cannot be run.
            TrialCrashed: if the command fails or writes no metric;
                `study.optimize(..., catch=(TrialCrashed,))` goes on with the next trial.
        """
        params = self.choose(trial)
        has_run = self._has_run(trial, params)
        with self._devices() as devices:
            run = Run(
                trial,
                self.options,
                self.limits,
                has_run or folders.make(self.options.folder, trial.number),
                devices=devices,
                is_default=params == self.control.params,
                cancelled=self._cancelled,
                has_run=has_run is not None,
            )
            return run(params, self.progress)

    def _has_run(self, trial: BaseTrial, params: Mapping[str, Any]) -> Path | None:
        """The folder of a trial that this one retries, whose command had ended well when its
        search was killed; None if there is none."""
        retried = compat.retry_history(trial)
        if not retried:
            return None
        trials = compat.all_trials(trial.study)  # type: ignore[attr-defined]
        for number in reversed(retried):
            place = folders.of(self.options.folder, number)
            if trials[number].params == params and folders.has_ended_well(place):
                return place
        return None

    def choose(self, trial: BaseTrial) -> dict[str, Any]:
        """The parameters of a trial, chosen by the study's sampler at the first call.

        Raises:
            InputError: if the study is another objective's, see `check_study`.
        """
        with self._lock:
            self._check_study_once(trial)
            space = self.options.plan.space
            return {name: _suggest(trial, name, one) for name, one in space.items()}

    def cancel(self) -> None:
        """Stop all running trials, from another thread; each raises KeyboardInterrupt. No further
        one runs."""
        self._cancelled.set()

    @contextlib.contextmanager
    def _devices(self) -> Iterator[str]:
        """Devices that no other trial uses meanwhile."""
        if not self.options.gpus:
            yield ""
            return
        devices = self._free.get()
        try:
            yield devices
        finally:
            self._free.put(devices)

    def _check_study_once(self, trial: BaseTrial) -> None:
        study = getattr(trial, "study", None)  # a FixedTrial has none
        if study is not None and study not in self._checked_studies:
            self.check_study(study)
            self._checked_studies.add(study)


def _id_of(study: optuna.Study) -> str:
    """A word that studies with other names or commands do not have."""
    told = json.dumps([study.study_name, study.user_attrs[FINGERPRINT]], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _differences(there: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """How two fingerprints differ; a key that one of them searches is not compared."""
    searched = {*there.get(SEARCHED, ()), *ours[SEARCHED], SEARCHED}
    kept = [{k: v for k, v in one.items() if k not in searched} for one in (there, ours)]
    return differences(*kept, label="now")


def _suggest(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        return trial.suggest_int(name, low, high, step=step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )
