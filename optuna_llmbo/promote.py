"""Train the best configurations of a study on all of the data and save the best adapter."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
import importlib.metadata
import json
import math
import os
from pathlib import Path
import statistics
from typing import Any

import optuna
from optuna.trial import FixedTrial
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.checkpoint import save_adapter
from optuna_llmbo.lora.checkpoint import writing
from optuna_llmbo.lora.fit import Fit
from optuna_llmbo.lora.fit import Fits
from optuna_llmbo.lora.metrics import check_all
from optuna_llmbo.lora.metrics import TrainingSeconds
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.lora.prepare import Prepared
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.sampler import LLMBOSampler
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import goals_of


Rank = Callable[[optuna.Study], Sequence[int]]
"""Numbers of a study's trials, the most promising first; only those that are complete and break no
constraint are promoted."""


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


def promote(
    study: optuna.Study,
    objective: LoRAObjective,
    *,
    folder: str | os.PathLike[str],
    top: int = 3,
    n_seeds: int = 3,
    rank: Rank | None = None,
    tell: Callable[[str], None] | None = None,
) -> Promotion:
    """Retrain the best configurations of a study on all training data and save the best adapter.

    The default configuration is trained with the same seeds as a control. The validation data,
    which the search used too, decide who wins; the test data are read once, after that, by the
    winner and the default.

    Args:
        study: a study of the objective.
        objective: an objective on one metric of the trained model; with `test=` for a result on
            test data.
        folder: holds the adapter (`adapter/`), the numbers (`promotion.json`) and the weights of
            all fits (`fits/`), so that an interrupted call resumes.
        top: number of configurations of the study to train.
        n_seeds: number of seeds for each: 0, 1, ...
        rank: ranks the trials; None: by the posterior mean of `LLMBOSampler`'s model, which a
            lucky value does not mislead.
        tell: called before each training with a description of it.

    Raises:
        InputError: if the study has no complete trial that breaks no constraint, belongs to
            another objective or is on several metrics, or if every training diverges.
    """
    check_at_least("top", top, 1)
    check_at_least("n_seeds", n_seeds, 1)
    prepared = objective.prepare()
    objective.check_study(study)
    _check_metric(prepared)
    trials = study.get_trials(deepcopy=False)
    feasible = {trial.number for trial in complete(trials)}
    if not feasible:
        raise InputError(
            f"the study {study.study_name!r} has no complete trial to promote that breaks no "
            "constraint."
        )
    ranked = (rank or by_posterior_mean)(study)
    chosen = [number for number in ranked if number in feasible][:top]
    entries = _entries(trials, prepared, chosen)
    if not any(_may_win(trial, feasible) for _, trial, *_ in entries):
        raise InputError("the default configuration breaks a constraint, and no other is ranked.")
    place = Path(folder).expanduser()
    fits = Fits(prepared, place / "fits", tell)
    contenders = [
        _train(fits, prepared, name, trial, params, recipe, n_seeds)
        for name, trial, params, recipe in entries
    ]
    (goal,) = goals_of(prepared.targets)
    sign = _sign(goal)
    winner = max(
        (one for one in contenders if _may_win(one.trial, feasible)),
        key=lambda one: sign * statistics.fmean(one.validation),
    )
    if all(map(math.isinf, winner.validation)):
        raise InputError("every configuration diverges on all data: search at a larger proxy.")
    default = next((c for c in contenders if c.recipe == prepared.space.default_recipe), None)
    read = {id(c): c for c in (winner, default) if c is not None}  # one, if the default wins
    tested = {key: _with_test(fits, prepared, c) for key, c in read.items()}
    contenders = [tested.get(id(c), c) for c in contenders]
    result = Promotion(
        tuple(contenders),
        tested[id(winner)],
        None if default is None else tested[id(default)],
        place / "adapter",
        goal,
    )
    _save(result, fits, prepared, study, place)
    return result


def _check_metric(prepared: Prepared) -> None:
    names = [target.name for target in prepared.targets]
    if len(names) > 1 or isinstance(prepared.targets[0], TrainingSeconds):
        raise InputError(
            f"promote compares configurations by one metric of the trained model, the study is on "
            f"{' and '.join(names)}: train the one you choose with `optuna-llmbo export --trial`."
        )
    if prepared.test:
        check_all(prepared.targets, prepared.model, prepared.tokenizer, prepared.test)


def _may_win(trial: int | None, feasible: Collection[int]) -> bool:
    """Whether a configuration's own trial, if it has one, broke no constraint."""
    return trial is None or trial in feasible


