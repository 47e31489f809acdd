"""`optuna-llmbo tune`: search LoRA hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import sys
from typing import Any
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.cli import metrics
from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import Output
from optuna_llmbo.cli.tune_trl import search_file
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.study.trial_attributes import CONTEXT
from optuna_llmbo.study.trial_attributes import OPTIONS


if TYPE_CHECKING:
    import optuna

    from optuna_llmbo.cli.search import Begin
    from optuna_llmbo.cli.search import Callback
    from optuna_llmbo.cli.search import Run
    from optuna_llmbo.lora.metrics import Measure
    from optuna_llmbo.lora.objective import LoRAObjective
    from optuna_llmbo.lora.prepare import Prepared


def tune(
    context: typer.Context,
    model: options.TunedModel = None,
    train: options.TunedTrain = None,
    trl: options.Trl = None,
    trl_task: options.TrlTask = None,
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
    truncation: options.Truncation = ObjectiveOptions.truncation,
    chat_template: options.ChatTemplate = None,
    train_on: options.TrainOn = ObjectiveOptions.train_on,
    reports: options.Reports = ObjectiveOptions.reports,
    load_best_model_at_end: options.LoadBest = ObjectiveOptions.load_best_model_at_end,
    micro_batch_size: options.MicroBatchSize = ObjectiveOptions.micro_batch_size,
    quantization: options.Quantization = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    folder: options.Folder = None,
    keep: options.Keep = ObjectiveOptions.keep,
    trials: options.Trials = 30,
    timeout: options.Timeout = None,
    stop_at_timeout: options.StopAtTimeout = False,
    trial_timeout: options.TrialTimeout = None,
    parallel: options.Parallel = 1,
    track: options.Track = [],  # noqa: B006 - typer copies it
    track_to: options.TrackTo = None,
    storage: options.Storage = "sqlite:///lora.db",
    study: options.NewStudy = "lora",
    sampler: options.Sampler = options.SamplerName.llmbo,
    pruner: options.Pruner = options.PrunerName.median,
    seed: options.Seed = ObjectiveOptions.seed,
    llm: options.Llm = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    heartbeat: options.Heartbeat = 30,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Search LoRA hyperparameters; the default configuration is the first trial.

    Needs --model and --train, or --trl.
    """
    with bad_input_exits_with_2():
        import optuna

        from optuna_llmbo.cli import storages
        from optuna_llmbo.cli import studies
        from optuna_llmbo.cli import tracking
        from optuna_llmbo.cli.conclusion import conclude
        from optuna_llmbo.cli.search import Search

        output = Output(quiet=quiet, json=as_json)
        budget = options.budget_of(trials, timeout, stop_at_timeout)
        trial_seconds = options.seconds_or_none(trial_timeout)
        _check_used(study, sampler, llm, folder, keep)
        tracking.check(track, track_to)
        if trl is not None:
            search_file(context, output, budget)
            return
        _check_given(model, train, trl_task)
        about = options.chosen(context.params)
        _check_parallel(parallel, metric, folder)
        measures = metrics.measures_of(about, allow_execution=allow_execution)
        objective = options.objective_of(
            about,
            allow_execution=allow_execution,
            folder=folder,
            keep=keep,
            device=device,
            trial_timeout=trial_seconds,
        )
        the_storage = storages.open_storage(storage, heartbeat)
        there = studies.find_study(the_storage, study)
        if there is not None and OPTIONS in there.user_attrs:
            metrics.check_same(there, options.recorded(there), about)
        the_sampler = studies.make_sampler(
            sampler,
            seed=seed,
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
        if sampler is options.SamplerName.llmbo:
            output.say(f"Typical values are those for {_context(the_study.user_attrs[CONTEXT])}.")
        about["dtype"] = str(prepared.fingerprint["dtype"]).removeprefix("torch.")
        the_study.set_user_attr(OPTIONS, options.to_record(about, prepared.space.distributions))
        trackers = tracking.trackers(track, track_to, objective.goals)
        tracking.introduce(trackers, output)
        search = Search(
            the_study,
            objective,
            output,
            budget,
            lambda number: studies.for_trial(sampler, the_sampler, seed, number),
            run=_packed(objective, parallel) if parallel > 1 else None,
            callbacks=trackers,
        )
        ended = search.run()
    conclude(the_study, objective, output, storage, trials, ended)


def _check_given(model: str | None, train: str | None, trl_task: str | None) -> None:
    """Check that the options say what to train on what."""
    for flag, value in (("--model", model), ("--train", train)):
        if value is None:
            raise InputError(f"{flag} is missing: give it, or a file of TRL's with --trl.")
    if trl_task is not None:
        raise InputError("--trl-task: expected a file with --trl, got none.")


def _packed(objective: LoRAObjective, parallel: int) -> Run:
    """What runs several trials at once on one model."""
    from optuna_llmbo.lora.packed.parallel import optimize_packed

    def run(study: optuna.Study, begin: Begin, callbacks: Sequence[Callback]) -> None:
        optimize_packed(study, objective, sys.maxsize, parallel, callbacks, begin=begin)

    return run


def _check_used(
    study: str, sampler: options.SamplerName, llm: str | None, folder: str | None, keep: int
) -> None:
    """Check that no option is given that would have no effect."""
    options.check_sampler(study, sampler, llm)
    if keep != ObjectiveOptions.keep and folder is None:
        raise InputError(f"--keep {keep} needs a --folder to keep adapters in.")


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


def _context(context: Mapping[str, Any]) -> str:
    """The study's context, as written by `LoRAObjective`, in words."""
    n = context.get("steps")
    steps = "" if n is None else f" in {n:,} step{'' if n == 1 else 's'}"
    return f"LoRA on a model of {context['parameters']:,} parameters{steps}"


def _task(measures: Sequence[Measure]) -> str:
    """The aim, as told to a language model that reads the hyperparameters."""
    names = {"loss": "the validation loss"}
    return " and ".join(f"{one.direction} {names.get(one.name, one.name)}" for one in measures)
