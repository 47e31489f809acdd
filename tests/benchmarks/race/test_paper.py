from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
from scipy.stats import norm
import torch

from benchmarks.race import methods
from benchmarks.race import paper
from benchmarks.race import tasks
from benchmarks.race.paper import PaperSampler
from benchmarks.torch_state import isolated_torch
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import SearchSpace


pytestmark = pytest.mark.usefixtures("one_thread")

GRID: dict[str, BaseDistribution] = {
    "rank": CategoricalDistribution([1, 4, 16]),
    "learning_rate": CategoricalDistribution([1e-5, 2e-4, 5e-3]),
}
CONTINUOUS: dict[str, BaseDistribution] = {
    "rank": IntDistribution(1, 256, log=True),
    "learning_rate": FloatDistribution(1e-6, 1e-2, log=True),
}
LINES = [("\nrank=1",), ("\nrank=4",), ("\nrank=16",), ("\nrank=64",), ("\nrank=256",)]
TARGETS = [-3.0, 1.0, 5.0]


def value(configuration: Mapping[str, Any]) -> float:
    rate = math.log10(configuration["learning_rate"])
    return (rate + 4) ** 2 + math.log2(configuration["rank"]) / 10


def search(
    llm: Path,
    space: Mapping[str, BaseDistribution],
    n: int,
    *,
    study: optuna.Study | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The configurations of a study's trials, after n more of them."""
    study = study or optuna.create_study()
    study.sampler = PaperSampler(space, llm=llm, n_steps=2, **options)
    for _ in range(n):
        trial = study.ask(dict(space))
        study.tell(trial, value(trial.params))
    return [trial.params for trial in study.trials]


@pytest.fixture
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Ranks:")


def fit(reading: Reading, n_steps: int) -> tuple[Any, Any]:
    with isolated_torch(0):
        targets = torch.tensor(TARGETS, dtype=torch.float64)
        return paper.fit(reading, targets, n_steps)


def test_a_finite_grid_is_searched_without_repetition(tiny_llm: Path) -> None:
    tried = search(tiny_llm, GRID, 10)
    assert len({tuple(sorted(c.items())) for c in tried[:9]}) == 9
    assert tried[9] in tried[:9]  # nothing else is left


def test_same_seed_same_study_and_a_resumed_one_goes_on_as_if_it_had_not_stopped(
    tiny_llm: Path,
) -> None:
    whole = search(tiny_llm, GRID, 5, seed=3)
    study = optuna.create_study()
    search(tiny_llm, GRID, 3, study=study, seed=3)
    assert search(tiny_llm, GRID, 2, study=study, seed=3) == whole


def test_the_start_is_uniformly_random(tiny_llm: Path) -> None:
    n = 180
    starts = [search(tiny_llm, GRID, 1, seed=seed)[0] for seed in range(n)]
    counts = np.unique([str(sorted(c.items())) for c in starts], return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > n / 9 / 3  # 20 expected, below 7 in one of 7,000 cells


def test_of_a_continuous_space_one_random_subset_is_searched(tiny_llm: Path) -> None:
    tried = search(tiny_llm, CONTINUOUS, 8, max_candidates=8, seed=1)
    space = SearchSpace(CONTINUOUS)
    places = space.keys(paper.grid(space, 8, np.random.default_rng(1)))
    assert sorted(map(space.key, tried)) == sorted(places)


def test_a_large_finite_space_is_thinned_without_repetition() -> None:
    space = SearchSpace(GRID)
    chosen = paper.grid(space, 5, np.random.default_rng(0))
    assert len(set(space.keys(chosen))) == 5
    assert set(space.keys(chosen)) <= set(space.keys(space.grid()))
    np.testing.assert_array_equal(paper.grid(space, 9, np.random.default_rng(0)), space.grid())


def test_lines_are_bare_assignments() -> None:
    prompt = Prompt(SearchSpace(GRID), load_knowledge("auto"))
    written = paper.assignment(prompt, {"rank": 16, "learning_rate": 2e-4})
    assert written == ("\nlearning_rate=2e-4", "\nrank=16")


def test_embeddings_are_scaled_by_the_observed_ones(encoder: Encoder) -> None:
    observed, others = encoder.read(LINES[:3]), encoder.read(LINES[3:])
    kernel = paper.DeepKernel(observed.neutral_token())
    scaled = []
    kernel.scale.register_forward_hook(lambda *args: scaled.append(args[-1].detach()))
    kernel(observed)
    kernel.eval()(others)
    assert float(scaled[0].min()) == pytest.approx(-0.95)
    assert float(scaled[0].max()) == pytest.approx(0.95)
    assert float(scaled[1].abs().max()) <= 0.95 + 1e-12


def test_training_raises_the_likelihood_and_moves_all_parts(encoder: Encoder) -> None:
    reading = encoder.read(LINES[:3])
    kernel, model = fit(reading, 0)
    trained_kernel, trained = fit(reading, 30)
    assert log_likelihood(trained) > log_likelihood(model) + 0.1
    for before, after in (
        (kernel.token, trained_kernel.token),
        (kernel.project[0].weight, trained_kernel.project[0].weight),
        (model.covar_module.base_kernel.lengthscale, trained.covar_module.base_kernel.lengthscale),
    ):
        assert not torch.equal(before, after)
    assert float(trained.likelihood.noise) >= paper.LEAST_NOISE


def test_expected_improvement_is_that_of_the_trained_process(encoder: Encoder) -> None:
    observed, others = encoder.read(LINES[:3]), encoder.read(LINES[3:])
    with isolated_torch(0):
        targets = torch.tensor(TARGETS, dtype=torch.float64)
        scores = paper.score(observed, targets, others, 10)
    kernel, model = fit(observed, 10)
    with torch.no_grad():
        Z, Z_others = kernel(observed).numpy(), kernel(others).numpy()
    y = standardized()
    noise, mean = float(model.likelihood.noise), float(model.mean_module.constant)
    K = matern(model, Z, Z) + noise * np.eye(3)
    k = matern(model, Z_others, Z)
    expected = mean + k @ np.linalg.solve(K, y - mean)
    variance = matern(model, Z_others, Z_others).diagonal() - np.einsum(
        "ij,ji->i", k, np.linalg.solve(K, k.T)
    )
    sigma = np.sqrt(variance)
    u = (expected - y.max()) / sigma
    improvement = sigma * (u * norm.cdf(u) + norm.pdf(u))
    np.testing.assert_allclose(scores.numpy(), improvement, rtol=1e-6)


def standardized() -> np.ndarray:
    y = np.array(TARGETS)
    return (y - y.mean()) / y.std(ddof=1)


def log_likelihood(model: Any) -> float:
    """Of the standardized targets, from the process's covariance matrix."""
    Z = model.train_inputs[0].numpy()
    K = matern(model, Z, Z) + float(model.likelihood.noise) * np.eye(len(Z))
    residual = standardized() - float(model.mean_module.constant)
    return float(-(residual @ np.linalg.solve(K, residual) + np.linalg.slogdet(K)[1]) / 2)


def matern(model: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rasmussen & Williams 2006, eq. 4.17, with one lengthscale and an amplitude."""
    lengthscale = model.covar_module.base_kernel.lengthscale.detach().numpy()
    assert lengthscale.size == 1
    r = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=-1) / lengthscale.item()
    return float(model.covar_module.outputscale) * (1 + r + r**2 / 3) * np.exp(-r)


def test_one_observation_is_enough(encoder: Encoder) -> None:
    target = torch.tensor([2.0], dtype=torch.float64)
    with isolated_torch(0):
        scores = paper.score(encoder.read(LINES[:1]), target, encoder.read(LINES[1:]), 5)
    assert bool(scores.isfinite().all())


def test_a_parameter_of_no_space_is_refused(tiny_llm: Path) -> None:
    study = optuna.create_study(sampler=PaperSampler(GRID, llm=tiny_llm))
    trial = study.ask()
    with pytest.raises(InputError, match="'depth' is not in the space"):
        trial.suggest_int("depth", 1, 3)


def test_it_needs_a_fixed_space() -> None:
    assert not methods.can_search("paper", "conditional")
    with pytest.raises(InputError, match="conditional has none"):
        methods.make_sampler("paper", tasks.load("conditional"), seed=0)
