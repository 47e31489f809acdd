"""Train several adapters at once on one frozen model, each as if it were alone.

The base model processes all of them in one pass over one batch, as in PLoRA (Yan et al. 2025,
arXiv:2508.02932); everything else is each adapter's own: recipe, order of the examples,
micro-batches, dropout, clipping and optimizer. The gradient of the summed losses with respect to
one adapter is that of its own loss, because no row of a batch reads another.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import time
from types import TracebackType
from typing import Any

import optuna
import torch

from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.evaluate import response_nll_by_part
from optuna_llmbo.lora.memory import as_out_of_memory
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.packed.job import counted
from optuna_llmbo.lora.packed.job import Job
from optuna_llmbo.lora.packed.job import StepOutcome
from optuna_llmbo.lora.packed.layers import DetachedAdapter
from optuna_llmbo.lora.packed.layers import Rows
from optuna_llmbo.lora.packed.layers import SharedBase
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import seeded
from optuna_llmbo.lora.tokens import by_length
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import TrainStep


_logger = optuna.logging.get_logger("optuna.optuna_llmbo.lora")


class Pack:
    """Adapters that train together on one frozen model; they can join and leave at any time.

    Use it as a context manager: on exit the model is bitwise what it was. Between its calls the
    model works as if there were no adapters.

    Each adapter's losses and weights are those of `adapter` and `training_steps` with the same
    micro-batch size, up to the rounding of sums; dropout in the adapters drops the same inputs.
    On SmolLM2-135M that is a millionth of a loss in float32, and up to a hundredth in bfloat16,
    where different padding alone changes the rounding. Only a base model with its own dropout
    (such as GPT-2) draws it for the pack as a whole, and hence differently than alone.

    The base model's work is shared, and the adapters' small products are computed together, in
    about as many operations as one adapter takes (`Updates`): those of plain LoRA layers, RSLoRA
    and LoRA+ included, with equally many examples in the pass and ranks of one `rank_class`.
    Dropout is drawn for one adapter after the other, and layers of DoRA are computed so. The gain
    is that of a larger batch: much where a single trial leaves the device idle, and little where
    arithmetic is the limit, as on a CPU (`benchmarks/training.py`).

    Args:
        model: a causal language model of `transformers`. Changed in place and restored.
        micro_batch_size: maximum number of examples of one adapter per forward pass.
        max_rows: maximum number of examples per forward pass, though never less than one adapter's
            micro-batch; None: bounded by the micro-batches alone. Adapters that do not fit into
            one pass take turns. When GPU memory runs out it is halved, with a warning, and the
            pass is repeated.
    """

    def __init__(
        self, model: Any, *, micro_batch_size: int = 8, max_rows: int | None = None
    ) -> None:
        self._model = model
        self._device = device_of(model)
        self._micro_batch_size = micro_batch_size
        self._max_rows = max_rows
        self._base = SharedBase(model)
        self._jobs: list[Job] = []
        self._passes = 0
        self._flags: dict[torch.nn.Parameter, bool] = {}

    def __enter__(self) -> Pack:
        self._flags = {
            parameter: parameter.requires_grad for parameter in self._model.parameters()
        }
        self._model.requires_grad_(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._base.close()
        self._jobs.clear()
        for parameter, flag in self._flags.items():
            parameter.requires_grad_(flag)
        self._model.eval()

    @property
    def max_rows(self) -> int | None:
        """Maximum number of examples per forward pass, lowered where memory has run out; None:
        bounded by the micro-batches alone."""
        return self._max_rows

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The adapters in the pack, including finished ones until they are removed."""
        return tuple(self._jobs)

    def add(self, recipe: LoRARecipe, examples: Sequence[Example], *, seed: int = 0) -> Job:
        """Put a new adapter into the pack.

        Args:
            recipe: recipe of the adapter.
            examples: those of one epoch.
            seed: seed of the initial weights, the order and the dropout.

        Raises:
            InputError: if the recipe changes the base model itself (`check_packable`), asks for
                layers that the model lacks, or for an optimizer that is not installed.
        """
        began = time.perf_counter()
        adapter = DetachedAdapter(self._model, recipe, seed)
        job = Job(adapter, recipe, examples, self._micro_batch_size, seed, self._device)
        self._base.hook(adapter)
        self._jobs.append(job)
        job.seconds += time.perf_counter() - began
        return job

    def remove(self, job: Job) -> None:
        """Remove an adapter, finished or not; the others are unaffected."""
        self._jobs.remove(job)

    def step(self) -> dict[Job, StepOutcome]:
        """Process one micro-batch of every unfinished adapter, forward and backward.

        Returns:
            Outcomes of the optimizer steps that ended or failed; failed adapters are removed.
        """
        outcomes: dict[Job, StepOutcome] = {}
        waiting = [job for job in self._jobs if not job.finished]
        waiting.sort(key=lambda job: (job.adapter.kind, len(job.group)))
        while waiting:
            now = self._that_fit(waiting, [len(job.group) for job in waiting])
            losses = self._add_gradients(now)
            if losses is None and len(now) > 1:
                self._halve(sum(len(job.group) for job in now))
                continue
            waiting = waiting[len(now) :]
            if losses is None:
                outcomes[now[0]] = torch.OutOfMemoryError("out of GPU memory")
            else:
                outcomes |= counted(now, losses)
        for job, outcome in outcomes.items():
            if not isinstance(outcome, TrainStep):
                self.remove(job)
        self._model.eval()
        return outcomes

    def evaluate(
        self, jobs: Sequence[Job], examples: Sequence[Example], *, batch_size: int = 8
    ) -> list[float]:
        """`validation_loss` of several adapters at once.

        Args:
            jobs: jobs of this pack, finished or not.
            examples: each is weighted by its number of response tokens.
            batch_size: examples of one adapter per forward pass; does not change the result.

        Returns:
            Nats per response token of each, not finite where the model's outputs are not.

        Raises:
            torch.OutOfMemoryError: if a pass with a single adapter runs out of memory.
        """
        began = time.perf_counter()
        losses: dict[Job, float] = {}
        waiting = sorted(jobs, key=lambda job: job.adapter.kind)
        tokens = sum(example.n_response for example in examples)
        while waiting:
            now = self._that_fit(waiting, [batch_size] * len(waiting))
            totals = torch.zeros(len(now), dtype=torch.float64)
            try:
                with torch.no_grad(), as_out_of_memory():
                    for group in by_length(examples, batch_size):
                        totals += self._nll(now, [group] * len(now), train=False).cpu()
            except torch.OutOfMemoryError:
                if len(now) == 1:
                    raise
                self._halve(batch_size * len(now))
                continue
            losses |= zip(now, (totals / tokens).tolist(), strict=True)
            waiting = waiting[len(now) :]
        self._share(jobs, [1] * len(jobs), time.perf_counter() - began)
        return [losses[job] for job in jobs]

    @contextlib.contextmanager
    def alone(self, job: Job) -> Iterator[None]:
        """Attach this adapter alone to the model, as `adapter` does, in evaluation mode."""
        with job.adapter.attached(self._model):
            self._model.eval()
            yield

    def _add_gradients(self, jobs: Sequence[Job]) -> list[float] | None:
        """Add the gradients of one micro-batch of each, in one pass; no effect if memory runs out.

        Returns:
            Loss of each, divided by the tokens of its whole step; None if memory ran out.
        """
        began = time.perf_counter()
        groups = [job.group for job in jobs]
        streams = {job: job.adapter.dropout for job in jobs}
        states = {stream: stream.state for stream in streams.values() if stream is not None}
        tokens = torch.tensor([job.tokens for job in jobs], device=self._device)
        parameters = [parameter for job in jobs for parameter in job.adapter.parameters]
        self._passes += 1
        try:
            with seeded(self._device, self._passes), as_out_of_memory():
                losses = self._nll(jobs, groups, train=True) / tokens
                gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        except torch.OutOfMemoryError:
            for stream, state in states.items():
                stream.state = state
            return None
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                kept = parameter.grad
                # laid out like the parameter, as fused optimizers demand
                parameter.grad = gradient.contiguous() if kept is None else kept.add_(gradient)
        values: list[float] = losses.tolist()
        self._share(jobs, [len(group) for group in groups], time.perf_counter() - began)
        return values

    def _nll(
        self, jobs: Sequence[Job], groups: Sequence[Sequence[Example]], *, train: bool
    ) -> torch.Tensor:
        """(k,) summed negative log likelihood of each adapter's own group, in nats."""
        self._model.train(train)
        for job in jobs:
            job.adapter.modules.train(train)
        batch = collate([example for group in groups for example in group], self._device)
        parts = [
            Rows(job.adapter, len(group), max(map(len, group)))
            for job, group in zip(jobs, groups, strict=True)
        ]
        with self._base.reading(parts):
            return response_nll_by_part(self._model, batch, [part.count for part in parts])

    def _that_fit(self, jobs: Sequence[Job], rows: Sequence[int]) -> list[Job]:
        """The first jobs that together fit into one pass, at least one."""
        if self._max_rows is None:
            return list(jobs)
        fitting, total = [jobs[0]], rows[0]
        for job, count in zip(jobs[1:], rows[1:], strict=True):
            total += count
            if total > self._max_rows:
                break
            fitting.append(job)
        return fitting

    def _halve(self, rows: int) -> None:
        """Lower `max_rows` after a pass over `rows` examples ran out of memory."""
        self._max_rows = max(1, rows // 2)
        release()
        _logger.warning(
            f"a pass over {rows} examples has run out of GPU memory; passes have at most "
            f"{self._max_rows} examples from now on, or one adapter's {self._micro_batch_size}."
        )

    def _share(self, jobs: Sequence[Job], rows: Sequence[int], seconds: float) -> None:
        """Divide the time of a pass among the jobs, in proportion to their rows."""
        for job, count in zip(jobs, rows, strict=True):
            job.seconds += seconds * count / sum(rows)
