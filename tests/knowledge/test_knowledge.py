from __future__ import annotations

from collections.abc import Mapping
import copy
import dataclasses
import math
from pathlib import Path
import pickle
from typing import Any

import numpy as np
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Context
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.knowledge import load_pack
from optuna_llmbo.knowledge import load_packs
from optuna_llmbo.knowledge import Pack
from optuna_llmbo.knowledge.pack import normalise


LORA = ["rank", "lora_alpha", "lora_dropout", "batch_size", "learning_rate"]

OWN: dict[str, Any] = {
    "pack": {"name": "kiln", "summary": "Clay is fired\n  in a kiln.", "sources": ["a potter"]},
    "hyperparameters": {
        "temperature": {
            "aliases": ["temp", "Peak Heat"],
            "description": "degrees at the peak.",
            "relations": "Hotter needs less time.",
        },
        "hours": {"description": "time at the peak."},
    },
    "derived": {
        "heat": {"expression": "temperature * hours", "description": "heat work."},
        "log_heat": {"expression": "log(heat)", "description": "its logarithm."},
    },
    "recommended": [
        {"name": "stoneware", "source": "a potter", "values": {"temperature": 1250, "hours": 2}},
        {"name": "low fire", "source": "a potter", "values": {"temperature": 1050}},
    ],
}

OWN_TOML = """
[pack]
name = "kiln"
summary = "Clay is fired in a kiln."
[hyperparameters.temperature]
aliases = ["temp"]
description = "degrees at the peak."
"""


@pytest.fixture
def builtin() -> Knowledge:
    return load_knowledge("auto")


def own(**changes: Any) -> dict[str, Any]:
    """`OWN` with top-level tables replaced; None removes one."""
    table = {**copy.deepcopy(OWN), **changes}
    return {key: value for key, value in table.items() if value is not None}


def pack_names(knowledge: Knowledge) -> list[str]:
    return [pack.name for pack in knowledge.packs]


def derive(knowledge: Knowledge, configuration: Mapping[str, float]) -> dict[str, float]:
    """The derived quantities of one configuration."""
    columns = {name: np.array([value]) for name, value in configuration.items()}
    return {name: column.item() for name, column in knowledge.derive_columns(columns).items()}


def make_pack(name: str, hyperparameters: list[str], **head: Any) -> Pack:
    entries = {key: {"description": f"{key} of {name}."} for key in hyperparameters}
    table = {"pack": {"name": name, "summary": f"About {name}.", **head}}
    pack = load_pack({**table, "hyperparameters": entries})
    return dataclasses.replace(pack, always_relevant=False)


# --- the built-in packs


def test_builtin_packs_are_loaded_once() -> None:
    names = ["lora", "training", "full", "dpo", "forest", "boosting", "mlp"]
    assert [pack.name for pack in load_packs()] == names
    assert load_packs() is load_packs()


@pytest.mark.parametrize("pack", load_packs(), ids=lambda pack: pack.name)
def test_builtin_pack_is_complete(pack: Pack) -> None:
    assert pack.hyperparameters and pack.recommended and pack.sources
    assert pack.derived or pack.only  # beside another, whose quantities are its own
    assert not pack.always_relevant
    spellings = [
        normalise(spelling)
        for hyperparameter in pack.hyperparameters
        for spelling in {normalise(name) for name in hyperparameter.aliases}
        | {hyperparameter.name}
    ]
    assert len(spellings) == len(set(spellings))
    for hyperparameter in pack.hyperparameters:
        assert hyperparameter.description.endswith("."), hyperparameter.name
        assert len(hyperparameter.description + hyperparameter.relations) < 260
        for alias in hyperparameter.aliases:
            assert pack.find(alias) is hyperparameter


@pytest.mark.parametrize("pack", load_packs(), ids=lambda pack: pack.name)
def test_derived_quantities_are_positive_at_the_first_recommendation(pack: Pack) -> None:
    # On a log scale they must have a logarithm. A name that is also a hyperparameter is left out
    # of the configuration, so that it is derived; one that it is derived from stays.
    derived_names = {quantity.name for quantity in pack.derived}
    values = pack.recommended[0].values
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    configuration = {name: numbers[name] for name in numbers.keys() - derived_names}
    derived = derive(Knowledge((pack,)), configuration)
    assert derived.keys() == derived_names
    for name, value in derived.items():
        assert math.isfinite(value) and value > 0, name


