from __future__ import annotations

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import Key
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.suggestion.startup import start


SPACE = SearchSpace(
    {
        "learning_rate": FloatDistribution(1e-6, 1e-2, log=True),
        "rank": IntDistribution(1, 256, log=True),
        "lora_alpha": FloatDistribution(1, 512, log=True),
        "own": FloatDistribution(0.0, 10.0),
    }
)


def lora_knowledge() -> Knowledge:
    knowledge = load_knowledge("auto").relevant(SPACE.names)
    assert knowledge.n_recommended >= 2
    return knowledge


def source(seed: int) -> tuple[SourceObservations, list[Configuration]]:
    """A source, and its configurations from the best to the worst."""
    points = SPACE.snap(np.random.default_rng(seed).random((5, 4)))
    targets = np.random.default_rng(seed + 1).permutation(5).astype(float)
    return SourceObservations(points, targets[:, None], np.ones(5, bool)), SPACE.from_unit(
        points[np.argsort(-targets)]
    )


def started(
    n: int,
    knowledge: Knowledge | None,
    sources: list[SourceObservations],
    seen: list[Configuration] | None = None,
    seed: int = 0,
) -> list[Configuration]:
    """The first n configurations, each seen by the next."""
    tried = list(seen or [])
    for index in range(n):
        nothing = np.zeros(0)
        keys = frozenset(map(SPACE.key, tried))
        history = History((), nothing[:, None], nothing, nothing, {}, (), (), keys)
        rng = np.random.default_rng(seed)
        chosen, _ = start(SPACE, knowledge, sources, history, lambda x: x, index=index, rng=rng)
        tried.append(chosen)
    return tried[len(seen or []) :]


MIDDLE = {name: axis.from_unit(0.5) for name, axis in zip(SPACE.names, SPACE.axes, strict=True)}


def keys(configurations: list[Configuration]) -> list[Key]:
    return [SPACE.key(configuration) for configuration in configurations]


def test_sources_then_recommended_then_a_sequence() -> None:
    knowledge = lora_knowledge()
    (one, best_of_one), (two, best_of_two) = source(1), source(2)
    got = started(10, knowledge, [one, two])
    expected = [best_of_one[0], best_of_two[0], best_of_one[1], best_of_two[1]]
    assert keys(got[:4]) == keys(expected)
    assert got[4]["learning_rate"] == knowledge.recommended_value(0, "learning_rate")
    assert got[4]["own"] == 5.0  # the middle, where nothing is known
    assert keys(got[5:6]) == keys([MIDDLE])
    assert keys(got[6:]) == keys(started(4, None, []))  # from its beginning
    assert len(set(keys(got))) == len(got)


def test_what_was_tried_is_not_tried_again() -> None:
    knowledge = lora_knowledge()
    one, best = source(1)
    recommended = started(1, knowledge, [])[0]
    got = started(2, knowledge, [one], seen=[best[0], recommended])
    assert keys(got)[0] == SPACE.key(best[1])
    assert SPACE.key(recommended) not in keys(got)


def test_a_source_with_nothing_usable_is_passed_over() -> None:
    empty = SourceObservations(np.zeros((0, 4)), np.zeros((0, 1)), np.zeros(0, bool))
    assert keys(started(3, Knowledge(), [empty])) == keys(started(3, Knowledge(), []))


def test_the_sequence_is_that_of_the_seed() -> None:
    a, b, c = (keys(started(4, None, [], seed=seed)) for seed in (0, 0, 1))
    assert a == b and not set(a) & set(c)


def test_the_middle_comes_first_where_nothing_is_recommended() -> None:
    one, best = source(1)
    got = started(4, Knowledge(), [one])
    assert keys(got[:3]) == keys([best[0], best[1], MIDDLE])
    assert SPACE.key(MIDDLE) not in keys(got[3:])
    assert SPACE.key(MIDDLE) not in keys(started(4, None, [one]))  # nobody asked for advice


def test_the_start_spreads_over_all_ranges_even_if_knowledge_is_wrong() -> None:
    """Four points of the sequence lie in the four quarters of each range."""
    rates = [configuration["learning_rate"] for configuration in started(6, lora_knowledge(), [])]
    axis = SPACE.axis("learning_rate")
    assert sorted(int(axis.to_unit(rate) * 4) for rate in rates[2:]) == [0, 1, 2, 3]


def test_the_start_tries_every_nominal_choice() -> None:
    choices = tuple("abcdef")
    space = SearchSpace({"c": CategoricalDistribution(choices), "x": FloatDistribution(0, 1)})
    for knowledge in (Knowledge(), None):
        tried: list[Configuration] = []
        for index in range(7):
            nothing = np.zeros(0)
            seen = frozenset(space.key(c) for c in tried)
            pending = tuple(tried)
            history = History((), nothing[:, None], nothing, nothing, {}, (), pending, seen)
            rng = np.random.default_rng(0)
            tried.append(
                start(space, knowledge, [], history, lambda x: x, index=index, rng=rng)[0]
            )
        assert sorted(c["c"] for c in tried[:6]) == list(choices)


def test_a_source_speaks_of_nominal_choices_too() -> None:
    space = SearchSpace(
        {"c": CategoricalDistribution(("a", "b", "c")), "x": FloatDistribution(0, 1)}
    )
    best = {"c": "b", "x": 0.25}
    nothing = np.zeros(0)
    history = History((), nothing[:, None], nothing, nothing, {}, (), (), frozenset())
    got = start(
        space,
        Knowledge(),
        [SourceObservations(space.to_unit([best]), np.ones((1, 1)), np.ones(1, bool))],
        history,
        lambda x: x,
        index=0,
        rng=np.random.default_rng(0),
    )
    assert got == (best, True)
