"""From what is known to the next configuration: pool, shortlist, read, fit, score.

Pure functions without studies and trials: the same arguments give the same configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.study.history import best_first
from optuna_llmbo.suggestion.candidates import candidate_pool
from optuna_llmbo.suggestion.candidates import Landmarks
from optuna_llmbo.suggestion.candidates import neighbours
from optuna_llmbo.suggestion.candidates import unseen
from optuna_llmbo.suggestion.decision import Decision
from optuna_llmbo.suggestion.decision import Prediction
from optuna_llmbo.suggestion.fitted import fit_model
from optuna_llmbo.suggestion.fitted import FittedModel
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.known import ModelData
from optuna_llmbo.suggestion.known import ReadTexts
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.suggestion.startup import best_of_sources
from optuna_llmbo.suggestion.startup import recommended


_N_POOL = 2048
_N_BEST = 3
_SHARE_BY_CHANCE = 0.25
_N_CENTRES = 8
_N_AROUND = 256
_FIRST_STEP = 0.1
_STEP_SHRINKS = 1 / 2


def decide(known: Known, options: SamplerOptions, read: ReadTexts | None) -> Decision:
    """The untried configuration that is most worth trying: see `consider`."""
    model, candidates = consider(known, options, read)
    return model.decision(candidates[0])


def consider(
    known: Known, options: SamplerOptions, read: ReadTexts | None
) -> tuple[FittedModel, np.ndarray]:
    """Fit the surrogates once and rank what they choose from.

    All candidates are scored by their numbers and choices, and local search improves on the best.
    Where whole configurations are read, the most promising of them are, and a second surrogate
    with `options.kernel` ranks those.

    Args:
        known: what is known of the study.
        options: the sampler's.
        read: reads whole configurations; None for the numeric kernel.

    Returns:
        The fitted model, and the candidates (m, d), the best first.

    Raises:
        SurrogateFitError: if a surrogate cannot be fitted.
    """
    rng = np.random.default_rng(known.seed)
    data = ModelData(known, options)
    pool = _pool(data, rng)
    if read is not None and options.kernel == "text":  # the numbers have no say
        pool = pool[rng.permutation(len(pool))[: options.n_candidates]]
    else:
        model = fit_model(data, "numeric", None, pool)
        scores = model.scores(pool)
        found = _climb(pool, scores, model, rng)
        if read is None:
            return model, np.vstack([found, pool[np.argsort(-scores, kind="stable")]])
        pool = _shortlist(pool, scores, found, model, rng)
    model = fit_model(data, options.kernel, read, pool)
    return model, pool[np.argsort(-model.scores(pool), kind="stable")]


def predict(
    known: Known,
    options: SamplerOptions,
    read: ReadTexts | None,
    configurations: Sequence[Configuration],
) -> list[Prediction]:
    """What the surrogate expects of some configurations for one objective, larger is better.

    Raises:
        SurrogateFitError: if the surrogate cannot be fitted.
    """
    points = known.space.to_unit(configurations)
    model = fit_model(ModelData(known, options), options.kernel, read, points)
    return [Prediction(*map(float, row)) for row in model.intervals(points)[:, :, 0].T]


def _pool(data: ModelData, rng: np.random.Generator) -> np.ndarray:
    """The candidates before any is scored, (m, d)."""
    known = data.known
    order = best_first(known.history.targets)[:_N_BEST]
    best = known.space.to_unit([known.history.configurations[i] for i in order])
    ranks = range(known.knowledge.n_recommended)
    advised = [
        *best_of_sources(known.space, known.sources),
        *(recommended(known.space, known.knowledge, i) for i in ranks),
    ]
    around = Landmarks(best, known.space.to_unit(advised))
    seen = known.history.seen
    return candidate_pool(known.region, seen, around, data.places, n=_N_POOL, rng=rng)


def _climb(
    pool: np.ndarray, scores: np.ndarray, model: FittedModel, rng: np.random.Generator
) -> np.ndarray:
    """The best point by the numbers alone, after a local search from the pool's best ones."""
    known = model.known
    rounds = 0 if known.region.is_enumerable else model.data.options.ablation.refinements
    seen = {*known.history.seen, *(known.space.keys(pool) if rounds else ())}
    for i in range(rounds):
        centres = pool[np.argsort(-scores, kind="stable")[:_N_CENTRES]]
        steps = np.full((_N_AROUND, 1), _FIRST_STEP * _STEP_SHRINKS**i)
        around = neighbours(known.region, centres, model.data.places, steps, rng)
        new = unseen(known.space, around, seen)
        if len(new):
            seen.update(known.space.keys(new))
            pool = np.vstack([pool, new])
            scores = np.concatenate([scores, model.scores(new)])
    best: np.ndarray = pool[int(scores.argmax())]
    return best


def _shortlist(
    pool: np.ndarray,
    scores: np.ndarray,
    found: np.ndarray,
    model: FittedModel,
    rng: np.random.Generator,
) -> np.ndarray:
    """What the language model reads: the best by the numbers alone, a quarter by chance.

    Only the point where the local search ended is among them: the points on its way are so near
    each other that their texts are the same.
    """
    most, space = model.data.options.n_candidates, model.known.space
    if len(pool) > most:
        by_rank = most - int(most * _SHARE_BY_CHANCE)
        chosen = np.argsort(-scores, kind="stable")[:by_rank]
        order = rng.permutation(len(pool))
        others = order[~np.isin(order, chosen)][: most - by_rank]
        pool = pool[np.concatenate([chosen, others])]
    is_new = space.keys(found[None])[0] not in space.keys(pool)
    return np.vstack([found, pool[: most - 1]]) if is_new else pool
