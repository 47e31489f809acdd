from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Condition
from optuna_llmbo.knowledge import Context
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.knowledge import load_pack
from optuna_llmbo.knowledge import load_packs
from optuna_llmbo.knowledge import Pack
from optuna_llmbo.knowledge.context import METHODS
from optuna_llmbo.knowledge.context import read_context


LORA = ["rank", "lora_alpha", "lora_dropout", "batch_size", "learning_rate"]
TRAINER = ["learning_rate", "num_train_epochs", "per_device_train_batch_size"]
MORE = [*TRAINER, "warmup_ratio", "weight_decay", "lr_scheduler_type"]

SMALL, LARGE = {"parameters": [0, 1e9]}, {"parameters": [1e9, 1e12], "steps": [1, 1000]}
HEAD = {"name": "own", "summary": "s"}


def own(**entry: Any) -> dict[str, Any]:
    """A pack with one hyperparameter `x`."""
    return {"pack": HEAD, "hyperparameters": {"x": {"description": "d", **entry}}}


BY_SIZE = own(typical=[{"range": [1, 10], "when": SMALL}, {"range": [5, 50], "when": LARGE}])


def pack_names(knowledge: Knowledge) -> list[str]:
    return [pack.name for pack in knowledge.packs]


# --- contexts and conditions


@pytest.mark.parametrize("given", [None, {}, Context()])
def test_nothing_is_known(given: Mapping[str, Any] | Context | None) -> None:
    assert read_context(given) == Context()
    assert Context().known == {}


