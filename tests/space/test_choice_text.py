from __future__ import annotations

from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.knowledge import load_pack
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.space.descriptions import read_descriptions
from optuna_llmbo.space.search_space import SearchSpace


SPACE = SearchSpace(
    {
        "learning_rate": FloatDistribution(1e-6, 5e-3, log=True),
        "layers": IntDistribution(1, 8),
        "batch": CategoricalDistribution((8, 16, 32)),
        "optimizer": CategoricalDistribution(("sgd", "lion", "ours", None)),
        "prompt": CategoricalDistribution(("Answer.\nBe brief.", "Answer.\n\nBe kind.")),
        "early_stop": CategoricalDistribution((True, False)),
    }
)
PACK = load_pack(
    {
        "pack": {"name": "own", "summary": "A network is trained."},
        "hyperparameters": {
            "optimizer": {
                "description": "update rule.",
                "relations": "Each has its own rate.",
                "choices": [
                    {"names": ["lion"], "description": "Lion: sign of the momentum."},
                    {"names": ["SGD"], "description": "SGD: the plain gradient."},
                ],
            },
            "learning_rate": {"description": "step size, 1e-4 mostly.", "typical": [1e-4, 1e-3]},
            "early_stop": {"description": "whether to stop early."},
        },
        "derived": {"two": {"expression": "2", "description": "a constant."}},
    }
)
OWN = {"optimizer": {"ours": "Ours: SGD with\na trust region", "lion": "Lion, as we use it"}}


def texts(describe: Any = None, task: str | None = None, *, known: bool = True) -> ChoiceTexts:
    knowledge = Knowledge((PACK,) if known else ())
    return ChoiceTexts(SPACE, knowledge, read_descriptions(describe), task)


def test_passage() -> None:
    assert texts(task=" Sort mails. ").passage == (
        "Task: Sort mails.\n"
        "A network is trained.\n"
        "early_stop: whether to stop early.\n"
        "optimizer: update rule. Each has its own rate.\n"
        "\n"
        "Choice:"
    )


def test_passage_without_anything_known() -> None:
    assert texts(known=False).passage == "Choice:"


def test_passage_of_the_builtin_packs_has_no_ranges() -> None:
    space = SearchSpace({**SPACE.distributions, "rank": IntDistribution(1, 64)})
    knowledge = load_knowledge(context={"method": "lora"}).relevant(space.names)
    passage = ChoiceTexts(space, knowledge).passage
    assert "\noptimizer: update rule." in passage
    for word in ("Typical", "\nlearning_rate", "\nrank", "effective_step"):
        assert word not in passage


def test_only_nominal_parameters_are_written() -> None:
    assert texts().names == ("early_stop", "optimizer", "prompt")


@pytest.mark.parametrize(
    ("name", "choice", "text"),
    [
        ("optimizer", "sgd", "\noptimizer: SGD: the plain gradient."),
        ("optimizer", "lion", "\noptimizer: Lion, as we use it"),
        ("optimizer", "ours", "\noptimizer: Ours: SGD with a trust region"),
        ("optimizer", None, "\noptimizer: None"),
        ("early_stop", True, "\nearly_stop: True"),
        ("prompt", "Answer.\nBe brief.", "\nprompt: Answer.\nBe brief."),
    ],
)
def test_text(name: str, choice: Any, text: str) -> None:
    assert texts(OWN).text(name, choice) == text


def test_a_pack_describes_what_the_user_does_not() -> None:
    assert texts().text("optimizer", "lion") == "\noptimizer: Lion: sign of the momentum."
    assert texts(known=False).text("optimizer", "lion") == "\noptimizer: lion"


def n_with_letters(choices: tuple[Any, ...], describe: Any = None) -> int:
    space = SearchSpace({"optimizer": CategoricalDistribution(choices)})
    described = read_descriptions(describe and {"optimizer": describe})
    return ChoiceTexts(space, Knowledge((PACK,)), described).n_with_letters("optimizer")


@pytest.mark.parametrize(
    ("choices", "n"),
    [
        (("adam", "muon", "ours"), 3),
        (("lion", "LION", "sgd"), 2),  # a pack says the same of two
        (("a1", "2", "3,4", "{}"), 1),
        (("\u00e9t\u00e9", "\u5b66\u4e60"), 2),
        ((True, False, None), 0),
        (("None", None), 1),
        ((1e-5, float("inf"), "auto"), 1),
        ((("q", "v"), ("q", "k")), 2),
    ],
)
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_texts_with_letters(choices: tuple[Any, ...], n: int) -> None:
    assert n_with_letters(choices) == n


def test_described_values_count_as_words() -> None:
    assert (
        n_with_letters((True, False, None), {True: "On: it runs", None: "Open: as it comes"}) == 2
    )
    assert n_with_letters((True, False), {True: "1 + 1", False: "2"}) == 0
    assert n_with_letters(("a", "b", "c"), {"a": "The same", "b": "The same"}) == 2
