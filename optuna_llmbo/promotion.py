"""The result of a promotion: plain values for a file, and a model card for people."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import importlib.metadata
import math
from pathlib import Path
import statistics
from typing import Any

import optuna

from optuna_llmbo.lora.fit import Fit
from optuna_llmbo.lora.model_card import front_matter
from optuna_llmbo.lora.model_card import how_to_load
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.study.progress import Goal


@dataclass(frozen=True)
class Contender:
    """A configuration trained on all data, once per seed."""

    trial: int | None
    """Its number in the study; None for the default configuration if no trial completed it."""
    params: Mapping[str, Any]
    recipe: LoRARecipe
    fits: tuple[Fit, ...]
    """One per seed."""
    validation: tuple[float, ...]
    """The search's metric, such as the loss, on the validation examples, one per seed; infinitely
    bad where the training diverged."""
    test: tuple[float, ...] = ()
    """The same on the test examples, for the winner and the default only."""


@dataclass(frozen=True)
class Promotion:
    """Result of training the best configurations on all data."""

    contenders: tuple[Contender, ...]
    """The default configuration first, if there is one; then the others in order of rank."""
    winner: Contender
    """The configuration with the best mean on the validation examples; the default only if its
    trial broke no constraint."""
    default: Contender | None
    adapter: Path
    """Folder of the winner's adapter, of the seed that is best on the validation examples."""
    goal: Goal
    """The search's metric, which decides here too."""


def facts(result: Promotion, prepared: Prepared, study: optuna.Study, seed: int) -> dict[str, Any]:
    """A promotion in plain values, for `promotion.json`."""
    return {
        "study": study.study_name,
        "trials": len(study.get_trials(deepcopy=False)),
        "objective": prepared.fingerprint,
        "examples": len(prepared.pool),
        "base_loss": prepared.base_loss,
        "metric": result.goal.name,
        "contenders": [
            {
                "trial": one.trial,
                "params": dict(one.params),
                "recipe": asdict(one.recipe),
                "validation": one.validation,
                "test": one.test,
                "seconds": [round(fit.seconds, 3) for fit in one.fits],
                "is_default": one is result.default,
                "is_winner": one is result.winner,
            }
            for one in result.contenders
        ],
        "adapter_seed": seed,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


_PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft")


def card(result: Promotion, prepared: Prepared, study: optuna.Study, seed: int) -> str:
    """Model card in Markdown, with the front matter that model hubs read."""
    winner, default = result.winner, result.default
    rows = [("validation", winner.validation, default.validation if default else ())]
    if winner.test:
        rows.append(("test", winner.test, default.test if default else ()))
    values_on = "\n".join(
        f"| {name} | {mean_and_deviation(ours)} | {mean_and_deviation(theirs)} |"
        for name, ours, theirs in rows
    )
    values = "\n".join(f"| {name} | {value} |" for name, value in asdict(winner.recipe).items())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    n = len(winner.fits)
    origin = "the default configuration" if winner.trial is None else f"trial {winner.trial}"
    return f"""{front_matter(prepared.base)}
# LoRA adapter for {prepared.fingerprint["model"]}

Trained on {prepared.fingerprint["train"]}, {len(prepared.pool)} examples, with {origin} of the
Optuna study {study.study_name!r} ({len(study.get_trials(deepcopy=False))} trials on
{len(prepared.train)} of the examples each). This is seed {seed} of {n}, the best one
on the validation examples.

{how_to_load(prepared.base)}
## Results

{_heading(result.goal)}, mean and standard deviation over {n} seeds. Without an adapter the
validation loss is {prepared.base_loss:.4f}.

| data | this configuration | default configuration |
| --- | --- | --- |
{values_on}

## Hyperparameters

| | |
| --- | --- |
{values}

Made with {versions}.
"""


def _heading(goal: Goal) -> str:
    return (
        "Loss in nats per response token"
        if goal.name == "loss"
        else f"{goal.name}, to {goal.direction}"
    )


def mean_and_deviation(losses: Sequence[float]) -> str:
    """Format "2.9012 (0.0031)", with the standard deviation if there are several seeds."""
    if not losses:
        return "-"
    mean = statistics.fmean(losses)
    if len(losses) == 1 or not math.isfinite(mean):
        return f"{mean:.4f}"
    return f"{mean:.4f} ({statistics.stdev(losses):.4f})"
