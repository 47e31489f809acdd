"""Several packs together, asked about one study's hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import re

import numpy as np

from optuna_llmbo.knowledge.pack import DerivedQuantity
from optuna_llmbo.knowledge.pack import Hyperparameter
from optuna_llmbo.knowledge.pack import normalise
from optuna_llmbo.knowledge.pack import Pack
from optuna_llmbo.knowledge.pack import Value


__all__ = ["Knowledge"]

_ENOUGH_EVIDENCE = 2  # one distinctive name, or two generic ones


@dataclass(frozen=True)
class Knowledge:
    """What is known of hyperparameters; where two packs know the same name, the earlier speaks.

    The methods use all packs, so ask `relevant(names)` for the packs of a study first.

    Attributes:
        packs: the packs, in order of precedence.
    """

    packs: tuple[Pack, ...] = ()

    def canonical(self, name: str) -> str | None:
        """Canonical name of a hyperparameter.

        Args:
            name: a name or alias, in any case, with `-`, `.`, `/` or blanks for `_`, possibly
                behind a path (`lora/r`, `model.lora_alpha`, `forest__max_depth`).

        Returns:
            The canonical name in the first pack that knows it, None where none does.
        """
        found = next(self._readings(name), None)
        return None if found is None else found.name

    def relevant(self, names: Iterable[str]) -> Knowledge:
        """The packs that a study is about, those that know the most of it first.

        A greedy cover. Packs that are always relevant come first, in their order. Then, again and
        again, the pack that knows the most names no chosen pack knows; on a tie a companion of a
        chosen pack, then the one with the more evidence, then the earlier. A pack is taken only
        if the names it would add hold a distinctive one or two generic ones: `learning_rate`
        alone does not make a study one of LoRA, nor `gamma` alone one of boosted trees.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The chosen packs, whole. Asking it again for the same names changes nothing.
        """
        chosen = [pack for pack in self.packs if pack.always_relevant]
        candidates = [pack for pack in self.packs if not pack.always_relevant]
        uncovered = [name for name in dict.fromkeys(names) if not _known(name, chosen)]
        while (best := _best_pack(candidates, chosen, uncovered)) is not None:
            chosen.append(best)
            candidates.remove(best)
            uncovered = [name for name in uncovered if not _known(name, [best])]
        return Knowledge(tuple(chosen))

    def passage(self, names: Sequence[str]) -> str:
        """Prose for the prompt: the domains, the study's hyperparameters, what follows from them.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The summaries, a line for each known name, a line for each derived quantity. Empty
            where there is no pack.
        """
        lines = [pack.summary for pack in self.packs]
        for name in names:
            found = next(self._readings(name), None)
            if found is not None:
                lines.append(f"{name}: {found.description} {found.relations}".strip())
        spelling = {key: name for key, name in self._resolve(names).items() if name.isidentifier()}
        for quantity in self.derived(names):
            formula = _respell(quantity.expression.text, spelling)
            lines.append(f"{quantity.name} = {formula}: {quantity.description}")
        return "\n".join(lines)

    def derived(self, names: Sequence[str]) -> tuple[DerivedQuantity, ...]:
        """The derived quantities that can be computed from these hyperparameters.

        A quantity that is itself among them, under any of its spellings, is not derived again; of
        two with the same name the earlier pack's is taken.

        Args:
            names: the study's hyperparameters, in its own spelling.

        Returns:
            The quantities, each after those it needs.
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
        """Values of the derived quantities in m configurations.

        Args:
            columns: the study's own name -> (m,) numbers, nan for what is not a number.

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
        """Length of the longest list of recommendations among the packs."""
        return max((len(pack.recommended) for pack in self.packs), default=0)

    def recommended(self, index: int) -> dict[str, Value]:
        """The packs' recommendations number `index`, in one.

        Args:
            index: 0 for the most trusted.

        Returns:
            Canonical name -> value; where packs differ, the earlier's. Empty beyond the end.

        Raises:
            IndexError: if `index` is negative.
        """
        if index < 0:
            raise IndexError(f"recommendations count from 0, got {index}")
        union: dict[str, Value] = {}
        for pack in reversed(self.packs):
            if index < len(pack.recommended):
                union.update(pack.recommended[index].values)
        return union

    def recommended_value(self, index: int, name: str) -> Value | None:
        """The recommended value of one hyperparameter, None where there is none.

        Args:
            index: 0 for the most trusted recommendation.
            name: the hyperparameter, in the study's spelling.
        """
        values = self.recommended(index)
        readings = (hyperparameter.name for hyperparameter in self._readings(name))
        return next((values[reading] for reading in readings if reading in values), None)

    def typical_range(self, name: str) -> tuple[float, float] | None:
        """The range in which others found good values of one hyperparameter, None if unknown.

        Args:
            name: the hyperparameter, in the study's spelling.
        """
        ranges = (hyperparameter.typical for hyperparameter in self._readings(name))
        return next((typical for typical in ranges if typical is not None), None)

    def _readings(self, name: str) -> Iterator[Hyperparameter]:
        """What each pack that knows `name` takes it for, the earlier packs' first."""
        found = (pack.find(name) for pack in self.packs)
        return (hyperparameter for hyperparameter in found if hyperparameter is not None)

    def _resolve(self, names: Iterable[str]) -> dict[str, str]:
        """Normalised names, and canonical names of every pack -> the study's names.

        Of two aliases of one hyperparameter the first counts, unless one is the canonical name.
        """
        resolved = {normalise(name): name for name in names}
        for name in list(resolved.values()):
            for hyperparameter in self._readings(name):
                resolved.setdefault(hyperparameter.name, name)
        return resolved


def _known(name: str, packs: Iterable[Pack]) -> bool:
    return any(pack.evidence(name) for pack in packs)


def _best_pack(
    candidates: Sequence[Pack], chosen: Sequence[Pack], uncovered: Sequence[str]
) -> Pack | None:
    """The next pack of the greedy cover; None where no candidate has the evidence."""
    companions = {name for pack in chosen for name in pack.companions}

    def merit(pack: Pack) -> tuple[int, bool, int]:
        evidence = [pack.evidence(name) for name in uncovered]
        return sum(map(bool, evidence)), pack.name in companions, sum(evidence)

    taken = [pack for pack in candidates if merit(pack)[-1] >= _ENOUGH_EVIDENCE]
    return max(taken, key=merit, default=None)  # the first of equals


def _respell(formula: str, spelling: Mapping[str, str]) -> str:
    return re.sub(r"[A-Za-z_]\w*", lambda match: spelling.get(match[0], match[0]), formula)
