"""Combine several packs and look up one study's hyperparameters in them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import re
from typing import Any

import numpy as np

from optuna_llmbo.knowledge.context import Context
from optuna_llmbo.knowledge.context import read_context
from optuna_llmbo.knowledge.pack import DerivedQuantity
from optuna_llmbo.knowledge.pack import Hyperparameter
from optuna_llmbo.knowledge.pack import normalise
from optuna_llmbo.knowledge.pack import Pack
from optuna_llmbo.knowledge.pack import Recommendation
from optuna_llmbo.knowledge.pack import Value
from optuna_llmbo.knowledge.selection import select


__all__ = ["Knowledge"]


@dataclass(frozen=True)
class Knowledge:
    """Knowledge about hyperparameters; where two packs know the same name, the earlier wins.

    The methods use all packs, so select a study's packs with `relevant(names)` first.

    Attributes:
        packs: the packs, in order of precedence.
        context: what is known of the study besides its hyperparameters. It decides which typical
            ranges and recommendations hold.
    """

    packs: tuple[Pack, ...] = ()
    context: Context = Context()

    def within(self, context: Mapping[str, Any] | None) -> Knowledge:
        """Complete the context; what is known already stays as it is.

        Args:
            context: any of "method", "parameters" and "steps"; None for nothing.

        Raises:
            InputError: if it is not such a mapping.
        """
        known = read_context(context).known | self.context.known
        return replace(self, context=Context(**known))

    def canonical(self, name: str) -> str | None:
        """Look up the canonical name of a hyperparameter.

        Args:
            name: a name or alias, in any case, with `-`, `.`, `/` or blanks for `_`, possibly
                prefixed by a path (`lora/r`, `model.lora_alpha`, `forest__max_depth`).

        Returns:
            The canonical name in the first pack that knows it, None if none does.
        """
        found = next(self._readings(name), None)
        return None if found is None else found.name

    def relevant(self, names: Iterable[str]) -> Knowledge:
        """Select the packs that a study is about, as `select` does, in this context.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The chosen packs, whole. Selecting again for the same names changes nothing.
        """
        return replace(self, packs=select(self.packs, names, self.context.method))

    def passage(self, names: Sequence[str]) -> str:
        """Write the prompt's prose: domains, the study's hyperparameters, derived quantities.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The summaries, then a line for each known name and each derived quantity. Ranges that
            depend on the context are told where there is one. Empty if there is no pack.
        """
        lines = [pack.summary for pack in self.packs]
        lines += [f"{line} {self._range_here(name)}".rstrip() for name, line in self._lines(names)]
        spelling = {key: name for key, name in self._resolve(names).items() if name.isidentifier()}
        for quantity in self.derived(names):
            formula = _respell(quantity.expression.text, spelling)
            lines.append(f"{quantity.name} = {formula}: {quantity.description}")
        return "\n".join(lines)

    def introduction(self, names: Sequence[str]) -> str:
        """Write what `passage` says apart from ranges and derived quantities.

        Args:
            names: hyperparameters, in the study's spelling.

        Returns:
            The summaries, then a line for each known name. Empty if there is no pack.
        """
        summaries = [pack.summary for pack in self.packs]
        return "\n".join([*summaries, *(line for _, line in self._lines(names))])

    def choice_description(self, name: str, choice: Any) -> str | None:
        """Look up what a choice means, in the first pack that describes it; None if none does.

        Args:
            name: the hyperparameter, in the study's spelling.
            choice: any value; its text is compared as names are, so that `True` is "True", and
                "Paged-Lion 8bit" is "paged_lion_8bit".
        """
        described = (reading.choice_description(choice) for reading in self._readings(name))
        return next((description for description in described if description is not None), None)

    def derived(self, names: Sequence[str]) -> tuple[DerivedQuantity, ...]:
        """List the derived quantities that can be computed from these hyperparameters.

        A quantity that is itself among them, under any spelling, is not derived; of two with the
        same name, the earlier pack's is used.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The quantities, each after those that it depends on.
        """
        available = set(self._resolve(names))
        quantities = []
        for pack in self.packs:
            for quantity in pack.derived:
                known = {quantity.name, self.canonical(quantity.name)} & available
                if not known and quantity.expression.names <= available:
                    quantities.append(quantity)
                    available.add(quantity.name)
        return tuple(quantities)

    def derive_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the derived quantities of m configurations.

        Args:
            columns: the study's own name -> (m,) numbers, nan where the value is not a number.

        Returns:
            Name -> (m,) float64 for each of `derived(list(columns))`, nan where undefined.
        """
        names = list(columns)
        values = {key: columns[name] for key, name in self._resolve(names).items()}
        derived = {}
        for quantity in self.derived(names):
            values[quantity.name] = quantity.expression.evaluate_columns(values)
            derived[quantity.name] = values[quantity.name]
        return derived

    @property
    def n_recommended(self) -> int:
        """Length of the packs' longest list of recommendations for the context."""
        return max(map(len, self._recommended), default=0)

    def recommended(self, index: int) -> dict[str, Value]:
        """Merge the recommendation at `index` of every pack, of those for the context.

        Args:
            index: 0 for the most trusted.

        Returns:
            Canonical name -> value; where packs differ, the earlier wins. Empty beyond the end.

        Raises:
            IndexError: if `index` is negative.
        """
        if index < 0:
            raise IndexError(f"recommendations count from 0, got {index}")
        union: dict[str, Value] = {}
        for recommendations in reversed(self._recommended):
            if index < len(recommendations):
                union.update(recommendations[index].values)
        return union

    def recommended_value(self, index: int, name: str) -> Value | None:
        """Look up the recommended value of one hyperparameter, None if there is none.

        Args:
            index: 0 for the most trusted recommendation.
            name: the hyperparameter, in the study's spelling.
        """
        values = self.recommended(index)
        readings = (hyperparameter.name for hyperparameter in self._readings(name))
        return next((values[reading] for reading in readings if reading in values), None)

    def typical_range(self, name: str) -> tuple[float, float] | None:
        """Look up the range in which others found good values in this context, None if unknown.

        Where the context leaves something open, the range spans all contexts that it may be.

        Args:
            name: the hyperparameter, in the study's spelling.
        """
        ranges = (
            hyperparameter.typical_range(pack.within(self.context))
            for pack in self.packs
            if (hyperparameter := pack.find(name)) is not None
        )
        return next((typical for typical in ranges if typical is not None), None)

    def _lines(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield each known name with its line: what it is, and how it goes with others."""
        for name in names:
            if (found := next(self._readings(name), None)) is not None:
                yield name, f"{name}: {found.description} {found.relations}".rstrip()

    def _range_here(self, name: str) -> str:
        """Say the typical range, if it is one for the context."""
        depends = any(one.depends_on_context for one in self._readings(name))
        typical = self.typical_range(name) if depends and self.context.known else None
        return "" if typical is None else f"Typical here: {' to '.join(map(_text, typical))}."

    @property
    def _recommended(self) -> list[tuple[Recommendation, ...]]:
        return [pack.recommended_in(self.context) for pack in self.packs]

    def _readings(self, name: str) -> Iterator[Hyperparameter]:
        """Yield the hyperparameter that `name` means in each pack that knows it, in pack order."""
        found = (pack.find(name) for pack in self.packs)
        return (hyperparameter for hyperparameter in found if hyperparameter is not None)

    def _resolve(self, names: Iterable[str]) -> dict[str, str]:
        """Map normalised names, and canonical names of every pack, to the study's names.

        Of two aliases of one hyperparameter the first wins, unless one is the canonical name.
        """
        resolved = {normalise(name): name for name in names}
        for name in list(resolved.values()):
            for hyperparameter in self._readings(name):
                resolved.setdefault(hyperparameter.name, name)
        return resolved


def _text(number: float) -> str:
    """Write a number as `Prompt` does: small ones with an exponent."""
    if 0 < abs(number) < 0.01:
        return np.format_float_scientific(number, trim="-", exp_digits=1)
    return f"{number:g}"


def _respell(formula: str, spelling: Mapping[str, str]) -> str:
    return re.sub(r"[A-Za-z_]\w*", lambda match: spelling.get(match[0], match[0]), formula)
