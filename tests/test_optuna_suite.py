"""Optuna's own reusable suite for samplers, on a tiny language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from optuna_llmbo import LLMBOSampler


class TestLLMBOSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Every promise of a sampler for single-objective studies."""

    @pytest.fixture
    def sampler(self, tiny_llm: Path) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(llm=tiny_llm, n_startup_trials=1, n_candidates=8, seed=42)