def test_what_is_known() -> None:
    context = read_context({"method": "lora", "parameters": 7e9})
    assert context == Context("lora", 7e9, None)
    assert context.known == {"method": "lora", "parameters": 7e9}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lora", r"context must be a dict such as .*; got 'lora'"),
        ({"size": 7e9}, "context: 'size' is none of method, parameters, steps"),
        ({"parameter": 7e9}, r"Did you mean 'parameters'\?"),
        ({"method": "LoRA"}, r"one of lora, full, preference, pretraining; got 'LoRA'"),
        ({"method": "pre-training"}, r"got 'pre-training'. Did you mean 'pretraining'\?"),
        ({"method": 3}, "one of lora, full"),
        ({"parameters": "7B"}, r"context\['parameters'\] must be a positive number; got '7B'"),
        ({"parameters": 0}, "positive number; got 0"),
        ({"steps": True}, r"context\['steps'\] must be a positive number; got True"),
        ({"steps": float("inf")}, "positive number; got inf"),
    ],
)
def test_not_a_context(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_context(given)


@pytest.mark.parametrize(
    ("context", "allowed"),
    [
        (Context(), True),
        (Context("full"), True),
        (Context("lora"), False),
        (Context(parameters=10), True),
        (Context(parameters=20), True),
        (Context(parameters=21), False),
        (Context("full", 15, 100), True),
        (Context("full", 15, 101), False),
        (Context("lora", 15, 100), False),
    ],
)
def test_condition(context: Context, allowed: bool) -> None:
    assert Condition("full", (10, 20), (1, 100)).allows(context) == allowed


# --- ranges and recommendations


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({}, (1, 50)),
        ({"parameters": 1e8}, (1, 10)),
        ({"parameters": 1e10}, (5, 50)),
        ({"parameters": 1e9}, (1, 50)),  # both include their ends
        ({"steps": 2000}, (1, 10)),
        ({"parameters": 1e10, "steps": 2000}, None),
    ],
)
def test_typical_range_joins_what_the_context_leaves_open(
    context: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    assert load_knowledge(BY_SIZE, context).typical_range("x") == expected


def test_recommendations_for_the_context() -> None:
    made = [
        {"name": name, "source": "s", "values": {"x": value}, "when": when}
        for name, value, when in [
            ("any", 1, {}),
            ("full, small", 2, {"method": "full", **SMALL}),
            ("full, large", 3, {"method": "full", **LARGE}),
            ("preference", 4, {"method": "preference"}),
        ]
    ]
    table = own() | {"recommended": made}

    def values(**context: Any) -> list[Any]:
        knowledge = load_knowledge(table, context).relevant(["x"])
        return [knowledge.recommended_value(i, "x") for i in range(knowledge.n_recommended)]

    assert values(method="full", parameters=1e8) == [1, 2]
    assert values(method="full") == [1, 2, 3]
    assert values(method="preference") == [1, 4]
    assert values(method="lora") == [1]
    assert values() == [1, 2, 3]  # for the first method alone
    assert values(parameters=1e8) == [1, 2]


def test_what_is_known_stays() -> None:
    knowledge = load_knowledge("auto", {"steps": 10})
    there = knowledge.within({"method": "lora", "steps": 20})
    assert there.context == Context("lora", None, 10)
    assert there.packs == knowledge.packs
    assert there.within(None) == there
    assert load_knowledge(None, {"steps": 10}).context == Context(steps=10)
    assert load_knowledge(knowledge, {"method": "full"}).context == Context("full", None, 10)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (own(typical=[]), "'typical' must be .* or a list of tables with such a range, got list"),
        (own(typical=[[1, 2]]), "'typical' must be"),
        (own(typical=[{"when": SMALL}]), r"typical number 1: key 'range' is missing"),
        (own(typical=[{"range": [2, 1]}]), "number 1: 'range' must be .* low < high"),
        (
            own(typical=[{"range": [1, 2]}, {"range": [1, 2], "when": {"size": [1, 2]}}]),
            r"\[hyperparameters.x\]: typical number 2: when: 'size' is not a key of this table",
        ),
        (
            own(typical=[{"range": [1, 2], "when": {"parameter": [1, 2]}}]),
            r"did you mean 'parameters'\? known are method, parameters, steps",
        ),
        (
            own(typical=[{"range": [1, 2], "when": {"method": "dpo"}}]),
            "when: 'method' must be one of lora, full, preference, pretraining, got str 'dpo'",
        ),
        (
            own(typical=[{"range": [1, 2], "when": {"steps": 3}}]),
            r"when: 'steps' must be \[low, high\]",
        ),
        (
            own()
            | {"recommended": [{"name": "n", "source": "s", "values": {}, "when": {"a": 1}}]},
            r"\[\[recommended\]\] number 1: when: 'a' is not a key",
        ),
        ({"pack": HEAD | {"method": "dpo"}}, r"\[pack\]: 'method' must be one of lora, full"),
    ],
)
def test_mistakes_in_packs(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pack(table)


# --- the packs


@pytest.mark.parametrize(
    ("names", "context", "expected"),
    [
        (TRAINER, {}, ["full"]),
        (MORE, {}, ["full"]),
        ([*MORE, "adam_beta2", "max_grad_norm"], {}, ["full"]),
        ([*MORE, "momentum", "n_layers"], {"method": "full"}, ["full", "training"]),
        (["learning_rate", "weight_decay", "num_train_epochs"], {}, ["full"]),
        (["learning_rate", "weight_decay", "epochs"], {}, ["training"]),
        (["learning_rate", "weight_decay", "adam_beta2", "max_grad_norm"], {}, ["training"]),
        ([*LORA, "num_train_epochs"], {}, ["lora", "training"]),
        (["learning_rate", "weight_decay", "n_layers", "hidden_size"], {}, ["training"]),
        # LoRA's names speak first, however many others there are
        ([*MORE, "rank"], {}, ["lora", "training"]),
        ([*MORE, "r", "alpha"], {}, ["lora", "training"]),
        ([*MORE, "rank"], {"method": "preference"}, ["dpo", "lora", "training"]),
        # the method is told where the names do not show it
        (MORE, {"method": "lora"}, ["lora", "training"]),
        (["learning_rate"], {"method": "lora"}, ["lora"]),
        (["learning_rate", "batch_size"], {"method": "full"}, ["full"]),
        (["learning_rate", "batch_size"], {"method": "preference"}, ["dpo", "full"]),
        # DPO's names are those of many fields, and show nothing by themselves
        ([*LORA, "beta"], {}, ["lora"]),
        ([*LORA, "beta"], {"method": "lora"}, ["lora"]),
        ([*LORA, "beta"], {"method": "preference"}, ["dpo", "lora"]),
        (["beta", "loss_type"], {}, []),
        (["beta"], {"method": "preference"}, ["dpo", "full"]),
        (["x"], {"method": "preference"}, []),
        (["learning_rate", "batch_size"], {"parameters": 7e9}, ["training"]),
        (["max_depth", "n_estimators"], {"method": "full"}, ["forest"]),
        (["x"], {"method": "lora"}, []),
    ],
)
def test_relevant_in_a_context(
    names: list[str], context: dict[str, Any], expected: list[str]
) -> None:
    relevant = load_knowledge("auto", context).relevant(names)
    assert pack_names(relevant) == expected
    assert relevant.relevant(names) == relevant
    assert pack_names(load_knowledge("auto", context).relevant(names[::-1])) == expected


def test_what_dpo_has_of_its_own() -> None:
    """Beside the pack of what is trained, which knows the rates."""
    names = [*LORA, "beta"]
    tuned, adapted = (
        load_knowledge("auto", {"method": method}).relevant(names)
        for method in ("preference", "lora")
    )
    assert tuned.typical_range("beta") == (0.01, 0.5) and adapted.typical_range("beta") is None
    assert tuned.typical_range("learning_rate") == (5e-6, 5e-5)
    assert tuned.typical_range("batch_size") == (32, 128)
    assert tuned.typical_range("rank") == adapted.typical_range("rank")
    assert tuned.recommended_value(0, "beta") == 0.1
    assert tuned.recommended_value(0, "learning_rate") == 5e-6
    assert tuned.recommended_value(0, "rank") == 16
    assert "10 or more times below" in tuned.introduction(["learning_rate"])
    full = load_knowledge("auto", {"method": "preference"}).relevant([*TRAINER, "beta"])
    assert full.typical_range("learning_rate") == (5e-7, 5e-6)
    assert full.typical_range("beta") == (0.01, 0.5)


def test_a_pack_of_ones_own_about_one_method() -> None:
    pack = {**own(typical=[1, 2]), "pack": {**HEAD, "only": "pretraining"}}
    assert load_knowledge(pack).relevant(["x"]).packs == ()
    told = load_knowledge(pack, {"method": "pretraining"})
    assert pack_names(told.relevant(["x"])) == ["own"]
    assert told.relevant(["y"]).packs == ()
    with pytest.raises(InputError, match=r"\[pack\]: 'only' must be one of lora, full"):
        load_pack({"pack": {**HEAD, "only": "dpo"}})


def test_own_pack_for_another_method_is_kept() -> None:
    table = own(typical=[{"range": [1, 2], "when": {"method": "full"}}])
    knowledge = load_knowledge(table, {"method": "lora"}).relevant([*LORA, "x"])
    assert pack_names(knowledge) == ["own", "lora"]
    assert knowledge.typical_range("x") is None


@pytest.mark.parametrize(
    ("names", "context", "expected"),
    [
        (LORA, {}, (1e-4, 1.5e-3)),
        (LORA, {"steps": 300}, (1e-4, 1e-3)),
        (LORA, {"parameters": 7e9, "steps": 300}, (1e-4, 5e-4)),
        (LORA, {"method": "lora", "parameters": 1.35e8, "steps": 60}, (3e-4, 1.5e-3)),
        (LORA, {"method": "preference"}, (5e-6, 5e-5)),
        (MORE, {}, (5e-7, 1e-3)),
        (MORE, {"method": "full"}, (2e-6, 5e-5)),
        (MORE, {"method": "full", "parameters": 1.8e8}, (1e-5, 5e-5)),
        (MORE, {"method": "full", "parameters": 7e9}, (5e-6, 2e-5)),
        (MORE, {"method": "preference", "parameters": 7e9}, (5e-7, 5e-6)),
        (MORE, {"method": "pretraining", "parameters": 1.25e8}, (5e-4, 1e-3)),
        (MORE, {"method": "lora", "parameters": 7e9, "steps": 300}, (1e-4, 5e-4)),
    ],
)
def test_typical_learning_rates(
    names: list[str], context: dict[str, Any], expected: tuple[float, float]
) -> None:
    knowledge = load_knowledge("auto", context).relevant(names)
    assert knowledge.typical_range("learning_rate") == expected


# Of the papers: parameters and learning rate.
PUBLISHED = {
    "full": [(1.1e8, 3e-5), (3.6e8, 2e-5), (7e9, 2e-5), (13e9, 1e-5), (8e9, 5e-6), (70e9, 1e-5)],
    "preference": [(7e9, 5e-7), (70e9, 5e-7), (2.8e9, 1e-6)],
    "pretraining": [
        *[(1.25e8, 6e-4), (3.5e8, 3e-4), (7.6e8, 2.5e-4), (1.3e9, 2e-4), (2.7e9, 1.6e-4)],
        *[(6.7e9, 1.2e-4), (13e9, 1e-4), (175e9, 6e-5)],  # GPT-3
    ],
    "lora": [(1.25e8, 5e-4), (3.55e8, 3e-4), (7e9, 2e-4), (65e9, 1e-4), (175e9, 2e-4)],
}


@pytest.mark.parametrize("method", METHODS)
def test_published_rates_are_typical(method: str) -> None:
    for parameters, rate in PUBLISHED[method]:
        context = {"method": method, "parameters": parameters}
        typical = load_knowledge("auto", context).relevant(TRAINER).typical_range("lr")
        assert typical is not None and typical[0] <= rate <= typical[1], (parameters, rate)


@pytest.mark.parametrize(
    ("names", "context", "expected"),
    [
        (LORA, {}, [2e-4, 1e-3]),
        (LORA, {"parameters": 7e9}, [2e-4]),
        (LORA, {"parameters": 1e8}, [2e-4, 1e-3]),
        (LORA, {"method": "preference"}, [5e-6]),
        (MORE, {}, [2e-5]),
        (MORE, {"method": "full", "parameters": 7e9}, [2e-5]),
        (MORE, {"method": "preference"}, [5e-7]),
        (MORE, {"method": "pretraining", "parameters": 1e8}, [6e-4]),
        (["learning_rate", "batch_size"], {}, [5e-5]),
    ],
)
def test_recommended_learning_rates(
    names: list[str], context: dict[str, Any], expected: list[float]
) -> None:
    knowledge = load_knowledge("auto", context).relevant(names)
    made = [knowledge.recommended_value(i, "lr") for i in range(knowledge.n_recommended)]
    assert made == expected


@pytest.mark.parametrize("pack", load_packs(), ids=lambda pack: pack.name)
def test_no_context_narrows_to_nothing(pack: Pack) -> None:
    # Each entry holds somewhere, and none of a pack's methods leaves a hyperparameter without.
    for hyperparameter in pack.hyperparameters:
        if not hyperparameter.depends_on_context:
            continue
        methods = {one.when.method for one in hyperparameter.typical}
        assert None not in methods, hyperparameter.name
        for one in hyperparameter.typical:
            for end in one.when.parameters or (None,):
                context = Context(one.when.method, end or None, None)
                typical = hyperparameter.typical_range(context)
                assert typical is not None and typical[0] <= one.low < one.high <= typical[1]


# --- the passage


def test_passage_tells_the_ranges_of_the_context() -> None:
    names = ["learning_rate", "rank"]
    without = load_knowledge("auto").relevant(names).passage(names)
    assert "Typical here" not in without
    within = load_knowledge("auto", {"parameters": 7e9, "steps": 300}).relevant(names)
    rate, rank = within.passage(names).splitlines()[1:3]
    assert rate.endswith(" Typical here: 1e-4 to 5e-4.")
    assert "Typical here" not in rank  # the same in all contexts
    assert load_knowledge(BY_SIZE, {"parameters": 1e8}).passage(["x"]).endswith("here: 1 to 10.")
