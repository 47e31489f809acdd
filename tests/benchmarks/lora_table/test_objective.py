from __future__ import annotations

import math

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial
from optuna.trial import TrialState
import pandas
import pytest

from benchmarks.lora_table import tables
from benchmarks.lora_table.objective import SurrogateObjective
from benchmarks.lora_table.objective import TableObjective
from benchmarks.lora_table.plan import random_configurations
from benchmarks.lora_table.tiers import tier
from optuna_llmbo.errors import InputError
from tests.benchmarks.lora_table.conftest import grid
from tests.benchmarks.lora_table.conftest import known_loss
from tests.benchmarks.lora_table.conftest import LEVELS
from tests.benchmarks.lora_table.conftest import make_row
from tests.benchmarks.lora_table.conftest import make_table


class TestExact:
    def test_every_row_is_found(self, table: pandas.DataFrame) -> None:
        objective = TableObjective(table)
        for params in grid():
            assert objective(FixedTrial(params)) == known_loss(params)
        assert objective.best_loss == pytest.approx(3.0 - 0.1 * math.log(4))
        assert objective.distributions == {
            name: CategoricalDistribution(levels) for name, levels in LEVELS.items()
        }

    def test_any_sampler_searches_the_grid(self, table: pandas.DataFrame) -> None:
        study = optuna.create_study(
            sampler=optuna.samplers.BruteForceSampler(), pruner=optuna.pruners.NopPruner()
        )
        study.optimize(TableObjective(table))
        assert len(study.trials) == len(grid())
        assert study.best_value == TableObjective(table).best_loss
        assert study.best_trial.intermediate_values == pytest.approx(
            {25: study.best_value + 0.3, 50: study.best_value + 0.2, 75: study.best_value + 0.1}
            | {100: study.best_value}
        )
        assert study.best_trial.user_attrs["seconds"] == 1.5

    def test_nothing_snaps_to_the_nearest_row(self, table: pandas.DataFrame) -> None:
        beside = {**grid()[0], "learning_rate": 1.0000001e-4}
        with pytest.raises(InputError, match=r"learning_rate=0\.0001.* was not run at 0\.1 of"):
            TableObjective(table).run(beside)

    def test_a_run_without_result_is_pruned(self) -> None:
        objective = TableObjective(
            make_table(lambda p: math.nan if p["learning_rate"] == 1e-2 else known_loss(p))
        )
        study = optuna.create_study(
            sampler=optuna.samplers.BruteForceSampler(), pruner=optuna.pruners.NopPruner()
        )
        study.optimize(objective)
        pruned = study.get_trials(states=(TrialState.PRUNED,))
        assert len(pruned) == len(grid()) / 3
        assert {trial.user_attrs["pruned_reason"] for trial in pruned} == {tables.DIVERGED}
        assert objective.best_loss == study.best_value

    def test_pruners_stop_bad_runs(self, table: pandas.DataFrame) -> None:
        pruner = optuna.pruners.ThresholdPruner(upper=4.0)
        study = optuna.create_study(pruner=pruner)
        objective = TableObjective(table)
        for params in grid():
            study.enqueue_trial(params)
        study.optimize(objective, n_trials=len(grid()))
        for trial in study.trials:
            first = known_loss(trial.params) + 0.3
            assert (trial.state == TrialState.PRUNED) == (first > 4.0)
            assert len(trial.intermediate_values) == (1 if first > 4.0 else 4)

    @pytest.mark.parametrize("where", [{"fraction": 1.0}, {"seed": 1}])
    def test_no_grid_there(self, table: pandas.DataFrame, where: dict[str, float]) -> None:
        with pytest.raises(InputError, match=r"has 0 runs of a grid at .* or use Surrogate"):
            TableObjective(table, **where)  # type: ignore[arg-type]

    def test_incomplete_grid(self, table: pandas.DataFrame) -> None:
        with pytest.raises(InputError, match=f"has {len(table) - 1} runs of a grid"):
            TableObjective(table.drop(index=3))


@pytest.fixture(scope="module")
def shipped() -> pandas.DataFrame:
    """The table in the repository."""
    return tables.read(tables.FOLDER / "cpu.parquet")


class TestShipped:
    def test_as_many_runs_as_asked_for(self, shipped: pandas.DataFrame) -> None:
        assert shipped["run_id"].is_unique
        first = shipped[shipped["seed"] == 0].groupby("fraction").size()
        assert first[0.1] >= 800 and first[1.0] >= 150
        seeds = shipped.groupby([*tables.PARAMS, "fraction"])["seed"].nunique()
        assert (seeds >= 3).groupby("fraction").sum()[[0.1, 1.0]].min() >= 40
        assert (tables.FOLDER / "cpu.parquet").stat().st_size < 5e6

    @pytest.mark.parametrize("exact", [True, False])
    def test_twelve_trials(self, shipped: pandas.DataFrame, exact: bool) -> None:
        objective = TableObjective(shipped) if exact else SurrogateObjective(shipped, "cpu")
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(objective, n_trials=12)
        assert len(study.trials) == 12
        assert study.best_value < shipped["base_loss"].median()

    @pytest.mark.parametrize("fraction", [0.1, 1.0])
    def test_the_surrogate_knows_the_runs(
        self, shipped: pandas.DataFrame, fraction: float
    ) -> None:
        objective = SurrogateObjective(shipped, "cpu", fraction=fraction)
        rows = shipped[(shipped["fraction"] == fraction) & (shipped["seed"] == 0)].head(60)
        predicted = [objective.loss(row) for row in rows.to_dict("records")]
        ranks = pandas.Series(predicted, index=rows.index).rank()
        assert ranks.corr(rows["loss"].rank()) > 0.97

    def test_the_surrogate_answers_anywhere_in_the_space(self, shipped: pandas.DataFrame) -> None:
        objective = SurrogateObjective(shipped, "cpu")
        low = {name: axis.low for name, axis in tier("cpu").space.items()}  # type: ignore[attr-defined]
        high = {name: axis.high for name, axis in tier("cpu").space.items()}  # type: ignore[attr-defined]
        losses = [objective.loss(c) for c in (low, high, *random_configurations(tier("cpu")))]
        assert all(3.0 < loss < 20.0 for loss in losses)
        for params in ({**low, "rank": 65}, {**low, "learning_rate": 9e-6}):
            with pytest.raises(InputError, match=r"lies outside .* ask for a configuration of"):
                objective.loss(params)

    def test_a_surrogate_of_other_runs(self, shipped: pandas.DataFrame) -> None:
        with pytest.raises(InputError, match=r"no surrogate for these runs .* --fit"):
            SurrogateObjective(shipped.drop(index=shipped.index[-1]), "cpu", fraction=0.1)
        with pytest.raises(InputError, match=r"fraction of 0\.3 .* kept are .* 0\.1, 1"):
            SurrogateObjective(shipped, "cpu", fraction=0.3)


def test_a_row_knows_its_design(table: pandas.DataFrame) -> None:
    extra = make_row({**grid()[0], "rank": 3}, 2.5, design="random")
    objective = TableObjective(pandas.concat([table, tables.frame([extra])], ignore_index=True))
    assert objective.run({**grid()[0], "rank": 3})["loss"] == 2.5
    assert 3 not in objective.distributions["rank"].choices  # type: ignore[attr-defined]
