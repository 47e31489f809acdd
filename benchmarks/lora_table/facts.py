"""Report what a table says about LoRA's hyperparameters, as in the data card.

    python -m benchmarks.lora_table.facts size
    python -m benchmarks.lora_table.facts variance
    python -m benchmarks.lora_table.facts seeds
    python -m benchmarks.lora_table.facts fidelity
    python -m benchmarks.lora_table.facts shift
    python -m benchmarks.lora_table.facts defaults

Losses are in nats per response token. A run is *live* if it keeps more than a tenth of the largest
gain over the base model among the runs it is compared with; the others learned almost nothing, or
collapsed.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from benchmarks.lora_table import tables
from benchmarks.lora_table.defaults import DEFAULTS
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import FRACTIONS
from benchmarks.lora_table.tiers import PROXY


LIVE = 0.1  # share of the largest gain
N_BEST = 20  # configurations that `shift` averages over

QUANTITIES = {
    "rank": "log(rank)",
    "alpha / rank": "log(alpha_ratio)",
    "dropout": "lora_dropout",
    "batch": "log(batch_size)",
    "rate": "log(learning_rate)",
    "alpha": "log(alpha_ratio * rank)",
    "rate * alpha / rank": "log(learning_rate * alpha_ratio)",
    "rate * alpha": "log(learning_rate * alpha_ratio * rank)",
    "rate / batch": "log(learning_rate / batch_size)",
    "rate * alpha / rank / batch": "log(learning_rate * alpha_ratio / batch_size)",
    "rate * alpha / sqrt(rank) / batch": (
        "log(learning_rate * alpha_ratio * sqrt(rank) / batch_size)"
    ),
    "rate * alpha / batch": "log(learning_rate * alpha_ratio * rank / batch_size)",
}
"""Single quantities that may predict how good a configuration is, for `DataFrame.eval`."""


def size(table: pandas.DataFrame) -> str:
    """Report the number of runs of each kind, and the time they took."""
    lines = ["| fraction | design | runs | without result | seconds, median | hours, all |"]
    lines.append("|---|---|---|---|---|---|")
    for (fraction, design), rows in table.groupby(["fraction", "design"]):
        lost = int(rows["loss"].isna().sum())
        lines.append(
            f"| {fraction:.0%} | {design} | {len(rows)} | {lost} | "
            f"{rows['seconds'].median():.1f} | {rows['seconds'].sum() / 3600:.2f} |"
        )
    return "\n".join(lines)


def variance(table: pandas.DataFrame) -> str:
    """Report shares of the variance: by hyperparameter on the grid, by quantity on random runs."""
    return "\n\n".join(
        part
        for part in (variance_of_grid(table), variance_of_quantities(table))
        if part is not None
    )


def variance_of_grid(table: pandas.DataFrame) -> str | None:
    """Report main and total effects (Sobol' 1993) on the complete grid: exact sums, no model."""
    grid = _complete_grid(table)
    if grid is None:
        return None
    targets = {"loss": grid["loss"], "rank of the loss": grid["loss"].rank()}
    lines = [
        f"Complete grid of {len(grid)} runs at {PROXY:.0%} of the data: share of the variance of "
        "the loss and of its rank that is explained by a hyperparameter alone (main) and with all "
        "its interactions (total; includes what is noise).",
        "",
        "| | " + " | ".join(f"{name}: main | total" for name in targets) + " |",
        "|---|" + "---|---|" * len(targets),
    ]
    for name in PARAMS:
        others = [other for other in PARAMS if other != name]
        cells = []
        for y in targets.values():
            whole = y.var(ddof=0)
            main = y.groupby(grid[name]).transform("mean").var(ddof=0)
            rest = y.groupby([grid[other] for other in others]).transform("mean").var(ddof=0)
            cells += [f"{main / whole:.0%}", f"{1 - rest / whole:.0%}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _complete_grid(table: pandas.DataFrame) -> pandas.DataFrame | None:
    """Return the grid's rows; None if there is no grid, or a run has no loss."""
    grid = table[(table["design"] == "grid") & (table["fraction"] == PROXY)]
    complete = tables.grid_levels(grid) is not None and grid["loss"].notna().all()
    return grid if complete else None


def variance_of_quantities(table: pandas.DataFrame) -> str:
    """Report how much of the variance one quantity predicts, over the whole space."""
    lines = [
        "Random configurations: share of the variance that a smooth function of one number "
        "predicts for configurations it was not fitted to (R^2 of a cubic spline with ridge "
        "penalty, 10-fold cross-validation, mean of 5 partitions; below 0: worse than the mean). "
        "The loss itself, its rank among all runs, and the loss among live runs only.",
        "",
    ]
    parts = {fraction: _design(table, "random", fraction) for fraction in (PROXY, 1.0)}
    head = " | ".join(
        f"{fraction:.0%}: loss ({len(rows)}) | rank | "
        f"live ({int(live(rows['loss'], _base_loss(table)).sum())})"
        for fraction, rows in parts.items()
    )
    lines += [f"| | {head} |", "|---|" + "---|---|---|" * len(parts)]
    for name, quantity in QUANTITIES.items():
        cells = []
        for rows in parts.values():
            alive = rows[live(rows["loss"], _base_loss(table))]
            for some, y in (
                (rows, rows["loss"]),
                (rows, rows["loss"].rank()),
                (alive, alive["loss"]),
            ):
                cells.append(f"{_predicted_share(some.eval(quantity), y):.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _predicted_share(x: pandas.Series, y: pandas.Series) -> float:
    model = make_pipeline(
        SplineTransformer(n_knots=8, extrapolation="linear"), RidgeCV(np.logspace(-4, 3, 15))
    )
    inputs, target = x.to_numpy()[:, None], y.to_numpy()
    errors = [
        np.mean((cross_val_predict(model, inputs, target, cv=folds) - target) ** 2)
        for folds in (KFold(10, shuffle=True, random_state=seed) for seed in range(5))
    ]
    return float(1 - np.mean(errors) / target.var())


def seeds(table: pandas.DataFrame) -> str:
    """Report noise over seeds and the differences between configurations."""
    lines = [
        "Configurations with all seeds. Noise: standard deviation over a configuration's seeds, "
        "pooled. A seed draws the part of the data, which moves all configurations together; own "
        "noise is what is left when that common shift is taken off, and what can mislead a search "
        "whose runs share a seed. Differences: standard deviation between configurations, without "
        "noise. Agreement: Spearman correlation of two seeds, mean of pairs.",
        "",
        "| fraction | configurations | number | noise | own noise | differences | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for fraction in (PROXY, 1.0):
        wide = _by_seed(table, fraction)
        promoted = _keys(table[table["design"] == "promoted"])
        groups = {
            "all": wide,
            "live": wide[live(wide.mean(axis=1), _base_loss(table))],
            "promoted": wide[wide.index.isin(promoted)],
        }
        for name, rows in groups.items():
            own = _own_noise(rows)
            between = rows.mean(axis=1).var(ddof=1) - own**2 / rows.shape[1]
            pairs = itertools.combinations(rows.columns, 2)
            agreement = np.mean([spearmanr(rows[a], rows[b]).statistic for a, b in pairs])
            lines.append(
                f"| {fraction:.0%} | {name} | {len(rows)} | {_pooled_deviation(rows):.4f} | "
                f"{own:.4f} | {max(between, 0.0) ** 0.5:.4f} | {agreement:.2f} |"
            )
    return "\n".join(lines)


def seed_noise(table: pandas.DataFrame, fraction: float) -> float:
    """Pool the standard deviation over seeds of live configurations, nats per response token."""
    wide = _by_seed(table, fraction)
    return _pooled_deviation(wide[live(wide.mean(axis=1), _base_loss(table))])


def fidelity(table: pandas.DataFrame) -> str:
    """Report how well runs on a part of the data represent runs on all of it."""
    rows = table[(table["design"] == "random") & (table["seed"] == 0)]
    wide = rows.assign(key=_keys(rows)).pivot(index="key", columns="fraction", values="loss")
    wide = wide[wide[1.0].notna()]
    seconds = rows.groupby("fraction")["seconds"].mean()
    full, base = wide[1.0], _base_loss(table)
    alive, gain = live(full, base), base - full.min()
    lines = [
        f"The same {len(wide)} random configurations on a part and on all of the data, seed 0; "
        f"{int(alive.sum())} are live on all data. Regret: how much worse on all data the best of "
        "the k that lead on the part is than the best of all, in nats and as a share of the "
        "largest gain over the base model.",
        "",
        "| fraction | Spearman, all | Spearman, live | Pearson, live | regret, k = 1 | k = 3 | "
        "k = 5 | k = 10 | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for fraction in FRACTIONS[:-1]:
        part = wide[fraction]
        regrets = [full[part.nsmallest(k).index].min() - full.min() for k in (1, 3, 5, 10)]
        lines.append(
            f"| {fraction:.0%} | {spearmanr(part, full).statistic:.2f} | "
            f"{spearmanr(part[alive], full[alive]).statistic:.2f} | "
            f"{part[alive].corr(full[alive]):.2f} | "
            + " | ".join(f"{regret:.3f} ({regret / gain:.0%})" for regret in regrets)
            + f" | {seconds[fraction] / seconds[1.0]:.0%} |"
        )
    return "\n".join(lines)


def shift(table: pandas.DataFrame) -> str:
    """Report where the best configurations lie on a part of the data and on all of it."""
    rows = table[(table["design"] == "random") & (table["seed"] == 0)]
    rows = rows.assign(key=_keys(rows))
    full = rows[(rows["fraction"] == 1.0) & rows["loss"].notna()]
    rows = rows[rows["key"].isin(set(full["key"]))]
    shown = {"rank": "rank", "alpha / rank": "alpha_ratio", "batch": "batch_size"}
    shown |= {"rate": "learning_rate"}
    lines = [
        f"Of the same {len(full)} random configurations, seed 0, the {N_BEST} best at each "
        "fraction: geometric mean, and the factor that is its standard error.",
        "",
        f"| fraction | {' | '.join(shown)} | steps, median |",
        "|---|" + "---|" * (len(shown) + 1),
    ]
    for fraction in sorted(rows["fraction"].unique()):
        best = rows[rows["fraction"] == fraction].nsmallest(N_BEST, "loss")
        logs = np.log(best[list(shown.values())].to_numpy(dtype=float))
        errors = np.exp(logs.std(axis=0, ddof=1) / np.sqrt(len(logs)))
        means = np.exp(logs.mean(axis=0))
        cells = [f"{mean:.2g} (x {e:.2f})" for mean, e in zip(means, errors, strict=True)]
        lines.append(f"| {fraction:.0%} | {' | '.join(cells)} | {best['steps'].median():.0f} |")
    return "\n".join(lines)


def defaults(table: pandas.DataFrame) -> str:
    """Report how far the defaults of tools and papers are from the best."""
    lines = [
        "Means over seeds. Best: the configuration that is best with seed 0 among those with all "
        "seeds, measured with its other seeds, so that its luck is not counted. Gain: share of "
        "the best's gain over the base model. Excess: loss above the best's.",
        "",
    ]
    parts = {fraction: _by_seed(table, fraction) for fraction in (PROXY, 1.0)}
    head = " | ".join(f"{fraction:.0%}: loss | gain | excess" for fraction in parts)
    lines += [
        f"| | rank | alpha / rank | dropout | batch | rate | {head} |",
        "|---|---|---|---|---|---|" + "---|---|---|" * len(parts),
    ]
    base = _base_loss(table)
    losses = {f: dict(zip(w.index, w.mean(axis=1), strict=True)) for f, w in parts.items()}
    first = {f: wide[0].argmin() for f, wide in parts.items()}
    best = {f: wide.index[first[f]] for f, wide in parts.items()}
    best_loss = {f: wide.drop(columns=0).iloc[first[f]].mean() for f, wide in parts.items()}
    shown = {name: tables.key(configuration) for name, configuration in DEFAULTS.items()}
    shown |= {f"best at {fraction:.0%}": key for fraction, key in best.items()}
    for name, key in shown.items():
        cells = []
        for fraction in parts:
            is_best = key == best[fraction]
            loss = best_loss[fraction] if is_best else losses[fraction].get(key, np.nan)
            gain = (base - loss) / (base - best_loss[fraction])
            excess = loss / best_loss[fraction] - 1
            known = np.isfinite(loss)
            cells += [f"{loss:.3f}", f"{gain:.0%}", f"{excess:.1%}"] if known else ["-"] * 3
        lines.append(f"| {name} | " + " | ".join([*(f"{x:g}" for x in key), *cells]) + " |")
    lines += ["", f"The base model's loss is {base:.3f}."]
    return "\n".join(lines)


def _design(table: pandas.DataFrame, design: str, fraction: float) -> pandas.DataFrame:
    """Return the runs of a design with the first seed that have a loss."""
    chosen = (table["design"] == design) & (table["fraction"] == fraction) & (table["seed"] == 0)
    return table[chosen & table["loss"].notna()]


def _by_seed(table: pandas.DataFrame, fraction: float) -> pandas.DataFrame:
    """Return losses of configurations that were run with all seeds, one column per seed."""
    rows = table[table["fraction"] == fraction]
    return rows.assign(key=_keys(rows)).pivot(index="key", columns="seed", values="loss").dropna()


def _keys(table: pandas.DataFrame) -> list[tuple[float, ...]]:
    return [tables.key(configuration) for configuration in tables.configurations(table)]


def _base_loss(table: pandas.DataFrame) -> float:
    return float(table["base_loss"].median())  # machines differ in the last digits


def live(losses: pandas.Series, base: float) -> pandas.Series:
    """Mark the runs that keep more than `LIVE` of the largest gain over the base model."""
    return base - losses > LIVE * (base - losses.min())


def _own_noise(by_seed: pandas.DataFrame) -> float:
    """Standard deviation of the part that neither configuration nor seed explains (two-way)."""
    rest = by_seed.sub(by_seed.mean(axis=1), axis=0)
    rest = rest - rest.mean(axis=0)
    n, k = by_seed.shape
    return float(np.sqrt((rest**2).to_numpy().sum() / ((n - 1) * (k - 1))))


def _pooled_deviation(by_seed: pandas.DataFrame) -> float:
    return float(np.sqrt(by_seed.var(axis=1, ddof=1).mean()))


FACTS = {f.__name__: f for f in (size, variance, seeds, fidelity, shift, defaults)}


def main() -> None:
    """Print one of the facts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fact", choices=FACTS)
    parser.add_argument("--table", type=Path, default=tables.FOLDER / "cpu.parquet")
    arguments = parser.parse_args()
    print(FACTS[arguments.fact](tables.read(arguments.table)))


if __name__ == "__main__":
    main()
