"""The report of a made-up race."""

from __future__ import annotations

import math
from pathlib import Path
import sys
from typing import Any

import numpy as np
import pandas
import pytest

from benchmarks import parquet
from benchmarks.race import collect
from benchmarks.race import figures
from benchmarks.race import report
from benchmarks.race import results
from benchmarks.race.results import Results
from benchmarks.race.scales import Scale
from optuna_llmbo.errors import InputError


N_SEEDS, BUDGET = 8, 40
SCALES = {
    "lora-10": Scale(best=1.0, middle=3.0, default=4.0),
    "bbob-sphere-2d": Scale(best=0.0, middle=10.0, default=5.0),
}


def row(task: str, method: str, seed: int, values: list[float], **changes: Any) -> dict[str, Any]:
    """One study; trial i took i / 100 seconds."""
    study = {"task": task, "method": method, "start": "plain", "seed": seed, "budget": BUDGET}
    study |= {"values": values, "seconds": [(i + 1) / 100 for i in range(len(values))]}
    study |= {"surprises": None}
    study |= {"best_params": "{}", "error": None, "warnings": "[]", "total_seconds": 1.0}
    study |= {"commit": "abc", "versions": '{"optuna": "5.0.0"}', "python": "3.11", "cpu": "Z80"}
    return study | {"date": "2026-01-01"} | changes


def make_rows() -> list[dict[str, Any]]:
    """ "ours" is better than "random" by 0.5 from trial 11 on, and the same as it before."""
    rows = []
    for task in SCALES:
        for seed in range(N_SEEDS):
            start = [3.0 + seed / 100] * 10
            rows.append(row(task, "ours", seed, start + [2.0 + seed / 100] * 30))
            rows.append(row(task, "random", seed, start + [2.5 + seed / 100] * 30))
    return rows


def select(rows: list[dict[str, Any]], methods: tuple[str, ...] = ("ours", "random")) -> Results:
    return results.select(
        pandas.DataFrame(rows),
        methods=methods,
        task_names=list(SCALES),
        start="plain",
        scales=SCALES,
    )


def test_mean_regret_and_its_ratio(two: Results) -> None:
    text = report.mean_regret(two, [10, 30])
    assert cells(text, "ours")[1::2] == ["1.00", "1.00"]
    # (0.517 and 0.2035; 0.7675 and 0.2535) on average, and equal before trial 11
    ten, thirty = cells(text, "random")[1::2]
    assert ten == "1.00" and float(thirty) == pytest.approx(1.0205 / 0.7205, abs=0.01)


def test_calibration_counts_the_predictions_in_the_interval() -> None:
    nan = math.nan
    surprises = [nan] * 6 + [0.0, 1.9, 2.0, -2.0] + [0.5] * 20
    rows = [row("lora-10", "ours", s, [1.0] * 40, surprises=surprises) for s in range(2)]
    rows += [row("lora-10", "random", 0, [1.0] * 40)]
    text = report.calibration(select(rows))
    assert cells(text, "ours", "7 to 10") == ["8", "50.0%", "25.0%"]
    assert cells(text, "ours", "21 to 30") == ["20", "100.0%", "0.0%"]
    assert "random" not in text


@pytest.fixture
def two() -> Results:
    return select(make_rows())


