from __future__ import annotations

import dataclasses
import json
from pathlib import Path
import sys
from typing import Any

import pandas
import pytest

from benchmarks.lora_table import generate as generator
from benchmarks.lora_table import plan
from benchmarks.lora_table import recheck
from benchmarks.lora_table import run as runs
from benchmarks.lora_table import tables
from benchmarks.lora_table.generate import generate
from benchmarks.lora_table.generate import Settings
from benchmarks.lora_table.plan import Planned
from benchmarks.lora_table.tiers import tier
from optuna_llmbo.errors import InputError
from tests.lora.conftest import rows
from tests.tiny import make_tiny_llm


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU tier's folder with a tiny model and a small task."""
    folder = tmp_path_factory.mktemp("cpu")
    make_tiny_llm(folder / "base")
    pandas.DataFrame(rows(1600)).to_parquet(folder / "train.parquet")
    pandas.DataFrame(rows(12, start=5000)).to_parquet(folder / "validation.parquet")
    return folder


def planned(rank: int, fraction: float = 0.01, seed: int = 0) -> Planned:
    params = {
        "rank": rank,
        "alpha_ratio": 2.0,
        "lora_dropout": 0.1,
        "batch_size": 8,
        "learning_rate": 1e-3,
    }
    return Planned("random", params, fraction, seed)


FIRST = [planned(1), planned(2), planned(3, seed=1), planned(1)]
SECOND = [planned(4, fraction=0.05)]


@pytest.fixture
def settings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three different runs, then one that depends on them."""
    monkeypatch.setattr(plan, "first_stage", lambda _: FIRST)
    monkeypatch.setattr(plan, "second_stage", lambda _, table: SECOND)
    return Settings(
        tier=tier("cpu"),
        path=tmp_path / "table.parquet",
        device="cpu",
        data=data,
        workers=2,
        minutes=10.0,
        part=(1, 1),
    )


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[Planned]:
    """Runs are made here, one after the other, and noted."""
    made: list[Planned] = []

    def run_all(settings: Settings, missing: list[Planned], *rest: Any) -> pandas.DataFrame:
        with settings.journal.open("a") as journal:
            for one in missing:
                made.append(one)
                row = runs.run("cpu", one, "cpu", settings.data, "abc")
                journal.write(json.dumps(row) + "\n")
        return generator.load(settings)

    monkeypatch.setattr(generator, "_run_all", run_all)
    return made


@pytest.mark.slow
def test_processes_make_the_table(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "second_stage", lambda _, table: [])
    table = generate(settings)
    assert sorted(table["rank"]) == [1, 2, 3]
    assert set(table["status"]) == {tables.COMPLETE}
    assert list(table.columns) == list(tables.COLUMNS)
    assert not settings.journal.exists()
    one = table[table["rank"] == 3].iloc[0]
    assert (one["examples"], one["steps"], one["fraction"], one["seed"]) == (16, 2, 0.01, 1)
    assert one["curve"][-1] == one["loss"] and "1 thread" in one["device"]
    again = runs.run("cpu", FIRST[2], "cpu", settings.data, "abc")
    assert (again["run_id"], again["loss"]) == (one["run_id"], one["loss"])


@pytest.mark.long
def test_goes_on_where_it_was(settings: Settings, in_process: list[Planned]) -> None:
    whole = generate(settings)
    assert in_process == [*FIRST[:3], *SECOND]
    del in_process[:]
    assert generate(settings)["run_id"].tolist() == whole["run_id"].tolist()
    assert in_process == []

    row = whole.iloc[1].to_dict() | {"curve": list(whole.iloc[1]["curve"])}
    tables.write(whole.iloc[:1], settings.path)
    half = json.dumps({**row, "rank": 7})[:50]
    settings.journal.write_text(json.dumps(row) + "\n" + half)  # interrupted while writing
    resumed = generate(settings)
    assert in_process == [FIRST[2], *SECOND]
    assert resumed["loss"].tolist() == whole["loss"].tolist()


def test_parts_are_merged(
    settings: Settings, in_process: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for index in (1, 2):
        path = settings.path.with_name(f"part-{index}.parquet")
        generate(dataclasses.replace(settings, path=path, part=(index, 2)))
        parts.append(path)
    assert in_process == [FIRST[0], FIRST[2], FIRST[1], FIRST[3]]  # all but the second stage
    arguments = ["generate", "--merge", *map(str, parts), "--table", str(settings.path)]
    monkeypatch.setattr(sys, "argv", arguments)
    generator.main()
    assert sorted(tables.read(settings.path)["rank"]) == [1, 2, 3]
    assert len(generate(settings)) == 4


def test_no_run_starts_when_the_time_is_over(settings: Settings) -> None:
    assert len(generate(dataclasses.replace(settings, minutes=0.0))) == 0
    assert len(tables.read(settings.path)) == 0


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b"])
def test_bad_part(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate", "--part", part])
    with pytest.raises(SystemExit):
        generator.main()
    assert "expected I/N with 1 <= I <= N" in capsys.readouterr().err


def test_a_diverged_run_is_a_result(data: Path) -> None:
    hot = Planned(
        "random", {**FIRST[0].params, "learning_rate": 3e-2, "alpha_ratio": 64.0}, 0.05, 0
    )
    made = runs.objective("cpu", 0.05, 0, "cpu", data)
    model = made.prepare().model
    weight = model.get_output_embeddings().weight
    kept = weight.clone()
    try:
        weight.fill_(float("nan"))
        row = runs.run("cpu", hot, "cpu", data, "abc")
    finally:
        weight.copy_(kept)
    assert row["status"] == tables.DIVERGED
    assert row["loss"] != row["loss"] and row["steps"] == 0
    assert tables.frame([row])["curve"][0] == []


def test_recheck(settings: Settings, in_process: list[Planned]) -> None:
    extra = [planned(5, 0.1, seed) for seed in (0, 1)]
    lines = [runs.run("cpu", one, "cpu", settings.data, "abc") for one in (*FIRST[:2], *extra)]
    table = tables.frame(lines)
    where: dict[str, Any] = {"seed": 0, "device": "cpu", "data": settings.data}
    results = recheck.recheck(table, "cpu", 3, **where)
    assert [result["loss"] for result in results] == [r["again_loss"] for r in results]
    assert all(result["run_id"] in recheck.report(results) for result in results)

    strange = table.assign(
        context=[
            json.dumps({**json.loads(c), "procedure": 0, "weights": "x"}) for c in table["context"]
        ]
    )
    message = r"differs in its model, data or settings: procedure \(0, here 1\), weights \('x'"
    with pytest.raises(InputError, match=message):
        recheck.recheck(strange, "cpu", 3, **where)
