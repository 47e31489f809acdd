"""The options that say what an objective is, the same in every command that has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import TYPE_CHECKING

import optuna
import typer

from optuna_llmbo.cli import metrics
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.options import ObjectiveOptions
from optuna_llmbo.study.trial_attributes import OPTIONS


if TYPE_CHECKING:
    from optuna_llmbo.lora.objective import LoRAObjective


_NOT_RECORDED = ("folder", "keep", "device")
"""Options that say where an objective runs and what it leaves behind, not what it is."""
_NAMES = (
    *(one.name for one in fields(ObjectiveOptions) if one.name not in _NOT_RECORDED),
    *metrics.OPTION_NAMES[1:],
)


def _source(text: str) -> str | int:
    """Data, or a whole number: so many examples."""
    return int(text) if text.isdecimal() else text


def _proxy(text: str | float) -> float:
    """A share, or a whole number: so many examples. The default comes as the number it is."""
    return int(text) if str(text).isdecimal() else float(text)


Model = Annotated[str, typer.Option(help="Hub id, folder, .gguf file, or 'embedded'.")]
Train = Annotated[
    str, typer.Option(help="Hub id, JSON/JSONL/CSV/Parquet file, or 'stdlib-docstrings'.")
]
Validation = Annotated[
    str | None,
    typer.Option(
        parser=_source,
        metavar="DATA|COUNT",
        help="Data as --train, or a number of examples to split off; default 10%, <= 128.",
    ),
]
Test = Annotated[
    str | None,
    typer.Option(
        parser=_source,
        metavar="DATA|COUNT",
        help="As --validation; no trial reads it, `promote` does, once. Default: none.",
    ),
]
PromptColumn = Annotated[str | None, typer.Option(help="Column with the prompts.")]
ResponseColumn = Annotated[str | None, typer.Option(help="Column with the responses.")]
Proxy = Annotated[
    float,
    typer.Option(
        parser=_proxy,
        metavar="SHARE|COUNT",
        help="What a trial trains on: 0.1 is a tenth of the training examples, 500 so many.",
    ),
]
ProxyBy = Annotated[str, typer.Option(help="random, length, kmeans or a column's name.")]
Metric = Annotated[
    list[str],
    typer.Option(
        help="What the search is on, by name (docs/lora.md); several times for several objectives."
    ),
]
Choices = Annotated[
    str | None,
    typer.Option(help="Of --metric multiple_choice: the answers, comma-separated."),
]
TestsColumn = Annotated[
    str | None,
    typer.Option(help="Of --metric code_pass_at_1: the column with tests, Python source."),
]
AllowExecution = Annotated[
    bool,
    typer.Option(
        "--allow-execution", help="Of --metric code_pass_at_1: generated code may be run here."
    ),
]
Space = Annotated[Path | None, typer.Option(help="TOML file with the search space.")]
Variant = Annotated[str, typer.Option(help="lora, rslora, dora, pissa, olora or lora+.")]
Epochs = Annotated[int, typer.Option(help="Passes over the proxy.")]
MaxLength = Annotated[int, typer.Option(help="Longer examples are left out (tokens).")]
Reports = Annotated[int, typer.Option(help="Evaluations a trial, for the pruner.")]
MicroBatchSize = Annotated[int, typer.Option(help="Most examples in memory at once.")]
Quantization = Annotated[
    str | None, typer.Option(help="4bit or 8bit weights by bitsandbytes, on CUDA. Default: none.")
]
GradientCheckpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
]
Seed = Annotated[int, typer.Option(help="Of the search, the data's split and the training.")]
Device = Annotated[str | None, typer.Option(help="Such as cuda or cpu.")]
Storage = Annotated[str, typer.Option(help="Where Optuna keeps the study.")]
StudyName = Annotated[str, typer.Option(help="The study's name.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only the result, and errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="JSON lines for scripts (docs/lora.md), and nothing else.")
]


def chosen(params: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's parameters those that say what its objective is, fit for a study's record."""
    values = {name: params[name] for name in _NAMES if name in params}
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def objective_of(
    options: Mapping[str, Any], *, allow_execution: bool = False, **more: Any
) -> LoRAObjective:
    """The objective that some options describe.

    Args:
        options: of `chosen`.
        allow_execution: whether generated programs may be run, where the metric runs some.
        more: arguments of `LoRAObjective` that are no part of what it is: device, folder, keep.

    Raises:
        InputError: if the metrics are not what they should be.
    """
    from optuna_llmbo.lora.objective import LoRAObjective

    measures = metrics.measures_of(options, allow_execution=allow_execution)
    about = {name: value for name, value in options.items() if name not in metrics.OPTION_NAMES}
    return LoRAObjective(**{**about, "metric": measures, **more})


def recorded(study: optuna.Study) -> dict[str, Any]:
    """The options that a study was made with.

    Raises:
        InputError: if `optuna-llmbo tune` has not made it.
    """
    options = study.user_attrs.get(OPTIONS)
    if options is None:
        raise InputError(
            f"the study {study.study_name!r} does not say how its objective was made: it was not "
            "made by `optuna-llmbo tune`. Call optuna_llmbo.promote.promote with your objective."
        )
    return dict(options)
