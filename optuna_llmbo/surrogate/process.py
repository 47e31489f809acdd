"""The surrogate: a Gaussian process on the numbers and on the LLM's embedding, fitted jointly.

Glossary of shapes, here and everywhere in the package: n observed, m candidates, d parameters, p
numeric features (numbers, then which choices), k text features, q objectives, c constraints. A
surrogate's input has p + k + 2 columns: numbers, choices, text, gap, source. Targets are float64,
maximized and standardized.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from botorch.exceptions import BotorchError
from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from linear_operator.utils.errors import NanError
from linear_operator.utils.errors import NotPSDError
import torch
from torch import Tensor

from optuna_llmbo._util.torch_state import default_torch
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.hyperparameters import draw_processes
from optuna_llmbo.surrogate.likelihood import maximize_likelihood
from optuna_llmbo.surrogate.posterior import Posterior
from optuna_llmbo.surrogate.priors import log_normal
from optuna_llmbo.surrogate.text_view import fit_text_view
from optuna_llmbo.surrogate.text_view import TextView


_LEAST_NOISE = 1e-6
"""Share of the standardized target's variance: a deterministic objective has hardly any noise."""
_NOISE_START = 5e-3
_MEMBERS_TIMES_OBSERVED = 240
_NOISE_MEDIAN = 2.5e-3
_NOISE_STANDARD_DEVIATION = 2.0
"""Of the noise's logarithm; two of them reach from hardly any to a seventh of the variance. A
prior that insists on noise (Hvarfner et al. 2024: median 0.018, standard deviation 1) blurs what
an objective without any shows, so that the last trials of a search miss the optimum."""


@dataclass(frozen=True)
class Views:
    """What the surrogate sees of some configurations."""

    numeric: Tensor
    """(n, p) float64: numbers, then which choices."""
    reading: Reading | None = None
    """The assignments as read by the LLM; None without text."""
    gap: Tensor | None = None
    """(n,) float64: 1 - the share of its steps that each trial ran. None: all are complete."""
    source: Tensor | None = None
    """(n,) float64: 0 for this study, i for the i-th other one. None: all are this study's."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted model of the target over numeric and text features."""

    model: SingleTaskGP
    """A BoTorch model over `Z`."""
    text_view: TextView | None

    @property
    def observed(self) -> Tensor:
        """Features that the model was fitted to, (n, p + k + 2)."""
        features: Tensor = self.model.train_inputs[0]
        return features

    def features(self, views: Views) -> Tensor:
        """The model's input for some configurations, (m, p + k + 2) float64."""
        return _features(views, self.text_view)

    @property
    def noise(self) -> float:
        """Inferred variance of the noise, in units of the standardized target's variance."""
        return float(self.model.likelihood.noise.detach().mean())


@dataclass(frozen=True)
class Surrogates:
    """One surrogate for each objective, over the same views."""

    parts: tuple[Surrogate, ...]
    """At the hyperparameters of highest posterior density."""
    members: tuple[Surrogates, ...] = ()
    """The same with hyperparameters drawn from their posterior, all as likely; none where the
    fitted ones stand for all."""

    @cached_property
    def posteriors(self) -> list[Posterior]:
        """The posterior of each objective, over the parts' features side by side."""
        posteriors, start = [], 0
        for part in self.parts:
            posteriors.append(Posterior(part.model, start))
            start += part.observed.shape[1]
        return posteriors

    def features(self, views: Views) -> Tensor:
        """The models' input for some configurations, (m, columns) float64."""
        return torch.cat([part.features(views) for part in self.parts], dim=1)

    def moments(self, features: Tensor, *, noisy: bool = False) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the objectives, each (m, q).

        Of the members' mixture, if there are any.

        Args:
            features: (m, columns).
            noisy: whether the noise of a trial is included.
        """
        with torch.no_grad():
            each = [one._moments(features, noisy) for one in self.members or (self,)]
            means, variances = (torch.stack(part) for part in zip(*each, strict=True))
            mean = means.mean(dim=0)
            variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        return mean, variance.sqrt()

    def _moments(self, features: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance at the parts' hyperparameters."""
        each = [posterior.moments(features) for posterior in self.posteriors]
        mean, variance = (torch.stack(column, dim=1) for column in zip(*each, strict=True))
        noise = variance.new_tensor([part.noise if noisy else 0.0 for part in self.parts])
        return mean, variance + noise


