from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_llmbo.knowledge import Choice
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.knowledge import load_pack
from optuna_llmbo.knowledge import load_packs
from optuna_llmbo.lora import hyperparameters as roles


LION = {"names": ["Lion", "paged-lion 8bit"], "description": "Lion: sign of\n  the momentum."}
SAVED = [
    {"names": ["True"], "description": "Saved: kept."},
    {"names": ["False"], "description": "Lost: thrown away."},
    {"names": ["None"], "description": "Open: kept if there is room."},
]

SCHEDULER_TYPES = (
    "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt "
    "reduce_lr_on_plateau cosine_with_min_lr cosine_warmup_with_min_lr warmup_stable_decay greedy"
).split()
OPTIMIZER_NAMES = (
    "adamw_torch adamw_torch_fused adamw_torch_xla adamw_torch_npu_fused adafactor "
    "adamw_anyprecision adamw_torch_4bit adamw_torch_8bit ademamix sgd adagrad adamw_bnb_8bit "
    "adamw_8bit ademamix_8bit lion_8bit lion_32bit paged_adamw_32bit paged_adamw_8bit "
    "paged_ademamix_32bit paged_ademamix_8bit paged_lion_32bit paged_lion_8bit rmsprop "
    "rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit galore_adamw galore_adamw_8bit "
    "galore_adafactor galore_adamw_layerwise galore_adamw_8bit_layerwise "
    "galore_adafactor_layerwise lomo adalomo grokadamw schedule_free_radam schedule_free_adamw "
    "schedule_free_sgd apollo_adamw apollo_adamw_layerwise stable_adamw"
).split()
"""What the `Trainer` of `transformers` 5 takes as `optim`."""

LORA = [
    "rank",
    "learning_rate",
    "variant",
    "init",
    "bias",
    "target_modules",
    "optimizer",
    "schedule",
]
TRAINER = ["learning_rate", "num_train_epochs", "lr_scheduler_type", "optim"]


def pack_with(name: str = "own", **choices: Any) -> Any:
    entries = {key: {"description": "d", "choices": tables} for key, tables in choices.items()}
    return load_pack({"pack": {"name": name, "summary": "s"}, "hyperparameters": entries})


BUILTIN = {
    f"{pack.name}, {hyperparameter.name}, {choice.names[0]}": choice
    for pack in load_packs()
    for hyperparameter in pack.hyperparameters
    for choice in hyperparameter.choices
}


# --- looking up


def test_choices_of_a_pack() -> None:
    (optimizer,) = pack_with(optimizer=[LION]).hyperparameters
    assert optimizer.choices == (
        Choice(("Lion", "paged-lion 8bit"), "Lion: sign of the momentum."),
    )


@pytest.mark.parametrize("choice", ["lion", "LION", "paged_lion_8bit", "Paged.Lion-8bit"])
def test_a_choice_in_any_spelling(choice: str) -> None:
    knowledge = Knowledge((pack_with(optimizer=[LION]),))
    for name in ("optimizer", "model.optimizer"):
        assert knowledge.choice_description(name, choice) == "Lion: sign of the momentum."


@pytest.mark.parametrize(
    ("name", "choice"), [("optimizer", "lion 32bit"), ("schedule", "lion"), ("optimizer", None)]
)
def test_what_is_not_described(name: str, choice: Any) -> None:
    assert Knowledge((pack_with(optimizer=[LION]),)).choice_description(name, choice) is None


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (True, "Saved: kept."),
        (np.bool_(True), "Saved: kept."),
        (False, "Lost: thrown away."),
        (None, "Open: kept if there is room."),
        (1, None),
        (0.0, None),
    ],
)
def test_choices_that_are_no_texts(choice: Any, words: str | None) -> None:
    assert Knowledge((pack_with(saved=SAVED),)).choice_description("saved", choice) == words


def test_the_first_pack_that_describes_a_choice_wins() -> None:
    other = {"names": ["lion", "muon"], "description": "Other: of the second pack."}
    packs = (pack_with("one", optimizer=[LION]), pack_with("two", optimizer=[other]))
    knowledge = Knowledge(packs)
    assert knowledge.choice_description("optimizer", "lion") == "Lion: sign of the momentum."
    assert knowledge.choice_description("optimizer", "muon") == "Other: of the second pack."


