from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.hyperparameters import draw_processes
from optuna_llmbo.surrogate.process import fit_process
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Views


def observed(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a square, and a wave along its first side."""
    points = np.random.default_rng(seed).random((n, 2))
    targets = np.sin(5 * points[:, 0])
    standardized = (targets - targets.mean()) / targets.std()
    return torch.from_numpy(points), torch.from_numpy(standardized)


def fitted(n: int):  # type: ignore[no-untyped-def]
    points, targets = observed(n)
    features = torch.cat([points, torch.zeros(n, 2)], dim=1).double()
    layout = Layout(Inputs(2), k=0, has_gaps=False, n_sources=0)
    return fit_process(features, targets, lambda: covariance("numeric", layout))


def lengthscales(processes: list) -> np.ndarray:
    return np.array(
        [p.covar_module.base_kernel.lengthscale.detach().numpy()[0] for p in processes]
    )


def test_draws_spread_with_few_trials_and_less_with_many() -> None:
    few, many = (np.log(lengthscales(draw_processes(fitted(n), 16, seed=0))) for n in (5, 80))
    assert few.std(axis=0)[0] > 1.5 * many.std(axis=0)[0] > 0
    # the second side does not matter, which many trials show
    assert np.exp(many).mean(axis=0)[1] > np.exp(many).mean(axis=0)[0]


def test_the_given_process_stays_as_it_is() -> None:
    process = fitted(8)
    before = [parameter.detach().clone() for parameter in process.parameters()]
    draw_processes(process, 4, seed=0)
    for parameter, value in zip(process.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
    assert not process.training


def test_the_seed_decides() -> None:
    process = fitted(8)
    one, same, other = (lengthscales(draw_processes(process, 4, seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_without_anything_to_learn_from_the_priors_stay() -> None:
    process = fitted(6)
    process.set_train_data(targets=torch.zeros(6, dtype=torch.float64), strict=False)
    assert draw_processes(process, 4, seed=0) == [process]
    assert draw_processes(fitted(6), 1, seed=0)[0].train_targets.any()


def test_members_fall_with_the_number_of_trials_and_widen_the_posterior() -> None:
    asked = Views(torch.from_numpy(np.random.default_rng(9).random((50, 2))))
    for n, n_members in ((8, 6), (80, 3), (250, 0)):
        points, targets = observed(n)
        views = Views(points)
        alone, mixed = (
            fit_surrogates(
                views, targets[:, None], "numeric", Inputs(2), views, Ablation(members=m)
            )
            for m in (1, 6)
        )
        assert not alone.members and len(mixed.members) == n_members
        if n == 8:
            (mean, sd), (_, alone_sd) = (
                one.moments(one.features(asked)) for one in (mixed, alone)
            )
            parts = [m.moments(m.features(asked)) for m in mixed.members]
            means, sds = (torch.stack(part) for part in zip(*parts, strict=True))
            torch.testing.assert_close(mean, means.mean(dim=0))
            expected = (sds**2).mean(dim=0) + means.var(dim=0, correction=0)
            torch.testing.assert_close(sd**2, expected)
            assert float(sd.mean()) > float(alone_sd.mean()) * 0.9


@pytest.mark.parametrize("n", [2, 3])
def test_two_trials_are_enough(n: int) -> None:
    processes = draw_processes(fitted(n), 6, seed=0)
    assert len(processes) == 6 and np.isfinite(lengthscales(processes)).all()
