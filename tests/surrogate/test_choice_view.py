"""Where a tiny language model places choices, and how its token is trained."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from pathlib import Path

from botorch.models import SingleTaskGP
from gpytorch.mlls import LeaveOneOutPseudoLikelihood
import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.surrogate import choice_view
from optuna_llmbo.surrogate.choice_view import ChoiceView
from optuna_llmbo.surrogate.choice_view import ChoiceViews
from optuna_llmbo.surrogate.choice_view import fit_token
from optuna_llmbo.surrogate.choice_view import mean_squared_distance
from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.process import fit_process


pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ("relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "mish", "elu", "celu", "identity")


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Known: nothing.\n\nChoice:")


def view(encoder: Encoder, words: Sequence[str] = WORDS) -> ChoiceView | None:
    return ChoiceView.neutral(encoder.read([(f"\nactivation: {word}",) for word in words]))


@pytest.fixture(scope="module")
def seen(encoder: Encoder) -> ChoiceView:
    found = view(encoder)
    assert found is not None
    return found


def squared_distances(places: Tensor) -> np.ndarray:
    apart: np.ndarray = (places[:, None] - places).square().sum(dim=-1).numpy()
    return apart


def test_choices_are_centred_and_their_mean_squared_distance_is_one(seen: ChoiceView) -> None:
    places = seen.places
    assert places.dtype == torch.float64
    assert len(seen) == len(places) == len(WORDS) > places.shape[1] > 1
    np.testing.assert_allclose(places.mean(dim=0).numpy(), 0.0, atol=1e-6)
    pairs = squared_distances(places)[np.triu_indices(len(WORDS), 1)]
    assert pairs.mean() == pytest.approx(1.0)
    assert float(mean_squared_distance(places)) == pytest.approx(1.0)
    assert pairs.std() > 0.1


def test_distances_are_those_of_the_embeddings_but_for_part_of_the_whitening(
    encoder: Encoder, seen: ChoiceView
) -> None:
    """In the order of the axes too; fails if the axes are whitened wholly or not at all."""
    embedding = seen.reading.embed(encoder.neutral_token()).double()
    centred = embedding - embedding.mean(dim=0)
    spread = torch.linalg.svdvals(centred)[: seen.places.shape[1]]
    deviations = seen.places.square().sum(dim=0).sqrt()
    ratios = (deviations / spread**0.75).numpy()
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-2)


def test_equal_texts_are_at_one_place(encoder: Encoder) -> None:
    assert view(encoder, ["relu"] * 3) is None
    found = view(encoder, ["relu", "gelu", "relu", "tanh"])
    assert found is not None
    apart = squared_distances(found.places)
    assert apart[0, 2] == 0
    assert apart[0, 1] > 0.1 and found.places.shape[1] <= 2
    assert mean_squared_distance(found.places) == pytest.approx(1.0)


def test_two_choices_have_one_axis(encoder: Encoder) -> None:
    found = view(encoder, ["relu", "gelu"])
    assert found is not None
    np.testing.assert_allclose(np.abs(found.places.numpy()), [[0.5], [0.5]])


def test_some_of_the_choices(encoder: Encoder, seen: ChoiceView) -> None:
    some = [7, 0, 7, 3]
    token = elsewhere(encoder)
    with torch.no_grad():
        apart = seen.coordinates(token, some) - seen.coordinates(token)[some]
        read_apart = seen.reading.part(some).embed(token) - seen.reading.embed(token)[some]
    assert max(float(apart.abs().max()), float(read_apart.abs().max())) < 1e-5  # float32
    assert len(seen.reading.part(some)) == 4


def elsewhere(encoder: Encoder, seed: int = 0, far: float = 0.5) -> Tensor:
    """Another value of the token, some of its own size away."""
    neutral = encoder.neutral_token()
    noise = torch.randn(len(neutral), generator=torch.Generator().manual_seed(seed))
    return neutral + far * neutral.square().mean().sqrt() * noise


def test_the_views_of_a_space(encoder: Encoder, seen: ChoiceView) -> None:
    neutral = ChoiceViews.neutral((None, seen))
    assert neutral.is_neutral and torch.equal(neutral.token, encoder.neutral_token())
    nothing, places = neutral.coordinates
    assert nothing is None and places is not None and torch.equal(places, seen.places)
    moved = ChoiceViews((None, seen), elsewhere(encoder))
    _, there = moved.coordinates
    assert not moved.is_neutral and there is not None and not there.requires_grad
    np.testing.assert_allclose(there.mean(dim=0).numpy(), 0.0, atol=1e-9)
    assert float(mean_squared_distance(there)) == pytest.approx(1.0)
    assert not torch.allclose(there, seen.places, atol=0.05)


# Training.


def study(
    encoder: Encoder, seen: ChoiceView, n: int, seed: int = 0
) -> tuple[ChoiceViews, SingleTaskGP, list[list[int]]]:
    """A process of n trials of one number and one choice. What a choice adds is a coordinate of it
    at another token than the neutral one."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.random(n), np.arange(n) % (len(WORDS) - 1), np.zeros((n, 2))])
    with torch.no_grad():
        hidden = seen.coordinates(elsewhere(encoder, seed=3, far=0.3)).numpy()
    y = 0.3 * np.sin(3 * x[:, 0]) + hidden[x[:, 1].astype(int), 1] / hidden[:, 1].std()
    targets = torch.from_numpy((y - y.mean()) / y.std())
    layout = Layout(Inputs(1, (Choices(len(WORDS), seen.places),)), 0, False, 0)
    model = fit_process(torch.from_numpy(x), targets, lambda: covariance("numeric", layout))
    tried = sorted({int(choice) for choice in x[:, 1]})
    return ChoiceViews.neutral((seen,)), model, [tried]