def test_companions_are_packs() -> None:
    names = {pack.name for pack in load_packs()}
    assert {companion for pack in load_packs() for companion in pack.companions} <= names


def test_lora_recommendations_agree_with_themselves() -> None:
    for recommendation in load_packs()[0].recommended:
        values = recommendation.values
        assert values["alpha_ratio"] == values["lora_alpha"] / values["rank"]  # type: ignore[operator]


def test_knowledge_can_be_pickled(builtin: Knowledge) -> None:
    builtin.canonical("lr")
    assert pickle.loads(pickle.dumps(builtin)) == builtin
    assert copy.deepcopy(builtin) == builtin


# --- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rank", "rank"),
        ("r", "rank"),
        ("LoRA_R", "rank"),
        ("Lora-Alpha", "lora_alpha"),
        ("lora alpha", "lora_alpha"),
        ("lora.alpha", "lora_alpha"),
        ("--learning-rate", "learning_rate"),
        ("lora/r", "rank"),
        ("model.lora_alpha", "lora_alpha"),
        ("a/b.c/lr", "learning_rate"),
        ("mlpclassifier__learning_rate_init", "learning_rate_init"),
        ("pipe__model__max_depth", "max_depth"),
        ("batch__size", "batch_size"),
        ("alpha/rank", "alpha_ratio"),  # the whole goes before its last component
        ("eta", "learning_rate"),
        ("x", None),
        ("", None),
        ("rank/x", None),
    ],
)
def test_canonical(builtin: Knowledge, name: str, expected: str | None) -> None:
    assert builtin.canonical(name) == expected


def test_earlier_pack_says_what_a_name_means(builtin: Knowledge) -> None:
    assert builtin.canonical("alpha") == "lora_alpha"
    assert Knowledge(builtin.packs[::-1]).canonical("alpha") == "l2_penalty"


# --- which packs a study is about


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["x", "y"], []),
        (["r", "theta"], []),
        (["alpha", "l1_ratio"], []),
        (["C", "gamma"], []),
        (["learning_rate"], ["training"]),
        (["learning_rate", "batch_size"], ["training"]),
        (["learning_rate", "batch_size", "dropout"], ["training"]),
        (["lr", "n_layers", "hidden_dim", "dropout"], ["training"]),
        (["learning_rate", "weight_decay", "warmup_ratio"], ["training"]),
        (["learning_rate", "max_depth", "n_estimators"], ["boosting"]),
        (["max_depth", "n_estimators"], ["forest"]),
        (["learning_rate", "depth"], ["boosting"]),
        (["learning_rate", "batch_size", "depth"], ["mlp"]),
        (["C", "solver", "max_iter"], []),
        (["x0", "x1"], []),
        (LORA, ["lora"]),
        (["r", "alpha", "dropout", "lr", "batch_size"], ["lora"]),
        (["x/lora_r", "x/lora_alpha", "x/lr"], ["lora"]),
        (["mlpclassifier__alpha", "mlpclassifier__learning_rate_init"], ["mlp"]),
        (["model__max_features", "model__max_depth"], ["forest"]),
        ([*LORA, "weight_decay"], ["lora", "training"]),
        ([*LORA, "gamma"], ["lora"]),
        (["n_estimators", "max_depth", "learning_rate", "weight_decay"], ["boosting", "training"]),
    ],
)
def test_relevant(builtin: Knowledge, names: list[str], expected: list[str]) -> None:
    relevant = builtin.relevant(names)
    assert pack_names(relevant) == expected
    assert relevant.relevant(names) == relevant
    assert pack_names(builtin.relevant(reversed(names))) == expected


