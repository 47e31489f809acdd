"""TRL's own YAML, as for `trl sft --config` and `trl dpo --config`: read by TRL's own parser."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import dataclasses
from dataclasses import dataclass
import io
import json
import math
import os
from pathlib import Path
from typing import Any

from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError
from optuna_llmbo.trainer import yaml_text
from optuna_llmbo.trainer.rows import no_bars
from optuna_llmbo.trainer.trl_import import trl


SFT, DPO = "sft", "dpo"
TASKS = (SFT, DPO)

_ONLY_NAMES = ("model_name_or_path", "model_revision", "dataset_name", "datasets")
"""What names the model and the data, which their hashes identify."""
_WHERE_IT_GOES = (
    "output_dir", "run_name", "push_to_hub", "report_to", "project", "resume_from_checkpoint",
    "overwrite_output_dir", "disable_tqdm", "log_level", "log_level_replica", "env",
)  # fmt: skip
_WHERE_IT_GOES_STARTS = ("hub_", "logging_", "save_", "eval_s", "eval_d", "eval_on", "log_")


@dataclass(frozen=True)
class Parsed:
    """What TRL's parser makes of a file: its four groups of arguments."""

    script: Any
    """Where the data are."""
    training: Any
    """`trl.SFTConfig` or `trl.DPOConfig`."""
    model: Any
    """`trl.ModelConfig`: the model and its adapter."""
    mixture: Any
    """Several data sets."""


@dataclass(frozen=True)
class TRLFile:
    """A file with the arguments of one training."""

    path: Path
    task: str
    """One of `TASKS`."""
    given: Mapping[str, Any]
    """The file's content: arguments by name."""
    text: str
    """The file as it is written."""

    def parsed(self, values: Mapping[str, Any] | None = None) -> Parsed:
        """The file as TRL reads it.

        Args:
            values: arguments in the place of the file's, by name.

        Raises:
            InputError: if TRL does not accept the file.
        """
        library = trl()
        config = library.SFTConfig if self.task == SFT else library.DPOConfig
        groups = (library.ScriptArguments, config, library.ModelConfig)
        parser = library.TrlParser(
            (*groups, library.DatasetMixtureConfig), prog=f"trl {self.task}"
        )
        given = {**self.given, **(values or {})}
        given.pop("env", None)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                unknown = parser.set_defaults_with_config(**given)
                if unknown:
                    names = [name[2:] for name in unknown[::2]]
                    raise ValueError(f"unknown arguments: {', '.join(names)}")
                return Parsed(*parser.parse_args_into_dataclasses(args=[]))
        except (SystemExit, ValueError, TypeError, AttributeError, ImportError) as error:
            reason = said.getvalue().strip().splitlines()[-1:] or [str(error)]
            raise InputError(
                f"{str(self.path)!r} is no file for `trl {self.task}`: {reason[0]}"
            ) from error

    def set_environment(self) -> None:
        """Set the environment variables that the file asks for under `env`, as TRL does."""
        for name, value in (self.given.get("env") or {}).items():
            os.environ[str(name)] = str(value)

    @property
    def settings(self) -> dict[str, Any]:
        """What the file says of the training, not of where its results go or what names its model
        and data; plain values."""
        kept = {
            name: value
            for name, value in self.given.items()
            if name not in (*_ONLY_NAMES, *_WHERE_IT_GOES)
            and not name.startswith(_WHERE_IT_GOES_STARTS)
        }
        plain: dict[str, Any] = json.loads(json.dumps(kept, sort_keys=True, default=str))
        return plain

    def with_values(self, values: Mapping[str, Any]) -> str:
        """The file with other values, as YAML; everything else in it stays as it is written.

        Args:
            values: arguments by name.
        """
        return yaml_text.with_values(self.text, values)


