"""The proxy: the part of the training examples that trials train on, and its order.

All examples are ordered once, and a proxy of k examples is the first k. With the same seed a
larger proxy therefore contains every smaller one.

All orders but the random one are stratified: the examples are divided into strata, shuffled within
each, and each stratum is spread evenly over the order, from a random start (systematic sampling;
Madow & Madow 1944, Annals of Mathematical Statistics 15). At every length each stratum has its
share of the examples, to within one or two, and no example is likelier than another to be in a
proxy. That is why examples are not taken nearest to a cluster's centre first: such a proxy would
hold typical examples only.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any
import warnings

import numpy as np
from scipy.cluster.vq import kmeans2
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import data
from optuna_llmbo.lora.evaluate import autocast
from optuna_llmbo.lora.evaluate import device_of
from optuna_llmbo.lora.options import check_proxy
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example


RANDOM, LENGTH, KMEANS = "random", "length", "kmeans"
BUILT_IN = (RANDOM, LENGTH, KMEANS)

# Heuristics. Strata that are smaller than a proxy resolves would not be noticed in it.
LENGTH_BINS = 10
MAX_CLUSTERS = 32
CLUSTER_SIZE = 8  # minimum mean number of examples per cluster

_KMEANS_ITERATIONS = 50


def column_of(proxy_by: str) -> str | None:
    """The column that `proxy_by` names; None if it names a built-in method.

    Raises:
        InputError: if it is not a name.
    """
    if not isinstance(proxy_by, str) or not proxy_by:
        raise InputError(
            f"proxy_by={proxy_by!r}: expected {', '.join(map(repr, BUILT_IN))} or the name of a "
            "column of the training data."
        )
    return None if proxy_by in BUILT_IN else proxy_by


def count(proxy: float, n: int) -> int:
    """Number of the `n` training examples in a proxy.

    Args:
        proxy: a fraction in (0, 1], rounded to the nearest number of examples; or a number of
            examples.
        n: number of training examples.

    Raises:
        InputError: if `proxy` is out of range, takes nothing, or more than there is.
    """
    check_proxy(proxy)
    chosen = proxy if isinstance(proxy, int) else round(proxy * n)
    if chosen < 1:
        raise InputError(f"proxy={proxy} of {n} training examples is less than one example.")
    if chosen > n:
        raise InputError(
            f"proxy={proxy}: there are only {n} training examples; lower it, or write 1.0 for all."
        )
    return int(chosen)


def order(
    examples: Sequence[Example], by: str, seed: int, *, model: Any = None, batch_size: int = 8
) -> list[int]:
    """An order of the examples whose first k are the proxy of k examples, for every k.

    Args:
        examples: n training examples.
        by: "random"; "length" for strata of similar numbers of tokens; "kmeans" for clusters of
            the model's own embeddings; or the name of the column that `Pair.stratum` was read
            from.
        seed: seed of every random choice.
        model: the base model, for "kmeans" alone, which reads every example once.
        batch_size: examples per forward pass.

    Returns:
        The positions 0 to n - 1, each once.
    """
    shuffled = data.permutation(len(examples), seed, data.PROXY_STREAM)
    if by == RANDOM:
        return [int(i) for i in shuffled]
    if by == LENGTH:
        strata: Sequence[Hashable] = length_bins([len(example) for example in examples])
    elif by == KMEANS:
        strata = clusters(embeddings(model, examples, batch_size=batch_size), seed)
    else:
        strata = [example.record.stratum for example in examples]
        _warn_of_many(by, strata)
    return spread(strata, shuffled, seed)


def _warn_of_many(column: str, strata: Sequence[Hashable]) -> None:
    different = len(set(strata))
    if 2 * different > len(strata):
        warn_once(
            f"proxy_by={column!r}: that column has {different} different values in {len(strata)} "
            "examples, so that the proxy is hardly more than random. Write a column with fewer "
            "values, such as ranges of this one."
        )


def spread(strata: Sequence[Hashable], shuffled: np.ndarray, seed: int) -> list[int]:
    """An order in which every stratum is spread evenly.

    The j-th of a stratum's m examples stands at the fraction (j + u) / m of the order. The starts
    u of the strata are uniform in (0, 1) and evenly spaced, so that many small strata do not start
    all at once.

    Args:
        strata: (n,) the stratum of each example.
        shuffled: (n,) a random order of the examples, which each stratum keeps.
        seed: seed of the starts.

    Returns:
        The positions 0 to n - 1, each once.
    """
    members: dict[Hashable, list[int]] = {}
    for i in shuffled:
        members.setdefault(strata[i], []).append(int(i))
    rng = np.random.default_rng([seed, data.STRATA_STREAM])
    starts = (rng.permutation(len(members)) + rng.random()) / len(members)
    places = {
        i: (j + start) / len(stratum)
        for stratum, start in zip(members.values(), starts, strict=True)
        for j, i in enumerate(stratum)
    }
    return sorted(places, key=places.__getitem__)


def length_bins(lengths: Sequence[int]) -> list[int]:
    """Decile of each length; equal lengths share a bin.

    Args:
        lengths: (n,) tokens.

    Returns:
        (n,) bins, counted from 0.
    """
    inner = np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(lengths, inner))
    return [int(i) for i in np.searchsorted(edges, lengths)]


def embeddings(model: Any, examples: Sequence[Example], *, batch_size: int = 8) -> np.ndarray:
    """The base model's last hidden states, averaged over each example's tokens.

    Args:
        model: a causal language model of `transformers`; left in evaluation mode.
        examples: n of them; prompts and responses are read.
        batch_size: examples per forward pass; changes only rounding.

    Returns:
        (n, d_model) float32.
    """
    model.eval()
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i]))
    rows: dict[int, np.ndarray] = {}
    with torch.no_grad(), autocast(model):
        for start in range(0, len(examples), batch_size):
            chosen = by_length[start : start + batch_size]
            batch = collate([examples[i] for i in chosen], device_of(model))
            # without the vocabulary projection, which is most of a small model's memory
            states = model.base_model(
                input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
            ).last_hidden_state.float()
            mask = batch.mask[:, :, None].float()
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            rows.update(zip(chosen, means.cpu().numpy(), strict=True))
    return np.stack([rows[i] for i in range(len(examples))])


def clusters(points: np.ndarray, seed: int) -> list[int]:
    """Cluster points by k-means (scipy), k-means++ start, coordinates of unit variance.

    At most `MAX_CLUSTERS` clusters; fewer where a cluster would have less than `CLUSTER_SIZE`
    points on average.

    Args:
        points: (n, d), n at least 1.
        seed: seed of the initialization.

    Returns:
        (n,) the cluster of each point; some clusters may be empty.

    Raises:
        InputError: if a coordinate is not finite.
    """
    if not np.isfinite(points).all():
        raise InputError(
            "the base model's hidden states are not all finite: try dtype=torch.float32, or "
            "another proxy_by."
        )
    spread_of = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread_of > 0, spread_of, 1)
    k = max(1, min(MAX_CLUSTERS, len(points) // CLUSTER_SIZE))
    rng = np.random.default_rng([seed, data.CLUSTERS_STREAM])
    # with fewer distinct points than clusters some clusters are empty, which does no harm
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, labels = kmeans2(scaled, k, iter=_KMEANS_ITERATIONS, minit="++", rng=rng)
    return [int(label) for label in labels]
