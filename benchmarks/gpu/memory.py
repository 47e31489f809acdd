"""What happens when memory runs out: what fits is found, and nothing is lost or left over."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import torch

from benchmarks import console
from benchmarks import device as devices
from benchmarks.gpu.part import Part
from benchmarks.gpu.part import Setting
from benchmarks.gpu.record import Cell
from benchmarks.gpu.record import measured
from benchmarks.gpu.record import Record
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.packed.parallel import optimize_packed
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.lora.train import accumulate_gradients


WHOLE, SINGLE = "enough memory", "one example a pass"
BACKED_OFF, HOPELESS, AFTER = "less than it needs", "not enough for one example", "after that"
FULL = "a full device"
GRADIENT = "the gradient of a step"
PACKED, PACKED_BACKED_OFF = "pack of 4", "pack of 4, less than it needs"
PACK = 4
_SHARE = 0.4
"""Of what is needed beside the model: half of the examples do not fit, and a quarter does."""


class Room(Protocol):
    """Memory that can be made scarce; its unit is its own."""

    def used(self) -> int:
        """What is in use now."""

    def peak(self, work: Callable[[], None]) -> int:
        """The most that some work uses."""

    def limited_to(self, size: int) -> AbstractContextManager[None]:
        """Raise torch's own error for more, inside."""


class DeviceMemory:
    """The bytes of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def used(self) -> int:
        """What tensors occupy."""
        release()
        return devices.allocated_bytes(self._device)

    def peak(self, work: Callable[[], None]) -> int:
        """The most that tensors occupy."""
        release()
        reset_peak_memory(self._device)
        work()
        return devices.peak_bytes(self._device)

    def limited_to(self, size: int) -> AbstractContextManager[None]:
        """Let torch's allocator take so much."""
        return devices.limited_to(self._device, size)