def left_out(model: SingleTaskGP, views: ChoiceViews, tried: list[list[int]]) -> float:
    """The mean log density of each target given the others, where a token places the choices."""
    (seen,), (rows,) = views.views, tried
    assert seen is not None
    with torch.no_grad():
        places, moved = seen.places.clone(), seen.coordinates(views.token)[rows]
        before = places[rows]
        moved = moved - moved.mean(dim=0)
        ratio = squared_distances(before).mean() / squared_distances(moved).mean()
        places[rows] = moved * ratio**0.5 + before.mean(dim=0)
        kernels = model.covar_module.modules()
        next(part for part in kernels if isinstance(part, ChoiceDistances)).place([places])
        model.train()
        likelihood = LeaveOneOutPseudoLikelihood(model.likelihood, model)
        return float(likelihood(model(*model.train_inputs), model.train_targets))


@pytest.mark.parametrize("seed", range(3))
def test_training_raises_the_leave_one_out_density(
    encoder: Encoder, seen: ChoiceView, seed: int
) -> None:
    neutral, model, tried = study(encoder, seen, 27, seed)
    start = left_out(model, neutral, tried)
    trained = fit_token(neutral, [model], tried)
    assert trained is not neutral and not trained.is_neutral
    assert left_out(model, trained, tried) > start + 1e-3
    # near the neutral value, as the prior asks
    far = (trained.token - neutral.token).square().mean().sqrt()
    assert 0 < far < neutral.token.square().mean().sqrt()


def test_the_same_again(encoder: Encoder, seen: ChoiceView) -> None:
    found = [fit_token(v, [m], t) for v, m, t in (study(encoder, seen, 18) for _ in range(2))]
    assert torch.equal(found[0].token, found[1].token)


def test_hyperparameters_stay_as_they_are(encoder: Encoder, seen: ChoiceView) -> None:
    neutral, model, tried = study(encoder, seen, 18)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fit_token(neutral, [model], tried)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_what_does_not_help_is_not_kept(
    encoder: Encoder, seen: ChoiceView, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling, rising = itertools.count(0.0, -1.0), itertools.count(0.0)
    neutral, model, tried = study(encoder, seen, 18)
    for densities, is_kept in ((falling, False), (rising, True)):
        monkeypatch.setattr(choice_view, "left_out_density", lambda _, of=densities: next(of))
        found = fit_token(neutral, [model], tried)
        assert (found is neutral) != is_kept
    assert next(falling) == -3.0  # the first, and two that were not better
    assert next(rising) == 6.0


def test_few_observations_leave_the_token(encoder: Encoder, seen: ChoiceView) -> None:
    neutral, model, tried = study(encoder, seen, 3)
    assert fit_token(neutral, [model], tried) is neutral


def test_several_objectives_share_the_token(encoder: Encoder, seen: ChoiceView) -> None:
    neutral, model, tried = study(encoder, seen, 18)
    twice = fit_token(neutral, [model, study(encoder, seen, 18)[1]], tried)
    alone = fit_token(neutral, [model], tried)
    other = fit_token(neutral, [model, study(encoder, seen, 18, seed=5)[1]], tried)
    assert not torch.equal(twice.token, neutral.token)
    assert not torch.equal(other.token, alone.token)


def test_parameters_without_meaning_and_untried_choices(
    encoder: Encoder, seen: ChoiceView
) -> None:
    """Beside one that has meaning: neither stops the training. A parameter that no trial had stays
    where it is."""
    inputs = Inputs(0, (Choices(3), Choices(len(WORDS), seen.places), Choices(10, seen.places)))
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(3, size=12), rng.integers(6, size=12), np.full(12, -1)])
    y = torch.from_numpy(rng.normal(size=12))
    layout = Layout(inputs, 0, False, 0)
    features = torch.from_numpy(np.hstack([x, np.zeros((12, 2))]))
    model = fit_process(features, y, lambda: covariance("numeric", layout))
    tried = [[0, 1, 2], sorted(set(x[:, 1].tolist())), []]
    neutral = ChoiceViews.neutral((None, seen, seen))
    trained = fit_token(neutral, [model], tried)
    assert trained.views == neutral.views
    modules = model.covar_module.modules()
    (distances,) = {m for m in modules if isinstance(m, ChoiceDistances)}
    nothing, moved, stayed = distances._coordinates
    assert nothing is None and moved is not None and stayed is not None
    untried = [i for i in range(len(WORDS)) if i not in tried[1]]
    assert torch.equal(moved[untried], seen.places[untried])
    assert torch.equal(stayed[: len(WORDS)], seen.places)


def test_a_model_without_a_token_has_places_all_the_same(tiny_llm: Path) -> None:
    encoder = Encoder(load_model(resolve_source(tiny_llm)), "Known.", pooling="mean")
    found = view(encoder)
    assert found is not None and not encoder.has_token
    assert mean_squared_distance(found.places) == pytest.approx(1.0)


def test_places_at_random_are_centred_scaled_and_the_same() -> None:
    placed = choice_view.scattered_like(torch.zeros(40, 8, dtype=torch.float64))
    assert torch.equal(placed, choice_view.scattered_like(torch.ones(40, 8)))
    assert placed.mean(dim=0).abs().max() < 1e-12
    pairs = torch.cdist(placed, placed).square()
    assert float(pairs.sum() / (40 * 39)) == pytest.approx(1.0)