STUDIES = {
    "lightgbm": (
        "boosting",
        {
            "learning_rate": "learning_rate",
            "num_leaves": "num_leaves",
            "max_depth": "max_depth",
            "min_child_samples": "min_data_in_leaf",
            "feature_fraction": "colsample_bytree",
            "bagging_fraction": "subsample",
            "bagging_freq": "bagging_freq",
            "lambda_l1": "reg_alpha",
            "lambda_l2": "reg_lambda",
        },
    ),
    "xgboost": (
        "boosting",
        {
            "eta": "learning_rate",
            "max_depth": "max_depth",
            "subsample": "subsample",
            "colsample_bytree": "colsample_bytree",
            "min_child_weight": "min_child_weight",
            "lambda": "reg_lambda",
            "alpha": "reg_alpha",
            "gamma": "min_split_gain",
        },
    ),
    "catboost": (
        "boosting",
        {"iterations": "n_estimators", "depth": "max_depth", "learning_rate": "learning_rate"},
    ),
    "scikit-learn boosting": (
        "boosting",
        {
            "n_estimators": "n_estimators",
            "learning_rate": "learning_rate",
            "max_depth": "max_depth",
            "max_features": "colsample_bytree",
            "min_samples_leaf": "min_data_in_leaf",
            "min_samples_split": "min_samples_split",
        },
    ),
    "random forest": (
        "forest",
        {
            "n_estimators": "n_estimators",
            "max_depth": "max_depth",
            "max_features": "max_features",
            "min_samples_leaf": "min_samples_leaf",
            "min_samples_split": "min_samples_split",
        },
    ),
    "ranger": (
        "forest",
        {
            "num.trees": "n_estimators",
            "mtry": "max_features",
            "min.node.size": "min_samples_split",
            "sample.fraction": "max_samples",
        },
    ),
    "hpobench nn": (
        "mlp",
        {
            "alpha": "l2_penalty",
            "batch_size": "batch_size",
            "depth": "hidden_layers",
            "learning_rate_init": "learning_rate_init",
            "width": "hidden_layer_sizes",
        },
    ),
    "scikit-learn mlp": (
        "mlp",
        {
            "hidden_layer_sizes": "hidden_layer_sizes",
            "alpha": "l2_penalty",
            "learning_rate_init": "learning_rate_init",
            "batch_size": "batch_size",
            "solver": "solver",
        },
    ),
    "lora": (
        "lora",
        {
            "rank": "rank",
            "alpha_ratio": "alpha_ratio",
            "lora_dropout": "lora_dropout",
            "batch_size": "batch_size",
            "learning_rate": "learning_rate",
        },
    ),
}


@pytest.mark.parametrize("study", STUDIES)
def test_what_the_names_of_a_study_are_taken_for(builtin: Knowledge, study: str) -> None:
    expected_pack, meanings = STUDIES[study]
    relevant = builtin.relevant(meanings)
    assert pack_names(relevant) == [expected_pack]
    assert {name: relevant.canonical(name) for name in meanings} == meanings
    assert pack_names(builtin.relevant(reversed(list(meanings)))) == [expected_pack]


def test_network_is_not_described_as_trees(builtin: Knowledge) -> None:
    names = ["alpha", "batch_size", "depth", "learning_rate_init", "width"]
    network = builtin.relevant(names)
    assert "tree" not in network.passage(names)
    assert [quantity.name for quantity in network.derived(names)] == [
        "rate_per_example",
        "rate_times_width",
        "penalty_per_row",
    ]


def test_most_matching_pack_speaks_for_shared_names(builtin: Knowledge) -> None:
    names = ["max_depth", "n_estimators", "learning_rate", "weight_decay"]
    assert "each new tree" in builtin.relevant(names).passage(["learning_rate"])


def test_companion_wins_a_tie() -> None:
    first = make_pack("first", ["a", "b"], companions=["friend"])
    stranger, friend = make_pack("stranger", ["c", "d"]), make_pack("friend", ["c", "e"])
    knowledge = Knowledge((first, stranger, friend))
    assert pack_names(knowledge.relevant(["a", "b", "c"])) == ["first", "friend"]
    assert pack_names(knowledge.relevant(["c"])) == ["stranger"]
    assert pack_names(knowledge.relevant(["a", "b", "c", "d"])) == ["first", "stranger"]


def test_generic_names_need_company() -> None:
    pack = make_pack("waves", ["a", "b", "c"], generic=["a", "b"])
    assert [pack.evidence(name) for name in "abcd"] == [1, 1, 2, 0]
    knowledge = Knowledge((pack,))
    assert pack_names(knowledge.relevant(["a"])) == []
    assert pack_names(knowledge.relevant(["a", "b"])) == ["waves"]
    assert pack_names(knowledge.relevant(["c"])) == ["waves"]


