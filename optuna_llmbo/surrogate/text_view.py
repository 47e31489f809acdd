"""The text view of configurations: learnable token, whitening, learned projection.

Shapes: n observed, k text features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
import math

from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.mlls import LeaveOneOutPseudoLikelihood
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.surrogate.ablation import Ablation


MAX_WIDTH = 16
"""Most text features after whitening: a free projection of the full width overfits 30 trials."""

_MIN_OBSERVED = 4
"""With fewer observations, leaving one out says nothing: the view stays neutral."""
_STEPS = 20
_PATIENCE = 4
_LEARNING_RATE = 2e-3
_TOKEN_STANDARD_DEVIATION = 0.1
"""Prior standard deviation of the token from its neutral value, in units of its own size."""
_PROJECTION_STANDARD_DEVIATION = 0.1
"""Prior standard deviation of each entry of the projection from the identity's."""
_UNIT_STANDARD_DEVIATION = math.sqrt(1 / 12)
"""Standard deviation of whitened features: a uniform variable's, as the numeric ones."""


@dataclass(frozen=True)
class TextView:
    """Maps embeddings e to features ((e - mean) basis) projection."""

    token: Tensor
    """(d_model,) float32, the learnable token's value."""
    mean: Tensor
    """(d_model,) float64."""
    basis: Tensor
    """(d_model, k) float64, principal axes, each divided by its standard deviation."""
    projection: Tensor
    """(k, k) float64, the identity before training."""

    @property
    def width(self) -> int:
        """Number of text features, k."""
        return self.basis.shape[1]

    def __call__(self, reading: Reading) -> Tensor:
        """Text features of n assignments, (n, k) float64; differentiable."""
        embedding = reading.embed(self.token).to(torch.float64)
        return (embedding - self.mean) @ self.basis @ self.projection

    @classmethod
    def neutral(cls, observed: Reading, reference: Reading) -> TextView:
        """Make the view before training: neutral token, principal axes, identity.

        The axes are those of the observed and untried configurations together: embeddings of
        untried ones cost no trial and show where configurations differ.
        """
        token = observed.neutral_token()
        with torch.no_grad():
            readings = (observed, reference)
            embedding = torch.cat([r.embed(token) for r in readings]).to(torch.float64)
        mean = embedding.mean(dim=0)
        _, scale, axes = torch.linalg.svd(embedding - mean, full_matrices=False)
        k = max(1, min(MAX_WIDTH, len(embedding) - 1, int((scale > 1e-6 * scale[0]).sum())))
        sd = scale[:k].clamp_min(1e-12) / math.sqrt(len(embedding))
        basis = axes[:k].T * (_UNIT_STANDARD_DEVIATION / sd)
        return cls(token, mean, basis, torch.eye(k, dtype=torch.float64))


def fit_text_view(
    view: TextView,
    observed: Reading,
    model: SingleTaskGP,
    features: Callable[[TextView], Tensor],
    ablation: Ablation,
) -> TextView:
    """Move the token and the projection to where the process explains the targets better.

    AdamW maximizes the marginal likelihood with Gaussian priors around the neutral token and the
    identity. Left free, both overfit at once; so training stops after a few steps that do not
    raise the leave-one-out predictive density (Rasmussen & Williams 2006, eq. 5.11).

    Args:
        view: where to start.
        observed: the n observed assignments.
        model: a fitted process over all features; its hyperparameters stay as they are.
        features: all features of the observed under a view, (n, columns), differentiable.
        ablation: which of token and projection are trained.

    Returns:
        The view with the best leave-one-out density; the one passed in if no step helped.
    """
    token = view.token.clone().requires_grad_(ablation.train_token)
    projection = view.projection.clone().requires_grad_(ablation.train_projection)
    trained = [weights for weights in (token, projection) if weights.requires_grad]
    if len(observed) < _MIN_OBSERVED or not trained:
        return view
    optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE, weight_decay=0.0)
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    leave_one_out = LeaveOneOutPseudoLikelihood(model.likelihood, model)
    model.train()
    model.requires_grad_(False)
    best, best_density, waited = view, -math.inf, 0
    for step in range(_STEPS + 1):
        moved = replace(view, token=token, projection=projection)
        Z = features(moved)
        model.set_train_data(Z, strict=False)
        output = model(Z)
        density = float(leave_one_out(output, model.train_targets).detach())
        waited = 0 if density > best_density else waited + 1
        if density > best_density:
            best_density = density
            best = (
                view
                if step == 0
                else replace(
                    view, token=token.detach().clone(), projection=projection.detach().clone()
                )
            )
        if waited > _PATIENCE or not math.isfinite(density):
            break
        loss = -likelihood(output, model.train_targets) + _penalty(view, moved) / len(observed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


def _penalty(start: TextView, moved: TextView) -> Tensor:
    """Negative log density of the priors on token and projection, up to a constant."""
    size = start.token.square().mean().sqrt()
    moved_by = (moved.token - start.token) / (size * _TOKEN_STANDARD_DEVIATION)
    projection = (
        ((moved.projection - start.projection) / _PROJECTION_STANDARD_DEVIATION).square().sum()
    )
    return (moved_by.square().sum() + projection) / 2
