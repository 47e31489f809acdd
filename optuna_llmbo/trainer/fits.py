"""Configurations that the user's trainer trains outside of a study, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from contextlib import AbstractContextManager
from dataclasses import asdict
from dataclasses import dataclass
import hashlib
import json
import math
from pathlib import Path
import time
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.checkpoint import save_whole
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.trainer.configuration import Configuration
from optuna_llmbo.trainer.prepare import PreparedTrainer
from optuna_llmbo.trainer.rows import digest
from optuna_llmbo.trainer.save import adapter_start
from optuna_llmbo.trainer.save import Start
from optuna_llmbo.trainer.save import starts_at_the_weights
from optuna_llmbo.trainer.save import trained_model


if TYPE_CHECKING:
    import datasets


NOT_OF_A_FIT = (
    "train",
    "train_examples",
    "train_hash",
    "proxy",
    "proxy_by",
    "test_examples",
    "test_hash",
    "model",
    "seed",
    "defaults",
    "extra",
)
"""Entries of a fingerprint that do not determine a fit on all of the data, or only name things."""


class Trains(Protocol):
    """What a promotion needs of a `TrainerObjective`."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metric."""

    @property
    def base_loss(self) -> float | None:
        """The metric before any training."""

    def prepare(self) -> PreparedTrainer:
        """Data, space and base model."""

    def configuration_of(self, trial: FrozenTrial) -> Configuration:
        """What a trial was trained with."""

    def trained(
        self,
        configuration: Configuration,
        *,
        train: datasets.Dataset | None = None,
        validation: datasets.Dataset | None = None,
        seed: int | None = None,
        callbacks: Sequence[Any] = (),
    ) -> AbstractContextManager[Any]:
        """Context of a finished training."""

    def untrained(
        self,
        configuration: Configuration,
        *,
        train: datasets.Dataset | None = None,
        validation: datasets.Dataset | None = None,
        seed: int | None = None,
    ) -> AbstractContextManager[Any]:
        """Context of a trainer before its training."""


@dataclass(frozen=True)
class TrainerFit:
    """Result of training a configuration with a trainer."""

    value: float
    """The metric on the validation rows; infinitely bad if it diverged."""
    seconds: float
    steps: int
    """Optimizer steps taken."""
    path: Path
    """File with the weights that were trained."""


class TrainerFits:
    """Trains configurations on all rows and keeps the weights.

    Args:
        objective: makes and runs the trainers.
        folder: holds the fits; existing ones are not trained again.
        tell: called before each training with a description of it.
    """

    def __init__(
        self, objective: Trains, folder: Path, tell: Callable[[str], None] | None = None
    ) -> None:
        self._objective = objective
        self._prepared = objective.prepare()
        self._folder = folder
        self._tell = tell or (lambda text: None)
        (self._goal,) = objective.goals

    def fit(self, recipe: Configuration, *, seed: int, name: str) -> TrainerFit:
        """Train a configuration on all rows, or read the result if it is kept.

        Raises:
            InputError: if memory runs out.
        """
        path = self._folder / f"{self._key(recipe, seed)}.pt"
        if not path.exists():
            self._tell(f"{name}, {len(self._prepared.rows.pool)} examples, seed {seed}")
            save_whole(path, self._trained(recipe, seed))
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        return TrainerFit(state["value"], state["seconds"], state["steps"], path)

    @contextlib.contextmanager
    def restored(
        self,
        recipe: Configuration,
        fit: TrainerFit,
        seed: int,
        rows: datasets.Dataset | None,
    ) -> Iterator[tuple[Any, dict[str, torch.Tensor] | None]]:
        """The user's trainer with the weights of a fit, to evaluate on `rows`; and where the
        adapter started, if that is a part of the base's weights."""
        kept = torch.load(fit.path, weights_only=True, map_location="cpu")
        with self._objective.untrained(recipe, validation=rows, seed=seed) as trainer:
            model = trained_model(trainer)
            if starts_at_the_weights(model):
                _check_same_start(model, kept["start"], fit)
            own = dict(model.named_parameters())
            if missing := sorted(kept["weights"].keys() - own.keys()):
                raise InputError(
                    f"the trainer's model has no {missing[0]}, which {str(fit.path)!r} holds: "
                    "your function makes another model than when it was trained. Use another "
                    "folder."
                )
            with torch.no_grad():
                for name, weight in kept["weights"].items():
                    own[name].copy_(weight)
            yield trainer, kept["start"]

    def _trained(self, recipe: Configuration, seed: int) -> dict[str, Any]:
        """Train, and return what is kept: value, cost, weights, and where the adapter started."""
        began, start = time.perf_counter(), Start()
        try:
            with self._objective.trained(
                recipe, train=self._prepared.rows.pool, seed=seed, callbacks=[start]
            ) as done:
                model = trained_model(done.trainer)
                weights = {
                    name: weight.detach().cpu().clone()
                    for name, weight in model.named_parameters()
                    if weight.requires_grad
                }
                value, steps = float(done.value), int(done.trainer.state.global_step)
        except optuna.TrialPruned as pruned:
            if str(pruned).startswith("out of memory"):
                raise InputError(
                    f"{pruned}, on all of the data with seed {seed}: lower at_once, or promote "
                    "trials with smaller batches or ranks."
                ) from pruned
            value, steps, weights = self._worst, 0, {}
        return {
            "value": value if math.isfinite(value) else self._worst,
            "seconds": time.perf_counter() - began,
            "steps": steps,
            "weights": weights,
            "start": start.state,
        }

    @property
    def _worst(self) -> float:
        return math.inf if self._goal.direction == "minimize" else -math.inf

    def _key(self, recipe: Configuration, seed: int) -> str:
        rows = self._prepared.rows
        known = {n: v for n, v in self._prepared.fingerprint.items() if n not in NOT_OF_A_FIT}
        about = {
            "values": values_of(recipe),
            "rows": digest(rows.pool),
            "objective": known,
            "seed": seed,
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]


def values_of(configuration: Configuration) -> dict[str, Any]:
    """A configuration in plain values."""
    return {**asdict(configuration.recipe), **configuration.extra}


def _check_same_start(
    model: Any, start: Mapping[str, torch.Tensor] | None, fit: TrainerFit
) -> None:
    """Check that the base's weights have lost the same part to the adapter as in the training."""
    now = adapter_start(model)
    same = start is not None and all(
        name in now and torch.allclose(now[name], value, rtol=1e-4, atol=1e-6)
        for name, value in start.items()
    )
    if not same:
        raise InputError(
            f"the adapter of {str(fit.path)!r} started from another part of the base's weights "
            "than it does now: your function draws it without the job's seed. Draw it with "
            "transformers.set_seed(job.seed), and use another folder."
        )
