"""Knowledge about one domain's hyperparameters, as data."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from functools import lru_cache
import re
from typing import Any

from optuna_llmbo.knowledge.context import Condition
from optuna_llmbo.knowledge.context import Context
from optuna_llmbo.knowledge.expression import Expression


__all__ = [
    "Choice",
    "DerivedQuantity",
    "Hyperparameter",
    "Pack",
    "Recommendation",
    "TypicalRange",
    "Value",
    "normalise",
]

Value = bool | int | float | str

_DISTINCTIVE = 2
_GENERIC = 1


@dataclass(frozen=True)
class TypicalRange:
    """The range of about the central 70% of the values that others found good.

    Attributes:
        low: lower end.
        high: upper end.
        when: the contexts that it holds for.
    """

    low: float
    high: float
    when: Condition = Condition()


@dataclass(frozen=True)
class Choice:
    """What one choice of a hyperparameter means.

    Attributes:
        names: its spellings, as libraries and studies write them; "True", "False" and "None" stand
            for the values.
        description: its proper name and what it does, for a reader who does not see `names`.
    """

    names: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter and its spellings.

    Attributes:
        name: canonical name, lower-case snake_case.
        aliases: other spellings, as libraries and studies write them.
        description: what it does and its usual values, for a reader of the prompt.
        relations: how it interacts with others; may be empty.
        typical: ranges of good values, for one context each; empty where the right value depends
            on the data.
        choices: what its choices mean, where they are no numbers.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    relations: str
    typical: tuple[TypicalRange, ...] = ()
    choices: tuple[Choice, ...] = ()

    def choice_description(self, choice: Any) -> str | None:
        """Look up what a choice means, None if it is not described.

        Args:
            choice: any value; its text is compared as names are, by `normalise`.
        """
        return self._descriptions.get(normalise(str(choice)))

    @cached_property
    def _descriptions(self) -> dict[str, str]:
        return {normalise(name): one.description for one in self.choices for name in one.names}

    @property
    def depends_on_context(self) -> bool:
        """Whether a typical range holds for some contexts only."""
        return any(one.when != Condition() for one in self.typical)

    def typical_range(self, context: Context) -> tuple[float, float] | None:
        """Join the ranges that a context does not contradict; None if there is none.

        Args:
            context: what is known. The less it says, the wider the range.
        """
        allowed = [one for one in self.typical if one.when.allows(context)]
        if not allowed:
            return None
        return min(one.low for one in allowed), max(one.high for one in allowed)


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
        when: the contexts that it is for.
    """

    name: str
    values: Mapping[str, Value]
    source: str
    when: Condition = Condition()


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
        neutral: spellings that show nothing, however many: they are looked up in this pack if
            other names have chosen it.
        method: the training method that this domain's names show, such as "lora"; None if they
            show none.
        only: the training method that it is about, which has to be told, because its names do not
            show it; it speaks beside the pack that speaks for the method. None: any study.
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
    neutral: tuple[str, ...] = ()
    method: str | None = None
    only: str | None = None
    always_relevant: bool = False

    @cached_property
    def methods(self) -> frozenset[str]:
        """The training methods that it tells apart; empty if it says nothing by method."""
        conditions = [one.when for one in self.recommended]
        conditions += [one.when for each in self.hyperparameters for one in each.typical]
        named = {self.method, *(condition.method for condition in conditions)}
        return frozenset(method for method in named if method is not None)

    def within(self, context: Context) -> Context:
        """Complete a context by the method that the domain's names show."""
        return replace(context, method=context.method or self.method)

    def recommended_in(self, context: Context) -> tuple[Recommendation, ...]:
        """List the recommendations for a context, the most trusted first.

        Those that it does not contradict. If it leaves the method open, those for the first
        method only: to try the configurations of several is a waste.
        """
        context = self.within(context)
        allowed = [one for one in self.recommended if one.when.allows(context)]
        methods = [one.when.method for one in allowed if one.when.method is not None]
        return tuple(one for one in allowed if one.when.method in (None, *methods[:1]))

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
        """Rate how well `name` identifies the domain.

        Returns:
            0 if it is unknown or neutral, 1 if it is generic, 2 if it is distinctive.
        """
        key = self._key(name)
        if key is None or key in self._neutral_keys:
            return 0
        return _GENERIC if key in self._generic_keys else _DISTINCTIVE

    def is_canonical(self, name: str) -> bool:
        """Whether `name` is a canonical name, and not another spelling of one."""
        key = self._key(name)
        return key is not None and self._by_key[key].name == key

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
        return self._keys_of(self.generic)

    @cached_property
    def _neutral_keys(self) -> frozenset[str]:
        return self._keys_of(self.neutral)

    def _keys_of(self, names: Iterable[str]) -> frozenset[str]:
        """Collect the keys of spellings; a canonical name stands for all of its aliases."""
        keys = {normalise(name) for name in names}
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
