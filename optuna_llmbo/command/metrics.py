"""A trial's metric, gathered from all files that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import Any

from optuna_llmbo.command import sources
from optuna_llmbo.command.entries import Entry
from optuna_llmbo.command.numbers import number_of
from optuna_llmbo.command.sources import Lines
from optuna_llmbo.command.sources import Source
from optuna_llmbo.command.sources import WholeFile
from optuna_llmbo.study.report_axis import AXES
from optuna_llmbo.study.report_axis import Axis


_GRID = 5
"""Percent. Runs with other batch sizes evaluate at other steps, so that no two of them would
report at the same percentage, which is what pruners compare."""
_SLACK = 0.3
"""Percent by which a place may be below its due, as epochs are printed with few digits. It may be
further above: where `Trainer` is to evaluate at a share of the steps, it rounds up."""
_EPOCHS = ("num_train_epochs", "num_epochs", "epochs")
_LOSSES = ("loss", "train_loss")
_LOG_RANK, _FILE_RANK, _RESULT_RANK = 1, 2, 3


@dataclass(frozen=True)
class Report:
    """A value of the metric, and when it was measured."""

    step: int
    """On the axis of the study."""
    value: float


@dataclass(frozen=True)
class _Measured:
    place: float | None
    """On the axis; None if it does not say."""
    rank: int
    value: float


class Metrics:
    """Reads a trial's metric while its command runs.

    Args:
        folder: the trial's folder.
        log: the command's output.
        metric: the metric's name.
        pattern: what finds it in the output, or in `files`; None for what tools write.
        files: patterns of the files to read; empty for those that the Hugging Face tools write.
        settings: values of the configuration by key, of which the number of epochs is read.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        metric: str,
        *,
        pattern: re.Pattern[str] | None = None,
        files: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._log = log
        self._metric = metric
        self._pattern = pattern
        self._files = files
        self._epochs = _epochs_of(settings or {})
        self._sources: dict[Path, Source] = {}

    def read(self, *, is_final: bool = False) -> bool:
        """Read what has been written since the last time; whether there is anything new.

        Args:
            is_final: whether the command has ended.
        """
        for path in self._paths():
            if path not in self._sources and (is_final or not sources.is_final_only(path)):
                self._sources[path] = self._source(path)
        return any([source.read(is_final=is_final) for source in self._sources.values()])

    def axis(self) -> Axis | None:
        """The first of `AXES` that the metric can be reported on; None before it was measured."""
        entries = [entry for source in self._sources.values() for entry in self._of(source)]
        for axis in AXES:
            if any(self._place(entry, i, axis) is not None for i, entry in enumerate(entries, 1)):
                return axis
        return None

    def reports(self, axis: Axis) -> list[Report]:
        """The metric so far, in the order of the training; one value for a step."""
        found: dict[int, float] = {}
        for one in self._measured(axis):
            if one.place is not None and math.isfinite(one.place):
                found.setdefault(_step(one.place, axis), one.value)
        return [Report(step, found[step]) for step in sorted(found)]

    def value(self, *, best: str | None = None) -> float | None:
        """The metric at the end of the training; None if there is none.

        Args:
            best: "minimize" or "maximize" for the best value that was measured instead.
        """
        axis = self.axis()
        measured = [] if axis is None else self._measured(axis)
        if not measured:
            return None
        if best is not None and any(math.isfinite(one.value) for one in measured):
            choose = min if best == "minimize" else max
            return choose(one.value for one in measured if math.isfinite(one.value))
        last = max(measured, key=lambda one: (-1.0 if one.place is None else one.place, one.rank))
        return last.value

    def not_finite(self) -> float | None:
        """A value of the metric that is infinite or no number; None if there is none."""
        values = (e.values[self._metric] for s in self._sources.values() for e in self._of(s))
        return next((value for value in values if not math.isfinite(value)), None)

    def progress(self) -> tuple[float | None, float | None]:
        """The fraction of the training that is done, and the latest training loss, if known."""
        by_rank = sorted(self._sources.values(), key=lambda source: source.rank)
        fractions = [self._percent(entry) for source in by_rank for entry in source.entries]
        known = [fraction for fraction in fractions if fraction is not None]
        losses = [
            entry.values[name]
            for source in by_rank
            for entry in source.entries
            for name in _LOSSES
            if name in entry.values
        ]
        return (max(known) / 100 if known else None), (losses[-1] if losses else None)

    def names(self) -> list[str]:
        """The names of all numbers that were written."""
        entries = [entry for source in self._sources.values() for entry in source.entries]
        return sorted({name for entry in entries for name in entry.values})

    def _paths(self) -> list[Path]:
        if self._pattern is not None and not self._files:
            return [self._log]
        found = sources.find(self._folder, self._files)
        return found if self._files else [self._log, *found]

    def _source(self, path: Path) -> Source:
        if self._pattern is not None:
            return Lines(path, sources.line_parser(self._pattern, self._metric), _FILE_RANK)
        if path.suffix == ".json":
            return WholeFile(path, _RESULT_RANK if sources.is_final_only(path) else _FILE_RANK)
        rank = _LOG_RANK if path == self._log else _FILE_RANK
        return Lines(path, sources.line_parser(None, self._metric), rank)

    def _of(self, source: Source) -> list[Entry]:
        return [entry for entry in source.entries if self._metric in entry.values]

    def _measured(self, axis: Axis) -> list[_Measured]:
        """All values, one a place: that of the source which is exact; in the order of places."""
        found: dict[float | None, _Measured] = {}
        for source in self._sources.values():
            for i, entry in enumerate(self._of(source), 1):
                place = self._place(entry, i, axis)
                if source.rank == _RESULT_RANK:
                    place = math.inf
                key = None if place is None else round(place, 3)
                if key not in found or found[key].rank <= source.rank:
                    found[key] = _Measured(place, source.rank, entry.values[self._metric])
        return sorted(found.values(), key=lambda one: -1.0 if one.place is None else one.place)

    def _place(self, entry: Entry, i: int, axis: Axis) -> float | None:
        if axis == "percent":
            return self._percent(entry)
        if axis == "evaluation":
            return float(i)
        return entry.step if axis == "step" else entry.epoch

    def _percent(self, entry: Entry) -> float | None:
        percent = entry.percent
        if entry.step is not None and entry.total:
            percent = 100 * entry.step / entry.total
        elif percent is None and entry.epoch is not None and self._epochs:
            percent = 100 * entry.epoch / self._epochs
        return percent if percent is not None and 0 < percent < 100.5 else None


def _step(place: float, axis: Axis) -> int:
    if axis == "percent":
        return max(_GRID, _GRID * int((place + _SLACK) // _GRID))
    return round(100 * place) if axis == "epoch" else round(place)


def _epochs_of(settings: Mapping[str, Any]) -> float | None:
    """The length of the training by the configuration; None if it is not in epochs, or unclear."""
    by_name: dict[str, list[float]] = {}
    for key, value in settings.items():
        if (number := number_of(value)) is not None and number > 0:
            by_name.setdefault(key.rpartition(".")[2], []).append(number)
    found = [one for name in _EPOCHS for one in by_name.get(name, [])]
    return found[0] if len(found) == 1 and "max_steps" not in by_name else None