def cells(text: str, *first: str) -> list[str]:
    """The other cells of the one row that begins with these."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    (found,) = [line for line in lines if tuple(line[: len(first)]) == first]
    return found[len(first) :]


def test_regret(two: Results) -> None:
    text = report.regret(two, [10, 30, 60])
    ten, thirty, sixty = cells(text, "lora-10", "ours")
    assert ten.startswith("1.02 (1") and thirty.startswith("0.517 (0.5") and sixty == "-"
    assert cells(text, "bbob-sphere-2d", "random")[1].startswith("0.254 (0.25")


def test_average_rank(two: Results) -> None:
    text = report.average_rank(two, [10, 30])
    same = "1.50 (1.50 to 1.50)"
    assert cells(text, "10", "all (2)") == [same, same]
    assert cells(text, "30", "all (2)") == ["1.00 (1.00 to 1.00)", "2.00 (2.00 to 2.00)"]
    assert cells(text, "30", "lora (1)") == cells(text, "30", "bbob (1)")


def test_paired(two: Results) -> None:
    text = report.paired(two, [10, 30])
    assert cells(text, "10", "random") == ["2", "+0.00", "1", "0 / 2 / 0"]
    assert cells(text, "30", "random") == ["2", "-1.00", "0.5", "2 / 0 / 0"]
    assert report.paired(select(make_rows(), ("ours",)), [10]) == ""


def test_trials_needed(two: Results) -> None:
    text = report.needed(two, "random")
    assert cells(text, "lora-10") == ["11 (11 to 11)", "11 (11 to 11)"]
    assert cells(text, "median of the tasks") == ["11 (11 to 11)", "11 (11 to 11)"]
    against = report.needed(select(make_rows(), ("random", "ours")), "random")
    assert cells(against, "lora-10") == ["11 (11 to 11)", "11 (11 to 11)"]
    assert report.needed(two, "tpe") == ""
    short = [r | {"budget": 20, "values": r["values"][:20]} for r in make_rows()]
    assert report.needed(select(short), "random") == ""


def test_never_reached() -> None:
    rows = [r | {"method": {"ours": "tpe"}.get(r["method"], "ours")} for r in make_rows()]
    text = report.needed(select(rows, ("ours", "tpe")), "tpe")
    assert cells(text, "lora-10") == ["inf (inf to inf)", "11 (11 to 11)"]


def test_lora(two: Results) -> None:
    text = report.lora(two, 30)
    default, loss, gain, ahead = cells(text, "lora-10", "random")
    assert (default, loss, ahead) == ("4.0000", "2.5350", "0.5000 (0.5000 to 0.5000)")
    assert gain.startswith("1.4650 (1.4")
    assert cells(text, "lora-10", "ours")[:2] == ["4.0000", "2.0350"]
    assert "bbob" not in text


def test_seconds(two: Results) -> None:
    assert cells(report.seconds(two), "ours") == ["0.100", "0.300", "-", "0.205"]


def test_failed_studies_are_said_and_count_with_what_they_had() -> None:
    rows = make_rows()
    rows[0] |= {"values": [9.0, 8.0], "error": "Traceback\n ...\nZeroDivisionError: no more\n"}
    rows[2] |= {"values": [], "error": "Traceback\nInputError: none\n"}
    some = select(rows)
    text = report.report(some, [30])
    assert "Studies: ours 15, random 16. Failed: 2." in text
    assert "- lora-10, ours, seed 0, after 2 trials: ZeroDivisionError: no more" in text
    assert "- lora-10, ours, seed 1, after 0 trials: InputError: none" in text
    wide = some.at(30)
    assert wide.loc["lora-10", 0]["ours"] == 8.0
    assert np.isnan(wide.loc["lora-10", 1]["ours"])
    assert len(some.by_task(wide)["lora-10"]) == N_SEEDS - 1


def test_failed_trials_count_as_no_trial() -> None:
    rows = make_rows()
    for one in rows:
        if one["method"] == "random":
            one["values"] = [np.nan] * 10 + one["values"][10:]
    text = report.paired(select(rows), [10])
    assert cells(text, "10", "random") == ["2", "-1.00", "0.5", "2 / 0 / 0"]
    ten, thirty = cells(report.regret(select(rows), [10, 30]), "lora-10", "random")
    assert ten == "inf (inf to inf)" and thirty.startswith("0.767 (0.7")


def test_shorter_studies_do_not_count_later() -> None:
    rows = make_rows()
    rows[0] |= {"budget": 20, "values": rows[0]["values"][:20]}
    assert select(rows).at(20).loc["lora-10", 0]["ours"] == 2.0
    assert np.isnan(select(rows).at(30).loc["lora-10", 0]["ours"])


def test_a_method_without_studies() -> None:
    with pytest.raises(InputError, match="there is no study of gp with start 'plain'"):
        select(make_rows(), ("ours", "gp"))


@pytest.mark.long
def test_from_file_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [r for r in make_rows() if r["task"] == "bbob-sphere-2d"]
    rows = [r | {"values": [v + 79.48 for v in r["values"]]} for r in rows]
    parquet.write(rows, tmp_path / "race.parquet", collect.SCHEMA)
    options = ["--methods", "ours,random", "--table", str(tmp_path / "race.parquet")]
    options += ["--figures", str(tmp_path), "--at", "10,30"]
    monkeypatch.setattr(sys, "argv", ["report", *options])
    report.main()
    out = capsys.readouterr().out
    for title in ("Studies", "Average rank", "Paired comparison", "Regret", "Seconds"):
        assert f"## {title}" in out
    assert "## LoRA" not in out
    assert "Commits: abc. Processors: Z80. Dates: 2026-01-01. Packages: optuna 5.0.0." in out
    assert (tmp_path / "regret-bbob-plain.png").stat().st_size > 5000
    svg = (tmp_path / "regret-bbob-plain.svg").read_text()
    assert svg.startswith("<?xml")
    figures.draw(select(make_rows()), tmp_path / "again", "plain")
    assert len(list((tmp_path / "again").glob("*.svg"))) == 2
