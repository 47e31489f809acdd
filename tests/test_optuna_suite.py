"""Optuna's own reusable suite for samplers, on a tiny language model."""

from __future__ import annotations

from collections.abc import Callable
import functools
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
import pytest

from optuna_llmbo import LLMBOSampler


pytestmark = pytest.mark.long


class Suite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Every promise of a sampler, for one objective and for several."""


def side_by_side(test: Callable[..., None], every: int = 1) -> Callable[..., None]:
    """A test of Optuna's with fewer of its parameters.

    Args:
        test: parametrized, once or several times.
        every: of the values of a parameter this one is taken, from the first on.

    Returns:
        The test with the first values of all parameters, with the second, and so on, instead of
        each with each; the second parameter begins with its second value, and so on.
    """

    @functools.wraps(test)
    def fewer(*args: Any, **kwargs: Any) -> None:
        test(*args, **kwargs)

    marks = [mark.args for mark in test.pytestmark]  # type: ignore[attr-defined]
    names = ",".join(name for name, _ in marks)
    values = [list(given)[i:] + list(given)[:i] for i, (_, given) in enumerate(marks)]
    sets = values[0] if len(values) == 1 else list(zip(*values, strict=True))
    mark = pytest.mark.parametrize(names, sets[::every]).mark
    fewer.pytestmark = [mark]  # type: ignore[attr-defined]
    return fewer


class ShortSuite(Suite):
    """All tests, with each kind of distribution, but not each with each other.

    For what takes distributions one by one: a storage, the text that a language model reads.
    """

    test_float = side_by_side(Suite.test_float, every=3)
    test_int = side_by_side(Suite.test_int, every=4)
    test_categorical = side_by_side(Suite.test_categorical, every=2)
    test_single_parameter_objective = side_by_side(Suite.test_single_parameter_objective, every=2)
    test_dynamic_range_objective = side_by_side(Suite.test_dynamic_range_objective, every=2)
    test_sample_relative_mixed = side_by_side(Suite.test_sample_relative_mixed, every=2)
    test_combination_of_different_distributions_objective = side_by_side(
        Suite.test_combination_of_different_distributions_objective
    )
    test_sample_relative_numerical = side_by_side(Suite.test_sample_relative_numerical)
    test_multi_objective_sample_independent = side_by_side(
        Suite.test_multi_objective_sample_independent, every=5
    )


class TestNumeric(Suite):
    """The default."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(n_startup_trials=1, seed=42)


@pytest.mark.usefixtures("small_pool")
class TestTinyLanguageModel(ShortSuite):
    """With a language model that reads whole configurations."""

    @pytest.fixture
    def sampler(self, tiny_llm: Path) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(
            llm=tiny_llm, kernel="sum", n_startup_trials=1, n_candidates=8, seed=42
        )


@pytest.mark.usefixtures("small_pool")
class TestChoicesRead(ShortSuite):
    """With a language model that reads choices."""

    @pytest.fixture
    def sampler(self, tiny_llm: Path) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(llm=tiny_llm, n_startup_trials=1, seed=42)


@pytest.mark.slow
@pytest.mark.usefixtures("small_pool")
class TestEmbedded(ShortSuite):
    """With the real one."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(
            llm="embedded", kernel="sum", n_startup_trials=1, n_candidates=4, layer=2, seed=42
        )
