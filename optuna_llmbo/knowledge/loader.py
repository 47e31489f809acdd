"""Load packs from the package's own TOML files, a user's file or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from importlib import resources
import os
from pathlib import Path
import tomllib
from typing import Any

from optuna_llmbo._util.toml_file import read_toml
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge.knowledge import Knowledge
from optuna_llmbo.knowledge.pack import Pack
from optuna_llmbo.knowledge.schema import read_pack


__all__ = ["PackSource", "load_knowledge", "load_pack", "load_packs"]

PackSource = str | os.PathLike[str] | Mapping[str, Any]

# Ties go to the earlier pack: names that forests and boosted trees share count for forests, as a
# study of boosted trees also names its learning rate.
_BUILT_IN = ("lora", "training", "full", "dpo", "forest", "boosting", "mlp")


@cache
def load_packs() -> tuple[Pack, ...]:
    """Load the built-in packs: lora, training, full, dpo, forest, boosting, mlp.

    Returns:
        The packs, read once per process.
    """
    folder = resources.files("optuna_llmbo.knowledge")
    packs = []
    for name in _BUILT_IN:
        file = f"{name}.toml"
        table = tomllib.loads((folder / file).read_text(encoding="utf-8"))
        packs.append(read_pack(table, file, always_relevant=False))
    return tuple(packs)


def load_pack(source: PackSource) -> Pack:
    """Read a user's own pack, which is relevant to every study.

    Args:
        source: the path of a TOML file, or its content as a mapping; the schema is in
            `optuna_llmbo.knowledge.schema`.

    Returns:
        The pack.

    Raises:
        InputError: if the file is missing or not TOML, or its content violates the schema.
    """
    if isinstance(source, Mapping):
        return read_pack(source, "knowledge mapping", always_relevant=True)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"a knowledge pack is the path of a TOML file or a mapping, got {source!r:.80}"
        )
    path = Path(source)
    instead = (
        "give the path of a TOML file, a mapping, None, or 'auto' for those of the built-in packs "
        f"({', '.join(_BUILT_IN)}) that match the study"
    )
    table = read_toml(path, "knowledge pack", instead)
    return read_pack(table, str(path), always_relevant=True)


def load_knowledge(
    knowledge: PackSource | Sequence[PackSource] | Knowledge | None = "auto",
    context: Mapping[str, Any] | None = None,
) -> Knowledge:
    """Load the knowledge that a user asks for.

    Args:
        knowledge: "auto" for the built-in packs; None for no knowledge; a path, a mapping or a
            sequence of them for the user's own packs, which precede the built-in ones; a
            `Knowledge` is taken as it is.
        context: what decides which values are good: any of "method", "parameters" and "steps";
            see `Context`. None if nothing is known.

    Returns:
        The knowledge, not yet restricted to a study.

    Raises:
        InputError: if a user's pack cannot be read, or an argument is none of these.
    """
    if knowledge is None:
        return Knowledge().within(context)
    if isinstance(knowledge, Knowledge):
        return knowledge.within(context)
    own = tuple(load_pack(source) for source in _sources(knowledge) if source != "auto")
    return Knowledge(own + load_packs()).within(context)


def _sources(knowledge: PackSource | Sequence[PackSource]) -> Sequence[PackSource]:
    if isinstance(knowledge, str | os.PathLike | Mapping):
        return [knowledge]
    if isinstance(knowledge, Sequence):
        return knowledge
    raise InputError(
        "knowledge is 'auto', None, the path of a TOML file, a mapping or a sequence of those, "
        f"got {type(knowledge).__name__}"
    )
