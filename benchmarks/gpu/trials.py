"""Trials on a model of a real shape: one at a time, or packed; their time and memory."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import device as devices
from benchmarks.gpu import shapes
from benchmarks.gpu.sizes import Load
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.memory import MicroBatch
from optuna_llmbo.lora.memory import release
from optuna_llmbo.lora.packed.pack import Pack
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.resources import reset_peak_memory
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import Training
from optuna_llmbo.lora.train import TrainStep


RANKS = (8, 32, 16, 24)
"""Of trials in turn; any two, and any four, have a mean of 20."""
MICRO_BATCH = 8


@dataclass
class Trained:
    """What some trials have done."""

    tokens: int = 0
    losses: tuple[float, ...] = ()
    """Of every step."""
    rows: int | None = None
    """Most examples of a pass, where memory has lowered it."""

    def add(self, step: TrainStep) -> None:
        """Count a step."""
        self.tokens += step.tokens
        self.losses += (step.loss,)


Way = Callable[[Any, Sequence[Example], Sequence[LoRARecipe]], Trained]
"""Trains each of the recipes on a model for an epoch of the examples."""


def recipes(n: int, load: Load) -> list[LoRARecipe]:
    """Return the recipes of n trials, on all linear layers."""
    return [
        LoRARecipe(
            rank=RANKS[i % len(RANKS)],
            lora_alpha=2.0 * RANKS[i % len(RANKS)],
            lora_dropout=load.dropout,
            batch_size=load.batch_size,
            learning_rate=1e-4,
        )
        for i in range(n)
    ]


def one_at_a_time(
    model: Any, trained_on: Sequence[Example], chosen: Sequence[LoRARecipe]
) -> Trained:
    """Train trials as `study.optimize` does."""
    trained, micro_batch = Trained(), MicroBatch(MICRO_BATCH)
    for recipe in chosen:
        with adapter(model, recipe, seed=0):
            for step in Training(model, trained_on, recipe, micro_batch=micro_batch):
                trained.add(step)
    trained.rows = micro_batch.size if micro_batch.size < MICRO_BATCH else None
    return trained


def packed(model: Any, trained_on: Sequence[Example], chosen: Sequence[LoRARecipe]) -> Trained:
    """Train trials as `optimize_packed` does, all at once.

    Raises:
        torch.OutOfMemoryError: if not even one of them fits.
    """
    trained = Trained()
    with Pack(model, micro_batch_size=MICRO_BATCH) as pack:
        for recipe in chosen:
            pack.add(recipe, trained_on)
        while not all(job.finished for job in pack.jobs):
            for outcome in pack.step().values():
                if not isinstance(outcome, TrainStep):
                    raise outcome
                trained.add(outcome)
        trained.rows = pack.max_rows
    return trained


def cost(model: Any, load: Load, n: int, way: Way, *, compiles: bool = False) -> dict[str, Any]:
    """Measure trials in one way, after first ones of a single step that are not counted.

    Args:
        model: of `shapes.build`.
        load: the data of each trial.
        n: number of trials.
        way: how they are run.
        compiles: whether the model compiles itself, so that the first trials have all steps and
            the operations are not counted.

    Returns:
        See `_result`; also the seconds of the first trials, and the operations that torch is asked
        for in one more step of each trial.
    """
    device = next(model.parameters()).device
    examples, chosen = _trials(model, load, n)
    one_step, two_steps = (examples[: k * load.batch_size] for k in (1, 2))
    before = examples if compiles else one_step
    first, _ = devices.timed(lambda: way(model, before, chosen), device)
    asked = None
    if not compiles:
        asked = _asked_for(way, model, two_steps, chosen)
        asked -= _asked_for(way, model, one_step, chosen)
    reset_peak_memory(device)
    seconds, trained = devices.timed(lambda: way(model, examples, chosen), device)
    about = {"seconds_first": first, "operations_per_step": asked}
    return _result(model, examples, n, seconds, trained) | about


def reloaded(load_model: Callable[[], Any], load: Load) -> dict[str, Any]:
    """Measure a trial that loads its model first, as a script does that is started for it.

    Returns:
        See `_result`; also the seconds of loading.
    """
    model = load_model()  # the files are in the system's cache from here on
    device = next(model.parameters()).device
    examples, chosen = _trials(model, load, 1)
    one_at_a_time(model, examples[: load.batch_size], chosen)
    del model
    release()
    reset_peak_memory(device)
    loading, fresh = devices.timed(load_model, device)
    training, trained = devices.timed(lambda: one_at_a_time(fresh, examples, chosen), device)
    about = {"seconds_loading": loading}
    return _result(fresh, examples, 1, loading + training, trained) | about


def _trials(model: Any, load: Load, n: int) -> tuple[list[Example], list[LoRARecipe]]:
    return shapes.examples(load, model.config.vocab_size), recipes(n, load)


def _result(
    model: Any, examples: Sequence[Example], n: int, seconds: float, trained: Trained
) -> dict[str, Any]:
    """The numbers of trials, steps and tokens; the operations needed; the bytes of the weights and
    at the peak; the losses of the first and the last step."""
    return {
        "trials": n,
        "steps": len(trained.losses),
        "tokens": trained.tokens,
        "seconds": seconds,
        "flops_needed": n * shapes.training_flops(model, examples),
        "rows_lowered_to": trained.rows,
        "weight_bytes": shapes.weight_bytes(model),
        "peak_bytes": devices.peak_bytes(next(model.parameters()).device),
        "losses": [trained.losses[0], trained.losses[-1]],
    }


def _asked_for(
    way: Way, model: Any, examples: Sequence[Example], chosen: Sequence[LoRARecipe]
) -> int:
    """The number of operations that torch is asked for; a GPU starts most of them one by one."""
    with Operations() as counted:
        way(model, examples, chosen)
    return counted.count


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute, forward and backward; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def rate(cell: dict[str, Any]) -> float:
    """Return tokens a second."""
    return float(cell["tokens"] / cell["seconds"])


def share_of_limit(cell: dict[str, Any], matrix_rate: float) -> float:
    """Return the operations needed over those of a matrix product that takes the same time."""
    return float(cell["flops_needed"] / cell["seconds"] / matrix_rate)
