"""Train an adapter on a frozen model, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
import torch

from optuna_llmbo.lora import distributed
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_nll
from optuna_llmbo.lora.memory import MicroBatch
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
    """One optimizer step taken."""

    number: int
    """From 1."""
    total: int
    """Number of steps of the whole run."""
    loss: float
    """Nats per response token of this step's examples, before the step."""
    tokens: int
    """Tokens of this step's examples, prompts included and padding not."""


def step_count(n_examples: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of a run; examples left over after the last full batch are not used."""
    return epochs * n_examples // batch_size


def report_due(step: TrainStep, reports: int) -> int | None:
    """The percentage of the training to report at after a step, if one of the evenly spaced
    `reports` is due."""
    return percent_due(step.number, step.total, reports)


def percent_due(number: int, total: int, reports: int) -> int | None:
    """As `report_due`, after step `number` of `total`."""
    point, before = (n * reports // total for n in (number, number - 1))
    return round(100 * point / reports) if point > before else None


class Training:
    """Training of an adapter, one optimizer step per item; it can be saved and resumed.

    Trains all parameters of `model` that require a gradient. Gradients are clipped at norm 1. Each
    step uses exactly `recipe.batch_size` examples, whatever the micro-batch size. Examples are
    reshuffled every epoch.

    Args:
        model: a model inside `adapter`.
        examples: those of one epoch.
        recipe: what to train with.
        micro_batch: maximum number of examples per forward pass; bounds the memory.
        seed: seed of the order and of the dropout.
    """

    def __init__(
        self,
        model: Any,
        examples: Sequence[Example],
        recipe: LoRARecipe,
        *,
        micro_batch: MicroBatch | None = None,
        seed: int = 0,
    ) -> None:
        self._model = model
        self._micro_batch = MicroBatch(8) if micro_batch is None else micro_batch
        self._seed = seed
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        """The parameters that are trained, by name."""
        self._batches = shuffled_batches(examples, recipe.batch_size, seed)
        self.total = step_count(len(examples), recipe.batch_size, recipe.epochs)
        self._optimizer = Optimizer(model, recipe, self.total)
        self._done = 0

    def __iter__(self) -> Iterator[TrainStep]:
        """The remaining steps.

        Raises:
            TrainingDiverged: if the loss or the gradient is not finite.
        """
        while self._done < self.total:
            yield self._step(self._done + 1, next(self._batches))

    def state_dict(self) -> dict[str, Any]:
        """State that `load_state_dict` restores: steps taken, weights, the optimizer's state."""
        weights = {name: parameter.detach() for name, parameter in self.trained.items()}
        optimizer = self._optimizer.state_dict()
        return {"done": self._done, "weights": weights, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state of the same run; the result is that of an uninterrupted run."""
        for _ in range(self._done, state["done"]):
            next(self._batches)
        self._done = state["done"]
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])

    def _step(self, number: int, batch: list[Example]) -> TrainStep:
        device = device_of(self._model)

        def gradients(size: int) -> float:
            self._optimizer.zero_grad()
            with seeded(device, self._seed, number):
                return accumulate_gradients(self._model, batch, size)

        own = self._micro_batch.fit(gradients)
        loss = distributed.add_up_gradients(self.trained.values(), own)
        clip_gradients_(list(self.trained.values()), loss, number, self.total)
        self._optimizer.step(number)
        self._done = number
        return TrainStep(number, self.total, loss, sum(map(len, batch)))


def training_steps(
    model: Any,
    examples: Sequence[Example],
    recipe: LoRARecipe,
    *,
    micro_batch_size: int = 8,
    seed: int = 0,
) -> Iterator[TrainStep]:
    """The steps of a whole `Training`.

    Raises:
        TrainingDiverged: if the loss or the gradient is not finite.
    """
    micro_batch = MicroBatch(micro_batch_size)
    return iter(Training(model, examples, recipe, micro_batch=micro_batch, seed=seed))


def accumulate_gradients(model: Any, batch: Sequence[Example], micro_batch_size: int) -> float:
    """Add the gradient of a batch's mean loss to the parameters' `grad`.

    Each micro-batch is divided by the response tokens of the whole batch, so that the gradient
    does not depend on where the batch is cut. In distributed training each process handles its
    share of the batch.

    Returns:
        The loss in nats per response token; a share of it in distributed training.
    """
    model.train()
    tokens = sum(example.n_response for example in batch)
    total = 0.0
    for group in by_length(distributed.share(batch), micro_batch_size):
        loss = response_nll(model, collate(group, device_of(model))) / tokens
        loss.backward()
        total += loss.item()
    return total


def clip_gradients_(
    parameters: Sequence[torch.nn.Parameter], loss: float, number: int, total: int
) -> None:
    """Scale the gradients of step `number` of `total`, in place, to norm 1 if it is larger.

    Raises:
        TrainingDiverged: if the loss or the norm is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingDiverged(
            f"the training loss is {loss} and its gradient's norm {float(norm)} at step "
            f"{number} of {total}"
        )


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        probes = [getattr(torch.cpu, name, None) for name in names]
        fast = device.type == "cpu" and any(probe() for probe in probes if probe is not None)
    return torch.bfloat16 if fast else torch.float32


def shuffled_batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of exactly `size`, from reshuffled epochs."""
    rng = np.random.default_rng([seed, 2])
    batch: list[Example] = []
    while True:
        for i in rng.permutation(len(examples)):
            batch.append(examples[i])
            if len(batch) == size:
                yield batch
                batch = []
