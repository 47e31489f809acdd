from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gpytorch.kernels import MaternKernel
import numpy as np
import pandas
import pytest
import torch

from benchmarks.lora_table import surrogate
from benchmarks.lora_table import tables
from benchmarks.lora_table.plan import random_configurations
from benchmarks.lora_table.tiers import tier
from optuna_llmbo.errors import InputError
from tests.benchmarks.lora_table.conftest import grid
from tests.benchmarks.lora_table.conftest import make_row


def ridge(params: dict[str, Any]) -> float:
    """Best where rate * alpha / rank / batch is 1e-3, whatever the factors are."""
    update = math.log10(params["learning_rate"] * params["alpha_ratio"] / params["batch_size"])
    return 3.0 + 0.3 * (update + 3) ** 2


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    rows = [
        make_row(params, ridge(params), design="random", fraction=fraction)
        for params in random_configurations(tier("cpu"))[:120]
        for fraction in surrogate.FRACTIONS
    ]
    diverged = make_row({**grid()[0], "learning_rate": 3e-2}, math.nan, design="random")
    return tables.frame([*rows, diverged])


def test_one_lengthscale_an_axis_is_a_special_case() -> None:
    x = torch.rand(2, 7, 3, dtype=torch.float64)
    scales = torch.tensor([[0.3, 1.0, 4.0]], dtype=torch.float64)
    axes = MaternKernel(nu=2.5, ard_num_dims=3).double()
    axes.lengthscale = scales
    mixing = surrogate.MixingKernel(3)
    mixing.mixing.data = torch.diag(1 / scales[0])
    torch.testing.assert_close(
        mixing(x[0], x[1]).to_dense(), axes(x[0], x[1]).to_dense(), check_dtype=False
    )


@pytest.mark.long
def test_a_kept_surrogate_predicts_as_the_fitted_one(
    table: pandas.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate, "FRACTIONS", (0.1,))
    surrogate.fit(table, "cpu")
    loaded = surrogate.load(table, "cpu", 0.1)
    unseen = random_configurations(tier("cpu"))[150:]
    predicted = loaded.predict(unseen)
    rows = surrogate._rows(table, 0.1)
    inputs = surrogate._points(loaded.space, tables.configurations(rows))
    floor = surrogate._floor(rows)
    fitted = surrogate._fitted_gp(inputs, surrogate._target(rows, floor), surrogate.MixingKernel)
    points = surrogate._points(loaded.space, unseen)
    np.testing.assert_allclose(predicted, floor + np.exp(surrogate._mean(fitted, points)), 1e-6)
    np.testing.assert_allclose(predicted, [ridge(c) for c in unseen], atol=0.3)


@pytest.mark.long
def test_a_model_that_sees_any_direction_finds_a_ridge(
    table: pandas.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate, "FRACTIONS", (0.1,))
    by_name = {(e["model"], e["fraction"]): e for e in surrogate.errors(table, "cpu")}
    taken = by_name["Gaussian process, any direction (taken)", 0.1]
    axes = by_name["Gaussian process, along the axes", 0.1]
    assert taken["root_mean_square_error"] < 0.5 * axes["root_mean_square_error"]
    assert taken["spearman_all"] > 0.98
    assert taken["runs"] == taken["tested"] == 120  # the diverged run is none
    text = surrogate.report(list(by_name.values()))
    assert len(text.splitlines()) == 2 + len(by_name)


def test_nothing_is_predicted_without_a_fit(table: pandas.DataFrame) -> None:
    with pytest.raises(InputError, match=r"no surrogate for these runs .*; kept are .* none\."):
        surrogate.load(table, "cpu", 0.1)
