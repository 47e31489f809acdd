"""`optuna-llmbo tune`: search LoRA hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.cli import metrics
from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.cli.terminal import warn
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.study.trial_attributes import OPTIONS
from optuna_llmbo.study.trial_attributes import TRACEBACK


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_llmbo.lora.metrics import Measure
    from optuna_llmbo.lora.objective import LoRAObjective
    from optuna_llmbo.lora.prepare import Prepared


Callback = Callable[["optuna.Study", "FrozenTrial"], None]

_MAX_CRASHES = 3
"""Consecutive crashes that end the search, as hyperparameters are unlikely to be the cause."""


def tune(
    context: typer.Context,
    model: options.Model,
    train: options.Train,
    validation: options.Validation = None,
    test: options.Test = None,
    prompt_column: options.PromptColumn = None,
    response_column: options.ResponseColumn = None,
    ignore_columns: options.IgnoreColumns = [],  # noqa: B006 - typer copies it
    proxy: options.Proxy = ObjectiveOptions.proxy,
    proxy_by: options.ProxyBy = ObjectiveOptions.proxy_by,
    metric: options.Metric = ["loss"],  # noqa: B006 - typer copies it, and shows it in --help
    choices: options.Choices = None,
    tests_column: options.TestsColumn = None,
    allow_execution: options.AllowExecution = False,
    space: options.Space = None,
    variant: options.Variant = ObjectiveOptions.variant,
    epochs: options.Epochs = ObjectiveOptions.epochs,
    max_length: options.MaxLength = ObjectiveOptions.max_length,
    reports: options.Reports = ObjectiveOptions.reports,
    load_best_model_at_end: options.LoadBest = ObjectiveOptions.load_best_model_at_end,
    micro_batch_size: options.MicroBatchSize = ObjectiveOptions.micro_batch_size,
    quantization: options.Quantization = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    folder: options.Folder = None,
    keep: options.Keep = ObjectiveOptions.keep,
    trials: options.Trials = 30,
    parallel: options.Parallel = 1,
    storage: options.Storage = "sqlite:///lora.db",
    study: options.NewStudy = "lora",
    sampler: options.Sampler = options.SamplerName.llmbo,
    pruner: options.Pruner = options.PrunerName.median,
    seed: options.Seed = ObjectiveOptions.seed,
    llm: options.Llm = None,
    device: options.Device = None,
    heartbeat: options.Heartbeat = 30,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Search LoRA hyperparameters; the default configuration is the first trial."""
    with bad_input_exits_with_2():
        import optuna

        from optuna_llmbo.cli import studies

        output = Output(quiet=quiet, json=as_json)
        about = options.chosen(context.params)
        _check_parallel(parallel, metric, folder)
        measures = metrics.measures_of(about, allow_execution=allow_execution)
        objective = options.objective_of(
            about, allow_execution=allow_execution, folder=folder, keep=keep, device=device
        )
        the_storage = studies.open_storage(storage, heartbeat)
        there = studies.find_study(the_storage, study)
        if there is not None and OPTIONS in there.user_attrs:
            metrics.check_same(there, options.recorded(there), about)
        the_sampler = studies.make_sampler(
            sampler,
            seed=seed,
            n_before=0 if there is None else len(there.trials),
            n_objectives=len(measures),
            llm=llm,
            task=f"LoRA fine-tuning of {model} on {train}; {_task(measures)}.",
        )
        if output.is_quiet:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
        if len(measures) > 1 and pruner is not options.PrunerName.none:
            output.say("With several metrics no trial is pruned.")
        output.say("Loading the model and the data ...")
        prepared = objective.prepare()
        _check_variant(parallel, prepared)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        the_study = studies.open_study(
            the_storage,
            study,
            measures,
            the_sampler,
            studies.make_pruner(pruner, reports, n_objectives=len(measures)),
        )
        objective.check_study(the_study)
        the_study.set_user_attr(OPTIONS, options.to_record(about, prepared.space.distributions))
    with bad_input_exits_with_2():
        finished = _search(the_study, objective, trials, parallel, output)
    _conclude(the_study, objective, output, storage, finished=finished)


def _check_parallel(parallel: int, metric: Sequence[str], folder: str | None) -> None:
    """Check that the options are possible for trials that train at once."""
    if parallel == 1:
        return
    if list(metric) != ["loss"]:
        raise InputError(
            f"--parallel {parallel} with --metric {' --metric '.join(metric)}: trials that train "
            "at once are measured by their loss. Leave one of the two out."
        )
    if folder is not None:
        raise InputError(
            f"--parallel {parallel} with --folder: trials that train at once keep no state "
            "on disk to go on from. Leave one of the two out."
        )


