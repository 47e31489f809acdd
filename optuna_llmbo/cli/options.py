"""Options shared by the commands, in groups, and the objective that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
import os
from pathlib import Path
import re
from typing import Annotated
from typing import Any
from typing import TYPE_CHECKING

import typer

from optuna_llmbo.cli import metrics
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.duration import seconds_of
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.study.trial_attributes import OPTIONS
from optuna_llmbo.study.trial_attributes import WORKING_FOLDER


if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    import torch

    from optuna_llmbo.lora.objective import LoRAObjective


DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Types of the base model's weights, as torch names them; auto: what the hardware is fast at."""

_NOT_RECORDED = ("folder", "keep", "device", "trial_timeout")
"""Options that do not determine an objective's results: a study does not record them."""
_NAMES = (
    *(one.name for one in fields(ObjectiveOptions) if one.name not in _NOT_RECORDED),
    *metrics.OPTION_NAMES[1:],
)


_PLACES = ("model", "train", "validation", "test")
"""Options that may be paths."""


MODEL_AND_DATA, SEARCH, TRAINING, OUTPUT = "Model and data", "Search", "Training", "Output"
"""Groups of options in `--help`."""


class SamplerName(StrEnum):
    """Sampler that chooses the configurations."""

    llmbo = "llmbo"
    tpe = "tpe"
    gp = "gp"
    random = "random"


class PrunerName(StrEnum):
    """Pruner that stops hopeless trials."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


class TrackerName(StrEnum):
    """Tracker that is told of every trial."""

    mlflow = "mlflow"
    wandb = "wandb"
    tensorboard = "tensorboard"


def source(text: str) -> str | float:
    """Parse data, or a number or fraction of examples."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return text
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _proxy(text: str | float) -> float:
    """Parse a fraction, or a number of examples; typer passes the default as the number it is."""
    return int(text) if str(text).isdecimal() else float(text)


