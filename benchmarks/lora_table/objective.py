"""Use the table as an Optuna objective: exact at its configurations, or a surrogate everywhere.

table = tables.read("benchmarks/lora_table/tables/cpu.parquet")
study.optimize(TableObjective(table), n_trials=12)            # a complete grid of real runs
study.optimize(SurrogateObjective(table, "cpu"), n_trials=12)  # any configuration of the space
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.trial import BaseTrial
import pandas

from benchmarks.lora_table import tables
from benchmarks.lora_table.surrogate import load
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import PROXY
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.search_space import suggest


Params = Mapping[str, Any]


class TableObjective:
    """Look up the validation loss of a real run.

    Every value is that of one real run: nothing is interpolated, and a configuration that was not
    run is an error. By default the study searches the table's complete grid, with categorical
    parameters whose choices are the grid's levels. Reports the loss at 25, 50, 75 and 100% of the
    training, so that pruners work; a run without a loss is pruned, as `LoRAObjective` does.

    Args:
        table: as returned by `tables.read`.
        fraction: fraction of the training data.
        seed: seed of the runs.

    Raises:
        InputError: if the table has no complete grid at this fraction and seed.
    """

    def __init__(self, table: pandas.DataFrame, *, fraction: float = PROXY, seed: int = 0) -> None:
        rows = table[(table["fraction"] == fraction) & (table["seed"] == seed)]
        self._rows = {tables.key(row): row for row in rows.to_dict("records")}
        self._where = f"at {fraction:g} of the data with seed {seed}"
        grid = rows[rows["design"] == "grid"]
        levels = tables.grid_levels(grid)
        if levels is None:
            raise InputError(
                f"the table has {len(grid)} runs of a grid {self._where}, which is no complete "
                "grid: choose another fraction or seed, or use SurrogateObjective."
            )
        self.distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(levels[name]) for name in PARAMS
        }
        """The search space."""
        self.best_loss = float(grid["loss"].min())
        """Lowest loss in the search space, nats per response token."""

    def run(self, params: Params) -> dict[str, Any]:
        """Look up the table's row of a configuration.

        Raises:
            InputError: if the configuration was not run.
        """
        row = self._rows.get(tables.key(params))
        if row is None:
            wanted = ", ".join(f"{name}={params[name]}" for name in PARAMS)
            raise InputError(
                f"{wanted} was not run {self._where}: ask for a configuration of the table, or "
                "use SurrogateObjective."
            )
        return row

    def __call__(self, trial: BaseTrial) -> float:
        """Look up one trial.

        Returns:
            The validation loss after training, nats per response token.
        """
        row = self.run(suggest(trial, self.distributions))
        for name in ("run_id", "seconds", "steps", "base_loss"):
            trial.set_user_attr(name, row[name])
        n_reports = len(row["curve"])
        for i, loss in enumerate(row["curve"], 1):
            trial.report(loss, round(100 * i / n_reports))
            if i < n_reports and trial.should_prune():
                raise optuna.TrialPruned
        if row["status"] != tables.COMPLETE:
            trial.set_user_attr("pruned_reason", row["status"])
            raise optuna.TrialPruned(row["status"])
        return float(row["loss"])


class SurrogateObjective:
    """Predict the validation loss of any configuration, with a model fitted to the table.

    Deterministic: the mean over seeds. The data card gives the difference to real runs.

    Args:
        table: as returned by `tables.read`.
        tier: name of the tier whose space is searched.
        fraction: fraction of the training data.
    """

    def __init__(self, table: pandas.DataFrame, tier: str, *, fraction: float = PROXY) -> None:
        self._surrogate = load(table, tier, fraction)
        self.distributions = dict(self._surrogate.space)
        """The search space."""

    def loss(self, params: Params) -> float:
        """Predict the validation loss, nats per response token.

        Raises:
            InputError: if the configuration lies outside the space, where nothing was run.
        """
        return float(self._surrogate.predict([params])[0])

    def __call__(self, trial: BaseTrial) -> float:
        """Predict one trial.

        Returns:
            The predicted validation loss, nats per response token.
        """
        return self.loss(suggest(trial, self.distributions))
