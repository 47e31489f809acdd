"""Select the packs that a study is about, by the names of its hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from optuna_llmbo.knowledge.pack import Pack


__all__ = ["select"]

_ENOUGH_EVIDENCE = 2  # one distinctive name, or two generic ones


def select(packs: Sequence[Pack], names: Iterable[str], method: str | None) -> tuple[Pack, ...]:
    """Select the packs that a study is about, those that know the most of it first.

    A greedy cover. Packs that are always relevant come first, in their order. Then, repeatedly,
    the pack that knows the most names no chosen pack knows; ties go to a companion of a chosen
    pack, then to the pack with more evidence, then to the one that has more of the names as its
    canonical ones, then to the earlier one. A pack is chosen only if the names it adds include a
    distinctive one or two generic ones: `learning_rate` alone does not make a study one of LoRA,
    nor `gamma` alone one of boosted trees.

    Of the built-in packs that tell training methods apart at most one speaks where the method is
    known, and before the others: the pack whose method the names show, else one that is about the
    method told. A pack that is about one method `only` is chosen where that is told and it knows a
    name. It comes before the speaker, whose names it may know better.

    Args:
        packs: all packs, in order of precedence.
        names: the study's hyperparameters, in its own spelling.
        method: the training method, if it is told.

    Returns:
        The chosen packs. Selecting from them again for the same names changes nothing.
    """
    names = list(dict.fromkeys(names))
    able = [pack for pack in packs if pack.only is None and _may_speak(pack, method)]
    chosen = _cover([], able, names)
    speaker = _speaker(chosen, able, names, method)
    if speaker is not None:
        able = [pack for pack in able if pack.always_relevant or not pack.methods]
        chosen = _cover([speaker], able, names)
    own = [pack for pack in chosen if pack.always_relevant]
    return (*own, *_beside(packs, names, method), *chosen[len(own) :])


def _known(name: str, packs: Iterable[Pack]) -> bool:
    return any(pack.evidence(name) for pack in packs)


def _cover(first: Sequence[Pack], packs: Sequence[Pack], names: Sequence[str]) -> list[Pack]:
    """Choose packs until none adds enough: the always relevant, then `first`, then greedily."""
    chosen = [pack for pack in packs if pack.always_relevant] + list(first)
    candidates = [pack for pack in packs if not pack.always_relevant]
    uncovered = [name for name in names if not _known(name, chosen)]
    while (best := _best_pack(candidates, chosen, uncovered)) is not None:
        chosen.append(best)
        candidates.remove(best)
        uncovered = [name for name in uncovered if not _known(name, [best])]
    return chosen


def _may_speak(pack: Pack, method: str | None) -> bool:
    return pack.always_relevant or method is None or not pack.methods or method in pack.methods


def _beside(packs: Sequence[Pack], names: Sequence[str], method: str | None) -> list[Pack]:
    """List the packs that are about the method told and no other."""
    about = [pack for pack in packs if pack.only is not None and pack.only == method]
    return [pack for pack in about if any(map(pack.evidence, names))]


def _speaker(
    chosen: Sequence[Pack], able: Sequence[Pack], names: Sequence[str], method: str | None
) -> Pack | None:
    """Find the pack that speaks for the training method; None if nothing shows the method."""
    shown = [pack for pack in chosen if pack.method is not None]
    told = [
        pack
        for pack in able
        if method is not None and pack.methods and pack.method in (None, method)
    ]
    built_in = (pack for pack in [*shown, *told] if not pack.always_relevant)
    return next((pack for pack in built_in if any(map(pack.evidence, names))), None)


def _best_pack(
    candidates: Sequence[Pack], chosen: Sequence[Pack], uncovered: Sequence[str]
) -> Pack | None:
    """Choose the next pack of the greedy cover; None if no candidate has enough evidence."""
    companions = {name for pack in chosen for name in pack.companions}

    def merit(pack: Pack) -> tuple[int, bool, int, int]:
        evidence = [pack.evidence(name) for name in uncovered]
        n_canonical = sum(map(pack.is_canonical, uncovered))
        return sum(map(bool, evidence)), pack.name in companions, sum(evidence), n_canonical

    eligible = [pack for pack in candidates if merit(pack)[2] >= _ENOUGH_EVIDENCE]
    return max(eligible, key=merit, default=None)  # the first of equals
