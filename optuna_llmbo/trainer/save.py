"""Save what a trainer has trained, as a folder that peft and transformers can load alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
import shutil
from typing import Any

import torch
from transformers import TrainerCallback

from optuna_llmbo.lora.adapter import START_AT_THE_WEIGHTS
from optuna_llmbo.lora.checkpoint import difference
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.model_card import short_card


class Start(TrainerCallback):
    """Keeps where an adapter starts that takes a part out of the base's weights."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] | None = None
        """The adapter's weights by peft's names; None if it takes nothing out, or before the
        training."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Keep the state."""
        if starts_at_the_weights(model):
            self.state = adapter_start(model)


def starts_at_the_weights(model: Any) -> bool:
    """Whether a model has an adapter that took a part out of the base's weights."""
    config = getattr(model, "peft_config", {}).get("default")
    init = getattr(config, "init_lora_weights", None)
    return isinstance(init, str) and init.startswith(START_AT_THE_WEIGHTS)


def adapter_start(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the adapter's weights by peft's names."""
    import peft

    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def trained_model(trainer: Any) -> Any:
    """The model of a trainer, without what was wrapped around it for the training."""
    return trainer.accelerator.unwrap_model(trainer.model)


def save_trained(
    trainer: Any,
    folder: Path,
    base: Base | None,
    start: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a trainer's model, an adapter alone where it has one, with its tokenizer.

    Args:
        trainer: after its training.
        folder: created, or replaced if it exists.
        base: the base model, for the card; None: no card of ours.
        start: where the adapter started, if that is a part of the base's weights: it is written as
            the difference it makes, of twice the rank, so that it fits the unchanged base model.
    """
    model = trained_model(trainer)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    model.save_pretrained(new)
    if start is not None:
        _make_difference(new, start)
    if trainer.processing_class is not None:
        trainer.processing_class.save_pretrained(new)
    if base is not None:
        (new / "README.md").write_text(short_card(base), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)


def _make_difference(folder: Path, start: dict[str, torch.Tensor]) -> None:
    """Turn a saved adapter into the difference from where it started, in place."""
    from safetensors.torch import load_file
    from safetensors.torch import save_file

    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    state = {n: value.contiguous() for n, value in difference(load_file(weights), start).items()}
    save_file(state, weights, metadata={"format": "pt"})
    config = json.loads(settings.read_text(encoding="utf-8"))
    # of twice the rank, with the same factor: alpha / r, or alpha / sqrt(r)
    times = math.sqrt(2) if config.get("use_rslora") else 2
    config["init_lora_weights"] = True
    config["r"] *= 2
    config["lora_alpha"] *= times
    for name, factor in (("rank_pattern", 2), ("alpha_pattern", times)):
        config[name] = {key: factor * n for key, n in (config.get(name) or {}).items()}
    settings.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