def test_own_pack_is_always_relevant_and_first() -> None:
    knowledge = load_knowledge(OWN)
    assert knowledge.packs[1:] == load_packs()
    assert pack_names(knowledge.relevant(["x"])) == ["kiln"]
    assert pack_names(knowledge.relevant([*LORA, "temp"])) == ["kiln", "lora"]
    assert knowledge.relevant(["x"]).passage(["x"]) == "Clay is fired in a kiln."


# --- prose


def test_passage_of_the_five_lora_hyperparameters(builtin: Knowledge) -> None:
    passage = builtin.relevant(LORA).passage(LORA)
    lines = passage.splitlines()
    assert 1000 <= len(passage) <= 1500  # about 320 tokens of the small LLM
    assert passage.isascii()
    assert [line.split(":")[0] for line in lines[1:6]] == LORA
    assert lines[6].startswith("alpha_ratio = lora_alpha / rank: ")
    assert [line.split(" = ")[0] for line in lines[6:]] == [
        "alpha_ratio",
        "effective_step",
        "total_update",
        "root_ratio",
        "root_step",
    ]


def test_passage_says_the_names_of_the_study(builtin: Knowledge) -> None:
    names = ["r", "lora_alpha", "unknown", "opt/lr"]
    lines = builtin.relevant(names).passage(names).splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == ["r", "lora_alpha", "opt/lr"]
    assert lines[4].startswith("alpha_ratio = lora_alpha / r: ")
    # A name that reads as a division is not put into a formula.
    assert lines[5].startswith("effective_step = learning_rate * alpha_ratio: ")


def test_passage_of_nothing() -> None:
    assert Knowledge().passage(LORA) == ""


# --- derived quantities


def test_derived_values_of_lora(builtin: Knowledge) -> None:
    configuration = dict(zip(LORA, (16, 32, 0.05, 8, 2e-4), strict=True))
    assert derive(builtin.relevant(LORA), configuration) == pytest.approx(
        {
            "alpha_ratio": 2.0,
            "effective_step": 4e-4,
            "total_update": 5e-5,
            "root_ratio": 32 / 16**0.5,
            "root_step": 2e-4 * 32 / 16**0.5,
        }
    )


def test_derived_columns(builtin: Knowledge) -> None:
    columns = {
        "rank": np.array([8, 0, 4, 4]),
        "lora_alpha": np.array([16.0, 16.0, np.nan, 1e308]),
        "lr": np.array([1e-4, 1e-4, 1e-4, 1e3]),
        "target": np.full(4, np.nan),
    }
    derived = builtin.derive_columns(columns)
    assert list(derived) == ["alpha_ratio", "effective_step", "root_ratio", "root_step"]
    nan = math.nan
    np.testing.assert_allclose(derived["alpha_ratio"], [2.0, nan, nan, 2.5e307])
    np.testing.assert_allclose(derived["effective_step"], [2e-4, nan, nan, nan])


def test_derived_constant_is_a_column() -> None:
    table = {"pack": HEAD, "derived": {"three": TEXT | {"expression": "1 + 2"}}}
    derived = Knowledge((load_pack(table),)).derive_columns({"x": np.zeros(2)})
    np.testing.assert_array_equal(derived["three"], [3.0, 3.0])


@pytest.mark.parametrize("spelling", ["alpha_ratio", "alpha/rank", "lora_scale", "Alpha-Ratio"])
def test_hyperparameter_is_not_derived_again(builtin: Knowledge, spelling: str) -> None:
    configuration = {"rank": 16, "lora_alpha": 32, spelling: 4.0, "lr": 1e-4}
    derived = derive(builtin.relevant(configuration), configuration)
    roots = {"root_ratio": 16.0, "root_step": 16e-4}
    assert derived == pytest.approx({"effective_step": 4e-4, **roots})


def test_hyperparameter_unknown_but_named_as_a_derived_quantity(builtin: Knowledge) -> None:
    configuration = {"rank": 8, "lora_alpha": 8, "effective_step": 6.0, "batch_size": 2}
    derived = derive(builtin.relevant(configuration), configuration)
    assert derived == {"alpha_ratio": 1.0, "total_update": 3.0, "root_ratio": 8**0.5}


def test_only_what_can_be_computed(builtin: Knowledge) -> None:
    names = ["rank", "lora_alpha"]
    assert [quantity.name for quantity in builtin.relevant(names).derived(names)] == [
        "alpha_ratio",
        "root_ratio",
    ]
    assert builtin.derived(["rank"]) == builtin.derived([]) == ()


