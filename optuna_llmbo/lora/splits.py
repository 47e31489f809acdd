"""Disjoint training, validation and test examples.

The search trains on the first and is scored on the second; no trial reads the third.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Sized

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora import data
from optuna_llmbo.lora.records import Record
from optuna_llmbo.lora.table import DataSource
from optuna_llmbo.lora.tokens import Example


PARTS = TRAIN, VALIDATION, TEST = "training", "validation", "test"

FEW = 16
"""Examples of which fewer measure mostly chance."""

_PAIRS_OF_PARTS = ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST))
_HARM = {
    TRAIN: "so that the loss would reward memorizing",
    VALIDATION: "so that the test would flatter what the search has chosen by them",
}


def check_leaks(parts: Mapping[str, Sequence[Record]]) -> None:
    """Check that no example is in two parts.

    Args:
        parts: the examples of some of "training", "validation" and "test".

    Raises:
        InputError: with the number of shared examples and the first of them.
    """
    for first, second in _PAIRS_OF_PARTS:
        if first in parts and second in parts:
            seen = {record.key for record in parts[first]}
            shared = [record for record in parts[second] if record.key in seen]
            if shared:
                raise InputError(
                    f"{len(shared)} of the {second} examples are also in the {first} data, "
                    f"{_HARM[first]}. The first: {shared[0].prompt[:80]!r} -> "
                    f"{shared[0].response[:80]!r}. Remove them from one of the two."
                )


def warn_of_shared_prompts(parts: Mapping[str, Sequence[Record]]) -> None:
    """Warn once if two parts have the same prompt with different responses.

    This may be intended (several good answers, or one prompt for all examples), but the loss on
    such examples is lower than on new prompts.
    """
    for first, second in _PAIRS_OF_PARTS:
        if first in parts and second in parts:
            seen = {record.question for record in parts[first]} - {None}
            shared = [record for record in parts[second] if record.question in seen]
            if shared:
                warn_once(
                    f"{len(shared)} of the {len(parts[second])} {second} examples have a prompt "
                    f"that is also in the {first} data, with another response. The first: "
                    f"{shared[0].prompt[:80]!r}. The {second} loss may be better than it would be "
                    "on new prompts."
                )


def hold_out(
    parts: Mapping[str, Sequence[Example]],
    validation: DataSource | float | None,
    test: DataSource | float | None,
    seed: int,
) -> dict[str, list[Example]]:
    """Split off the parts that have no source of their own from the training examples, test first.

    The split into training and validation is the same without a test set as with one that has its
    own source.

    Args:
        parts: examples by part, for parts with a source; must contain "training".
        validation: how many to split off, or which fraction of the training examples that `parts`
            has; None: 10% of those that the test leaves, at most 128; ignored if `parts` has them.
        test: as `validation`; None: no test set.
        seed: seed of the choice.

    Returns:
        All three parts; "test" is empty if there is no test set.

    Raises:
        InputError: if there are not enough examples.
    """
    whole = {name: list(examples) for name, examples in parts.items()}
    train = whole.pop(TRAIN)
    n = len(train)
    if TEST not in whole:
        whole[TEST] = []
        if test is not None:
            train, whole[TEST] = _split(train, data.checked_count(TEST, test, n), seed, TEST)
    if VALIDATION not in whole:
        count = data.validation_count(validation, len(train), n)
        train, whole[VALIDATION] = _split(train, count, seed, VALIDATION)
    whole[TRAIN] = train
    warn_of_small_parts(whole)
    warn_of_shared_prompts({n: [example.record for example in e] for n, e in whole.items()})
    return whole


def warn_of_small_parts(parts: Mapping[str, Sized]) -> None:
    """Warn once if validation or test has so few examples that chance decides.

    The standard error of a mean of n losses is their standard deviation over the root of n: with
    `FEW` examples it is still a quarter of it.
    """
    few = {n: len(parts.get(n, ())) for n in (VALIDATION, TEST)}
    small = [f"{count} {name}" for name, count in few.items() if 0 < count < FEW]
    if small:
        warn_once(
            f"there are only {' and '.join(small)} examples: with fewer than {FEW} the "
            "differences between configurations are mostly chance. Give more of them."
        )


def _split(
    examples: Sequence[Example], count: int, seed: int, part: str
) -> tuple[list[Example], list[Example]]:
    keys = [example.record.key for example in examples]
    rest, held_out = data.split(examples, keys, count, seed, part)
    copies = len(examples) - len(rest) - len(held_out)
    if copies:
        warn_once(
            f"{copies} of {len(examples)} examples are copies of {part} examples and are left "
            "out, so that none of these is trained on."
        )
    return rest, held_out
