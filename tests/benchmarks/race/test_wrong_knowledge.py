"""Wrong knowledge: that its numbers are wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from benchmarks.race import methods
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race import wrong_knowledge
from benchmarks.race.study import Plan
from benchmarks.race.task import suggest_all
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.search_space import SearchSpace


FROM_PACKS = [
    wrong_knowledge.rates_high,
    wrong_knowledge.rates_low,
    wrong_knowledge.reversed_in_range,
]


def made_up(**distributions: Any) -> Task:
    default = {name: Axis(d).from_unit(0.5) for name, d in distributions.items()}
    return Task(
        name="made-up",
        family="lora",
        sentence="a number",
        distributions=distributions,
        suggest=suggest_all(distributions),
        value=lambda configuration: float(configuration["learning_rate"]),
        best=0.0,
        middle=1.0,
        default=default,
    )


@pytest.fixture
def lora() -> Task:
    """LoRA's parameters, one in upper case, one with few values, one that no pack knows."""
    return made_up(
        lora_rank=IntDistribution(2, 512, log=True),
        LORA_ALPHA=IntDistribution(1, 64),
        learning_rate=FloatDistribution(1e-6, 1e-1, log=True),
        batch_size=CategoricalDistribution([4, 8, 64]),
        weight_decay=FloatDistribution(0.2, 0.5),
        llm=CategoricalDistribution(["a", "b", "c"]),
    )


def known(make: Callable[[Task], dict[str, Any]] | None, task: Task) -> Knowledge:
    assert task.distributions is not None
    knowledge = load_knowledge("auto" if make is None else make(task))
    return knowledge.relevant(list(task.distributions))


def advice(knowledge: Knowledge, name: str) -> tuple[Any, list[Any]]:
    """The typical range of a parameter and all recommended values."""
    values = [knowledge.recommended_value(i, name) for i in range(knowledge.n_recommended)]
    return knowledge.typical_range(name), values


@pytest.mark.parametrize(
    ("make", "factor"), [(wrong_knowledge.rates_high, 100.0), (wrong_knowledge.rates_low, 0.01)]
)
def test_rates_are_off_and_nothing_else(make: Any, factor: float, lora: Task) -> None:
    right, wrong = known(None, lora), known(make, lora)
    (low, high), values = advice(right, "learning_rate")
    typical, recommended = advice(wrong, "learning_rate")
    assert typical == pytest.approx((low * factor, high * factor))
    assert recommended == pytest.approx([value * factor for value in values])
    for name in set(lora.distributions or {}) - {"learning_rate"}:
        assert advice(wrong, name) == advice(right, name)


def test_what_is_low_becomes_high(lora: Task) -> None:
    wrong = known(wrong_knowledge.reversed_in_range, lora)
    # low * high / number on a logarithmic scale, whose ends are half an integer further out
    assert advice(known(None, lora), "lora_rank") == ((8.0, 64.0), [16, 32])
    assert advice(wrong, "lora_rank") == ((12.0, 96.0), [48, 24])
    typical, recommended = advice(wrong, "learning_rate")
    assert typical == pytest.approx((1e-4 / 1.5, 1e-3)) and recommended == pytest.approx(
        [5e-4, 1e-4]
    )
    # low + high - number
    assert advice(wrong, "LORA_ALPHA") == ((1.0, 49.0), [33, 33])
    # 16 and 32 lie between the last two of the levels 4, 8 and 64
    assert advice(known(None, lora), "batch_size") == ((4.0, 32.0), [16, 8])
    assert advice(wrong, "batch_size") == ((8.0, 64.0), [8, 8])
    # the typical range, up to 0.1, does not meet the space
    assert advice(wrong, "weight_decay") == (None, [0.5, None])


@pytest.mark.parametrize("make", FROM_PACKS)
@pytest.mark.parametrize("name", ["made-up", "hpobench-car", "hpobench-car-grid", "lora-10"])
def test_derived_quantities_stay(make: Any, name: str, lora: Task) -> None:
    task = lora if name == "made-up" else tasks.load(name)
    assert task.distributions is not None
    space = SearchSpace(task.distributions)
    columns = space.numbers(space.snap(np.random.default_rng(0).random((20, len(space.names)))))
    right = known(None, task).derive_columns(columns)
    wrong = known(make, task).derive_columns(columns)
    assert list(right) == list(wrong) and right
    for quantity in right:
        np.testing.assert_array_equal(right[quantity], wrong[quantity])


def test_with_right_numbers_it_is_as_the_built_in_packs(
    lora: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "load", lambda _: lora)
    monkeypatch.setattr(wrong_knowledge, "FACTOR", 1.0)
    plans = [Plan("made-up", name, "plain", 0, 6) for name in ("ours", "ours-rates-high")]
    right, same = map(study.run, plans)
    assert right["error"] is None and right["values"] == same["values"]


def test_another_domain_claims_all_that_has_an_order(lora: Task) -> None:
    wrong = known(wrong_knowledge.other_domain, lora)
    assert [pack.name for pack in wrong.packs] == ["wrong"]
    for name, distribution in (lora.distributions or {}).items():
        typical, recommended = advice(wrong, name)
        if name == "llm":
            assert typical is None and recommended == [None, None]
            continue
        axis = Axis(distribution)
        places = [axis.place(value) for value in (*(typical or ()), *recommended)]
        assert max(places) - min(places) <= 0.25 + 1 / 3  # and a step of the three levels
        assert all(map(axis.admits, recommended))
    again = wrong_knowledge.other_domain(lora)
    assert wrong_knowledge.other_domain(lora) == again
    other = made_up(**(lora.distributions or {}))
    object.__setattr__(other, "name", "another")
    assert wrong_knowledge.other_domain(other) != again


def test_where_nothing_is_known_nothing_can_be_wrong() -> None:
    wrong = ("ours-rates-high", "ours-rates-low", "ours-reversed")
    for method in wrong:
        assert methods.can_search(method, "hpobench-car")
        assert not methods.can_search(method, "bbob-sphere-2d")
        assert not methods.can_search(method, "conditional")
    assert methods.can_search("ours-other-domain", "bbob-sphere-2d")
    assert not methods.can_search("ours-other-domain", "conditional")
    with pytest.raises(InputError, match="have no numbers for bbob-sphere-2d"):
        wrong_knowledge.reversed_in_range(tasks.load("bbob-sphere-2d"))


def test_a_rate_without_numbers_cannot_be_off() -> None:
    task = made_up(weight_decay=FloatDistribution(0.0, 0.1), warmup_ratio=FloatDistribution(0, 1))
    assert wrong_knowledge.has_numbers(task) and not wrong_knowledge.has_rates(task)


@pytest.mark.parametrize("method", sorted({*methods.NEEDS_KNOWLEDGE, "ours-other-domain"}))
def test_it_is_tried_first(method: str, lora: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "load", lambda _: lora)
    record = study.run(Plan("made-up", method, "plain", seed=0, budget=1))
    assert record["error"] is None
    _, recommended = advice(known(methods.OURS[method]["knowledge"], lora), "learning_rate")
    assert recommended[0] != advice(known(None, lora), "learning_rate")[1][0]
    assert record["values"] == [pytest.approx(recommended[0])]
