"""The method of arXiv:2602.11171 as its authors released it, for comparison.

"A Language-Guided Bayesian Optimization for Efficient LoRA Hyperparameter Search", reimplemented
with the settings of the authors' code. It differs only in the language model, the passage of
domain knowledge, float32 instead of bfloat16, and reading through a trie, which changes the cost
but not the embeddings. The authors do not state `N_STEPS`.

Shapes: n observed configurations, m candidates, d_model width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
import os
from typing import Any
import warnings

from botorch.acquisition import ExpectedImprovement
from botorch.exceptions import BotorchWarning
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.utils.grid import ScaleToBounds
import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
import torch
from torch import nn
from torch import Tensor

from benchmarks.torch_state import isolated_torch
from optuna_llmbo.embedding.encoder import Assignment
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import read_history
from optuna_llmbo.suggestion.candidates import MAX_ENUMERATED


MAX_CANDIDATES = 2048

WIDTH = 64
"""Width of the projection."""
N_STEPS = 100
"""Training steps, not stated by the authors; learning rates end at 0.6% of their start."""
LEARNING_RATE = 0.002
"""Learning rate of token and projection."""
GP_LEARNING_RATE = 0.2
WEIGHT_DECAY = 1e-3
DECAY = 0.95
"""Factor on the learning rates at every step."""
LEAST_NOISE = 1e-4

_MEMORY_BYTES = 2 * 2**30
"""Enough to read the whole grid once: for 2,048 configurations, SmolLM2's keys and values take
1 GiB."""
_CHUNK = 4096


class PaperSampler(BaseSampler):
    """Search a fixed finite grid as in the paper; complete and pruned trials are observations.

    1. The first configuration is drawn uniformly from the grid.
    2. For each further one, learnable token, projection and Gaussian process are reinitialized and
       trained together on all trials so far: see `DeepKernel` and `fit`.
    3. All untried configurations of the grid are read with the trained token, and the one with
       the highest expected improvement is next; of several, the first in the grid.

    **The grid** is the whole space if it has at most `max_candidates` configurations. For a
    larger or continuous space it is a random subset of that size, drawn once from `seed`, and the
    search never leaves it: the paper has no way to search anything but a finite grid. All
    randomness derives from `seed` and the trial's number.

    Args:
        distributions: the search space.
        llm: the language model, as for `LLMBOSampler`.
        knowledge: the domain knowledge of the prompt, as for `LLMBOSampler`.
        max_candidates: largest number of configurations in the grid.
        n_steps: training steps for one suggestion.
        seed: seed of all randomness.

    Raises:
        InputError: on the second suggestion, if the language model has no learnable token (the
            BERT family).
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        *,
        llm: str | os.PathLike[str] | None = None,
        knowledge: str | None = "auto",
        max_candidates: int = MAX_CANDIDATES,
        n_steps: int = N_STEPS,
        seed: int = 0,
    ) -> None:
        self._space = SearchSpace(dict(distributions))
        self._source = resolve_source(llm)
        self._prompt = Prompt(self._space, load_knowledge(knowledge).relevant(self._space.names))
        self._grid = grid(self._space, max_candidates, np.random.default_rng(seed))
        self._n_steps = n_steps
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the space that the sampler was made for."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the next configuration of the grid."""
        self._raise_error_if_multi_objective(study)
        trials = study.get_trials(deepcopy=False)
        history = read_history(trials, study.directions, self._space, current=trial.number)
        is_untried = [key not in history.seen for key in self._space.keys(self._grid)]
        untried = self._grid[is_untried] if any(is_untried) else self._grid
        rng = np.random.default_rng([self._seed, trial.number])
        if not history.n_observed:
            return dict(self._space.from_unit(untried[[int(rng.integers(len(untried)))]])[0])
        candidates = self._space.from_unit(untried)
        with isolated_torch(int(rng.integers(2**31))):
            observed, others = self._read(history.configurations), self._read(candidates)
            scores = score(
                observed, torch.from_numpy(history.targets[:, 0]), others, self._n_steps
            )
        return dict(candidates[int(scores.numpy().argmax())])

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Raise InputError: only the parameters of the space are supported."""
        raise InputError(
            f"the parameter {param_name!r} is not in the space that the sampler was made for: "
            f"expected one of {', '.join(self._space.names)}, with its distribution."
        )

    def _read(self, configurations: Sequence[Configuration]) -> Reading:
        return self._encoder.read([assignment(self._prompt, c) for c in configurations])

    @cached_property
    def _encoder(self) -> Encoder:
        llm = load_shared_model(self._source)
        encoder = Encoder(llm, self._prompt.passage, memory_bytes=_MEMORY_BYTES)
        if not encoder.has_token:
            raise InputError(
                f"{self._source} has no learnable token: expected a causal language model."
            )
        return encoder


def grid(space: SearchSpace, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return all configurations as points, or a random subset of at most `most`, (m, d)."""
    if space.n_configurations > MAX_ENUMERATED:
        drawn = space.snap(rng.random((2 * most, len(space.names))))
        first = {key: i for i, key in reversed(list(enumerate(space.keys(drawn))))}
        return drawn[sorted(first.values())[:most]]
    everything = space.grid()
    if len(everything) <= most:
        return everything
    return everything[np.sort(rng.choice(len(everything), most, replace=False))]