def _sign(goal: Goal) -> float:
    """Sign that makes larger values better."""
    return 1.0 if goal.direction == "maximize" else -1.0


def by_posterior_mean(study: optuna.Study) -> list[int]:
    """Numbers of the complete trials, ranked by the posterior mean of `LLMBOSampler`'s model."""
    return [one.number for one in LLMBOSampler(seed=0, provenance=False).rank(study)]


def _entries(
    trials: Sequence[FrozenTrial], prepared: Prepared, chosen: Sequence[int]
) -> list[tuple[str, int | None, dict[str, Any], LoRARecipe]]:
    """Name, trial, parameters and recipe to train; the default first, without duplicates."""
    entries: list[tuple[str, int | None, dict[str, Any], LoRARecipe]] = []
    default = prepared.space.default_recipe
    if default is not None:
        params = dict(prepared.space.default_params or {})
        done = default_trial(trials)
        entries.append(("default", None if done is None else done.number, params, default))
    params_of = {trial.number: trial.params for trial in trials}
    for number in chosen:
        params = dict(params_of[number])
        recipe = prepared.space.suggest(FixedTrial(params))
        if all(recipe != other for *_, other in entries):
            entries.append((f"trial {number}", number, params, recipe))
    return entries


def _train(
    fits: Fits,
    prepared: Prepared,
    name: str,
    trial: int | None,
    params: Mapping[str, Any],
    recipe: LoRARecipe,
    n_seeds: int,
) -> Contender:
    made = [fits.fit(recipe, prepared.pool, seed=seed, name=name) for seed in range(n_seeds)]
    values = [_on_validation(fits, prepared, recipe, fit, seed) for seed, fit in enumerate(made)]
    return Contender(trial, params, recipe, tuple(made), tuple(values))


def _on_validation(
    fits: Fits, prepared: Prepared, recipe: LoRARecipe, fit: Fit, seed: int
) -> float:
    if prepared.is_on_loss:
        return fit.loss
    if math.isinf(fit.loss):
        (goal,) = goals_of(prepared.targets)
        return -_sign(goal) * math.inf
    with fits.model(recipe, fit, seed=seed):
        return _measured(prepared, prepared.validation)


def _measured(prepared: Prepared, examples: Sequence[Example]) -> float:
    """The search's metric for the model in its current state."""
    if prepared.is_on_loss:
        return prepared.loss_on(examples)
    (target,) = prepared.targets
    return target(prepared.model, prepared.tokenizer, examples)


def _with_test(fits: Fits, prepared: Prepared, one: Contender) -> Contender:
    if not prepared.test:
        return one
    values = []
    for seed, fit in enumerate(one.fits):
        with fits.model(one.recipe, fit, seed=seed):
            values.append(_measured(prepared, prepared.test))
    return replace(one, test=tuple(values))


def _save(
    result: Promotion, fits: Fits, prepared: Prepared, study: optuna.Study, folder: Path
) -> None:
    winner = result.winner
    sign = _sign(result.goal)
    seed = max(range(len(winner.fits)), key=lambda i: sign * winner.validation[i])
    with writing(folder):
        with fits.model(winner.recipe, winner.fits[seed], seed=seed) as model:
            save_adapter(model, winner.recipe, prepared.base, result.adapter)
        (result.adapter / "README.md").write_text(card(result, prepared, study, seed))
        text = json.dumps(facts(result, prepared, study, seed), indent=2)
        (folder / "promotion.json").write_text(text + "\n")


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
    return f"""---
base_model: {prepared.base}
library_name: peft
tags: [lora, optuna]
---

# LoRA adapter for {prepared.fingerprint["model"]}

Trained on {prepared.fingerprint["train"]}, {len(prepared.pool)} examples, with {origin} of the
Optuna study {study.study_name!r} ({len(study.get_trials(deepcopy=False))} trials on
{len(prepared.train)} of the examples each). This is seed {seed} of {n}, the best one
on the validation examples.

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
