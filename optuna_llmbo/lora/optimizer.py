"""The optimizer of a run and its learning rate at each step."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import LoRARecipe


class Optimizer:
    """Takes the steps of a run with the recipe's optimizer, learning rates, schedule and decay.

    B and the vectors trained beside it (DoRA's magnitude, biases) have `lr_ratio` times the rate
    of A (LoRA+, as in peft's own optimizer). Adapters of embeddings and copies of whole modules
    have the rate of A. One-dimensional parameters have no weight decay.

    Args:
        model: its parameters that require a gradient are trained.
        recipe: what to train with.
        total: number of steps of the run.

    Raises:
        InputError: if the optimizer is not installed, or does not support this device.
    """

    def __init__(self, model: torch.nn.Module, recipe: LoRARecipe, total: int) -> None:
        self._recipe, self._total = recipe, total
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in trained:
            flat = parameter.dim() == 1
            groups.setdefault(("lora_B" in name or flat, flat), []).append(parameter)
        self._ratios = [recipe.lr_ratio if is_fast else 1.0 for is_fast, _ in groups]
        make = _factory(recipe.optimizer, trained[0][1].device)
        self._optimizer = make(
            [
                {"params": parameters, "weight_decay": 0.0 if flat else recipe.weight_decay}
                for (_, flat), parameters in groups.items()
            ]
        )

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self, number: int) -> None:
        """Take step `number`, counted from 1, at its learning rate."""
        rate = self._recipe.learning_rate * rate_factor(self._recipe, number, self._total)
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The state that `load_state_dict` restores."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state saved by another run of the same recipe."""
        self._optimizer.load_state_dict(state)


def rate_factor(recipe: LoRARecipe, step: int, total: int) -> float:
    """Fraction of the peak learning rate at step 1 ... total; never zero.

    Rises linearly to 1 over the warm-up, then follows the schedule: to zero at the step after the
    last one, or constant. A warm-up of less than two steps starts at the peak.
    """
    warm_up = math.ceil(recipe.warmup_ratio * total)
    if step < warm_up:
        return step / warm_up
    left = (total - step + 1) / (total - max(1, warm_up) + 1)
    if recipe.schedule == "constant":
        return 1.0
    return left if recipe.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def check_optimizer(name: str, device: torch.device) -> None:
    """Check that an optimizer is installed and works on a device.

    Raises:
        InputError: if it does not.
    """
    make = _factory(name, device)
    try:
        make([{"params": [torch.nn.Parameter(torch.zeros(1, device=device))]}])
    except RuntimeError as error:
        raise InputError(
            f"optimizer={name!r} does not work on {device}: {error} Choose another."
        ) from error


def _factory(name: str, device: torch.device) -> Callable[[Any], torch.optim.Optimizer]:
    if name == "adamw":
        return lambda groups: torch.optim.AdamW(groups, fused=True)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return lambda groups: Adafactor(groups, lr=1.0, scale_parameter=False, relative_step=False)
    if device.type != "cuda":
        raise InputError(
            f"optimizer={name!r} needs a CUDA device, and the model is on {device}: choose "
            "'adamw' or 'adafactor'."
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InputError(
            f"optimizer={name!r} needs the package bitsandbytes: pip install bitsandbytes."
        ) from error
    return lambda groups: AdamW8bit(groups)
