"""A trial's state on disk, to resume after a crash, and its adapter."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import copy
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter_state
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.model_card import short_card
from optuna_llmbo.lora.recipe import LoRARecipe


CHECKPOINT = "checkpoint.pt"
ADAPTER = "adapter"


class TrialFolders:
    """One folder per trial, inside one that all workers of a study may share.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser().absolute()

    def of(self, number: int) -> Path:
        """The folder of a trial."""
        return self._folder / f"trial-{number}"

    def save(self, number: int, about: dict[str, Any], state: dict[str, Any]) -> None:
        """Save a trial's state atomically, replacing an earlier one.

        Args:
            number: the trial's number.
            about: what is trained, in plain values.
            state: state of the training.

        Raises:
            InputError: if it cannot be written: the disk is full, or permission is denied.
        """
        save_whole(self.of(number) / CHECKPOINT, {"about": about, "state": state})

    def load(
        self, numbers: Sequence[int], about: dict[str, Any], *, device: torch.device
    ) -> dict[str, Any] | None:
        """The state of the latest of these trials that has one for the same training, or None.

        A state that cannot be read, or belongs to another study's trial of that number, is
        ignored: the trial starts over, which costs only time.
        """
        for number in reversed(numbers):
            with contextlib.suppress(Exception):  # a truncated file may raise anything
                kept: dict[str, Any] = torch.load(
                    self.of(number) / CHECKPOINT, map_location=device, weights_only=True
                )
                if kept["about"] == about:
                    state: dict[str, Any] = kept["state"]
                    return state
        return None

    def forget(self, numbers: Sequence[int]) -> None:
        """Remove the states of trials that have ended; their adapters stay."""
        for number in numbers:
            with contextlib.suppress(OSError):
                (self.of(number) / CHECKPOINT).unlink()
                self.of(number).rmdir()  # fails if the adapter is there

    def save_adapter(self, number: int, model: Any, recipe: LoRARecipe, base: Base) -> Path:
        """Save the adapter attached to a model in peft's format; see `save_adapter`.

        Returns:
            Its folder, an absolute path.

        Raises:
            InputError: if it cannot be written.
        """
        folder = self.of(number) / ADAPTER
        with writing(folder):
            save_adapter(model, recipe, base, folder)
        return folder

    def keep(self, numbers: Sequence[int]) -> None:
        """Remove the adapters of all other trials."""
        wanted = {self.of(number) for number in numbers}
        for folder in self._folder.glob(f"trial-*/{ADAPTER}"):
            if folder.parent not in wanted:
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and check that files can be made in it.

    Raises:
        InputError: if not.
    """
    path = Path(folder).expanduser()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


def save_whole(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically, replacing an earlier one.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def save_adapter(model: Any, recipe: LoRARecipe, base: Base, folder: Path) -> None:
    """Write the adapter attached to a model to a folder that peft and transformers can load alone.

    It holds safetensors, peft's configuration, the tokenizer with its chat template, and a card
    that says how to load them.

    An adapter that started from a part of the weights ("pissa", "olora") is written as the
    difference it makes, of twice the rank, so that it fits the unchanged base model.

    Args:
        model: inside `adapter.adapter`.
        recipe: recipe of the adapter.
        base: the base model, for the configuration and the card.
        folder: created, or replaced if it exists.
    """
    from safetensors.torch import save_file

    state = adapter_state(model)
    config = copy.deepcopy(model.peft_config["default"])
    start = getattr(model, "adapter_start", None)
    if start is not None:
        state = difference(state, start)
        config.r, config.lora_alpha = 2 * recipe.rank, 2 * recipe.lora_alpha
        config.init_lora_weights = True
    config.base_model_name_or_path = base.location
    config.inference_mode = True
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    config.save_pretrained(new)
    base.tokenizer.save_pretrained(new)
    (new / "README.md").write_text(short_card(base), encoding="utf-8")
    # cloned, because tied modules share their memory, which the format does not
    tensors = {f"base_model.model.{n}": t.contiguous().cpu().clone() for n, t in state.items()}
    save_file(tensors, new / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)


def difference(
    state: dict[str, torch.Tensor], start: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """B A - B0 A0 as one product: [B, -B0] [A; A0]; biases and whole modules as they are."""
    made = dict(state)
    for name, value in state.items():
        if "lora_A" in name:
            made[name] = torch.cat([value, start[name]], dim=0)
        elif "lora_B" in name:
            made[name] = torch.cat([value, -start[name]], dim=1)
    return made


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn write errors (disk full, permission denied) into InputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save's error on a full disk is the second
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"cannot write {path}: {reason}. Make room, or give another folder; what is finished "
            "is kept."
        ) from error
