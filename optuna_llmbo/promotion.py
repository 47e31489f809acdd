"""The result of a promotion: plain values for a file, and a model card for people."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import importlib.metadata
import math
from pathlib import Path
import statistics
from typing import Any

import optuna

from optuna_llmbo.lora.merge import Merged
from optuna_llmbo.lora.merge import what_is_lost
from optuna_llmbo.lora.model_card import front_matter
from optuna_llmbo.lora.model_card import front_matter_of_whole
from optuna_llmbo.lora.model_card import how_to_load
from optuna_llmbo.lora.model_card import how_to_load_whole
from optuna_llmbo.promotable import Promotable
from optuna_llmbo.promotable import PromotedFit
from optuna_llmbo.study.progress import Goal


@dataclass(frozen=True)
class Contender:
    """A configuration trained on all data, once per seed."""

    trial: int | None
    """Its number in the study; None for the default configuration if no trial completed it."""
    params: Mapping[str, Any]
    recipe: Any
    """What was trained with: a `LoRARecipe`, or what else the objective makes of a trial."""
    fits: tuple[PromotedFit, ...]
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
    """Folder of the winner's adapter, of the seed that is best on the validation examples; of a
    whole model, if that is what the objective's trainer trains."""
    goal: Goal
    """The search's metric, which decides here too."""
    merged: Merged | None = None
    """The base model with the adapter in its weights, where it was asked for."""


def facts(
    result: Promotion, promotable: Promotable, study: optuna.Study, seed: int
) -> dict[str, Any]:
    """A promotion in plain values, for `promotion.json`."""
    merged = result.merged
    return {
        "study": study.study_name,
        "trials": len(study.get_trials(deepcopy=False)),
        "objective": promotable.fingerprint,
        "examples": promotable.n_examples,
        "base_loss": promotable.base_loss,
        "metric": result.goal.name,
        "contenders": [
            {
                "trial": one.trial,
                "params": dict(one.params),
                "recipe": promotable.values_of(one.recipe),
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
    } | ({} if merged is None else {"merged": merged_facts(merged)})


def merged_facts(merged: Merged) -> dict[str, Any]:
    """A merged model in plain values."""
    return {
        "dtype": merged.dtype,
        "logit_difference": merged.difference,
        "logit_effect": merged.effect,
        "tolerance": merged.tolerance,
        "tokens": merged.tokens,
    }


_PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft")


def card(result: Promotion, promotable: Promotable, study: optuna.Study, seed: int) -> str:
    """The adapter's card in Markdown, with the front matter that model hubs read; that of a whole
    model, if the trainer trained one."""
    base = promotable.base
    if not (result.adapter / "adapter_config.json").exists():
        return _card_of_whole(f"{base.name}, fine-tuned", result, promotable, study, seed)
    return f"""{front_matter(base)}
# LoRA adapter for {base.name}

{_origin(result, promotable, study, seed)}

{how_to_load(base)}
{_results(result, promotable)}"""


def merged_card(result: Promotion, promotable: Promotable, study: optuna.Study, seed: int) -> str:
    """The card of the model that the adapter was merged into."""
    title = f"{promotable.base.name} with a LoRA adapter merged into its weights"
    return _card_of_whole(title, result, promotable, study, seed)


def _card_of_whole(
    title: str, result: Promotion, promotable: Promotable, study: optuna.Study, seed: int
) -> str:
    base, merged = promotable.base, result.merged
    lost = "" if merged is None else f"\n{what_is_lost(merged)}\n"
    return f"""{front_matter_of_whole(base)}
# {title}

{_origin(result, promotable, study, seed)}
{lost}
{how_to_load_whole(base)}
{_results(result, promotable)}"""


def _origin(result: Promotion, promotable: Promotable, study: optuna.Study, seed: int) -> str:
    winner = result.winner
    origin = "the default configuration" if winner.trial is None else f"trial {winner.trial}"
    n_trials, n_seeds = len(study.get_trials(deepcopy=False)), len(winner.fits)
    return f"""Trained on {promotable.data_name}, {promotable.n_examples} examples, with {origin}
of the Optuna study {study.study_name!r} ({n_trials} trials on
{promotable.n_searched} of the examples each). This is seed {seed} of {n_seeds}, the best one
on the validation examples."""


def _results(result: Promotion, promotable: Promotable) -> str:
    """Results, hyperparameters and versions in Markdown."""
    winner, default, loss = result.winner, result.default, promotable.base_loss
    rows = [("validation", winner.validation, default.validation if default else ())]
    if winner.test:
        rows.append(("test", winner.test, default.test if default else ()))
    values_on = "\n".join(
        f"| {name} | {mean_and_deviation(ours)} | {mean_and_deviation(theirs)} |"
        for name, ours, theirs in rows
    )
    recipe = promotable.values_of(winner.recipe)
    values = "\n".join(f"| {name} | {value} |" for name, value in recipe.items())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    without = f" Without an adapter the\nvalidation loss is {loss:.4f}." if loss else ""
    return f"""## Results

{_heading(result.goal)}, mean and standard deviation over {len(winner.fits)} seeds.{without}

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