class TokensInOnePass:
    """Stands in for memory where nobody counts it: the tokens that a model reads at once."""

    def __init__(self, model: Any) -> None:
        self._most, self._limit = 0, float("inf")
        model.get_input_embeddings().register_forward_pre_hook(self._read)

    def _read(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        n = inputs[0].numel()
        if n > self._limit:
            raise torch.OutOfMemoryError(f"{n} tokens are more than {self._limit}")
        self._most = max(self._most, n)

    def used(self) -> int:
        """Nothing stays in use."""
        return 0

    def peak(self, work: Callable[[], None]) -> int:
        """The most tokens of a pass."""
        self._most = 0
        work()
        return self._most

    @contextlib.contextmanager
    def limited_to(self, size: int) -> Iterator[None]:
        """Raise for passes with more tokens."""
        self._limit = size
        try:
            yield
        finally:
            self._limit = float("inf")


def measure(setting: Setting, record: Record) -> None:
    """Run the same trial with enough memory and with less; then a pack of four."""
    search = _Search(setting)
    room = search.room
    used = room.used()
    most = search.keep(record, WHOLE)
    least = search.keep(record, SINGLE, micro_batch=1)
    if most is not None and least is not None:
        some = used + round(_SHARE * (most["peak"] - used))
        little = used + (least["peak"] - used) // 2
        search.keep(record, BACKED_OFF, scarce=lambda: room.limited_to(some))
        search.keep(record, HOPELESS, scarce=lambda: room.limited_to(little))
        search.keep(record, AFTER)
        if devices.is_cuda(setting.device):
            search.keep(
                record, FULL, scarce=lambda: devices.filled_but(setting.device, some - used)
            )
        else:
            record.leave_out(FULL, "this needs a CUDA device")
    record.measure(GRADIENT, search.gradients, needs=3)
    packed = search.keep(record, PACKED, n=PACK)
    if packed is not None:
        some = used + round(_SHARE * (packed["peak"] - used))
        search.keep(record, PACKED_BACKED_OFF, n=PACK, scarce=lambda: room.limited_to(some))


class _Search:
    """Trials of one configuration, in float32, where the same sums have the same values."""

    def __init__(self, setting: Setting) -> None:
        self._batch = setting.sizes.out_of_memory_batch
        self._objective = LoRAObjective(
            setting.llm,
            setting.data,
            space={
                "batch_size": IntDistribution(self._batch, self._batch),
                "learning_rate": FloatDistribution(1e-3, 1e-3),
                "lora_dropout": FloatDistribution(0.0, 0.0),  # it draws otherwise in other passes
            },
            proxy=2 * self._batch,
            validation=4,
            max_length=256,
            micro_batch_size=self._batch,
            reports=1,
            device=setting.device,
            dtype=torch.float32,
        )
        prepared = self._objective.prepare()
        self.room: Room = (
            DeviceMemory(setting.device)
            if devices.is_cuda(setting.device)
            else TokensInOnePass(prepared.model)
        )
        self._run(1, 1)  # the libraries take what they keep

    def keep(
        self,
        record: Record,
        name: str,
        *,
        n: int = 1,
        micro_batch: int | None = None,
        scarce: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Cell | None:
        """Measure n trials at once, inside `scarce`; `micro_batch` examples a pass at first, or
        all."""

        def run() -> Cell:
            with scarce():
                return self._run(n, micro_batch or self._batch)

        return record.measure(name, run, needs=3)

    def gradients(self) -> Cell:
        """Compare the gradient of one step, all examples at once, with that of one at a time."""
        prepared = self._objective.prepare()
        batch = prepared.train[: self._batch]
        recipe = LoRARecipe(
            rank=8, lora_alpha=16.0, lora_dropout=0.0, batch_size=self._batch, learning_rate=1e-3
        )
        found, losses = [], []
        for size in (self._batch, 1):
            with adapter(prepared.model, recipe, seed=0):
                losses.append(accumulate_gradients(prepared.model, batch, size))
                trained = [p for p in prepared.model.parameters() if p.requires_grad]
                found.append(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
        whole, single = found
        return {
            "losses": losses,
            "relative_difference": float((whole - single).norm() / whole.norm()),
        }

    def _run(self, n: int, micro_batch: int) -> Cell:
        found = self._objective.prepare().micro_batch
        found.size = micro_batch
        study = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner()
        )

        def work() -> None:
            if n == 1:
                study.optimize(self._objective, n_trials=1)
            else:
                optimize_packed(study, self._objective, n, n)

        used = self.room.used()
        peak = self.room.peak(work)
        return {
            "states": [trial.state.name for trial in study.trials],
            "reasons": [trial.user_attrs.get("pruned_reason") for trial in study.trials],
            "losses": [trial.value for trial in study.trials],
            "steps": [trial.user_attrs.get("steps") for trial in study.trials],
            "tokens": [trial.user_attrs.get("tokens") for trial in study.trials],
            "examples_a_pass": found.size if n == 1 else None,
            "peak": peak,
            "left_over": self.room.used() - used,
        }


def tables(record: Mapping[str, Any]) -> list[str]:
    """Format what each run came to, beside the one with enough memory."""
    cells = measured(record)
    gradient = cells.pop(GRADIENT, None)
    rows = []
    for name, cell in cells.items():
        base = cells.get(PACKED if name in (PACKED, PACKED_BACKED_OFF) else WHOLE)
        rows.append([name, *_compared(cell, base)])
    head = ["memory", "state", "examples a pass", "loss, from that with enough", "same steps"]
    made = [console.table([*head, "peak", "left over"], rows)] if rows else []
    if gradient is not None:
        made.append(
            "The gradient of a step, all examples at once or one after the other, differs by "
            f"{gradient['relative_difference']:.0e} of its norm."
        )
    return made


def _compared(cell: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    difference, same = "", ""
    if base is not None and None not in [*cell["losses"], *base["losses"]]:
        pairs = zip(cell["losses"], base["losses"], strict=True)
        difference = f"{max(abs(a - b) for a, b in pairs):.1e}"
        same = "yes" if all(cell[name] == base[name] for name in ("steps", "tokens")) else "no"
    states = sorted({state.lower() for state in cell["states"]})
    reasons = sorted({reason for reason in cell["reasons"] if reason})
    size = cell["examples_a_pass"]
    return [
        ", ".join(states) + (f" ({'; '.join(reasons)})" if reasons else ""),
        "" if size is None else str(size),
        difference,
        same,
        str(cell["peak"]),
        str(cell["left_over"]),
    ]


PART = Part(
    "When memory runs out",
    "The same trial of SmolLM2-135M in float32, two steps of 32 examples, with less and less "
    "memory: torch's allocator may take 0.4 of what all examples at once need beside the model, "
    "then half of what one example needs; last the device itself is filled. Peak and what is left "
    "over are in bytes.",
    45,
    measure,
    tables,
)
