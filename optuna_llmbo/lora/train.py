"""Train an adapter on a frozen model, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
import torch

from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_nll
from optuna_llmbo.lora.optimizer import Optimizer
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import seeded
from optuna_llmbo.lora.tokens import by_length
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example


MAX_GRADIENT_NORM = 1.0


class TrainingDiverged(ArithmeticError):
    """The training loss or the gradient is not finite."""


@dataclass(frozen=True)
class TrainStep:
    """One optimizer step that was made."""

    number: int
    """From 1."""
    total: int
    """Steps of the whole run."""
    loss: float
    """Nats per response token of this step's examples, before the step."""
    tokens: int
    """Tokens of this step's examples, prompts included and padding not."""


def step_count(n_examples: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of a run; what is left over after the last whole batch is not trained on."""
    return epochs * n_examples // batch_size


def training_steps(
    model: Any,
    examples: Sequence[Example],
    recipe: LoRARecipe,
    *,
    micro_batch_size: int = 8,
    seed: int = 0,
) -> Iterator[TrainStep]:
    """Train all of `model` that requires a gradient, one optimizer step per item.

    Gradients are clipped at norm 1. Each step uses exactly `recipe.batch_size` examples, whatever
    the micro-batches are. Every epoch has its own order.

    Args:
        model: what `adapter` has put an adapter on.
        examples: of one epoch.
        recipe: what to train with.
        micro_batch_size: most examples per forward pass; bounds the memory.
        seed: of the order and of the dropout.

    Raises:
        TrainingDiverged: if the loss or the gradient is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = step_count(len(examples), recipe.batch_size, recipe.epochs)
    optimizer = Optimizer(model, recipe, total)
    batches = _batches(examples, recipe.batch_size, seed)
    for number in range(1, total + 1):
        batch = next(batches)
        optimizer.zero_grad()
        with seeded(device_of(model), seed, number):
            loss = accumulate_gradients(model, batch, micro_batch_size)
        norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"the training loss is {loss} and its gradient's norm {float(norm)} at step "
                f"{number} of {total}"
            )
        optimizer.step(number)
        yield TrainStep(number, total, loss, sum(map(len, batch)))


def accumulate_gradients(model: Any, batch: Sequence[Example], micro_batch_size: int) -> float:
    """Add the gradient of a batch's mean loss to the parameters' `grad`.

    Each micro-batch is divided by the response tokens of the whole batch, so that the gradient
    does not depend on where the batch is cut.

    Returns:
        The loss in nats per response token.
    """
    model.train()
    tokens = sum(example.n_response for example in batch)
    total = 0.0
    for group in by_length(batch, micro_batch_size):
        loss = response_nll(model, collate(group, device_of(model))) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        probes = [getattr(torch.cpu, name, None) for name in names]
        fast = device.type == "cpu" and any(probe() for probe in probes if probe is not None)
    return torch.bfloat16 if fast else torch.float32


def _batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Batches of exactly `size`, from one shuffled epoch after another, without end."""
    rng = np.random.default_rng([seed, 2])
    batch: list[Example] = []
    while True:
        for i in rng.permutation(len(examples)):
            batch.append(examples[i])
            if len(batch) == size:
                yield batch
                batch = []
