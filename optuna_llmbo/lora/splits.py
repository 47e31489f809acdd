"""Training, validation and test examples: none in two of them.

The search trains on the first and is scored on the second. The third is no part of any trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import data
from optuna_llmbo.lora.data import DataSource
from optuna_llmbo.lora.data import Pair
from optuna_llmbo.lora.tokens import Example


PARTS = TRAIN, VALIDATION, TEST = "training", "validation", "test"

_PAIRS_OF_PARTS = ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST))
_HARM = {
    TRAIN: "so that the loss would reward memorizing",
    VALIDATION: "so that the test would flatter what the search has chosen by them",
}


def check_leaks(parts: Mapping[str, Sequence[Pair]]) -> None:
    """Check that no example is in two parts.

    Args:
        parts: the pairs of some of "training", "validation" and "test".

    Raises:
        InputError: with the number of shared examples and the first of them.
    """
    for first, second in _PAIRS_OF_PARTS:
        if first in parts and second in parts:
            seen = {pair.key for pair in parts[first]}
            shared = [pair for pair in parts[second] if pair.key in seen]
            if shared:
                raise InputError(
                    f"{len(shared)} of the {second} examples are also in the {first} data, "
                    f"{_HARM[first]}. The first: {shared[0].prompt[:80]!r} -> "
                    f"{shared[0].response[:80]!r}. Remove them from one of the two."
                )


def warn_of_shared_prompts(parts: Mapping[str, Sequence[Pair]]) -> None:
    """Log a warning, once, where two parts have the same prompt with different responses.

    Such data may be meant (several good answers, or a prompt that is the same for all), but the
    loss on them is lower than on prompts that are new.
    """
    for first, second in _PAIRS_OF_PARTS:
        if first in parts and second in parts:
            seen = {pair.prompt.strip() for pair in parts[first]}
            shared = [pair for pair in parts[second] if pair.prompt.strip() in seen]
            if shared:
                warn_once(
                    f"{len(shared)} of the {len(parts[second])} {second} examples have a prompt "
                    f"that is also in the {first} data, with another response. The first: "
                    f"{shared[0].prompt[:80]!r}. The {second} loss may be better than it would be "
                    "on new prompts."
                )


def hold_out(
    parts: Mapping[str, Sequence[Example]],
    validation: DataSource | int | None,
    test: DataSource | int | None,
    seed: int,
) -> dict[str, list[Example]]:
    """Split off the training examples what has no source of its own: first the test.

    Without a test set, and with one that has a source, the split into training and validation is
    the same.

    Args:
        parts: the examples of the sources, by part; "training" is there.
        validation: how many to split off, or None for 10% of those that are left, at most 128;
            anything else if `parts` has them.
        test: how many to split off, or None for no test set; anything else if `parts` has them.
        seed: of the choice.

    Returns:
        All three parts; "test" is empty if there is no test set.

    Raises:
        InputError: if there are not enough examples.
    """
    whole = {name: list(examples) for name, examples in parts.items()}
    train = whole.pop(TRAIN)
    if TEST not in whole:
        whole[TEST] = []
        if test is not None:
            data.check_count(TEST, test, test, len(train))
            train, whole[TEST] = _split(train, test, seed, TEST)
    if VALIDATION not in whole:
        count = data.validation_count(validation, len(train))
        train, whole[VALIDATION] = _split(train, count, seed, VALIDATION)
    whole[TRAIN] = train
    warn_of_shared_prompts({n: [example.pair for example in e] for n, e in whole.items()})
    return whole


def _split(
    examples: Sequence[Example], count: int, seed: int, part: str
) -> tuple[list[Example], list[Example]]:
    keys = [example.pair.key for example in examples]
    return data.split(examples, keys, count, seed, part)
