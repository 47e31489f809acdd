from __future__ import annotations

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.numeric_view import NumericView
from optuna_llmbo.space.search_space import SearchSpace


LORA = SearchSpace(
    {
        "rank": IntDistribution(1, 256, log=True),
        "lora_alpha": FloatDistribution(1, 256, log=True),
        "learning_rate": FloatDistribution(1e-6, 1e-2, log=True),
        "batch_size": IntDistribution(2, 256, log=True),
    }
)


def view(space: SearchSpace) -> NumericView:
    return NumericView(space, load_knowledge("auto").relevant(space.names))


def test_lora_quantities_are_added_on_a_log_scale() -> None:
    lora = view(LORA)
    products = ("effective_step", "total_update")
    assert lora.derived_names == ("alpha_ratio", *products, "root_ratio", "root_step")
    base = {"rank": 8, "lora_alpha": 16.0, "learning_rate": 1e-4, "batch_size": 16}
    rows = [base, {**base, "learning_rate": 1e-3}, {**base, "learning_rate": 1e-2}]
    points = LORA.to_unit(rows)
    features = lora(points)
    assert features.shape == (3, 4 + 5)
    np.testing.assert_allclose(features[:, :4], points)
    assert np.ptp(features[:, 4]) == 0  # alpha / rank does not change
    steps = features[:, 5]
    assert steps[1] - steps[0] == pytest.approx(steps[2] - steps[1])


def test_products_that_are_equal_have_equal_features() -> None:
    rows = [
        {"rank": 8, "lora_alpha": 8.0, "learning_rate": 4e-4, "batch_size": 8},
        {"rank": 16, "lora_alpha": 64.0, "learning_rate": 1e-4, "batch_size": 8},
    ]
    features = view(LORA)(LORA.to_unit(rows))
    np.testing.assert_allclose(features[0, 5:7], features[1, 5:7], atol=1e-12)


def test_no_knowledge_means_the_unit_cube() -> None:
    space = SearchSpace({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    features = view(space)(space.to_unit([{"x": 0.25, "y": 0.75}]))
    np.testing.assert_allclose(features, [[0.25, 0.75]])


def test_quantities_of_words_are_left_out() -> None:
    space = SearchSpace(
        {
            "rank": CategoricalDistribution(("small", "large")),
            "lora_alpha": FloatDistribution(1, 2),
        }
    )
    assert view(space).derived_names == ()


def test_choices_come_after_all_numbers() -> None:
    kind = {"kind": CategoricalDistribution(("one", "two", "three"))}
    space = SearchSpace({**kind, **LORA.distributions}, groups=(("kind",),))
    mixed, lora = view(space), view(LORA)
    base = {"rank": 8, "lora_alpha": 16.0, "learning_rate": 1e-4, "batch_size": 16}
    points = space.to_unit([{**base, "kind": "three"}, base])
    features = mixed(points)
    assert mixed.derived_names == lora.derived_names
    assert mixed.n_numbers == 4 + 1 + 5 and lora.n_numbers == 4 + 5
    assert features.shape == (2, mixed.n_numbers + 1)
    np.testing.assert_array_equal(features[:, -1], [2, -1])
    np.testing.assert_array_equal(features[:, 4], [1, 0])  # whether the group is there
    expected = lora(LORA.to_unit([base, base]))
    np.testing.assert_allclose(np.delete(features[:, :-1], 4, axis=1)[:, :4], expected[:, :4])
    assert not np.isnan(features).any()
