from __future__ import annotations

from typing import Any

import datasets
from optuna.trial import FixedTrial
import pytest

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import splits
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from tests.lora.conftest import rows
from tests.lora.test_objective import Make


PAIRS = [Pair(**row) for row in rows(30)]
PARTS = {"training": PAIRS[:10], "validation": PAIRS[10:20], "test": PAIRS[20:]}


def table(n: int, start: int) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows(n, start))


def other_answers(n: int, start: int = 0) -> datasets.Dataset:
    return datasets.Dataset.from_list([row | {"response": "many"} for row in rows(n, start)])


def keys(examples: Any) -> list[tuple[str, str]]:
    return [example.record.key for example in examples]


# --- the checks ---


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("training", "validation", "would reward memorizing"),
        ("training", "test", "would reward memorizing"),
        ("validation", "test", "the test would flatter what the search has chosen"),
    ],
)
def test_an_example_in_two_parts(first: str, second: str, why: str) -> None:
    splits.check_leaks(PARTS)
    seen = PARTS[first][4]
    copy = Pair(seen.prompt + " \n", " " + seen.response, "other stratum")
    leaking = {**PARTS, second: [*PARTS[second], copy]}
    message = f"1 of the {second} examples are also in the {first} data.*{why}.*{seen.prompt} "
    with pytest.raises(InputError, match=message):
        splits.check_leaks(leaking)
    del leaking[first]
    splits.check_leaks(leaking)


@pytest.mark.parametrize(
    ("first", "second"), [("training", "validation"), ("training", "test"), ("validation", "test")]
)
def test_a_prompt_in_two_parts(first: str, second: str, warnings_logged: list[str]) -> None:
    splits.warn_of_shared_prompts(PARTS)
    assert warnings_logged == []
    shared = [Pair(f" {pair.prompt}", "another answer") for pair in PARTS[first][:2]]
    parts = {**PARTS, second: [*PARTS[second], *shared]}
    splits.check_leaks(parts)
    splits.warn_of_shared_prompts(parts)
    (line,) = warnings_logged
    assert f"2 of the 12 {second} examples have a prompt that is also in the {first} data" in line


# --- splitting ---


@pytest.fixture(scope="module")
def many(tiny: LanguageModel) -> list[Example]:
    return tokens.encode([Pair(**row) for row in rows(40)], tiny.tokenizer, 512)


def test_the_test_is_held_out_first(many: list[Example]) -> None:
    parts = splits.hold_out({"training": many}, None, 8, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {
        "training": 29,
        "validation": 3,  # a tenth of the 32 left
        "test": 8,
    }
    assert sorted(sum(map(keys, parts.values()), [])) == sorted(keys(many))
    other_validation = splits.hold_out({"training": many}, 12, 8, seed=0)
    assert keys(other_validation["test"]) == keys(parts["test"])
    assert keys(splits.hold_out({"training": many}, None, 8, seed=1)["test"]) != keys(
        parts["test"]
    )


def test_a_test_of_its_own_changes_no_other_split(many: list[Example]) -> None:
    without = splits.hold_out({"training": many[:30]}, 5, None, seed=0)
    with_test = splits.hold_out({"training": many[:30], "test": many[30:]}, 5, "a file", seed=0)
    assert without["test"] == []
    assert keys(with_test["test"]) == keys(many[30:])
    for name in ("training", "validation"):
        assert keys(with_test[name]) == keys(without[name])


def test_fractions_are_of_all_examples(many: list[Example]) -> None:
    parts = splits.hold_out({"training": many}, 0.25, 0.5, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {
        "training": 10,
        "validation": 10,
        "test": 20,
    }
    counted = splits.hold_out({"training": many}, 10, 20, seed=0)
    assert {name: keys(part) for name, part in counted.items()} == {
        name: keys(part) for name, part in parts.items()
    }


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((15, None), "there are only 15 validation examples: with fewer than 16"),
        ((15, 3), "only 15 validation and 3 test examples"),
        ((16, 15), "only 15 test examples"),
        ((16, 16), None),
        ((16, None), None),
    ],
)
def test_parts_in_which_chance_decides(
    many: list[Example],
    sizes: tuple[int, int | None],
    message: str | None,
    warnings_logged: list[str],
) -> None:
    splits.hold_out({"training": many}, *sizes, seed=0)
    assert len(warnings_logged) == (message is not None)
    assert message is None or message in warnings_logged[0]


def test_copies_that_are_left_out_are_counted(
    many: list[Example], warnings_logged: list[str]
) -> None:
    parts = splits.hold_out({"training": [*many, *many]}, 16, None, seed=0)
    assert len(parts["training"]) == 2 * 40 - 2 * 16
    (line,) = warnings_logged
    assert "16 of 80 examples are copies of validation examples and are left out" in line


@pytest.mark.parametrize("test", [0, 40, -1, 0.001])
def test_counts_that_cannot_be(many: list[Example], test: int) -> None:
    with pytest.raises(InputError, match=f"test={test}: cannot split .* of 40 .* off for test"):
        splits.hold_out({"training": many}, None, test, seed=0)


def test_nothing_left_for_validation(many: list[Example]) -> None:
    with pytest.raises(InputError, match="cannot split 5 of 4 usable examples off for validation"):
        splits.hold_out({"training": many}, 5, 36, seed=0)


# --- in an objective ---


def test_a_test_set_takes_no_part_in_trials(make_objective: Make) -> None:
    seen: list[int] = []

    def metric(model: Any, tokenizer: Any, examples: Any) -> float:
        seen.append(len(examples))
        return 0.0

    without = make_objective()
    objective = make_objective(test=table(9, 500), extra_metrics={"seen": metric})
    prepared = objective.prepare()
    assert len(prepared.test) == 9
    assert without.prepare().test == ()
    params = without.default_params
    assert objective(FixedTrial(params)) == without(FixedTrial(params))
    assert seen == [6, 6]  # before the first trial, and in it


def test_the_fingerprint_of_a_test(make_objective: Make) -> None:
    without, one = make_objective().fingerprint, make_objective(test=table(9, 500)).fingerprint
    assert {n for n in one if one[n] != without.get(n)} == {"test_examples", "test_hash"}
    assert one["test_examples"] == 9
    other = make_objective(test=table(9, 700)).fingerprint
    assert {n for n in one if one[n] != other[n]} == {"test_hash"}
    split_off = make_objective(test=10).fingerprint
    assert (split_off["test_examples"], split_off["validation_examples"]) == (10, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": table(5, 0)}, "5 of the test examples are also in the training data"),
        (
            {"validation": table(8, 500), "test": table(8, 506)},
            "2 of the test examples are also in the validation data",
        ),
        ({"test": "nowhere.csv"}, "there is no data file or folder 'nowhere.csv'"),
        ({"test": 60}, "test=60: cannot split 60 of 60 usable examples off for test"),
        ({"test": True}, "test=True: expected a number of examples"),
        ({"test": table(2, 500), "max_length": 3}, "are longer than max_length=3"),
    ],
)
def test_mistakes(make_objective: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_objective(**changes).prepare()


def test_prompts_that_come_back_are_told(make_objective: Make, warnings_logged: list[str]) -> None:
    make_objective(validation=table(16, 500), test=other_answers(17, start=514)).prepare()
    (line,) = [warning for warning in warnings_logged if "prompt" in warning]
    assert "2 of the 17 test examples have a prompt that is also in the validation data" in line
