"""Train the best configurations of a study on all of the data and save the best adapter."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
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
from optuna_llmbo.lora.recorded import recipe_of
from optuna_llmbo.promotion import card
from optuna_llmbo.promotion import Contender
from optuna_llmbo.promotion import facts
from optuna_llmbo.promotion import Promotion
from optuna_llmbo.sampler import LLMBOSampler
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import goals_of
from optuna_llmbo.study.trial_attributes import RECIPE


Rank = Callable[[optuna.Study], Sequence[int]]
"""Numbers of a study's trials, the most promising first; only those that are complete and break no
constraint are promoted."""


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

    Each configuration is trained as in its trial, also where the objective's space has changed
    since. The default configuration, which is the search's control if that is complete, is trained
    with the same seeds. The validation data,
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
    control, entries = _entries(trials, prepared, chosen)
    if not any(_may_win(entry.trial, feasible) for entry in entries):
        raise InputError("the default configuration breaks a constraint, and no other is ranked.")
    place = Path(folder).expanduser()
    fits = Fits(prepared, place / "fits", tell)
    contenders = [_train(fits, prepared, entry, n_seeds) for entry in entries]
    (goal,) = goals_of(prepared.targets)
    sign = _sign(goal)
    winner = max(
        (one for one in contenders if _may_win(one.trial, feasible)),
        key=lambda one: sign * statistics.fmean(one.validation),
    )
    if all(map(math.isinf, winner.validation)):
        raise InputError("every configuration diverges on all data: search at a larger proxy.")
    default = None if control is None else contenders[0]
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


@dataclass(frozen=True)
class _Entry:
    """A configuration to train."""

    name: str
    trial: int | None
    params: Mapping[str, Any]
    recipe: LoRARecipe


def _entries(
    trials: Sequence[FrozenTrial], prepared: Prepared, chosen: Sequence[int]
) -> tuple[_Entry | None, list[_Entry]]:
    """The default, if there is one, and all that is to be trained, the default first, without
    duplicates.

    Every trial's recipe is its own, whatever the objective's space is now.
    """
    default = _default_entry(trials, prepared)
    entries = [] if default is None else [default]
    of = {trial.number: trial for trial in trials}
    for number in chosen:
        recipe = _recipe_of(of[number], prepared)
        if all(recipe != other.recipe for other in entries):
            entries.append(_Entry(f"trial {number}", number, dict(of[number].params), recipe))
    return default, entries


def _default_entry(trials: Sequence[FrozenTrial], prepared: Prepared) -> _Entry | None:
    """The control of the search, as it was run; else the default of the objective's space."""
    control = default_trial(trials)
    if control is not None:
        recipe = _recipe_of(control, prepared)
        return _Entry("default", control.number, dict(control.params), recipe)
    default, params = prepared.space.default_recipe, prepared.space.default_params
    return None if default is None else _Entry("default", None, dict(params or {}), default)


def _recipe_of(trial: FrozenTrial, prepared: Prepared) -> LoRARecipe:
    recipe, space = recipe_of(trial, prepared.fingerprint), prepared.space
    if RECIPE in trial.user_attrs or space.function is None:
        return recipe
    try:
        made = space.suggest(FixedTrial(trial.params))
    except ValueError:  # the function asks for what the trial does not have
        made = None
    if made != recipe:
        raise InputError(
            f"trial {trial.number} was run by a version that did not record all its "
            "hyperparameters, and the function given as space fixes or converts some, which it "
            "may have done otherwise then: build the recipe yourself, and write it for your tool "
            "with optuna_llmbo.lora.export.write."
        )
    return recipe


def _train(fits: Fits, prepared: Prepared, entry: _Entry, n_seeds: int) -> Contender:
    recipe = entry.recipe
    made = [fits.fit(recipe, prepared.pool, seed=seed, name=entry.name) for seed in range(n_seeds)]
    values = [_on_validation(fits, prepared, recipe, fit, seed) for seed, fit in enumerate(made)]
    return Contender(entry.trial, entry.params, recipe, tuple(made), tuple(values))


def _on_validation(
    fits: Fits, prepared: Prepared, recipe: LoRARecipe, fit: Fit, seed: int
) -> float:
    if prepared.is_on_loss:
        return fit.loss
    if math.isinf(fit.loss):
        (goal,) = goals_of(prepared.targets)
        return -_sign(goal) * math.inf
    with fits.model(recipe, fit, seed=seed):
        return prepared.metric_on(prepared.validation)


def _with_test(fits: Fits, prepared: Prepared, one: Contender) -> Contender:
    if not prepared.test:
        return one
    values = []
    for seed, fit in enumerate(one.fits):
        with fits.model(one.recipe, fit, seed=seed):
            values.append(prepared.metric_on(prepared.test))
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
