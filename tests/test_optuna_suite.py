"""Optuna's own reusable suite for samplers, on a tiny language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
import pytest

from optuna_llmbo import LLMBOSampler


class Suite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Every promise of a sampler, for one objective and for several."""


class TestNumeric(Suite):
    """The default."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(n_startup_trials=1, seed=42)


class TestTinyLanguageModel(Suite):
    """With a language model that reads."""

    @pytest.fixture
    def sampler(self, tiny_llm: Path) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(llm=tiny_llm, n_startup_trials=1, n_candidates=8, seed=42)


@pytest.mark.slow
class TestEmbedded(Suite):
    """With the real one."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(
            llm="embedded", n_startup_trials=1, n_candidates=4, layer=2, seed=42
        )