def test_same_name_is_derived_once() -> None:
    knowledge = Knowledge((load_pack(OWN), load_pack(OWN)))
    assert [quantity.name for quantity in knowledge.derived(["temp", "hours"])] == [
        "heat",
        "log_heat",
    ]


def test_own_spelling_leaves_builtin_quantities_alone() -> None:
    table = {
        "pack": {"name": "own", "summary": "Own."},
        "hyperparameters": {"step": {"aliases": ["lr"], "description": "own text."}},
    }
    knowledge = load_knowledge(table).relevant(["rank", "alpha_ratio", "lr"])
    assert knowledge.canonical("lr") == "step"
    assert "own text." in knowledge.passage(["lr"])
    derived = derive(knowledge, {"rank": 8, "alpha_ratio": 2, "lr": 0.5})
    assert derived == {"effective_step": 1.0, "root_ratio": 2 * 8**0.5, "root_step": 8**0.5}
    assert knowledge.recommended_value(0, "lr") == 2e-4


def test_canonical_spelling_goes_before_an_alias(builtin: Knowledge) -> None:
    derived = derive(builtin, {"r": 1, "rank": 4, "lora_alpha": 8})
    assert derived == {"alpha_ratio": 2.0, "root_ratio": 4.0}


# --- recommendations and typical ranges


def test_recommended_of_lora(builtin: Knowledge) -> None:
    lora = builtin.relevant(LORA)
    assert lora.n_recommended == 2
    values = [lora.recommended_value(0, name) for name in ("r", "Lora-Alpha", "dropout", "bs")]
    assert values == [16, 32, 0.05, 16]
    assert lora.recommended_value(0, "opt/lr") == 2e-4
    assert lora.recommended_value(0, "unknown") is None
    assert lora.recommended(2) == {}
    assert lora.recommended_value(2, "lr") is None


def test_recommended_is_a_union_and_earlier_packs_win(builtin: Knowledge) -> None:
    both = builtin.relevant([*LORA, "weight_decay"])
    values = both.recommended(0)
    assert (values["learning_rate"], values["weight_decay"]) == (2e-4, 0.01)
    assert "weight_decay" not in both.recommended(1)
    values["learning_rate"] = 1.0  # a copy
    assert both.recommended(0)["learning_rate"] == 2e-4


def test_recommended_without_packs() -> None:
    assert Knowledge().n_recommended == 0
    assert Knowledge().recommended(0) == {}
    with pytest.raises(IndexError, match="count from 0, got -1"):
        Knowledge().recommended(-1)


@pytest.mark.parametrize("pack", load_packs(), ids=lambda pack: pack.name)
def test_recommended_values_are_near_the_typical_ones(pack: Pack) -> None:
    for recommendation in pack.recommended:
        for name, value in recommendation.values.items():
            context = recommendation.when.known.get("method")
            about = Knowledge((pack,), Context(method=context))
            typical = about.typical_range(name)
            if typical is not None:
                assert isinstance(value, int | float), name
                assert typical[0] / 4 <= value <= typical[1] * 4, name


def test_typical_range(builtin: Knowledge) -> None:
    assert builtin.relevant(LORA).typical_range("opt/lr") == (1e-4, 1.5e-3)
    assert builtin.relevant(LORA).typical_range("unknown") is None
    assert builtin.relevant(["learning_rate", "batch_size"]).typical_range("lr") is None
    assert Knowledge().typical_range("lr") is None


def test_typical_range_of_the_first_pack_that_has_one(builtin: Knowledge) -> None:
    step = TEXT | {"aliases": ["lr"]}
    silent = {"pack": HEAD, "hyperparameters": {"step": step}}
    spoken = {"pack": HEAD, "hyperparameters": {"step": step | {"typical": [1, 2.5]}}}
    assert load_knowledge(silent).typical_range("lr") == (1e-4, 1.5e-3)
    assert load_knowledge([silent, spoken]).typical_range("lr") == (1.0, 2.5)


def test_typical_range_for_all_contexts_is_no_part_of_the_passage() -> None:
    entry = {"hours": TEXT | {"typical": [123, 456]}}
    pack = load_pack({"pack": HEAD, "hyperparameters": entry})
    assert Knowledge((pack,)).passage(["hours"]).endswith("hours: d")


