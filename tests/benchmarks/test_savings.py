"""All savings in one table: ratios of made-up results, and as the docs print it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import console
from benchmarks import savings


DOCS = Path(__file__).parents[2] / "docs" / "benchmarks" / "training.md"


def test_ratios_of_training() -> None:
    def case(reload: float) -> dict[str, Any]:
        return {
            "reload": {"trials": 2, "cpu_seconds": reload, "losses": [3.0, 2.0]},
            "one at a time": {"trials": 4, "cpu_seconds": 8.0, "losses": [3.0, 2.0, 5.0, 4.0]},
            "packed, 2": {"trials": 4, "cpu_seconds": 6.0, "losses": [3.0, 2.0, 5.0, 4.4]},
        }

    rows = list(savings.of_training({"cases": {"small": case(8.0), "mixed": case(5.0)}}))
    assert rows == [
        ("base loaded once", "0.50 to 0.80", "+0.0000"),
        ("packed, 2", "0.75", "+0.1000"),
    ]


def test_ratios_of_compiling() -> None:
    none = [{"cpu_seconds": 10.0, "loss": 3.0}, {"cpu_seconds": 10.0, "loss": 2.0}]
    layers = [{"cpu_seconds": 90.0, "loss": 3.0}, {"cpu_seconds": 10.0, "loss": 1.5}]
    records: list[dict[str, Any]] = [
        {"cases": {"small": {"none": none}}},
        {"cases": {"small": {"none": none, "layers": layers}}},
    ]
    (row,) = savings.of_compiling(records)
    assert row == ("torch.compile, layers, 2 trials", "5.00", "-0.2500")


def test_ratios_of_the_proxy() -> None:
    three = {"fraction": 0.1, "top": 3, "time": [0.25], "worse": [0.01]}
    searches = [
        three | {"saved 30": [0.7], "trials 30": [39.0]},
        three | {"saved 30": [None], "trials 30": [None]},
        three | {"top": 1},
    ]
    assert list(savings.of_proxy({"searches": searches})) == [
        ("proxy of 10%, 30 trials", "0.25", "+0.0100"),
        ("proxy of 10%, 39 trials", "0.30", "the same"),
        ("proxy of 10%, 30 trials", "0.25", "+0.0100"),
    ]


def test_the_table_stands_in_the_docs() -> None:
    assert console.table(savings.HEAD, savings.rows()) in DOCS.read_text()
