from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.lora_table import plan
from benchmarks.lora_table import tables
from benchmarks.lora_table.defaults import DEFAULTS
from benchmarks.lora_table.tiers import FRACTIONS
from benchmarks.lora_table.tiers import PROXY
from benchmarks.lora_table.tiers import tier
from benchmarks.lora_table.tiers import TIERS
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.recipe import DEFAULT
from tests.benchmarks.lora_table.conftest import make_row


def keys(planned: list[plan.Planned]) -> Counter[tuple[object, ...]]:
    return Counter((*one.params.values(), one.fraction, one.seed) for one in planned)


def test_the_cpu_tier_has_the_runs_asked_for() -> None:
    first = plan.first_stage(tier("cpu"))
    runs = keys(first)
    assert max(runs.values()) == 1
    at = Counter((one.fraction, one.seed) for one in first)
    assert at[PROXY, 0] >= 800
    assert all(at[fraction, 0] >= 150 for fraction in FRACTIONS)


@pytest.mark.parametrize("name", TIERS)
def test_all_configurations_lie_in_the_space(name: str) -> None:
    space = tier(name).space
    for one in plan.first_stage(tier(name)):
        assert list(one.params) == list(tables.PARAMS)
        for parameter, value in one.params.items():
            assert space[parameter].low <= value <= space[parameter].high  # type: ignore[attr-defined]
            assert type(value) is type(space[parameter].low)  # type: ignore[attr-defined]


def test_random_configurations_fill_the_space() -> None:
    configurations = plan.random_configurations(tier("cpu"))
    assert configurations == plan.random_configurations(tier("cpu"))
    assert len({tuple(c.values()) for c in configurations}) == 200
    for name in ("alpha_ratio", "lora_dropout", "learning_rate"):
        axis = plan.SearchSpace(tier("cpu").space).axis(name)  # type: ignore[attr-defined]
        units = [axis.to_unit(c[name]) for c in configurations]
        counts = Counter(min(int(10 * u), 9) for u in units)
        assert set(counts.values()) <= set(range(15, 26)), name


def test_the_second_stage_follows_the_results() -> None:
    small = tier("cpu")
    random = plan.random_configurations(small)
    rows = [make_row(c, 3.0 + i, design="random") for i, c in enumerate(random)]
    rows += [make_row(DEFAULTS["peft"], 1.0, design="default")]
    rows += [make_row(random[50], 0.5, design="random", fraction=1.0)]
    table = tables.frame(rows)
    second = plan.second_stage(small, table)
    assert [one.params for one in second if one.seed == 0] == random[: small.n_promoted]
    assert max(keys(second).values()) == 1  # promoted ones do not stand in for random ones
    seeds = Counter((one.fraction, one.seed) for one in second)
    assert seeds[1.0, 1] == seeds[1.0, 2] == seeds[PROXY, 1] == small.n_seeded
    assert seeds[1.0, 0] == small.n_promoted


def test_defaults() -> None:
    ours = DEFAULTS["optuna-llmbo"]
    assert (ours["rank"], ours["alpha_ratio"]) == (DEFAULT.rank, DEFAULT.alpha_ratio)
    assert ours["learning_rate"] == DEFAULT.learning_rate
    assert (ours["batch_size"], ours["lora_dropout"]) == (DEFAULT.batch_size, DEFAULT.lora_dropout)

    import peft
    import transformers

    theirs, trainer = peft.LoraConfig(), transformers.TrainingArguments
    assert DEFAULTS["peft"] == {
        "rank": theirs.r,
        "alpha_ratio": theirs.lora_alpha / theirs.r,
        "lora_dropout": theirs.lora_dropout,
        "batch_size": trainer.per_device_train_batch_size,
        "learning_rate": trainer.learning_rate,
    }


def test_unknown_tier() -> None:
    with pytest.raises(InputError, match=r"tier='gpu': expected one of cpu, gsm8k"):
        tier("gpu")
