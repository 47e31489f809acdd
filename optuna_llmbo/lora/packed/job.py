"""An adapter's own part of training in a pack: batches, steps and optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optuna_llmbo.lora.memory import as_out_of_memory
from optuna_llmbo.lora.optimizer import Optimizer
from optuna_llmbo.lora.packed.layers import DetachedAdapter
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import Stream
from optuna_llmbo.lora.tokens import by_length
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import clip_gradients_
from optuna_llmbo.lora.train import shuffled_batches
from optuna_llmbo.lora.train import step_count
from optuna_llmbo.lora.train import TrainingDiverged
from optuna_llmbo.lora.train import TrainStep


StepOutcome = TrainStep | TrainingDiverged | torch.OutOfMemoryError
"""Result of an adapter's optimizer step: the step, or the error that ends the adapter's run."""


class Job:
    """One adapter in a pack, its progress and its cost. Created by `Pack.add`."""

    def __init__(
        self,
        adapter: DetachedAdapter,
        recipe: LoRARecipe,
        examples: Sequence[Example],
        micro_batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.adapter = adapter
        self.recipe = recipe
        self.total = step_count(len(examples), recipe.batch_size, recipe.epochs)
        """Optimizer steps of the whole run."""
        self.number = 0
        """Optimizer steps taken."""
        self.seconds = 0.0
        """Its share of the pack's time: each pass is divided in proportion to rows."""
        self._micro_batch_size = micro_batch_size
        self._seed = seed
        self._device = device
        self._optimizer = Optimizer(adapter.modules, recipe, self.total)
        self._batches = shuffled_batches(examples, recipe.batch_size, seed)
        self._batch: list[Example] = []
        self._groups: list[list[Example]] = []
        self._loss = 0.0

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.number == self.total

    @property
    def group(self) -> list[Example]:
        """The next micro-batch; the first of an optimizer step starts the step."""
        if not self._groups:
            self._batch = next(self._batches)
            self._groups = list(by_length(self._batch, self._micro_batch_size))
            self._loss = 0.0
            self._optimizer.zero_grad()
            if self.recipe.lora_dropout > 0:
                self.adapter.dropout = Stream(self._device, self._seed, self.number + 1)
        return self._groups[0]

    @property
    def tokens(self) -> int:
        """Response tokens in the optimizer step, over which its loss is averaged."""
        return sum(example.n_response for example in self._batch)

    def count(self, loss: float) -> TrainStep | None:
        """Count the gradient of `group` as added; after the last one, take the step.

        Args:
            loss: loss of the micro-batch, divided by `tokens`.

        Returns:
            The optimizer step, if one was taken.

        Raises:
            TrainingDiverged: if the loss or the gradient is not finite.
        """
        self._loss += loss
        del self._groups[0]
        if self._groups:
            return None
        number = self.number + 1
        clip_gradients_(self.adapter.parameters, self._loss, number, self.total)
        self._optimizer.step(number)
        self.number = number
        return TrainStep(number, self.total, self._loss, sum(map(len, self._batch)))


def counted(jobs: Sequence[Job], losses: Sequence[float]) -> dict[Job, StepOutcome]:
    """Outcomes of the optimizer steps that these micro-batches complete."""
    outcomes: dict[Job, StepOutcome] = {}
    for job, loss in zip(jobs, losses, strict=True):
        try:
            with as_out_of_memory():
                made = job.count(loss)
        except (TrainingDiverged, torch.OutOfMemoryError) as error:
            outcomes[job] = error.with_traceback(None)  # a traceback would keep tensors alive
        else:
            outcomes |= {} if made is None else {job: made}
    return outcomes