def fit_surrogates(
    observed: Views,
    targets: Tensor,
    kernel: KernelName,
    inputs: Inputs,
    reference: Views,
    ablation: Ablation,
) -> Surrogates:
    """Call `fit_surrogate` for each column of the targets, (n, q), and draw hyperparameters.

    The more observations there are, the less the choice of hyperparameters matters, and the more a
    member costs: their number falls with n.
    """
    parts = tuple(
        fit_surrogate(observed, column, kernel, inputs, reference, ablation)
        for column in targets.unbind(dim=1)
    )
    n_members = min(ablation.members, _MEMBERS_TIMES_OBSERVED // len(targets))
    if n_members < 2:
        return Surrogates(parts)
    with fit_errors(len(targets)):
        drawn = [draw_processes(part.model, n_members, seed=i) for i, part in enumerate(parts)]
    if any(len(processes) < n_members for processes in drawn):  # nothing to learn from
        return Surrogates(parts)
    members = (
        tuple(Surrogate(model, part.text_view) for model, part in zip(models, parts, strict=True))
        for models in zip(*drawn, strict=True)
    )
    return Surrogates(parts, tuple(map(Surrogates, members)))


def fit_surrogate(
    observed: Views,
    targets: Tensor,
    kernel: KernelName,
    inputs: Inputs,
    reference: Views,
    ablation: Ablation,
) -> Surrogate:
    """Fit the learnable token, the projection and the Gaussian process to the observed trials.

    All maximize the marginal likelihood with priors (Rasmussen & Williams 2006, eq. 2.30), in
    turns: the process by L-BFGS, token and projection by AdamW, the process again.

    Args:
        observed: views of the n observed configurations.
        targets: (n,) float64, standardized, larger is better.
        kernel: "sum" of numeric and text kernel, or one of them.
        inputs: the columns of the numeric view.
        reference: views of configurations yet untried: they help to place the text view's axes.
        ablation: which parts are trained.

    Raises:
        SurrogateFitError: if the model cannot be fitted: a matrix that is not positive definite,
            no finite likelihood, memory run out.
    """
    with fit_errors(len(targets)):
        if kernel == "numeric":
            return Surrogate(_fit(observed, targets, kernel, inputs, None), None)
        assert observed.reading is not None and reference.reading is not None
        neutral = TextView.neutral(observed.reading, reference.reading)
        model = _fit(observed, targets, kernel, inputs, neutral)
        view = fit_text_view(
            neutral, observed.reading, model, lambda v: _features(observed, v), ablation
        )
        with torch.no_grad():  # the model was left with the last view that was tried
            model.set_train_data(_features(observed, view), strict=False)
        if view is not neutral:
            maximize_likelihood(model)
        return Surrogate(model, view)


def _features(views: Views, text_view: TextView | None) -> Tensor:
    """Numbers and choices, text, gap, source: `Z`; differentiable in the text view."""
    n = len(views.numeric)
    nothing = views.numeric.new_zeros(n)
    text = views.numeric[:, :0]
    if text_view is not None:
        assert views.reading is not None
        text = text_view(views.reading)
    gap = nothing if views.gap is None else views.gap
    source = nothing if views.source is None else views.source
    return torch.cat([views.numeric, text, gap[:, None], source[:, None]], dim=1)


def _fit(
    observed: Views,
    targets: Tensor,
    kernel: KernelName,
    inputs: Inputs,
    text_view: TextView | None,
) -> SingleTaskGP:
    layout = Layout(
        inputs,
        k=text_view.width if text_view is not None else 0,
        has_gaps=observed.gap is not None and bool((observed.gap > 0).any()),
        n_sources=int(observed.source.max()) if observed.source is not None else 0,
    )
    with torch.no_grad():
        features = _features(observed, text_view)
    return fit_process(features, targets, lambda: covariance(kernel, layout))


def fit_process(
    features: Tensor, targets: Tensor, covariance_function: Callable[[], Kernel]
) -> SingleTaskGP:
    """Fit a Gaussian process with inferred noise from one start.

    Args:
        features: (n, columns) float64.
        targets: (n,) float64.
        covariance_function: makes its kernel.
    """
    with default_torch(torch.float64):
        model = SingleTaskGP(
            features,
            targets[:, None],
            likelihood=_noise_model(),
            covar_module=covariance_function(),
            outcome_transform=None,
        )
    maximize_likelihood(model)
    return model


def _noise_model() -> GaussianLikelihood:
    """Gaussian noise, its variance inferred under a prior as wide as objectives are different."""
    return GaussianLikelihood(
        noise_prior=log_normal(_NOISE_MEDIAN, _NOISE_STANDARD_DEVIATION),
        noise_constraint=GreaterThan(_LEAST_NOISE, initial_value=_NOISE_START),
    )


@contextmanager
def fit_errors(n: int) -> Iterator[None]:
    """Raise numerical and memory failures of a fit as SurrogateFitError."""
    try:
        yield
    except (
        NotPSDError,
        NanError,
        BotorchError,  # features that are not finite, no fit from any start
        torch.linalg.LinAlgError,  # type: ignore[attr-defined]
        torch.OutOfMemoryError,
        MemoryError,
        ValueError,  # a prior's or a distribution's, for a value that is not finite
    ) as error:
        raise SurrogateFitError(
            f"the surrogate could not be fitted to {n} trials: {type(error).__name__}: {error}"
        ) from error
