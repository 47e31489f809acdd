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
from optuna.trial import FrozenTrial

from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.checkpoint import writing
from optuna_llmbo.promotable import Promotable
from optuna_llmbo.promotable import PromotableObjective
from optuna_llmbo.promotion import card
from optuna_llmbo.promotion import Contender
from optuna_llmbo.promotion import facts
from optuna_llmbo.promotion import merged_card
from optuna_llmbo.promotion import Promotion
from optuna_llmbo.sampler import LLMBOSampler
from optuna_llmbo.study.outcome import complete
from optuna_llmbo.study.outcome import default_trial
from optuna_llmbo.study.progress import Goal


MERGED = "merged"
"""Folder of the merged model, in that of the promotion."""

Rank = Callable[[optuna.Study], Sequence[int]]
"""Numbers of a study's trials, the most promising first; only those that are complete and break no
constraint are promoted."""


def promote(
    study: optuna.Study,
    objective: PromotableObjective,
    *,
    folder: str | os.PathLike[str],
    top: int = 3,
    n_seeds: int = 3,
    rank: Rank | None = None,
    merge: bool = False,
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
        objective: a `LoRAObjective` on one metric of the trained model, a `TrainerObjective` or a
            `TRLObjective`; with `test=` for a result on test data.
        folder: holds the adapter (`adapter/`), the numbers (`promotion.json`) and the weights of
            all fits (`fits/`), so that an interrupted call resumes.
        top: number of configurations of the study to train.
        n_seeds: number of seeds for each: 0, 1, ...
        rank: ranks the trials; None: by the posterior mean of `LLMBOSampler`'s model, which a
            lucky value does not mislead.
        merge: also write the base model with the adapter in its weights (`merged/`), which
            transformers loads without peft. The logits of both are compared before it is kept.
        tell: called before each training with a description of it.

    Raises:
        InputError: if the study has no complete trial that breaks no constraint, belongs to
            another objective or is on several metrics, if every training diverges, or if the
            merged model does not give the adapter's logits.
    """
    check_at_least("top", top, 1)
    check_at_least("n_seeds", n_seeds, 1)
    place = Path(folder).expanduser()
    promotable = objective.promotable(place / "fits", tell)
    objective.check_study(study)
    if merge:
        promotable.check_merge(place / MERGED)
    trials = study.get_trials(deepcopy=False)
    feasible = {trial.number for trial in complete(trials)}
    if not feasible:
        raise InputError(
            f"the study {study.study_name!r} has no complete trial to promote that breaks no "
            "constraint."
        )
    ranked = (rank or by_posterior_mean)(study)
    chosen = [number for number in ranked if number in feasible][:top]
    control, entries = _entries(trials, promotable, chosen)
    if not any(_may_win(entry.trial, feasible) for entry in entries):
        raise InputError("the default configuration breaks a constraint, and no other is ranked.")
    contenders = [_train(promotable, entry, n_seeds) for entry in entries]
    sign = _sign(promotable.goal)
    winner = max(
        (one for one in contenders if _may_win(one.trial, feasible)),
        key=lambda one: sign * statistics.fmean(one.validation),
    )
    if all(map(math.isinf, winner.validation)):
        raise InputError("every configuration diverges on all data: search at a larger proxy.")
    default = None if control is None else contenders[0]
    read = {id(c): c for c in (winner, default) if c is not None}  # one, if the default wins
    tested = {key: _with_test(promotable, c) for key, c in read.items()}
    contenders = [tested.get(id(c), c) for c in contenders]
    result = Promotion(
        tuple(contenders),
        tested[id(winner)],
        None if default is None else tested[id(default)],
        place / "adapter",
        promotable.goal,
    )
    return _save(result, promotable, study, place, merge=merge)


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
    recipe: Any


def _entries(
    trials: Sequence[FrozenTrial], promotable: Promotable, chosen: Sequence[int]
) -> tuple[_Entry | None, list[_Entry]]:
    """The default, if there is one, and all that is to be trained, the default first, without
    duplicates.

    Every trial's recipe is its own, whatever the objective's space is now.
    """
    default = _default_entry(trials, promotable)
    entries = [] if default is None else [default]
    of = {trial.number: trial for trial in trials}
    for number in chosen:
        recipe = promotable.recipe_of(of[number])
        if all(recipe != other.recipe for other in entries):
            entries.append(_Entry(f"trial {number}", number, dict(of[number].params), recipe))
    return default, entries


def _default_entry(trials: Sequence[FrozenTrial], promotable: Promotable) -> _Entry | None:
    """The control of the search, as it was run; else the default of the objective's space."""
    control = default_trial(trials)
    if control is not None:
        recipe = promotable.recipe_of(control)
        return _Entry("default", control.number, dict(control.params), recipe)
    if promotable.default is None:
        return None
    params, recipe = promotable.default
    return _Entry("default", None, dict(params), recipe)


def _train(promotable: Promotable, entry: _Entry, n_seeds: int) -> Contender:
    recipe = entry.recipe
    fits = [promotable.fit(recipe, seed=seed, name=entry.name) for seed in range(n_seeds)]
    values = [promotable.validation(recipe, fit, seed=seed) for seed, fit in enumerate(fits)]
    return Contender(entry.trial, entry.params, recipe, tuple(fits), tuple(values))


def _with_test(promotable: Promotable, one: Contender) -> Contender:
    if not promotable.has_test:
        return one
    values = [promotable.test(one.recipe, fit, seed=seed) for seed, fit in enumerate(one.fits)]
    return replace(one, test=tuple(values))


def _save(
    result: Promotion, promotable: Promotable, study: optuna.Study, folder: Path, *, merge: bool
) -> Promotion:
    """Write adapter, card and numbers, then the merged model and what is to be said of it."""
    winner, sign = result.winner, _sign(result.goal)
    seed = max(range(len(winner.fits)), key=lambda i: sign * winner.validation[i])
    with writing(folder):
        promotable.save(winner.recipe, winner.fits[seed], result.adapter, seed=seed)
        _describe(result, promotable, study, seed, folder)
    if not merge:
        _tell_of_an_earlier_model(folder / MERGED)
        return result
    result = replace(result, merged=promotable.merge(result.adapter, folder / MERGED))
    with writing(folder):
        _describe(result, promotable, study, seed, folder)
    return result


def _describe(
    result: Promotion, promotable: Promotable, study: optuna.Study, seed: int, folder: Path
) -> None:
    """Write model cards and `promotion.json`."""
    text = card(result, promotable, study, seed)
    (result.adapter / "README.md").write_text(text, encoding="utf-8")
    if result.merged is not None:
        text = merged_card(result, promotable, study, seed)
        (result.merged.folder / "README.md").write_text(text, encoding="utf-8")
    numbers = json.dumps(facts(result, promotable, study, seed), indent=2)
    (folder / "promotion.json").write_text(numbers + "\n")


def _tell_of_an_earlier_model(folder: Path) -> None:
    if folder.exists():
        warn_once(
            f"{str(folder)!r} was merged by an earlier call, and may be of another adapter than "
            "the one that is saved now: merge this one too (--merge), or remove the folder."
        )
