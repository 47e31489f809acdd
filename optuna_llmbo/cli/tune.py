"""`optuna-llmbo tune`: search LoRA's hyperparameters."""

from __future__ import annotations

from typing import Annotated
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli import studies
from optuna_llmbo.cli.studies import PrunerName
from optuna_llmbo.cli.studies import SamplerName
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import errors
from optuna_llmbo.cli.terminal import out


if TYPE_CHECKING:
    from optuna_llmbo.live import LiveView
    from optuna_llmbo.lora.objective import LoRAObjective


_MAX_CRASHES = 3
"""Trials that crash one after another end the search: it is not their hyperparameters."""


def tune(
    context: typer.Context,
    model: options.Model,
    train: options.Train,
    validation: options.Validation = None,
    test: options.Test = None,
    prompt_column: options.PromptColumn = None,
    response_column: options.ResponseColumn = None,
    proxy: options.Proxy = 0.1,
    proxy_by: options.ProxyBy = "random",
    space: options.Space = None,
    variant: options.Variant = "lora",
    epochs: options.Epochs = 1,
    max_length: options.MaxLength = 512,
    reports: options.Reports = 4,
    micro_batch_size: options.MicroBatchSize = 8,
    quantization: options.Quantization = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    folder: Annotated[
        str | None,
        typer.Option(
            help="Where trials keep their state, to go on after a crash, and the best adapters."
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="How many adapters to keep in --folder.")] = 1,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials the study is to have.")] = 30,
    storage: options.Storage = "sqlite:///lora.db",
    study: Annotated[
        str, typer.Option(help="The study's name; an existing one is resumed.")
    ] = "lora",
    sampler: SamplerName = SamplerName.llmbo,
    pruner: PrunerName = PrunerName.median,
    seed: options.Seed = 0,
    llm: Annotated[
        str | None,
        typer.Option(help="A language model that is to read the hyperparameters; default: none."),
    ] = None,
    device: options.Device = None,
    heartbeat: Annotated[
        int,
        typer.Option(
            min=1, help="A trial that was silent for twice as many seconds is tried again."
        ),
    ] = 30,
) -> None:
    """Search LoRA hyperparameters; the default configuration is the first trial."""
    with bad_input_exits_with_2():
        from optuna_llmbo.live import summary

        about = options.chosen(context.params)
        objective = options.objective_of(about, folder=folder, keep=keep, device=device)
        task = f"LoRA fine-tuning of {model} on {train}; minimize the validation loss."
        the_study = studies.open_study(storage, study, heartbeat)
        n_before = len(the_study.trials)
        the_study.sampler = studies.make_sampler(
            sampler, seed=seed, n_before=n_before, llm=llm, task=task
        )
        the_study.pruner = studies.make_pruner(pruner, reports)
        out.print("Loading the model and the data ...")
        objective.prepare()
        objective.check_study(the_study)
        the_study.set_user_attr(options.OPTIONS, about)
    with bad_input_exits_with_2():
        finished = _search(the_study, objective, trials)
    out.print(summary(the_study, objective.base_loss))
    out.print(f"To look at the study: optuna-dashboard {storage}", soft_wrap=True)
    if not finished:
        out.print("Interrupted. The same command goes on from here.")
        raise typer.Exit(1)


def _search(study: optuna.Study, objective: LoRAObjective, n_trials: int) -> bool:
    """Run the trials that are missing; False if the user stopped it."""
    from optuna_llmbo.live import FINISHED
    from optuna_llmbo.live import LiveView

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    n_missing = n_trials - len(study.get_trials(deepcopy=False, states=FINISHED))
    if n_missing <= 0:
        out.print(f"The study has its {n_trials} trials; --trials with a higher number goes on.")
        return True
    if n_missing < n_trials:
        out.print(f"Resuming: {n_trials - n_missing} of {n_trials} trials are there.")
    _enqueue_default(study, objective)
    with LiveView(out, study, n_trials) as view:
        objective.progress = view.on_step
        try:
            _optimize(study, objective, n_missing, view)
        except KeyboardInterrupt:
            return False
    return True


def _optimize(
    study: optuna.Study, objective: LoRAObjective, n_trials: int, view: LiveView
) -> None:
    """Run trials; one that crashes fails, and the next ones run, unless all do."""
    from optuna_llmbo.lora.run import TrialCrashed

    crashed: list[FrozenTrial] = []

    def watch(study: optuna.Study, trial: FrozenTrial) -> None:
        if "traceback" not in trial.user_attrs:
            crashed.clear()
            return
        crashed.append(trial)
        errors.print(f"trial #{trial.number} crashed:\n{trial.user_attrs['traceback']}")
        if len(crashed) == _MAX_CRASHES:
            errors.print(f"[bold red]error:[/] {_MAX_CRASHES} trials crashed one after another.")
            raise typer.Exit(1)

    study.optimize(
        objective, n_trials=n_trials, callbacks=[view.on_trial, watch], catch=(TrialCrashed,)
    )


def _enqueue_default(study: optuna.Study, objective: LoRAObjective) -> None:
    """Have the default configuration tried first, unless it is done or waiting."""
    from optuna_llmbo.lora.run import default_trial

    params = objective.default_params
    waiting = (optuna.trial.TrialState.WAITING, optuna.trial.TrialState.RUNNING)
    queued = study.get_trials(deepcopy=False, states=waiting)
    if any(trial.system_attrs.get("fixed_params") == params for trial in queued):
        return
    if default_trial(study) is None:
        study.enqueue_trial(params)
