"""One configuration, trained on some examples outside of a study, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import asdict
from dataclasses import dataclass
import hashlib
import json
import math
from pathlib import Path
import time
from typing import Any

import torch

from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.best_report import BestReport
from optuna_llmbo.lora.checkpoint import save_whole
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import report_due
from optuna_llmbo.lora.train import Training
from optuna_llmbo.lora.train import TrainingDiverged


@dataclass(frozen=True)
class Fit:
    """Result of training a configuration."""

    loss: float
    """Validation loss in nats per response token; infinite if it diverged."""
    seconds: float
    steps: int
    """Optimizer steps taken."""
    path: Path
    """File with the weights."""


class Fits:
    """Trains configurations and keeps the results, so that an interrupted command resumes.

    Args:
        prepared: model and data.
        folder: holds the fits; existing ones are not trained again.
        tell: called before each training with a description of it.
    """

    def __init__(
        self, prepared: Prepared, folder: Path, tell: Callable[[str], None] | None = None
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._tell = tell or (lambda text: None)

    def fit(self, recipe: LoRARecipe, examples: Sequence[Example], *, seed: int, name: str) -> Fit:
        """Train a configuration, or read the result if it is kept.

        Args:
            recipe: what to train with.
            examples: those of one epoch.
            seed: seed of the initial weights, the order and the dropout.
            name: name of the configuration, for `tell`.
        """
        path = self._folder / f"{self._key(recipe, examples, seed)}.pt"
        if not path.exists():
            self._tell(f"{name}, {len(examples)} examples, seed {seed}")
            self._train(recipe, examples, seed, path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        return Fit(state["loss"], state["seconds"], state["steps"], path)

    @contextlib.contextmanager
    def model(self, recipe: LoRARecipe, fit: Fit, *, seed: int) -> Iterator[Any]:
        """The model with the adapter of a fit attached, for the duration of the block."""
        model = self._prepared.model
        state = torch.load(fit.path, weights_only=True, map_location=device_of(model))
        with adapter(model, recipe, seed), torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state["weights"][name])
            yield model

    def _train(
        self, recipe: LoRARecipe, examples: Sequence[Example], seed: int, path: Path
    ) -> None:
        prepared = self._prepared
        began, steps = time.perf_counter(), 0
        with adapter(prepared.model, recipe, seed):
            run = Training(
                prepared.model, examples, recipe, micro_batch=prepared.micro_batch, seed=seed
            )
            try:
                best = self._best()
                for step in run:
                    steps = step.number
                    if best is not None and (percent := report_due(step, prepared.best_of or 1)):
                        best.see(percent, prepared.metric_on(prepared.validation), run.trained)
                if best is not None:
                    best.restore_(run.trained)
                loss = prepared.loss_on(prepared.validation)
            except TrainingDiverged:
                loss = math.inf
            loss = loss if math.isfinite(loss) else math.inf
            seconds = time.perf_counter() - began
            weights = run.state_dict()["weights"]
            result = {"loss": loss, "seconds": seconds, "steps": steps}
            save_whole(path, {**result, "weights": weights})

    def _best(self) -> BestReport | None:
        if self._prepared.best_of is None:
            return None
        larger = self._prepared.targets[0].direction == "maximize"
        return BestReport(larger_is_better=larger)

    def _key(self, recipe: LoRARecipe, examples: Sequence[Example], seed: int) -> str:
        prepared = self._prepared
        about = {
            "recipe": asdict(recipe),
            "examples": tokens.digest(examples),
            "validation": tokens.digest(prepared.validation),
            "weights": prepared.fingerprint["weights"],
            "dtype": prepared.fingerprint["dtype"],
            "quantization": prepared.fingerprint.get("quantization"),
            "seed": seed,
        }
        if prepared.best_of is not None:  # left out otherwise, so that earlier fits are found
            about["best_of"] = [prepared.best_of, prepared.fingerprint["metric"]]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