# --- loading


def test_load_knowledge(tmp_path: Path, builtin: Knowledge) -> None:
    path = tmp_path / "kiln.toml"
    path.write_text(OWN_TOML, encoding="utf-8")
    assert load_knowledge(None) == Knowledge()
    assert load_knowledge() == builtin == load_knowledge([])
    assert load_knowledge(builtin) == builtin
    for source in (path, str(path), [path], ("auto", path)):
        assert pack_names(load_knowledge(source)) == ["kiln", *pack_names(builtin)]
    assert pack_names(load_knowledge([OWN, path]))[:2] == ["kiln", "kiln"]


def test_load_pack_from_mapping() -> None:
    pack = load_pack(OWN)
    assert pack.always_relevant
    assert pack.summary == "Clay is fired in a kiln."
    assert pack.sources == ("a potter",)
    temperature, hours = pack.hyperparameters
    assert temperature.aliases == ("temp", "Peak Heat")
    assert (hours.aliases, hours.relations) == ((), "")
    assert pack.find("peak-heat") is temperature
    assert [quantity.expression.names for quantity in pack.derived] == [
        {"temperature", "hours"},
        {"heat"},
    ]
    assert pack.recommended[1].values == {"temperature": 1050}


def test_summary_alone_is_a_pack() -> None:
    pack = load_pack({"pack": {"name": "context", "summary": "The data are haiku."}})
    assert Knowledge((pack,)).relevant(["x"]).passage(["x"]) == "The data are haiku."


