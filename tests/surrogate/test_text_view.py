from __future__ import annotations

import itertools
from pathlib import Path

from botorch.models import SingleTaskGP
from gpytorch.mlls import LeaveOneOutPseudoLikelihood
import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.surrogate import text_view as text_views
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.process import fit_process
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views
from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.text_view import fit_text_view
from optuna_llmbo.surrogate.text_view import TextView


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Known: nothing.\n")


def views(encoder: Encoder, n: int, seed: int) -> Views:
    numeric = np.random.default_rng(seed).random((n, 2))
    lines = [(f"x = {x:.4g}\n", f"y = {y:.4g}\n") for x, y in numeric]
    return Views(torch.from_numpy(numeric), encoder.read(lines))


def readings(encoder: Encoder, *sizes: int) -> list[Reading]:
    found = [views(encoder, n, seed).reading for seed, n in enumerate(sizes, start=2)]
    return [reading for reading in found if reading is not None]


def targets(n: int, seed: int = 2) -> Tensor:
    x, y = np.random.default_rng(seed).random((n, 2)).T
    values = np.sin(3 * x) + y
    return torch.from_numpy(Scale.of(values, "winsorize").scores(values))


def features(view: TextView, observed: Reading) -> Tensor:
    """No numbers, the text, no gap, one study."""
    text = view(observed)
    return torch.cat([text, text.new_zeros(len(text), 2)], dim=1)


def fitted_process(view: TextView, observed: Reading) -> SingleTaskGP:
    layout = Layout(p=0, k=view.width, has_gaps=False, n_sources=0)
    with torch.no_grad():
        Z = features(view, observed)
    return fit_process(Z, targets(len(observed)), covariance("text", layout))


def test_whitened_axes(encoder: Encoder) -> None:
    observed, others = readings(encoder, 10, 30)
    view = TextView.neutral(observed, others)
    with torch.no_grad():
        z = torch.cat([view(observed), view(others)])
    np.testing.assert_allclose((z.T @ z / len(z)).numpy(), np.eye(view.width) / 12, atol=1e-6)


def test_fitting_the_view_never_lowers_the_leave_one_out_density(encoder: Encoder) -> None:
    observed, others = readings(encoder, 16, 8)
    start = TextView.neutral(observed, others)
    model = fitted_process(start, observed)
    fitted = fit_text_view(start, observed, model, lambda v: features(v, observed), Ablation())

    def density(view: TextView) -> float:
        model.train()
        model.set_train_data(features(view, observed), strict=False)
        loo = LeaveOneOutPseudoLikelihood(model.likelihood, model)
        with torch.no_grad():
            return float(loo(model(*model.train_inputs), model.train_targets))

    assert density(fitted) >= density(start) - 1e-9
    if fitted is not start:
        assert not torch.equal(fitted.token, start.token)


@pytest.mark.parametrize(("token", "projection"), [(True, True), (True, False), (False, True)])
def test_token_and_projection_move_where_the_design_lets_them(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, token: bool, projection: bool
) -> None:
    """With the stop out of the way, each step raises the penalized likelihood's direction."""
    observed, others = readings(encoder, 16, 8)
    start = TextView.neutral(observed, others)
    model = fitted_process(start, observed)
    moves: list[TextView] = []
    original = text_views._penalty
    monkeypatch.setattr(
        text_views,
        "_penalty",
        lambda a, b: (
            moves.append(
                TextView(b.token.detach().clone(), b.mean, b.basis, b.projection.detach().clone())
            )
            or original(a, b)
        ),
    )
    ablation = Ablation(train_token=token, train_projection=projection)
    fit_text_view(start, observed, model, lambda v: features(v, observed), ablation)
    assert len(moves) >= 2
    assert torch.equal(moves[0].token, start.token)
    assert torch.equal(moves[1].token, start.token) != token
    assert torch.equal(moves[1].projection, start.projection) != projection


def test_a_view_that_is_not_to_be_trained_stays(encoder: Encoder) -> None:
    observed, others = readings(encoder, 16, 8)
    start = TextView.neutral(observed, others)
    model = fitted_process(start, observed)
    ablation = Ablation(train_token=False, train_projection=False)
    kept = fit_text_view(start, observed, model, lambda v: features(v, observed), ablation)
    assert kept is start


def test_too_few_observations_leave_the_view_neutral(encoder: Encoder) -> None:
    observed, others = views(encoder, 3, seed=2), views(encoder, 8, seed=1)
    surrogate = fit_surrogate(observed, targets(3), "sum", others, Ablation())
    assert surrogate.text_view is not None
    torch.testing.assert_close(surrogate.text_view.token, encoder.neutral_token())


@pytest.mark.parametrize("helps", [True, False])
def test_the_process_is_fitted_to_the_view_that_is_kept(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    """Also when steps were tried and none of them helped."""
    if not helps:
        falling = itertools.count(0.0, -1.0)
        monkeypatch.setattr(
            text_views,
            "LeaveOneOutPseudoLikelihood",
            lambda *_: lambda *_: torch.tensor(next(falling)),
        )
    observed, others = views(encoder, 16, seed=2), views(encoder, 8, seed=3)
    surrogate = fit_surrogate(observed, targets(16), "text", others, Ablation())
    assert surrogate.text_view is not None
    moved = not torch.equal(surrogate.text_view.token, encoder.neutral_token())
    assert moved == helps
    with torch.no_grad():
        torch.testing.assert_close(surrogate.observed, surrogate.features(observed))
