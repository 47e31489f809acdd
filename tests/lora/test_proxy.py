from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import data
from optuna_llmbo.lora import proxy
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from tests.lora.conftest import rows
from tests.lora.test_objective import Make


WAYS = ("random", "length", "kmeans", "topic")


@pytest.fixture(scope="module")
def labelled(tiny: LanguageModel) -> list[Example]:
    """80 examples; every fourth has a topic of its own, and lengths differ."""
    pairs = [
        Pair(row["prompt"], row["response"], "rare" if i % 4 == 0 else "usual")
        for i, row in enumerate(rows(80))
    ]
    return tokens.encode(pairs, tiny.tokenizer, 512)


def worst_share(strata: Sequence[Any], order: Sequence[int]) -> float:
    """How many examples too many or too few of a stratum a prefix has, at the most."""
    sizes, seen = Counter(strata), Counter[Any]()
    worst = 0.0
    for k, i in enumerate(order, start=1):
        seen[strata[i]] += 1
        worst = max(worst, *(abs(seen[s] - k * m / len(strata)) for s, m in sizes.items()))
    return worst


# --- how many ---


@pytest.mark.parametrize(
    ("given", "n", "taken"),
    [(0.1, 54, 5), (0.5, 55, 28), (1.0, 7, 7), (1e-9, 10**10, 10), (7, 7, 7), (2, 54, 2)],
)
def test_count(given: float, n: int, taken: int) -> None:
    assert proxy.count(given, n) == taken


@pytest.mark.parametrize("given", [0, -0.1, 1.1, float("nan"), "all", True, None, -3, 0.0, 500.0])
def test_neither_a_fraction_nor_a_count(given: Any) -> None:
    with pytest.raises(InputError, match="proxy=.*: expected a fraction above 0 and up to 1, or"):
        proxy.count(given, 100)


def test_counts_that_cannot_be() -> None:
    with pytest.raises(InputError, match="proxy=0.01 of 20 training examples is less than one"):
        proxy.count(0.01, 20)
    with pytest.raises(InputError, match="proxy=21: there are only 20 training examples"):
        proxy.count(21, 20)
    with pytest.raises(InputError, match="proxy=1: an integer is a number .* Write 1.0 for all"):
        proxy.count(1, 20)


def test_ways_and_columns() -> None:
    assert [proxy.column_of(way) for way in WAYS] == [None, None, None, "topic"]
    for wrong in ("", None, 3):
        with pytest.raises(InputError, match="expected 'random', 'length', 'kmeans' or the name"):
            proxy.column_of(wrong)  # type: ignore[arg-type]


# --- which ---


def test_random_is_the_same_for_good(labelled: list[Example]) -> None:
    # stored studies and the table of LoRA runs rest on it
    assert proxy.order(labelled[:54], "random", 0)[:10] == [9, 23, 22, 31, 45, 5, 30, 10, 21, 0]
    assert proxy.order(labelled, "random", 3)[:6] == [31, 67, 60, 42, 38, 58]


@pytest.mark.parametrize("way", WAYS)
def test_an_order_is_whole_and_seeded(
    labelled: list[Example], tiny: LanguageModel, way: str
) -> None:
    order = proxy.order(labelled, way, 0, model=tiny.model)
    assert sorted(order) == list(range(len(labelled)))
    assert order == proxy.order(labelled, way, 0, model=tiny.model)
    assert order != proxy.order(labelled, way, 1, model=tiny.model)


def test_a_column_has_its_share_in_every_proxy(labelled: list[Example]) -> None:
    strata = [example.record.stratum for example in labelled]
    for seed in range(5):
        assert worst_share(strata, proxy.order(labelled, "topic", seed)) < 1.5
    random = max(worst_share(strata, proxy.order(labelled, "random", seed)) for seed in range(5))
    assert random > 2.5  # the bound above says something


def test_lengths_have_their_share_in_every_proxy(labelled: list[Example]) -> None:
    bins = proxy.length_bins([len(example) for example in labelled])
    assert len(set(bins)) > 4
    for seed in range(5):
        assert worst_share(bins, proxy.order(labelled, "length", seed)) < 1.5


def test_length_bins_are_tenths_in_which_equal_lengths_are_together() -> None:
    assert Counter(proxy.length_bins(list(range(100)))) == Counter(dict.fromkeys(range(10), 10))
    lengths = [7] * 50 + [9] * 3 + list(range(100, 147))
    bins = proxy.length_bins(lengths)
    assert len(set(bins[:50])) == 1
    assert np.all(np.diff(bins) >= 0)
    assert len(set(bins)) > 4
    assert set(proxy.length_bins([5] * 4)) == {0}


def test_clusters_have_their_share_in_every_proxy(
    labelled: list[Example], tiny: LanguageModel
) -> None:
    strata = proxy.clusters(proxy.embeddings(tiny.model, labelled), seed=2)
    assert len(set(strata)) > 4
    order = proxy.order(labelled, "kmeans", 2, model=tiny.model)
    assert worst_share(strata, order) < 2


def test_small_strata_are_neither_first_nor_last() -> None:
    """Of 60 strata of one example each, a tenth are in a tenth."""
    strata = [*range(60), *[-1] * 60]
    for seed in range(5):
        order = proxy.spread(strata, data.permutation(120, seed, data.PROXY_STREAM), seed)
        for k in (12, 30, 60, 90):
            assert abs(sum(i < 60 for i in order[:k]) - k / 2) <= 2


