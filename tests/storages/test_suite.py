"""Optuna's own suite for samplers, its studies lying in each of the storages."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler
import pytest

from optuna_llmbo import LLMBOSampler
from tests.storages.conftest import MakeStorage
from tests.test_optuna_suite import ShortSuite


pytestmark = pytest.mark.long


@pytest.mark.slow
@pytest.mark.usefixtures("small_pool")
@pytest.mark.parametrize(
    "make_storage", ["sqlite", "journal", "postgresql", "grpc"], indirect=True
)
class TestStorages(ShortSuite):
    """In memory it runs elsewhere."""

    @pytest.fixture(autouse=True)
    def default_storage(self, make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where studies lie that name no storage, which are all of the suite's."""
        storage, get_storage = make_storage(), optuna.storages.get_storage
        monkeypatch.setattr(
            optuna.storages,
            "get_storage",
            lambda given: storage if given is None else get_storage(given),
        )

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLMBOSampler(n_startup_trials=1, seed=42)

    def test_studies_do_lie_there(self, make_storage: MakeStorage) -> None:
        """Or all the others would show nothing."""
        study = optuna.create_study()
        names = [found.study_name for found in make_storage().get_all_studies()]
        assert study.study_name in names