def assignment(prompt: Prompt, configuration: Configuration) -> Assignment:
    """Write one line `name=value` per hyperparameter."""
    return tuple(f"\n{name}={format_value(configuration[name])}" for name in prompt.order)


class DeepKernel(nn.Module):
    """Map texts to the features that the process sees: token, scaling, projection.

    The embeddings are scaled to [-1, 1] by the lowest and highest entry of the observed ones, all
    dimensions alike, as in GPyTorch, which leaves a margin of 5% and clamps values outside.

    Args:
        token: (d_model,) float32 initial value of the learnable token.
    """

    def __init__(self, token: Tensor) -> None:
        super().__init__()
        self.token = nn.Parameter(token)
        self.scale = ScaleToBounds(-1.0, 1.0).double()
        self.project = nn.Sequential(nn.Linear(len(token), WIDTH), nn.ELU()).double()

    def forward(self, reading: Reading) -> Tensor:
        """Compute the features of n texts, (n, WIDTH) float64."""
        embedding = reading.embed(self.token).to(torch.float64)
        features: Tensor = self.project(self.scale(embedding))
        return features


def score(observed: Reading, targets: Tensor, others: Reading, n_steps: int) -> Tensor:
    """Compute expected improvement, not its logarithm, over the best target, (m,) float64.

    Args:
        observed: texts of the n observed configurations.
        targets: (n,) float64, larger is better.
        others: texts of the m candidates.
        n_steps: training steps.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)  # of underflow, as in the authors' code
        kernel, model = fit(observed, targets, n_steps)
        improvement = ExpectedImprovement(model, best_f=model.train_targets.max())
        with torch.no_grad():
            chunks = kernel(others)[:, None, :].split(_CHUNK)
            return torch.cat([improvement(chunk) for chunk in chunks])


def fit(observed: Reading, targets: Tensor, n_steps: int) -> tuple[DeepKernel, SingleTaskGP]:
    """Train token, projection and process together on the marginal likelihood, from scratch.

    Matern-5/2 with one lengthscale and an amplitude, constant mean, Gaussian noise of at least
    `LEAST_NOISE`; no priors. AdamW, with learning rates that decay at every step.

    Args:
        observed: texts of the n observed configurations.
        targets: (n,) float64; standardized here.
        n_steps: training steps.

    Returns:
        Both in evaluation mode.
    """
    kernel = DeepKernel(observed.neutral_token())
    model = SingleTaskGP(
        torch.zeros(len(observed), WIDTH, dtype=torch.float64),  # set at every step
        Standardize(m=1)(targets[:, None])[0],
        likelihood=GaussianLikelihood(noise_constraint=GreaterThan(LEAST_NOISE)),
        covar_module=ScaleKernel(MaternKernel(nu=2.5)),
        outcome_transform=None,
    ).double()
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    groups = [
        {"params": kernel.parameters(), "lr": LEARNING_RATE},
        {"params": model.parameters(), "lr": GP_LEARNING_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    likelihood.train()
    for _ in range(n_steps):
        features = kernel(observed)
        model.set_train_data(features, strict=False)
        optimizer.zero_grad()
        (-likelihood(model(features), model.train_targets)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        model.set_train_data(kernel(observed), strict=False)
    return kernel.eval(), model.eval()
