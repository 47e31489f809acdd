"""What helps or misleads: that it does say what it is meant to say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.race import methods
from benchmarks.race import sources
from benchmarks.race import tasks
from benchmarks.race import variants
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.search_space import SearchSpace


def test_the_wrong_prior_expects_nothing_near_the_default() -> None:
    task = tasks.load("lora-100")
    assert task.distributions is not None
    space = SearchSpace(task.distributions)
    ranges = variants.wrong_prior(task)
    assert set(ranges) == set(space.names)
    prior = Prior(space, ranges)
    random = space.snap(np.random.default_rng(0).random((500, len(space.names))))
    at_default = prior.log_density(space.to_unit([task.default]))[0]
    assert at_default < np.quantile(prior.log_density(random), 0.2)


@pytest.mark.parametrize("name", ["hpobench-car", "bbob-sphere-2d", "lora-exact"])
def test_wrong_quantities_are_numbers_all_over_the_space(name: str) -> None:
    task = tasks.load(name)
    assert task.distributions is not None
    space = SearchSpace(task.distributions)
    knowledge = load_knowledge(variants.wrong_quantities(task)).relevant(space.names)
    points = space.snap(np.random.default_rng(0).random((100, len(space.names))))
    derived = knowledge.derive_columns(space.numbers(points))
    assert [n for n in derived if n.startswith("nonsense")] == [f"nonsense_{i}" for i in range(3)]
    assert all(np.isfinite(column).all() for column in derived.values())


def test_the_reversed_study_is_the_earlier_one_upside_down() -> None:
    task = tasks.load("hpobench-kc1")
    (earlier,), (reverse,) = variants.earlier_study(task), variants.reversed_study(task)
    assert len(earlier.trials) == len(reverse.trials) == sources.N_DRAWN
    for there, here in zip(earlier.trials, reverse.trials, strict=True):
        assert there.params == here.params and there.value == -here.value  # type: ignore[operator]
        assert there.value == tasks.load("hpobench-car").value(there.params)


def test_without_a_like_task_there_is_no_transfer() -> None:
    assert methods.can_search("numeric-transfer", "lora-10")
    assert not methods.can_search("numeric-transfer", "bbob-sphere-2d")
    with pytest.raises(InputError, match="has no similar task"):
        variants.earlier_study(tasks.load("bbob-sphere-2d"))
