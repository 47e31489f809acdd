"""Knowledge about one domain's hyperparameters, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache
import re

from optuna_llmbo.knowledge.expression import Expression


__all__ = [
    "DerivedQuantity",
    "Hyperparameter",
    "Pack",
    "Recommendation",
    "Value",
    "normalise",
]

Value = bool | int | float | str

_DISTINCTIVE = 2
_GENERIC = 1


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter and its spellings.

    Attributes:
        name: canonical name, lower-case snake_case.
        aliases: other spellings, as libraries and studies write them.
        description: what it does and its usual values, for a reader of the prompt.
        relations: how it interacts with others; may be empty.
        typical: (low, high) range of about the central 70% of the values that others found good;
            None where the right value depends on the data. Not part of the prompt.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    relations: str
    typical: tuple[float, float] | None = None


@dataclass(frozen=True)
class DerivedQuantity:
    """A quantity computed from hyperparameters, which shows the surrogate how they interact.

    Attributes:
        name: its name; a hyperparameter of the study with that name takes precedence.
        expression: over canonical names and quantities derived earlier in the same pack.
        description: what it measures.
    """

    name: str
    expression: Expression
    description: str


@dataclass(frozen=True)
class Recommendation:
    """A configuration that others found good, as a start for a search.

    Attributes:
        name: a short title.
        values: canonical name -> value; need not name every hyperparameter.
        source: the paper or document it comes from.
    """

    name: str
    values: Mapping[str, Value]
    source: str


@dataclass(frozen=True)
class Pack:
    """Knowledge about one domain.

    Attributes:
        name: the pack's name.
        summary: prose about the domain as a whole.
        hyperparameters: the hyperparameters it knows.
        derived: derived quantities, each depending only on earlier ones.
        recommended: configurations, the most trusted first.
        sources: papers and documents that the text is based on.
        companions: names of packs that go well with this one.
        generic: spellings that other domains use too; a canonical name stands for all of its
            aliases. One of them alone does not show that a study belongs to this domain.
        always_relevant: selected for every study; set for a user's own pack.
    """

    name: str
    summary: str
    hyperparameters: tuple[Hyperparameter, ...]
    derived: tuple[DerivedQuantity, ...] = ()
    recommended: tuple[Recommendation, ...] = ()
    sources: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    generic: tuple[str, ...] = ()
    always_relevant: bool = False

    def find(self, name: str) -> Hyperparameter | None:
        """Find the hyperparameter that `name` means, or None.

        Args:
            name: a name, an alias, or either prefixed by a path (`model.lora_alpha`, `lora/r`,
                scikit-learn's `forest__max_depth`): the whole is tried first, then its last
                component.
        """
        key = self._key(name)
        return None if key is None else self._by_key[key]

    def evidence(self, name: str) -> int:
        """Rate how well `name` identifies the domain: 0 unknown, 1 generic, 2 distinctive."""
        key = self._key(name)
        if key is None:
            return 0
        return _GENERIC if key in self._generic_keys else _DISTINCTIVE

    def _key(self, name: str) -> str | None:
        return next((key for key in _spellings(name) if key in self._by_key), None)

    @cached_property
    def _by_key(self) -> dict[str, Hyperparameter]:
        return {
            normalise(spelling): hyperparameter
            for hyperparameter in self.hyperparameters
            for spelling in (hyperparameter.name, *hyperparameter.aliases)
        }

    @cached_property
    def _generic_keys(self) -> frozenset[str]:
        keys = {normalise(name) for name in self.generic}
        return frozenset(
            key for key, owner in self._by_key.items() if key in keys or owner.name in keys
        )


@lru_cache(maxsize=4096)  # called with the same few names for every candidate
def _spellings(name: str) -> tuple[str, str]:
    """Return the whole name and its last component, normalised."""
    return normalise(name), normalise(re.split(r"[/.]|__", name)[-1])


@lru_cache(maxsize=4096)
def normalise(name: str) -> str:
    """Spell `Lora-Alpha`, `lora alpha`, `lora.alpha` and `lora/alpha` alike: `lora_alpha`."""
    return re.sub(r"[-\s./_]+", "_", name.lower()).strip("_")
