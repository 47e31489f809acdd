"""Train a LoRA adapter on a frozen model, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import math
from typing import Any
import warnings

import numpy as np
import torch

from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_nll
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import by_length
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example


WARM_UP = 0.1  # of all steps
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


@contextlib.contextmanager
def adapter(model: Any, recipe: LoRARecipe, seed: int) -> Iterator[None]:
    """Inside, `model` carries a new adapter on every linear layer but the vocabulary projection.

    Changes `model` in place, and changes it back however the block is left: its modules, its
    weights and its flags are then what they were, bit by bit. The adapter's weights are float32
    whatever the model's are, because small steps would be lost in bfloat16.

    Args:
        model: a causal language model of `transformers`.
        recipe: rank, alpha, dropout and variant.
        seed: of the adapter's initial weights. The caller's random state is left as it was.
    """
    import peft

    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        use_rslora=recipe.variant == "rslora",
        use_dora=recipe.variant == "dora",
        task_type="CAUSAL_LM",
    )
    children = [(m, name, child) for m in model.modules() for name, child in m.named_children()]
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with _seeded(device_of(model), seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            peft.get_peft_model(model, config)
        yield
    finally:
        for parent, name, child in children:
            if getattr(parent, name) is not child:
                setattr(parent, name, child)
        if hasattr(model, "peft_config"):
            del model.peft_config
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
        model.eval()


def training_steps(
    model: Any,
    examples: Sequence[Example],
    recipe: LoRARecipe,
    *,
    epochs: int = 1,
    micro_batch_size: int = 8,
    seed: int = 0,
) -> Iterator[TrainStep]:
    """Train all of `model` that requires a gradient, one optimizer step per item.

    AdamW without weight decay; the rate rises over the first tenth of the steps and falls
    linearly afterwards (see `rate_factor`); gradients are clipped at norm 1. Each step uses
    exactly `recipe.batch_size` examples, whatever the micro-batches are. Every epoch has its own
    order.

    Args:
        model: what `adapter` has put an adapter on.
        examples: of one epoch.
        recipe: batch size and learning rate.
        epochs: passes over the examples.
        micro_batch_size: most examples per forward pass; bounds the memory.
        seed: of the order and of the dropout.

    Raises:
        TrainingDiverged: if the loss or the gradient is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, fused=True)
    total = step_count(len(examples), recipe.batch_size, epochs)
    batches = _batches(examples, recipe.batch_size, seed)
    for number in range(1, total + 1):
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        with _seeded(device_of(model), seed, number):
            loss = accumulate_gradients(model, batch, micro_batch_size)
        norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"the training loss is {loss} and its gradient's norm {float(norm)} at step "
                f"{number} of {total}"
            )
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate_factor(number, total)
        optimizer.step()
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


def rate_factor(step: int, total: int) -> float:
    """Share of the peak learning rate at step 1 ... total; never zero.

    Linear up to 1 over the first tenth of the steps, then linear down. Runs of up to ten steps
    start at the peak.
    """
    warm_up = math.ceil(WARM_UP * total)
    if step < warm_up:
        return step / warm_up
    return (total - step + 1) / (total - warm_up + 1)


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


@contextlib.contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Inside, torch draws from a state that `numbers` determine; outside, as if never entered."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
