"""Tasks of real training runs: on small made-up tables, and on the published ones if present."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.race import choices
from benchmarks.race import real
from benchmarks.race import real_checks
from benchmarks.race import real_tables
from benchmarks.race import run
from benchmarks.race import scales
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race import trees
from benchmarks.race.study import Plan
from benchmarks.race.task import draw
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed
from optuna_llmbo.errors import InputError
from tests.benchmarks.race.conftest import MadeUp


ALL = (*real.TUNING, *real.REPORTED)
BESIDE = Path(__file__).parents[4] / "shared" / "data" / "tables"
FOLDER = Path(os.environ.get(real_tables.VARIABLE) or BESIDE)

published = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published tables are not here")


def gpt_table() -> list[dict[str, Any]]:
    """Deep models run out of memory; one configuration was run three times."""
    rows = [
        real.GPT_DEFAULT
        | {"method": "random", "seed": 0, "trial_id": i}
        | {"DEPTH": 4 + i, "MATRIX_LR": 0.01 + i / 1000, "success": i < 12}
        | {"val_bpb": 1.0 + abs(i - 5) / 100 if i < 12 else 100.0}
        for i in range(20)
    ]
    extra = {"method": "llambo", "DEPTH": 4, "MATRIX_LR": 0.05, "success": True}
    rows += [rows[0] | extra | {"val_bpb": v} for v in (1.3, 1.2, 1.9)]
    return [*rows, rows[-1] | {"WINDOW_PATTERN": "SSLSL", "val_bpb": 0.5}]


class TestTables:
    def test_no_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(real_tables.VARIABLE, raising=False)
        with pytest.raises(InputError, match="RACE_TABLES is not set") as told:
            real_tables.read("deberta")
        source = real_tables.SOURCES["deberta"]
        for part in (source.file, source.repository, source.commit, source.path, source.licence):
            assert part in str(told.value)

    def test_no_file(self, made_up: MadeUp) -> None:
        with pytest.raises(InputError, match=r"has no file nmthpo_transformer/sw-en\.csv"):
            real_tables.read("nmthpo-sw-en")

    def test_another_file(self, made_up: MadeUp) -> None:
        path = made_up.write("llama", [{"a": 1}])
        assert real_tables.read("llama")["a"].tolist() == [1]
        path.write_text("a\n2\n")
        with pytest.raises(InputError, match="is another table: expected SHA-256"):
            real_tables.read("llama")

    def test_the_race_says_so_before_the_first_study(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv(real_tables.VARIABLE, raising=False)
        command = f"run --methods random --tasks real --seeds 1 --out {tmp_path}"
        monkeypatch.setattr("sys.argv", command.split())
        with pytest.raises(SystemExit):
            run.main()
        assert "RACE_TABLES is not set" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_every_task_has_a_table(self) -> None:
        assert set(real.tasks()) == {*ALL, *real.TRANSFER_TUNING, *real.TRANSFER_REPORTED}
        of_real = {real.table_of(name) for name in real.tasks()}
        of_choices = {table for name in choices.tasks() for table in choices.tables_of(name)}
        assert of_real | of_choices == set(real_tables.SOURCES) and not of_real & of_choices
        assert real.table_of("real-transfer-nmt-fr-en-ppl-xglm-2.9B") == "nmt"


class TestFailures:
    @pytest.fixture(autouse=True)
    def table(self, made_up: MadeUp) -> None:
        made_up.write("gpt", gpt_table())

    def test_rows(self) -> None:
        rows = real.gpt_rows()
        assert len(rows.values) == 21 and np.isnan(rows.values).sum() == 8
        assert rows.values[-1] == 1.3  # the median of three; the pattern off the list is left out

    @pytest.mark.parametrize(("telling", "value"), [("nan", math.nan), ("100", 100.0)])
    def test_values_that_tell(self, telling: str, value: float) -> None:
        task = real.gpt_pretrain(telling)
        deep = {**task.default, "DEPTH": 22, "MATRIX_LR": 0.028}
        assert task.value(deep) == pytest.approx(value, nan_ok=True)
        assert task.value({**deep, "DEPTH": 9, "MATRIX_LR": 0.015}) == task.best == 1.0

    def test_raises(self) -> None:
        task = real.gpt_pretrain("raises")
        with pytest.raises(TrialFailed, match="real-gpt-pretrain-raises has no value at"):
            task.value({**task.default, "DEPTH": 22, "MATRIX_LR": 0.028})

    @pytest.mark.parametrize("telling", real.TELLINGS)
    def test_the_race_goes_on(self, telling: str, monkeypatch: pytest.MonkeyPatch) -> None:
        task = real.gpt_pretrain(telling)
        monkeypatch.setattr(tasks, "load", lambda _: task)
        record = study.run(Plan(task.name, "tpe", "plain", seed=0, budget=15))
        assert record["error"] is None and len(record["values"]) == 15
        failed = [value == 100.0 or math.isnan(value) for value in record["values"]]
        assert 0 < sum(failed) < 15
        assert any(map(math.isnan, record["values"])) == (telling != "100")
        assert task.value(record["best_params"]) == np.nanmin(record["values"])

    def test_optuna_is_told(self) -> None:
        states = {}
        for telling in ("raises", "nan"):
            task = real.gpt_pretrain(telling)
            searched = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            for _ in range(15):
                study._one_trial(searched, task)
            states[telling] = [trial.state for trial in searched.trials]
        assert states["raises"] == states["nan"]
        assert set(states["nan"]) == {
            optuna.trial.TrialState.FAIL,
            optuna.trial.TrialState.COMPLETE,
        }

    def test_nothing_but_failures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: Any) -> float:
            raise TrialFailed("no memory")

        task = dataclasses.replace(real.gpt_pretrain("raises"), value=fail)
        monkeypatch.setattr(tasks, "load", lambda _: task)
        record = study.run(Plan(task.name, "random", "plain", seed=0, budget=3))
        assert record["error"] is None and record["best_params"] is None
        assert np.isnan(record["values"]).all()

    def test_powers_of_two(self) -> None:
        asked = real.GPT_DEFAULT | {"HEAD_DIM": 100, "DEVICE_BATCH_SIZE": 250}
        got = real.snapped(asked | {"TOTAL_BATCH_SIZE": 70_000})
        assert (got["HEAD_DIM"], got["DEVICE_BATCH_SIZE"]) == (128, 256)
        assert got["TOTAL_BATCH_SIZE"] == 2048 * 256
        assert real.snapped(real.GPT_DEFAULT) == real.GPT_DEFAULT

    def test_progress(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(real_checks, "SEARCHES", {"random": "random"})
        assert real_checks.progress_of_runs()["random"]["all trials"]["10"] == 1.0
        known = np.array([2.0, math.nan, 3.0, 5.0])
        found = real_checks.progress([known, known + 2.0])
        assert (found["all trials"]["10"], found["without trial 0"]["10"]) == (3.0, 4.0)


def test_a_grid_with_a_missing_cell(made_up: MadeUp) -> None:
    names = ["bpe_symbols", "num_layers", "num_embed", "ff_num_hidden", "attention_heads"]
    names += ["initial_learning_rate"]
    first = dict(zip(names, [1000, 1, 256, 1024, 8, 3e-4], strict=True))
    last = dict(zip(names, [32000, 4, 1024, 2048, 16, 1e-3], strict=True))
    made_up.write("nmthpo-so-en", [first | {"dev_bleu": 9.0}, last | {"dev_bleu": 11.0}])
    task = real.nmthpo("so-en")
    assert task.best == -11.0
    assert task.value(first | {"bpe_symbols": 1300, "num_embed": 300}) == -9.0
    with pytest.raises(TrialFailed):
        task.value(first | {"bpe_symbols": 1500})


def test_rows_that_only_approximate_are_left_out(made_up: MadeUp) -> None:
    row: dict[str, Any] = real.LLAMA_DEFAULT | {"run_file": "lhs_bis", "state": None}
    row |= {"mmlu_acc": 0.3, "hellaswag_acc_norm": 0.4}
    large = {"run_file": "lhs", "lora_rank": 500, "mmlu_acc": 0.6}
    guess = {"lora_rank": 9, "state": "approximated", "mmlu_acc": 0.9}
    made_up.write("llama", [row, row | {"mmlu_acc": 0.4}, row | large, row | guess])
    small = real.llama_rows("1b", "mmlu")
    assert [c["lora_rank"] for c in small.configurations] == [16]
    assert small.values == pytest.approx([0.65])
    assert real.llama_rows("3b", "mmlu").values == pytest.approx([0.4])


def test_groups() -> None:
    assert tasks.choose("real") == list(ALL)
    assert tasks.choose("real-tuning") == list(real.TUNING)
    assert tasks.choose("real-reported") == list(real.REPORTED)
    assert not set(ALL) & set(tasks.GROUPS["all"]) and not set(real.TUNING) & set(real.REPORTED)
    tuning, reported = map(tasks.choose, ("real-transfer-tuning", "real-transfer-reported"))
    assert len(tuning) == 12 and all("fr-en" in name for name in tuning)
    assert len(reported) == 14 and not any(
        "fr-en" in name or "llama-1b" in name for name in reported
    )


def test_folds_hold_out_each_row_once() -> None:
    for n, count in ((7, 7), (500, 10)):
        parts = real_checks.folds(n, repeat=1)
        assert len(parts) == count
        assert sorted(np.concatenate([part for _, part in parts])) == list(range(n))
        assert all(not set(some) & set(part) for some, part in parts)


def test_the_page_has_the_figures_of_the_checks() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks" / "race.md").read_text()
    found = json.loads(real_checks.PATH.read_text())
    for name, checks in found["surrogates"].items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        figures = [v for k, v in checks.items() if k in ("spearman", "spearman_better_half")]
        assert all(f" {value:.2f} |" in line for value in figures), name
    curves = found["gpt_progress"]
    for method, parts in curves["runs"].items():
        for part, runs in parts.items():
            start = f"| {method}, {part} |"
            (line,) = [line for line in page.splitlines() if line.startswith(start)]
            surrogate = curves["surrogate"].get(method, {}).get(part, {})
            assert all(f" {v:.4f} |" in line for v in (*runs.values(), *surrogate.values()))


@pytest.fixture(scope="module")
def loaded() -> dict[str, Task]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(real_tables.VARIABLE, str(FOLDER))
        return {name: make() for name, make in real.tasks().items()}


@published
@pytest.mark.parametrize("name", [*ALL, "real-transfer-nmt-zh-en-bleu-xglm-2.9B"])
def test_published(name: str, loaded: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    task = loaded[name]
    assert (task.name, task.family) == (name, "real")
    assert math.isfinite(task.best) and task.best < task.middle < math.inf
    assert task.best < task.value(task.default) < 100.0
    monkeypatch.setattr(tasks, "load", lambda _: task)
    record = study.run(Plan(name, "random", "default", seed=0, budget=5))
    assert record["error"] is None and len(record["values"]) == 5
    assert record["values"][0] == task.value(task.default)
    assert np.nanmin(record["values"]) >= task.best


@published
@pytest.mark.parametrize(
    ("name", "n_random", "fails"),
    [
        ("real-nmt-fr-en-ppl", 2000, False),
        ("real-nmt-zh-en-bleu", 2000, True),
        ("real-nmthpo-sw-en", 500, True),
        ("real-nmthpo-so-en", 1000, True),
        ("real-gpt-pretrain-raises", 20, True),
    ],
)
def test_what_fails(name: str, n_random: int, fails: bool, loaded: dict[str, Task]) -> None:
    task = loaded[name]
    assert task.distributions is not None
    failed = 0
    for configuration in draw(task.distributions, n_random, seed=1):
        try:
            assert math.isfinite(task.value(configuration))
        except TrialFailed:
            failed += 1
    assert (failed > 0) == fails and failed < n_random * 0.8


@published
def test_published_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(real_tables.VARIABLE, str(FOLDER))
    counts = {size: len(real.llama_rows(size, "mmlu").values) for size in real.LLAMA_RANKS}
    assert counts == {"1b": 168, "3b": 150}
    assert len(real.deberta_rows().values) == 1024
    table = real_tables.read("nmt").groupby("pair").size()
    assert table.to_dict() == {"fr-en": 162, "zh-en": 159}
    rows = real.gpt_rows()
    assert all(real.snapped(c) == c for c in rows.configurations)
    assert np.nanmin(rows.values) == 0.974085
    for c in (*rows.configurations[:50], *real.deberta_rows().configurations[:50]):
        space = real.GPT_SPACE if "DEPTH" in c else real.DEBERTA_SPACE
        assert all(space[n]._contains(space[n].to_internal_repr(v)) for n, v in c.items())


def test_a_forest_predicts_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    features, asked = rng.random((300, 4)), rng.random((50, 4))
    values = features[:, 0] ** 2 + 0.1 * rng.normal(size=300)
    for forest in (
        trees.regression(features, values),
        trees.classification(features, values > 0.3),
    ):
        np.testing.assert_array_equal(forest.predict(asked), forest._forest.predict(asked))


def test_the_report_needs_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(real_tables.VARIABLE, raising=False)
    for name in (*real.TUNING, *real.REPORTED, *choices.TUNING, *choices.REPORTED):
        scale = scales.of(name)
        assert scale.best < scale.middle


@pytest.mark.skipif(real_tables.VARIABLE not in os.environ, reason="needs the tables")
@pytest.mark.parametrize("name", ["real-nmt-zh-en-bleu", "real-llama-3b-mmlu"])
def test_stored_scales_are_those_of_the_tasks(name: str) -> None:
    task, scale = tasks.load(name), scales.of(name)
    assert (scale.best, scale.middle) == (task.best, task.middle)
    assert scale.default == task.value(task.default)
