from __future__ import annotations

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import SearchSpace


SPACE = SearchSpace(
    {
        "learning_rate": FloatDistribution(1e-6, 5e-3, log=True),
        "rank": IntDistribution(1, 256, log=True),
        "wobble": FloatDistribution(-5.0, 5.0),
        "target": CategoricalDistribution(("attention", "all")),
    }
)
CONFIGURATION = {"learning_rate": 0.00021345, "rank": 16, "wobble": 5.0, "target": "all"}


def prompt(task: str | None = None) -> Prompt:
    return Prompt(SPACE, load_knowledge("auto").relevant(SPACE.names), task)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000213456, "2.135e-4"),
        (1e-06, "1e-6"),
        (0.01, "0.01"),
        (-0.002, "-2e-3"),
        (0, "0"),
        (0.0099999, "1e-2"),
        (16, "16"),
        (123456, "1.235e5"),
        (0.5, "0.5"),
        (True, "True"),
        (None, "None"),
        ("all-linear", "all-linear"),
        (float("inf"), "inf"),
    ],
)
def test_format_value(value: object, text: str) -> None:
    assert format_value(value) == text


def test_few_valued_parameters_come_first() -> None:
    assert prompt().order == ("target", "rank", "learning_rate", "wobble")


def test_assignment() -> None:
    assert prompt().assignment(CONFIGURATION) == (
        "\ntarget: all",
        "\nrank: medium 16",
        "\nlearning_rate: high 2.135e-4",
        "\nwobble: very high 5",
    )


def test_passage_has_task_knowledge_and_ranges() -> None:
    passage = prompt("Tune an adapter.").passage
    assert passage.startswith("Task: Tune an adapter.\n")
    assert "rank: width of A and B" in passage
    assert "wobble: -5 to 5\n" in passage  # unknown names are written out too
    assert "learning_rate: 1e-6 to 5e-3, logarithmic\n" in passage
    assert "target: one of attention, all\n" in passage
    assert passage.endswith("Configuration:")


def test_passage_without_knowledge_or_task() -> None:
    passage = Prompt(SPACE, load_knowledge(None)).passage
    assert passage.startswith("Ranges:\ntarget: one of")
