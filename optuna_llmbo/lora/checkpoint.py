"""A trial's state on disk, to resume after a crash, and its adapter."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import shutil
from typing import Any

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import peft_config
from optuna_llmbo.lora.recipe import LoRARecipe


CHECKPOINT = "checkpoint.pt"
ADAPTER = "adapter"


class TrialFolders:
    """One folder per trial, inside one that all workers of a study may share.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()

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

    def save_adapter(self, number: int, model: Any, recipe: LoRARecipe, base: str) -> Path:
        """Save the adapter attached to a model in peft's format.

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


def save_whole(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically, replacing an earlier one.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def save_adapter(model: Any, recipe: LoRARecipe, base: str, folder: Path) -> None:
    """Write the adapter attached to a model to a folder: safetensors and peft's configuration.

    An adapter that started from a part of the weights ("pissa", "olora") is written as the
    difference it makes, of twice the rank, so that it fits the unchanged base model.

    Args:
        model: inside `adapter.adapter`.
        recipe: recipe of the adapter.
        base: the base model's hub id or path, for the configuration.
        folder: created, or replaced if it exists.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    config = peft_config(model, recipe)
    start = getattr(model, "adapter_start", None)
    if start is not None:
        state = _difference(state, start)
        config.r, config.lora_alpha = 2 * recipe.rank, 2 * recipe.lora_alpha
        config.init_lora_weights = True
    config.base_model_name_or_path = base
    config.inference_mode = True
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    config.save_pretrained(new)
    tensors = {f"base_model.model.{name}": t.contiguous().cpu() for name, t in state.items()}
    save_file(tensors, new / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)


def _difference(
    state: dict[str, torch.Tensor], start: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """B A - B0 A0 as one product: [B, -B0] [A; A0]."""
    return {
        name: torch.cat([value, start[name]], dim=0)
        if "lora_A" in name
        else torch.cat([value, -start[name]], dim=1)
        for name, value in state.items()
    }


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn write errors (disk full, permission denied) into InputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save's error on a full disk is the second
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"cannot write {path}: {reason}. The study holds all finished trials; make room, or "
            "give another folder, and start again: it goes on."
        ) from error