def read_trl_file(path: str | os.PathLike[str], task: str | None = None) -> TRLFile:
    """Read a file and find out which script it is for.

    Args:
        path: path of a YAML file.
        task: "sft" or "dpo"; None: as the file's keys say, or else its name.

    Raises:
        InputError: if it cannot be read, is not accepted by TRL, or its script is not clear.
    """
    place = Path(path).expanduser()
    try:
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"TRL's file {str(place)!r} cannot be read ({error.strerror}): give the path of the "
            "YAML file that you give `trl sft --config`."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"TRL's file {str(place)!r} is not valid YAML: {error}") from error
    return parse_trl_file(text, place, task)


def parse_trl_file(text: str, place: Path, task: str | None = None) -> TRLFile:
    """As `read_trl_file`, of a text and the path that it was read from.

    Raises:
        InputError: as there.
    """
    import yaml

    if task is not None:
        check_choice("trl_task", task, TASKS)
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"TRL's file {str(place)!r} is not valid YAML: {error}") from error
    if not isinstance(given, dict):
        raise InputError(f"TRL's file {str(place)!r} must have arguments by name, such as lora_r.")
    given = {str(name): value for name, value in given.items()}
    return TRLFile(place, task or _task_of(given, place), given, text)


def fields_of(config: Any) -> set[str]:
    """The names of the arguments of one of TRL's configurations."""
    return {field.name for field in dataclasses.fields(config)}


def _task_of(given: Mapping[str, Any], path: Path) -> str:
    library = trl()
    sft, dpo = fields_of(library.SFTConfig), fields_of(library.DPOConfig)
    only = {
        SFT: sorted(given.keys() & (sft - dpo)),
        DPO: sorted(given.keys() & (dpo - sft)),
    }
    shown = [task for task in TASKS if only[task]]
    named = [task for task in TASKS if task in path.stem.lower()]
    found = shown or named
    if len(found) == 1:
        return found[0]
    why = (
        f"it has {only[SFT][0]!r}, which is for SFT, and {only[DPO][0]!r}, which is for DPO"
        if len(shown) > 1
        else "neither its keys nor its name say it"
    )
    raise InputError(
        f"{str(path)!r}: whether it is for `trl sft` or for `trl dpo` is not clear: {why}. Say "
        "it with --trl-task sft or --trl-task dpo (task= in Python)."
    )


def data_of(file: TRLFile) -> tuple[Any, Any | None]:
    """The data that a file names, loaded as TRL's scripts do.

    Returns:
        The training split, and the test split if there is one.

    Raises:
        InputError: if the file names none, or they cannot be loaded or are streamed.
    """
    import datasets

    parsed = file.parsed()
    script, mixture = parsed.script, parsed.mixture
    if script.dataset_streaming or mixture.streaming:
        raise InputError(
            f"{str(file.path)!r} streams its data, of which no rows can be held out: leave "
            "dataset_streaming out."
        )
    if not mixture.datasets and not script.dataset_name:
        raise InputError(f"{str(file.path)!r} names no data: give it dataset_name or datasets.")
    train, test = "train", "test"
    try:
        with no_bars():
            if mixture.datasets:
                parts = trl().get_dataset(mixture)
            else:
                parts = datasets.load_dataset(script.dataset_name, name=script.dataset_config)
        if not mixture.datasets:
            train, test = script.dataset_train_split, script.dataset_test_split
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:400]
        raise InputError(
            f"cannot load the data that {str(file.path)!r} names: {reason}"
        ) from error
    if train not in parts:
        raise InputError(
            f"the data of {str(file.path)!r} have no split {train!r}, only {', '.join(parts)}: "
            "name it as dataset_train_split."
        )
    return parts[train], parts[test] if test in parts and test != train else None


def warmup_ratio(training: Any, steps: int) -> float:
    """The share of a training's steps over which the rate rises.

    Args:
        training: a configuration of TRL; below 1, its `warmup_steps` is a share already.
        steps: of the whole training, on all data.
    """
    warmup = float(training.warmup_steps)
    ratio = warmup if warmup < 1 else warmup / max(steps, 1)
    return min(ratio, math.nextafter(1.0, 0.0))
