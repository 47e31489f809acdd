from __future__ import annotations

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
import torch

from benchmarks.prediction import texts
from benchmarks.prediction.problems import Problem
from benchmarks.prediction.variants import Text
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.surrogate.text_view import MAX_WIDTH
from optuna_llmbo.surrogate.text_view import TextView
from tests.benchmarks.prediction.conftest import N
from tests.tiny import HIDDEN


pytestmark = pytest.mark.usefixtures("one_thread")


def gram(features: np.ndarray) -> np.ndarray:
    """What distances depend on; axes have no sign."""
    centred = features - features.mean(axis=0)
    product: np.ndarray = centred @ centred.T
    return product


def test_wordings() -> None:
    space = SearchSpace(
        {
            "batch_size": IntDistribution(1, 64, log=True),
            "kind": CategoricalDistribution(["a", "b"]),
            "rate": FloatDistribution(1e-6, 1.0, log=True),
        }
    )
    prompt = Prompt(space, Knowledge())
    configuration = {"batch_size": 1, "kind": "b", "rate": 0.5}
    written = {name: "".join(word(prompt, configuration)) for name, word in texts.WORDINGS.items()}
    assert written == {
        "graded": "\nkind: b\nbatch_size: very low 1\nrate: very high 0.5",
        "bare": "\nkind=b\nbatch_size=1\nrate=0.5",
        "sentence": " A run with the kind b, a very low batch size of 1 and an extremely high "
        "rate of 0.5",
    }


@pytest.mark.usefixtures("tiny")
def test_whitened_axes_are_those_of_the_package(problem: Problem) -> None:
    ours = texts.features(texts.embed(Text(), problem), MAX_WIDTH, "whitened")
    known, unknown = (texts.read(Text(), problem, some) for some in (range(10), range(10, N)))
    view = TextView.neutral(known, unknown)
    with torch.no_grad():
        theirs = torch.cat([view(known), view(unknown)]).numpy()
    np.testing.assert_allclose(gram(ours), gram(theirs), atol=1e-8)


def test_scalings() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6)) * [9, 4, 1, 1, 1, 1] + 3
    found = {
        name: texts.features(rows, 3, name).std(axis=0)
        for name in ("whitened", "half", "natural", "normalized")
    }
    unit = np.sqrt(1 / 12)
    deviations = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[:3]
    ratios = deviations / deviations[0]
    np.testing.assert_allclose(found["whitened"], np.full(3, unit))
    np.testing.assert_allclose(found["half"], unit * np.sqrt(ratios))
    np.testing.assert_allclose(found["natural"], unit * ratios)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    normalized = texts.features(rows / lengths, 3, "natural")
    np.testing.assert_allclose(found["normalized"], normalized.std(axis=0))


def test_no_more_axes_than_there_are() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)) @ np.ones((3, 8))
    assert texts.features(rows, 4, "whitened").shape == (40, 1)


@pytest.mark.usefixtures("tiny")
def test_ways_of_reading_differ(problem: Problem) -> None:
    ways = [Text(), Text(layer="last"), Text(wording="bare"), Text(pooling="mean")]
    read = [texts.embed(way, problem) for way in ways]
    assert all(embedding.shape == (N, HIDDEN) for embedding in read)
    for i, one in enumerate(read):
        assert not any(np.allclose(one, other, atol=1e-3) for other in read[:i])
    # of two layers a half is the first quarter, too
    np.testing.assert_array_equal(texts.embed(Text(layer="half"), problem), read[0])