def _option(panel: str, help: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


Model = Annotated[str, _option(MODEL_AND_DATA, "Hub id, folder, .gguf file, or 'embedded'.")]
Train = Annotated[
    str,
    _option(
        MODEL_AND_DATA,
        "JSON/JSONL/CSV/Parquet file, folder of such files, hub id (NAME, NAME@SPLIT, "
        "NAME:CONFIGURATION@SPLIT), or 'stdlib-docstrings'.",
    ),
]
TunedModel = Annotated[
    str | None, _option(MODEL_AND_DATA, "Hub id, folder, .gguf file, or 'embedded'.", "--model")
]
TunedTrain = Annotated[
    str | None,
    _option(
        MODEL_AND_DATA,
        "JSON/JSONL/CSV/Parquet file, folder of such files, hub id (NAME, NAME@SPLIT, "
        "NAME:CONFIGURATION@SPLIT), or 'stdlib-docstrings'.",
        "--train",
    ),
]
Trl = Annotated[
    Path | None,
    _option(
        MODEL_AND_DATA,
        "In place of --model and --train: a YAML file of `trl sft --config` or `trl dpo "
        "--config`. TRL trains; what the space does not name is the file's (docs/trainer.md).",
    ),
]
TrlTask = Annotated[
    str | None,
    _option(
        MODEL_AND_DATA, "sft or dpo, where the file of --trl does not say it.", metavar="sft|dpo"
    ),
]
Validation = Annotated[
    str | None,
    _option(
        MODEL_AND_DATA,
        "Data as --train, or how much of it to split off: examples (200) or a fraction (0.1). "
        "Default: 10%, at most 128.",
        parser=source,
        metavar="DATA|COUNT|SHARE",
    ),
]
Test = Annotated[
    str | None,
    _option(
        MODEL_AND_DATA,
        "As --validation; read by no trial, and once by `promote`. Default: none.",
        parser=source,
        metavar="DATA|COUNT|SHARE",
    ),
]
PromptColumn = Annotated[str | None, _option(MODEL_AND_DATA, "Column with the prompts.")]
ResponseColumn = Annotated[str | None, _option(MODEL_AND_DATA, "Column with the responses.")]
IgnoreColumns = Annotated[
    list[str],
    _option(
        MODEL_AND_DATA,
        "Column that is not to be read though it looks like a part of the examples; repeat for "
        "several.",
        "--ignore-column",
    ),
]
Proxy = Annotated[
    float,
    _option(
        MODEL_AND_DATA,
        "Training data per trial: a fraction (0.1) or a number of examples (500).",
        parser=_proxy,
        metavar="SHARE|COUNT",
    ),
]
ProxyBy = Annotated[
    str,
    _option(MODEL_AND_DATA, "How to draw the proxy: random, length, kmeans or a column's name."),
]
MaxLength = Annotated[
    int, _option(MODEL_AND_DATA, "Most tokens of an example; see --truncation for longer ones.")
]
Truncation = Annotated[
    str,
    _option(MODEL_AND_DATA, "What to do with longer examples: drop, or cut at the left or right."),
]
ChatTemplate = Annotated[
    Path | None,
    _option(MODEL_AND_DATA, "Jinja file that writes turns as text. Default: the tokenizer's own."),
]
TrainOn = Annotated[
    str,
    _option(MODEL_AND_DATA, "Which of the assistant's turns to train on: all, or the last one."),
]
Metric = Annotated[
    list[str],
    _option(SEARCH, "Metric to optimize (docs/lora.md); repeat for several objectives."),
]
Choices = Annotated[
    str | None,
    _option(SEARCH, "For --metric multiple_choice: the answers, comma-separated."),
]
TestsColumn = Annotated[
    str | None,
    _option(SEARCH, "For --metric code_pass_at_1: the column with tests, Python source."),
]
AllowExecution = Annotated[
    bool,
    _option(
        SEARCH,
        "For --metric code_pass_at_1: allow running generated code on this machine.",
        "--allow-execution",
    ),
]
Space = Annotated[Path | None, _option(SEARCH, "TOML file with the search space.")]
Trials = Annotated[int, _option(SEARCH, "Total finished trials the study should have.", min=1)]
Timeout = Annotated[
    str | None,
    _option(
        SEARCH,
        "Begin no trial after this time, such as 90m or 2h; the running one ends by itself, "
        "unless --stop-at-timeout is given. Default: none.",
        metavar="DURATION",
    ),
]
StopAtTimeout = Annotated[
    bool,
    _option(
        SEARCH,
        "Stop running trials at --timeout: they fail as interrupted, and the same command goes on "
        "with others.",
        "--stop-at-timeout",
    ),
]
TrialTimeout = Annotated[
    str | None,
    _option(
        SEARCH,
        "Stop a trial that takes longer than this, such as 10m; it counts as infeasible. Default: "
        "none.",
        metavar="DURATION",
    ),
]
Parallel = Annotated[
    int,
    _option(TRAINING, "Trials to train at once on the device, sharing the base model.", min=1),
]
Sampler = Annotated[SamplerName, _option(SEARCH, "Sampler that chooses the configurations.")]
Pruner = Annotated[PrunerName, _option(SEARCH, "Pruner that stops hopeless trials.")]
_READ = (
    "Language model that reads the choices of parameters without order, or 'none'. Default: one "
    "that is on this machine, where there are 13 or more of them."
)
Llm = Annotated[str | None, _option(SEARCH, _READ)]
ReadingModel = Annotated[str | None, _option(SEARCH, _READ, "--llm")]
Heartbeat = Annotated[
    int,
    _option(
        SEARCH,
        "Seconds between heartbeats; a trial silent for two of them is retried.",
        min=1,
    ),
]
Seed = Annotated[
    int,
    _option(SEARCH, "Seed of the search, the data split and the training.", min=0, max=2**32 - 1),
]
Variant = Annotated[str, _option(TRAINING, "lora, rslora, dora, pissa, olora or lora+.")]
Epochs = Annotated[int, _option(TRAINING, "Passes over the proxy.")]
Reports = Annotated[int, _option(TRAINING, "Evaluations per trial, for the pruner.")]
LoadBest = Annotated[
    bool,
    _option(
        TRAINING,
        "Let a trial's best report count and keep its adapter, instead of the last one.",
        "--load-best-model-at-end",
    ),
]
MicroBatchSize = Annotated[int, _option(TRAINING, "Maximum number of examples in memory at once.")]
Quantization = Annotated[
    str | None,
    _option(TRAINING, "4bit or 8bit weights by bitsandbytes, on CUDA. Default: none."),
]
GradientCheckpointing = Annotated[
    bool,
    _option(TRAINING, "Less memory, about a third more time.", "--gradient-checkpointing"),
]
Device = Annotated[
    str | None, _option(TRAINING, "Such as cuda or cpu. Default: CUDA, if available.")
]
Dtype = Annotated[
    str,
    _option(
        TRAINING,
        "Type of the base model's weights: float32, bfloat16, or auto for the hardware's.",
        metavar="TYPE",
    ),
]
Folder = Annotated[
    str | None,
    _option(
        OUTPUT,
        "Where to save the state of trials, to resume after a crash, and the best adapters.",
    ),
]
Keep = Annotated[int, _option(OUTPUT, "Number of adapters to keep in --folder.", min=0)]
Track = Annotated[
    list[TrackerName],
    _option(
        OUTPUT,
        "Tell a tracker of every trial, offline unless its environment says otherwise; repeat for "
        "several.",
    ),
]
TrackTo = Annotated[
    Path | None,
    _option(
        OUTPUT,
        "Folder that trackers write to. Default: tracking, or where their environment says.",
        metavar="FOLDER",
    ),
]
Storage = Annotated[
    str,
    _option(OUTPUT, "Where the study is: a database URL, redis://..., or a .log or .db file."),
]
NewStudy = Annotated[str, _option(OUTPUT, "Name of the study; an existing one is resumed.")]
StudyName = Annotated[str, _option(OUTPUT, "Name of the study.")]
ProxyCheckFolder = Annotated[
    Path | None,
    _option(OUTPUT, "The --out of `proxy-check`, to show its result too.", "--proxy-check"),
]
Quiet = Annotated[bool, _option(OUTPUT, "Print only the result and errors.", "--quiet")]
Json = Annotated[
    bool,
    _option(OUTPUT, "Print JSON lines for scripts (docs/lora.md), and nothing else.", "--json"),
]


def seconds_or_none(duration: str | None) -> float | None:
    """The seconds of a duration that may be missing.

    Raises:
        InputError: if it is none.
    """
    return None if duration is None else seconds_of(duration)


def budget_of(trials: int, timeout: str | None, stops: bool, *, at_once: int = 1) -> Budget:
    """The budget that the options give.

    Raises:
        InputError: if the timeout is no duration, or is to be stopped at and missing.
    """
    if stops and timeout is None:
        raise InputError("--stop-at-timeout: expected a --timeout to stop at, got none.")
    return Budget(trials, seconds_or_none(timeout), stops, at_once)


def check_sampler(study: str, sampler: SamplerName, llm: str | None) -> None:
    """Check the study's name, and that the sampler reads what it is given.

    Raises:
        InputError: if the name is empty, or a language model is named that nothing reads.
    """
    if not study.strip():
        raise InputError("--study: expected a name, got an empty one.")
    if llm is not None and sampler is not SamplerName.llmbo:
        raise InputError(
            f"--llm is read by --sampler llmbo only, not by --sampler {sampler.value}: leave one "
            "of the two out."
        )


def chosen(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a command that define its objective, as a study records them."""
    values = {name: params[name] for name in _NAMES if name in params}
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def to_record(
    options: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The options as a study records them, for commands that are run later and elsewhere.

    They hold the space and the chat template themselves instead of their files, which may change
    or go away, and the folder to which paths are relative.
    """
    from optuna.distributions import distribution_to_json

    from optuna_llmbo.lora.chat_template import read_template

    space = {name: distribution_to_json(one) for name, one in distributions.items()}
    held: dict[str, Any] = {"space": space}
    if (template := options.get("chat_template")) is not None:
        held["chat_template"] = read_template(template)
    return {**options, **held, WORKING_FOLDER: os.getcwd()}


def space_of(options: Mapping[str, Any]) -> Any:
    """The space as `LoRAObjective` takes it."""
    from optuna.distributions import json_to_distribution

    space = options.get("space")
    if not isinstance(space, Mapping):
        return space
    return {name: json_to_distribution(text) for name, text in space.items()}


def objective_of(
    options: Mapping[str, Any], *, allow_execution: bool = False, **more: Any
) -> LoRAObjective:
    """The objective that the options describe.

    Args:
        options: options as returned by `chosen`.
        allow_execution: whether the metric may run generated programs.
        more: options of `LoRAObjective` that are not recorded: device, folder, keep,
            trial_timeout.

    Raises:
        InputError: for a mistake in the metrics.
    """
    from optuna_llmbo.lora.objective import LoRAObjective

    measures = metrics.measures_of(options, allow_execution=allow_execution)
    about = {name: value for name, value in options.items() if name not in metrics.OPTION_NAMES}
    ignored = list(about.get("ignore_columns", ()))
    if (tests := options.get("tests_column")) is not None:
        ignored.append(tests)  # the metric reads it
    given = {
        "space": space_of(options),
        "metric": measures,
        "ignore_columns": ignored,
        "dtype": _dtype(options.get("dtype", "auto")),
    }
    return LoRAObjective(**{**about, **given, **more})


def _dtype(named: str) -> torch.dtype | None:
    import torch

    check_choice("dtype", named, DTYPES)
    return None if named == "auto" else getattr(torch, named)


def recorded(study: optuna.Study) -> dict[str, Any]:
    """The options that a study was created with; paths are found from here, or from the folder
    that `tune` was run in.

    Raises:
        InputError: if it was not created by `optuna-llmbo tune`.
    """
    options = study.user_attrs.get(OPTIONS)
    if options is None:
        raise InputError(
            f"the study {study.study_name!r} does not say how its objective was made: it was not "
            "made by `optuna-llmbo tune`. Call optuna_llmbo.promote.promote with your objective."
        )
    folder = options.get(WORKING_FOLDER, "")
    found = {name: value for name, value in options.items() if name != WORKING_FOLDER}
    return found | {name: _located(found[name], folder) for name in _PLACES if name in found}


def _located(value: Any, folder: str) -> Any:
    """A path as it is, or from the folder that it was relative to; anything else as it is."""
    if not isinstance(value, str) or Path(value).exists():
        return value
    there = Path(folder) / Path(value).expanduser()
    return str(there) if there.exists() else value


def model_named(llm: str | None) -> str | None:
    """What the sampler takes: None in place of "none", and "auto" where nothing is named."""
    return None if llm == "none" else llm or "auto"