def test_every_example_is_as_likely() -> None:
    strata = ["a"] * 12 + ["b"] * 6 + ["c", "d"]
    taken = np.zeros(20)
    for seed in range(2000):
        order = proxy.spread(strata, data.permutation(20, seed, data.PROXY_STREAM), seed)
        taken[order[:5]] += 1
    # 5 of 20; the standard deviation of a share is 0.0097
    assert taken / 2000 == pytest.approx(np.full(20, 0.25), abs=0.045)


# --- embeddings and clusters ---


def test_embeddings_are_means_over_the_tokens(
    examples: list[Example], tiny: LanguageModel
) -> None:
    whole = proxy.embeddings(tiny.model, examples, batch_size=5)
    assert whole.shape == (len(examples), tiny.model.config.hidden_size)
    for i in (0, 3, 17):  # one at a time, without padding, by another way through the model
        ids = torch.from_numpy(examples[i].ids).long()[None]
        with torch.no_grad():
            states = tiny.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(whole[i], states[0].mean(dim=0), rtol=0, atol=1e-5)


def test_clusters_find_what_is_apart() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(40) % 4
    centers = 100 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    points = (centers[group] + rng.standard_normal((40, 3))).astype(np.float32)
    points[:, 2] = 7  # a coordinate that says nothing
    labels = np.array(proxy.clusters(points, seed=0))
    assert len(set(labels)) >= 4
    for label in set(labels):
        assert len(set(group[labels == label])) == 1
    scaled = points * np.array([1e-3, 1e3, 1], dtype=np.float32)
    assert proxy.clusters(scaled, seed=0) == labels.tolist()


@pytest.mark.filterwarnings("error")
def test_clusters_of_copies_and_of_few() -> None:
    points = np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32), 40, axis=0)
    labels = proxy.clusters(points, seed=0)
    assert len(set(labels[:40])) == len(set(labels[40:])) == 1
    assert labels[0] != labels[40]
    assert proxy.clusters(points[:1], seed=0) == [0]
    assert len(proxy.clusters(np.ones((20, 3), dtype=np.float32), seed=0)) == 20


def test_embeddings_that_are_not_finite() -> None:
    points = np.array([[0.0, np.nan]])
    with pytest.raises(InputError, match="hidden states are not all finite: try dtype="):
        proxy.clusters(points, seed=0)


# --- in an objective ---


@pytest.fixture(scope="module")
def with_topics() -> datasets.Dataset:
    table = [row | {"topic": "rare" if i % 4 == 0 else "usual"} for i, row in enumerate(rows(60))]
    return datasets.Dataset.from_list(table)


@pytest.mark.parametrize("way", WAYS)
def test_proxies_of_an_objective_are_nested(
    make_objective: Make, with_topics: datasets.Dataset, way: str
) -> None:
    def prepared(size: float) -> Any:
        return make_objective(train=with_topics, proxy=size, proxy_by=way).prepare()

    small, by_count, large = prepared(0.25), prepared(20), prepared(0.5)
    assert [len(p.train) for p in (small, by_count, large)] == [14, 20, 27]
    keys = [[example.record.key for example in p.train] for p in (small, by_count, large)]
    assert keys[2][:20] == keys[1]
    assert keys[1][:14] == keys[0]
    assert [p.fraction for p in (small, by_count, large)] == [14 / 54, 20 / 54, 27 / 54]
    assert small.validation[0].record.key == large.validation[0].record.key


def test_what_the_fingerprint_says_of_the_proxy(
    make_objective: Make, with_topics: datasets.Dataset
) -> None:
    usual = make_objective().fingerprint
    # hashes of an objective made before there were other proxies
    assert usual["train_hash"] == "1cee9be9d2cea13a"
    assert usual["validation_hash"] == "eac81a4dc4b34681"
    assert usual["proxy"] == 0.5
    assert not {"proxy_by", "test_hash", "test_examples"} & set(usual)
    for way in WAYS[1:]:
        record = make_objective(train=with_topics, proxy=27, proxy_by=way).fingerprint
        assert record["proxy_by"] == way
        assert record["proxy"] == 27
        assert record["train_examples"] == 27
        assert record["train_hash"] != usual["train_hash"]


def test_the_share_of_topics_in_a_trial(
    make_objective: Make, with_topics: datasets.Dataset
) -> None:
    for seed in range(3):
        objective = make_objective(
            train=with_topics, validation=rows_apart(), proxy=20, proxy_by="topic", seed=seed
        )
        topics = Counter(example.record.stratum for example in objective.prepare().train)
        assert topics == {"rare": 5, "usual": 15}


def rows_apart() -> datasets.Dataset:
    """Data without the column."""
    return datasets.Dataset.from_list(rows(8, start=500))


def test_a_column_of_too_many_values(make_objective: Make, warnings_logged: list[str]) -> None:
    table = datasets.Dataset.from_list([row | {"id": i} for i, row in enumerate(rows(60))])
    make_objective(train=table, proxy_by="id").prepare()
    assert [line for line in warnings_logged if "has 54 different values in 54" in line]