@pytest.mark.parametrize("source", [3, [3], [None], [["auto"]]])
def test_not_a_source(source: Any) -> None:
    with pytest.raises(InputError, match="path of a TOML file"):
        load_knowledge(source)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.toml' cannot be read \(No such file"):
        load_pack(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_pack(tmp_path)


def test_broken_toml(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[pack\n", encoding="utf-8")
    with pytest.raises(InputError, match="broken.toml' is not valid TOML: .*line 1"):
        load_pack(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="broken.toml' is not valid TOML"):
        load_pack(path)


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kiln.toml"
    path.write_text(OWN_TOML.replace("aliases", "alias"), encoding="utf-8")
    message = (
        r"kiln.toml: \[hyperparameters.temperature\]: 'alias' is not a key of this table; "
        r"did you mean 'aliases'\? known are description, aliases, relations, typical"
    )
    with pytest.raises(InputError, match=message):
        load_pack(path)


HEAD = {"name": "kiln", "summary": "s"}
TEXT = {"description": "d"}


def choices(*tables: Any) -> dict[str, Any]:
    """A hyperparameter with these choices, as a change of `OWN`."""
    return {"hyperparameters": {"hours": TEXT | {"choices": list(tables)}}}


RECIPE = {"name": "n", "source": "s", "values": {"hours": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": None}, r"mapping: key 'pack' is missing; required are \['pack'\]"),
        ({"pack": 3}, "'pack' must be a table, got int 3"),
        ({"extra": {}}, "'extra' is not a key of this table; known are pack, hyper"),
        ({"hyperparameter": {}}, "did you mean 'hyperparameters'"),
        ({"pack": {"name": "kiln"}}, r"\[pack\]: key 'summary' is missing"),
        ({"pack": HEAD | {"summry": "s"}}, r"\[pack\]: 'summry' .* did you mean 'summary'"),
        ({"pack": HEAD | {"name": " "}}, "'name' must be a string that is not empty, got str ' '"),
        ({"pack": HEAD | {"sources": "s"}}, "'sources' must be a list of strings"),
        ({"pack": HEAD | {"companions": [1]}}, "'companions' must be a list of strings"),
        ({"pack": HEAD | {"generic": ["hour"]}}, "generic: 'hour' .* did you mean 'hours'"),
        ({"hyperparameters": []}, "'hyperparameters' must be a table, got list"),
        ({"hyperparameters": {"hours": 1}}, r"\[hyperparameters.hours\]: expected a table, got"),
        ({"hyperparameters": {"hours": {}}}, r"hours\]: key 'description' is missing"),
        ({"hyperparameters": {"hours": TEXT | {"aliases": "h"}}}, "'aliases' must be a list"),
        ({"hyperparameters": {"hours": TEXT | {"relations": 1}}}, "'relations' must be a string"),
        ({"hyperparameters": {"Hours": TEXT}}, "name 'Hours' must be lower-case snake_case"),
        ({"hyperparameters": {"lambda": TEXT}}, "'lambda' must be .* put other spellings in"),
        ({"hyperparameters": {"a-b": TEXT}}, "'a-b' must be lower-case snake_case"),
        (
            {
                "hyperparameters": {
                    "a": TEXT | {"aliases": ["A-B"]},
                    "b": TEXT | {"aliases": ["a b"]},
                }
            },
            r"\[hyperparameters.b\]: 'a b' already means 'a'; a spelling belongs to one",
        ),
        (
            {"hyperparameters": {"a": TEXT | {"aliases": ["b"]}, "b": TEXT}},
            r"\[hyperparameters.b\]: 'b' already means 'a'",
        ),
        ({"pack": HEAD | {"neutral": ["hour"]}}, "neutral: 'hour' .* did you mean 'hours'"),
        ({"hyperparameters": {"hours": TEXT | {"choices": "z"}}}, "'choices' must be a list of"),
        (
            {"hyperparameters": {"hours": TEXT | {"choices": [TEXT]}}},
            r"\[hyperparameters.hours\]: choices number 1: key 'names' is missing",
        ),
        (choices(TEXT | {"names": []}), "'names' must be a list of one or more strings that are"),
        (choices(TEXT | {"names": [True]}), r"'names' must be .*, got list \[True\]"),
        (choices({"names": ["z"]}), "number 1: key 'description' is missing"),
        (choices({"names": ["z"], "description": " "}), "'description' must be a string that is"),
        (choices(TEXT | {"names": ["z"], "descripton": "d"}), "did you mean 'description'"),
        (
            choices(TEXT | {"names": ["a", "A-B"]}, TEXT | {"names": ["z", "a b"]}),
            "number 2: 'a b' is already a name of number 1; a name belongs to one choice of a",
        ),
        ({"derived": {"q": TEXT}}, r"\[derived.q\]: key 'expression' is missing"),
        ({"derived": {"q": TEXT | {"expression": 1}}}, "'expression' must be a string"),
        (
            {"derived": {"q": TEXT | {"expression": "hours +"}}},
            r"\[derived.q\]: expression 'hours \+': not an expression; allowed are",
        ),
        (
            {"derived": {"q": TEXT | {"expression": "hour * 2"}}},
            r"\[derived.q\] expression: 'hour' is not a hyperparameter or an earlier derived .*"
            r"did you mean 'hours'\? known are temperature, hours",
        ),
        (
            {"derived": {"q": TEXT | {"expression": "temp"}}},  # an alias
            "'temp' is not a hyperparameter",
        ),
        (
            {"derived": {"q": TEXT | {"expression": "p"}, "p": TEXT | {"expression": "hours"}}},
            "'p' is not a hyperparameter or an earlier derived quantity",
        ),
        ({"derived": {"Q": TEXT | {"expression": "hours"}}}, "'Q' must be lower-case snake_case"),
        ({"recommended": {}}, "'recommended' must be a list of tables, got dict"),
        ({"recommended": [{"name": "n", "values": {}}]}, r"number 1: key 'source' is missing"),
        (
            {"recommended": [RECIPE, RECIPE | {"values": {"hour": 1}}]},
            r"\[\[recommended\]\] number 2 values: 'hour' .* did you mean 'hours'",
        ),
        (
            {"recommended": [RECIPE | {"values": {"hours": [1]}}]},
            "'hours' must be a number, a string or a boolean, got list",
        ),
    ],
)
def test_schema_errors(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pack(own(**changes))


@pytest.mark.parametrize(
    "typical",
    [
        *(3, "12", [], [1], [1, 2, 3], {"low": 1, "high": 2}, ["1", "2"], [False, True]),
        *([2, 1], [1, 1], [1, math.inf], [math.nan, 1], [1, 10**400]),
    ],
)
def test_typical_range_is_checked(typical: Any) -> None:
    message = (
        r"hours\]: 'typical' must be \[low, high\], two finite numbers with low < high, or a list "
        "of tables with such a range, got"
    )
    with pytest.raises(InputError, match=message):
        load_pack({"pack": HEAD, "hyperparameters": {"hours": TEXT | {"typical": typical}}})
