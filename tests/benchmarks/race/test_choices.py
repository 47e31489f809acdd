"""Tasks of choices by name: on small made-up tables, and on the published ones if present."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import json
import math
from typing import Any

import numpy as np
import pandas
import pytest

from benchmarks.race import choice_texts
from benchmarks.race import choices
from benchmarks.race import methods
from benchmarks.race import real_tables
from benchmarks.race import scales
from benchmarks.race import study
from benchmarks.race import tasks
from benchmarks.race.study import Plan
from benchmarks.race.task import Task
from benchmarks.race.task import TrialFailed
from optuna_llmbo.errors import InputError
from tests.benchmarks.race.conftest import MadeUp
from tests.benchmarks.race.test_real import FOLDER
from tests.benchmarks.race.test_real import published


ALL = (*choices.TUNING, *choices.REPORTED)

METHANE = {"catalyst": "MgO", "temperature_C": 700, "total_flow_mL_min": 10, "Ar_fraction": 0.15}


def test_groups() -> None:
    assert tasks.choose("choices") == list(ALL)
    assert tasks.choose("choices-tuning") == list(choices.TUNING)
    assert tasks.choose("choices-reported") == list(choices.REPORTED)
    assert (len(choices.TUNING), len(choices.REPORTED)) == (11, 29)
    assert len(set(ALL)) == 40 and set(ALL) == choices.tasks().keys()
    assert not set(ALL) & set(tasks.GROUPS["all"])
    assert choices.TUNING[3:] == (
        *(f"choices-automl-{number}" for number in (2, 3, 7, 9)),
        "choices-prompts-all-words-from-category",
        "choices-prompts-any-words-from-category",
        "choices-prompts-ends-with-word",
        "choices-prompts-first-alphabetically",
    )


def test_tables_that_are_missing(made_up: MadeUp) -> None:
    made_up.write("automl-pipelines", [{"pipeline_id": 0}])
    with pytest.raises(InputError, match=r"has no file automl_tensoroboe_pipelines/errors\.csv"):
        tasks.check(["choices-automl-2"])
    made_up.write("automl-errors", [{"pipeline_id": 0}])
    tasks.check(["choices-automl-2", "bbob-sphere-2d"])


def test_only_cmaes_needs_numbers() -> None:
    with_numbers = ["choices-direct-arylation", "choices-methane-coupling"]
    assert [name for name in ALL if methods.can_search("cmaes", name)] == with_numbers
    for method in ("tpe", "gp", "hebo", "paper", "ours", "ours-no-llm"):
        assert all(methods.can_search(method, name) for name in ALL)


class TestGrids:
    def test_numbers_and_a_missing_cell(self, made_up: MadeUp) -> None:
        hot = METHANE | {"temperature_C": 900, "CH4_O2_ratio": 6, "C2_yield": 8.25}
        rows = [METHANE | {"CH4_O2_ratio": 2, "C2_yield": 3.5}, hot, hot | {"C2_yield": 12.0}]
        rows[2]["catalyst"] = "BN"
        made_up.write("methane-coupling", rows)
        task = choices.of_grid("choices-methane-coupling")
        assert (task.best, task.middle) == (-12.0, -8.25)
        assert task.default == {
            "catalyst": "MgO",
            "temperature": 900,
            "total_flow": 10,
            "argon_fraction": 0.15,
            "methane_oxygen_ratio": 6,
        }
        warm = task.default | {"temperature": 810, "methane_oxygen_ratio": 5}  # type: ignore[operator]
        assert task.value(warm) == -8.25
        assert task.value(warm | {"catalyst": "BN"}) == -12.0
        with pytest.raises(TrialFailed, match="choices-methane-coupling has no value at"):
            task.value(warm | {"catalyst": "BN", "temperature": 720})

    def test_rows_off_the_list_are_left_out(self, made_up: MadeUp) -> None:
        row: dict[str, Any] = {"base": "MTBD", "ligand": "XPhos", "additive": "none"}
        row |= {"aryl_halide": "2-iodopyridine", "yield": 90.0, "in_usual_3955": False}
        kept = {"additive": "4-phenylisoxazole", "yield": 20.0, "in_usual_3955": True}
        other = kept | {"aryl_halide": "2-chloropyridine", "yield": 10.0}
        made_up.write("buchwald-hartwig", [row, row | kept, row | other])
        task = choices.of_grid("choices-buchwald-hartwig")
        assert (task.best, task.middle) == (-20.0, -15.0)
        assert task.distributions is not None
        assert task.distributions["additive"].choices == ("4-phenylisoxazole",)  # type: ignore[attr-defined]

    def test_the_control_is_minimized(self, made_up: MadeUp) -> None:
        row = {"r1_label": "R1_0", "r3_label": "R3_0", "r4_label": "R4_0", "r5_label": "R5_0"}
        made_up.write("redoxmers", [row | {"ered": 1.5}, row | {"r5_label": "R5_1", "ered": 2.5}])
        task = choices.of_grid("choices-redoxmers")
        assert (task.best, task.middle, task.value(row)) == (1.5, 2.0, 1.5)


class TestAutoML:
    def test_rows_meet_by_number(self, made_up: MadeUp) -> None:
        steps = {"imputer": "mean", "encoder": "none", "standardizer": "none"}
        steps |= {"dim_reducer": "none", "estimator": "LinearSVM", "hyperparameters": "C=2"}
        plain = {"estimator": "GaussianNaiveBayes", "hyperparameters": ""}
        rows = [steps | {"pipeline_id": 0}, steps | plain | {"pipeline_id": 1}]
        made_up.write("automl-pipelines", rows)
        errors = [{"pipeline_id": 1, "openml_9": 0.25}, {"pipeline_id": 0, "openml_9": 0.125}]
        made_up.write("automl-errors", errors)
        task = choices.automl(9)
        assert task.default["estimator"] == "LinearSVM: C=2"
        assert task.value(task.default) == task.best == 0.125
        assert task.value({**task.default, "estimator": "GaussianNaiveBayes"}) == 0.25
        assert "autos" in task.sentence


class TestPrompts:
    def test_equal_wordings_are_merged(self, made_up: MadeUp) -> None:
        rows = [("homophones", "Which?\nA:", 0.5), ("homophones", "Which?\nA:", 0.25)]
        rows += [("homophones", "Which? A:", 0.75), ("rhyming_word", "Which?\nA:", 1.0)]
        names = ("task", "template", "acc_vicuna-13b")
        made_up.write("lmentry", [dict(zip(names, row, strict=True)) for row in rows])
        task = choices.prompts("choices-prompts-homophones", "homophones")
        assert task.default == {"prompt": "Which?\nA:"}
        assert task.value(task.default) == 0.625
        assert (task.best, task.middle) == (0.25, 0.4375)


class TestPipelines:
    def row(self, **others: Any) -> dict[str, Any]:
        usual = dict.fromkeys(choice_texts.COMPONENTS, "same")
        return usual | {"domain": "law", "failed": False} | others

    def test_components_that_differ(self) -> None:
        rows = [
            self.row(query_expansion="hyde_cc", passage_rerank="passage_rerank_none"),
            self.row(query_expansion="query_expansion_none", passage_rerank="ce_rerank_bge"),
        ]
        assert choice_texts.pipelines(pandas.DataFrame(rows)).tolist() == [
            "query_expansion: hyde_cc; passage_rerank: none",
            "query_expansion: none; passage_rerank: ce_rerank_bge",
        ]

    def test_task(self, made_up: MadeUp) -> None:
        rows = [
            self.row(retrieval="vector_mxbai", overall=0.75),
            self.row(retrieval="graph_rag", overall=0.0, failed=True),
            self.row(retrieval="keyword_bm25", overall=0.5),
            self.row(retrieval="vector_mxbai", overall=0.5),
            self.row(retrieval="keyword_bm25", overall=0.9, domain="math", generator="other"),
        ]
        made_up.write("ragsmith", rows)
        task = choices.rag("law")
        assert task.distributions is not None
        assert task.distributions["pipeline"].choices == (  # type: ignore[attr-defined]
            "retrieval: vector_mxbai",
            "retrieval: keyword_bm25",
        )
        assert (task.best, task.value({"pipeline": "retrieval: vector_mxbai"})) == (0.375, 0.375)


def experiment(**others: Any) -> dict[str, Any]:
    """A row of the table of methods, all empty but for what is given."""
    columns = (*choice_texts.COMMON_SETTINGS, *choice_texts.TRAINING_SETTINGS.values())
    row: dict[str, Any] = dict.fromkeys(columns, math.nan)
    row |= {"peft_type": "LORA", "peft_config_json": math.nan, "optimizer_type": "AdamW"}
    return row | {"lr": 1e-4} | others


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            experiment(rank=64.0, alpha=128.0, target_modules="q_proj+v_proj", weight_decay=0.1),
            "LORA, rank=64, alpha=128, target_modules=q_proj+v_proj, lr=0.0001, weight_decay=0.1",
        ),
        (
            experiment(use_dora=True, use_rslora=False, optimizer_type="lora-fa", init="False"),
            "LORA, init=False, use_dora=True, optimizer=lora-fa, lr=0.0001",
        ),
        (
            experiment(
                peft_type="IA3",
                target_modules="(library default / none)",
                lr=1e-5,
                weight_decay=0.0,
                peft_config_json=json.dumps(
                    {"feedforward_modules": ["up", "down"], "para": False}
                ),
            ),
            "IA3, feedforward_modules=down+up, lr=1e-05, weight_decay=0",
        ),
        (
            experiment(
                peft_config_json='{"use_bdlora": {"nblocks": 2, "on": ["b", "a"]}, "r": 9}'
            ),
            "LORA, use_bdlora=nblocks 2 on a+b, lr=0.0001",
        ),
    ],
)
def test_experiments(row: dict[str, Any], text: str) -> None:
    assert choice_texts.experiments(pandas.DataFrame([row])).tolist() == [text]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(real_tables.VARIABLE, str(FOLDER))
    yield


@pytest.fixture(scope="module")
def loaded() -> dict[str, Task]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(real_tables.VARIABLE, str(FOLDER))
        return {name: make() for name, make in choices.tasks().items()}


@published
@pytest.mark.parametrize("name", ALL)
def test_published(name: str, loaded: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    task = loaded[name]
    assert (task.name, task.family) == (name, "choices")
    assert task.best < task.middle
    scale = scales.of(name)
    assert (scale.best, scale.middle) == (task.best, task.middle)
    assert scale.default == task.value(task.default)
    monkeypatch.setattr(tasks, "load", lambda _: task)
    record = study.run(Plan(name, "random", "default", seed=0, budget=5))
    assert record["error"] is None and len(record["values"]) == 5
    assert record["values"][0] == task.value(task.default)
    assert np.nanmin(record["values"]) >= task.best


SIZES = {
    "choices-direct-arylation": {"base": 4, "ligand": 12, "solvent": 4},
    "choices-amide-coupling": {"base": 4, "solvent": 3, "activator": 8, "nucleophile": 10},
    "choices-methane-coupling": {"catalyst": 59},
    "choices-buchwald-hartwig": {"base": 3, "ligand": 4, "aryl_halide": 15, "additive": 22},
    "choices-redoxmers": {"r1_label": 2, "r3_label": 8, "r4_label": 8, "r5_label": 11},
    "choices-automl-2": {
        "imputer": 4,
        "encoder": 2,
        "standardizer": 2,
        "dim_reducer": 8,
        "estimator": 183,
    },
    "choices-prompts-homophones": {"prompt": 251},
    "choices-rag-law": {"pipeline": 134},
    "choices-rag-military": {"pipeline": 65},
    "choices-peft": {"method": 63},
}


@published
@pytest.mark.parametrize("name", SIZES)
def test_published_choices(name: str, loaded: dict[str, Task]) -> None:
    space = loaded[name].distributions or {}
    found = {name: len(d.choices) for name, d in space.items() if hasattr(d, "choices")}
    assert found == SIZES[name]


@published
@pytest.mark.parametrize("name", choices.GRIDS)
@pytest.mark.usefixtures("beside")
def test_published_values(name: str, loaded: dict[str, Task]) -> None:
    grid, task = choices.GRIDS[name], loaded[name]
    table = real_tables.read(grid.table).sample(50, random_state=0)
    if grid.only is not None:
        table = table[table[grid.only]]
    for row in table.to_dict("records"):
        configuration = {one: row[one] for one in grid.names}
        configuration |= {one: row[column] for one, column in grid.numbers.items()}
        assert task.value(configuration) == grid.sign * row[grid.value]


@published
def test_published_cells_that_are_missing(loaded: dict[str, Task]) -> None:
    task = loaded["choices-buchwald-hartwig"]
    space: Any = task.distributions
    failed = 0
    for cell in itertools.product(*(one.choices for one in space.values())):
        try:
            task.value(dict(zip(space, cell, strict=True)))
        except TrialFailed:
            failed += 1
    assert failed == 5


@published
@pytest.mark.usefixtures("beside")
def test_published_tasks_are_in_the_order_of_the_tables() -> None:
    assert tuple(real_tables.read("lmentry")["task"].unique()) == choices.INSTRUCTIONS
    errors = real_tables.read("automl-errors")
    assert [f"openml_{number}" for number in choices.DATA_SETS] == list(errors.columns[1:])
