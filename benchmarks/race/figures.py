"""Draw regret by trial: a figure per family, with a panel per task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race import tasks
from benchmarks.race.results import Results
from benchmarks.race.statistics import band
from benchmarks.race.task import FAMILIES


FLOOR = 1e-4
"""Smallest regret drawn on the logarithmic scale; lower values are drawn here."""
N_COLUMNS = 3
FORMATS = ("svg", "png")


def draw(results: Results, folder: Path, start: str) -> list[Path]:
    """Draw a figure for each family that has tasks.

    Returns:
        The SVG files; there is a PNG file beside each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for family in FAMILIES:
        names = [name for name in results.tasks if tasks.family_of(name) == family]
        if names:
            paths.append(folder / f"regret-{family}-{start}.svg")
            _draw_family(results, names, paths[-1])
    return paths


def _draw_family(results: Results, names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # reproducible files
    from matplotlib import pyplot

    n_columns = min(N_COLUMNS, len(names))
    n_rows = math.ceil(len(names) / n_columns)
    figure, axes = pyplot.subplots(
        n_rows, n_columns, figsize=(4 * n_columns, 2.8 * n_rows), sharex=True, squeeze=False
    )
    for panel, name in zip(axes.flat, names, strict=False):
        _draw_task(results, name, panel)
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    figure.supxlabel("trials", fontsize="medium")
    figure.supylabel("regret: median and 95% interval", fontsize="medium")
    figure.set_layout_engine("constrained")
    for suffix in FORMATS:
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=150, metadata=_undated(suffix))
    pyplot.close(figure)


def _draw_task(results: Results, name: str, panel: Any) -> None:
    for i, method in enumerate(results.methods):
        curves = list(results.of(name, method)["best"])
        if not curves:
            panel.plot([], [], color=f"C{i}", label=method)
            continue
        budget = min(map(len, curves))
        regret = results.scales[name].regret(np.array([curve[:budget] for curve in curves]))
        middle, low, high = (np.maximum(line, FLOOR) for line in band(regret))
        trials = np.arange(1, budget + 1)
        panel.plot(trials, middle, color=f"C{i}", label=method, linewidth=1.2)
        panel.fill_between(trials, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
    panel.set_yscale("log")
    panel.set_title(name, fontsize="small")
    panel.grid(alpha=0.3)


def _undated(suffix: str) -> dict[str, None]:
    return {"Date": None} if suffix == "svg" else {}