def _check_variant(parallel: int, prepared: Prepared) -> None:
    """Check that at least some trials can train at once, as other variants train one by one."""
    from optuna_llmbo.lora.packed.layers import check_packable
    from optuna_llmbo.lora.packed.layers import is_packable

    if parallel == 1:
        return
    if any(is_packable(prepared.model, recipe) for recipe in prepared.space.admitted):
        return
    try:
        check_packable(prepared.model, prepared.space.defaults)
    except InputError as error:
        raise InputError(f"--parallel {parallel}: {error}") from error


def _task(measures: Sequence[Measure]) -> str:
    """The aim, as told to a language model that reads the hyperparameters."""
    names = {"loss": "the validation loss"}
    return " and ".join(f"{one.direction} {names.get(one.name, one.name)}" for one in measures)


def _search(
    study: optuna.Study, objective: LoRAObjective, n_trials: int, parallel: int, output: Output
) -> bool:
    """Run the missing trials; False if the user interrupted the search."""
    from optuna_llmbo.cli import events
    from optuna_llmbo.cli.live import LiveView
    from optuna_llmbo.lora.metrics import title_of
    from optuna_llmbo.study.progress import goals_of
    from optuna_llmbo.study.progress import progress_of

    n_finished, goals = progress_of(study).n_finished, goals_of(objective.prepare().targets)
    output.event("start", events.start(study, goals, objective.base_loss, n_trials))
    n_missing = n_trials - n_finished
    if n_missing <= 0:
        output.say(f"The study has its {n_trials} trials; --trials with a higher number goes on.")
        return True
    if n_finished:
        output.say(f"Resuming: {n_finished} of {n_trials} trials are there.")
    aims = " and to ".join(f"{goal.direction} {title_of(goal.name)}" for goal in goals)
    output.say(f"The search is to {aims}.")
    _enqueue_default(study, objective)

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        output.event("trial", events.trial(study, trial, goals, n_trials))

    with LiveView(output.progress, study, goals, n_trials) as view:
        objective.progress = view.on_step
        try:
            _optimize(study, objective, n_missing, parallel, [view.on_trial, tell])
        except KeyboardInterrupt:
            return False
    return True


def _optimize(
    study: optuna.Study,
    objective: LoRAObjective,
    n_trials: int,
    parallel: int,
    callbacks: Sequence[Callback],
) -> None:
    """Run trials; a crash fails its trial, and several in a row end the search."""
    from optuna_llmbo.lora.packed.parallel import optimize_packed
    from optuna_llmbo.lora.run import TrialCrashed

    crashed: list[FrozenTrial] = []

    def watch(study: optuna.Study, trial: FrozenTrial) -> None:
        if TRACEBACK not in trial.user_attrs:
            crashed.clear()
            return
        crashed.append(trial)
        warn(f"trial #{trial.number} crashed:\n{trial.user_attrs[TRACEBACK]}")
        if len(crashed) == _MAX_CRASHES:
            warn(f"error: {_MAX_CRASHES} trials crashed one after another.")
            raise typer.Exit(1)

    if parallel > 1:
        optimize_packed(study, objective, n_trials, parallel, callbacks)
    else:
        study.optimize(
            objective, n_trials=n_trials, callbacks=[*callbacks, watch], catch=(TrialCrashed,)
        )


def _enqueue_default(study: optuna.Study, objective: LoRAObjective) -> None:
    """Enqueue the default configuration first, unless it is complete, running or waiting."""
    from optuna.trial import TrialState

    from optuna_llmbo.lora.recorded import control_of

    space, params = objective.prepare().space, objective.default_params
    waiting = (TrialState.WAITING, TrialState.RUNNING)
    queued = study.get_trials(deepcopy=False, states=waiting)
    if any(trial.system_attrs.get("fixed_params") == params for trial in queued):
        return
    trials = study.get_trials(deepcopy=False)
    if control_of(trials, space.default_recipe, objective.fingerprint) is None:
        study.enqueue_trial(params)


def _conclude(
    study: optuna.Study, objective: LoRAObjective, output: Output, storage: str, *, finished: bool
) -> None:
    """Print the result; exit with code 1 if the user interrupted the search."""
    from optuna_llmbo.cli import events
    from optuna_llmbo.cli.summary import summary
    from optuna_llmbo.study.progress import goals_of

    goals, base_loss = goals_of(objective.prepare().targets), objective.base_loss
    output.result(*summary(study, goals, base_loss))
    output.event("summary", events.summary(study, goals, base_loss, interrupted=not finished))
    look = f"optuna-llmbo dashboard {study.study_name} --storage {storage}"
    output.say(f"To look at the study: {look}")
    if not finished:
        output.say("Interrupted. The same command goes on from here.")
        raise typer.Exit(1)
