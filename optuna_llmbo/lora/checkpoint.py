"""A trial's state on disk, so that it goes on where a crash has stopped it; and its adapter."""

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
    """A folder for each trial, in one that all workers of a study may share.

    Args:
        folder: is made if it is not there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()

    def of(self, number: int) -> Path:
        """The folder of a trial."""
        return self._folder / f"trial-{number}"

    def save(self, number: int, about: dict[str, Any], state: dict[str, Any]) -> None:
        """Keep a trial's state in place of an earlier one, all of it or nothing.

        Args:
            number: of the trial.
            about: what is trained: plain values.
            state: how far it is.

        Raises:
            InputError: if it cannot be written: the disk is full, or is not ours to write to.
        """
        save_whole(self.of(number) / CHECKPOINT, {"about": about, "state": state})

    def load(
        self, numbers: Sequence[int], about: dict[str, Any], *, device: torch.device
    ) -> dict[str, Any] | None:
        """The state of the latest of some trials that has one of the same training, or None.

        One that cannot be read, or is of another study's trial of that number, is as none: the
        trial starts anew, which costs time and nothing else.
        """
        for number in reversed(numbers):
            with contextlib.suppress(Exception):  # a torn file fails in any way
                kept: dict[str, Any] = torch.load(
                    self.of(number) / CHECKPOINT, map_location=device, weights_only=True
                )
                if kept["about"] == about:
                    state: dict[str, Any] = kept["state"]
                    return state
        return None

    def forget(self, numbers: Sequence[int]) -> None:
        """Remove the states of trials that are over; their adapters stay."""
        for number in numbers:
            with contextlib.suppress(OSError):
                (self.of(number) / CHECKPOINT).unlink()
                self.of(number).rmdir()  # refused where the adapter is

    def save_adapter(self, number: int, model: Any, recipe: LoRARecipe, base: str) -> Path:
        """Keep the adapter that a model carries, as peft loads it onto the base model.

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
    """Write a state in place of an earlier one, all of it or nothing.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def save_adapter(model: Any, recipe: LoRARecipe, base: str, folder: Path) -> None:
    """Write the adapter that a model carries to a folder: safetensors and peft's configuration.

    An adapter that started at a part of the weights ("pissa", "olora") is written as the
    difference it makes, of twice the rank, so that it fits the base model as it is.

    Args:
        model: inside `adapter.adapter`.
        recipe: of the adapter.
        base: the base model's hub id or path, for the configuration.
        folder: is made, and what was in it replaced.
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
    """Inside, what a disk says becomes a clear error: it is full, or not ours to write to."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError when the disk is full
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"cannot write {path}: {reason}. The study holds all finished trials; make room, or "
            "give another folder, and start again: it goes on."
        ) from error