def test_an_introduction_has_no_ranges_and_no_formulas() -> None:
    knowledge = load_knowledge(context={"method": "lora"}).relevant(LORA)
    assert "Typical here" in knowledge.passage(LORA)
    introduction = knowledge.introduction(LORA)
    assert "Typical here" not in introduction and " = " not in introduction
    lines = introduction.splitlines()
    assert lines[: len(knowledge.packs)] == [pack.summary for pack in knowledge.packs]
    assert [line.partition(":")[0] for line in lines[len(knowledge.packs) :]] == LORA


# --- the built-in packs


@pytest.mark.parametrize("choice", BUILTIN.values(), ids=list(BUILTIN))
def test_builtin_descriptions_are_short_and_begin_with_a_proper_name(choice: Choice) -> None:
    name, colon, rest = choice.description.partition(": ")
    assert colon and rest
    assert name[0].isupper() or name == "rsLoRA"
    assert choice.description.endswith(".")
    assert len(choice.description.split()) <= 15


@pytest.mark.parametrize("names", [TRAINER, ["rank", *TRAINER]], ids=["full", "lora"])
def test_all_words_of_the_trainer_are_described(names: list[str]) -> None:
    knowledge = load_knowledge().relevant(names)
    for name, words in (("lr_scheduler_type", SCHEDULER_TYPES), ("optim", OPTIMIZER_NAMES)):
        assert [w for w in words if knowledge.choice_description(name, w) is None] == []


def test_all_words_of_the_own_objective_are_described() -> None:
    knowledge = load_knowledge().relevant(LORA)
    for name, words in (
        ("variant", roles.VARIANTS),
        ("init", roles.INITS),
        ("bias", roles.BIASES),
        ("target_modules", roles.TARGETS),
        ("optimizer", roles.OPTIMIZERS),
        ("schedule", roles.SCHEDULES),
    ):
        described = [knowledge.choice_description(name, word) for word in words]
        assert None not in described
        assert len(set(described)) == len(words), name


def test_both_packs_for_training_say_the_same() -> None:
    training, full = (
        Knowledge((pack,)) for pack in load_packs() if pack.name in ("training", "full")
    )
    for name in ("optim", "lr_scheduler_type"):
        entry = full.packs[0].find(name)
        assert entry is not None and entry.choices
        for word in (word for choice in entry.choices for word in choice.names):
            said = [one.choice_description(name, word) for one in (training, full)]
            assert said[0] == said[1], word


@pytest.mark.parametrize(
    ("name", "choice", "begins"),
    [
        ("use_dora", True, "DoRA:"),
        ("use_rslora", False, "LoRA:"),
        ("pissa", True, "PiSSA:"),
        ("pissa", False, "LoRA:"),
        ("init_lora_weights", True, "Default:"),
        ("target_modules", "q_proj+v_proj", "Query and value:"),
        ("variant", "lora+", "LoRA+:"),
    ],
)
def test_words_of_lora(name: str, choice: Any, begins: str) -> None:
    described = load_knowledge().relevant(["rank", name]).choice_description(name, choice)
    assert described is not None and described.startswith(begins)


@pytest.mark.parametrize(
    ("names", "name", "choice", "begins"),
    [
        (["n_estimators", "max_depth", "bootstrap"], "criterion", "gini", "Gini:"),
        (["n_estimators", "min_samples_leaf", "criterion"], "max_features", None, "All features:"),
        (["booster", "eta"], "booster", "dart", "DART:"),
        (["l2_leaf_reg", "depth"], "grow_policy", "SymmetricTree", "Symmetric:"),
        (["hidden_layer_sizes", "alpha"], "solver", "lbfgs", "L-BFGS:"),
        (["hidden_layer_sizes", "alpha"], "activation", "logistic", "Sigmoid:"),
    ],
)
def test_words_of_other_packs(names: list[str], name: str, choice: Any, begins: str) -> None:
    knowledge = load_knowledge().relevant([*names, name])
    described = knowledge.choice_description(name, choice)
    assert described is not None and described.startswith(begins)


@pytest.mark.parametrize("names", [["bias"], ["init", "bias"], ["learning_rate", "bias", "init"]])
def test_neutral_names_choose_no_pack(names: list[str]) -> None:
    packs = load_knowledge().relevant(names).packs
    assert "lora" not in [pack.name for pack in packs]


def test_neutral_names_are_known_where_others_choose_the_pack() -> None:
    knowledge = load_knowledge().relevant(["rank", "lora_alpha", "bias", "init"])
    assert [pack.name for pack in knowledge.packs] == ["lora"]
    assert (knowledge.canonical("bias"), knowledge.canonical("init")) == (
        "lora_bias",
        "init_lora_weights",
    )
