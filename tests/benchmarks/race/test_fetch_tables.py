"""Tables made from the published files: made-up files, and no download."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any
import urllib.error
import urllib.request

import pytest

from benchmarks.race import fetch_tables
from benchmarks.race import real_tables
from benchmarks.race.originals import GPT_CONFIGURATION
from benchmarks.race.originals import ORIGINALS
from optuna_llmbo.errors import InputError


SO_EN = {
    "hyps": "2000.0\t2.0\t1024.0\t2048.0\t16.0\t0.0003\n1000.0\t4.0\t256.0\t1024.0\t8.0\t0.001\n",
    "evals": "9.4\t442.8437\t26.27247\t34000\t0\t39745492\n10.0\t42.5\t3.5\t36000\t7\t1200\n",
    "fronts": "0\n1\n",
}
SO_EN_ROWS = [
    "2000,2,1024,2048,16,0.0003,9.4,442.8437,26.27247,34000,0,39745492,0",
    "1000,4,256,1024,8,0.001,10.0,42.5,3.5,36000,7,1200,1",
]


def converted(name: str, texts: Mapping[str, str]) -> list[str]:
    """The table's lines but for the first; files that are not given are empty."""
    original = ORIGINALS[name]
    parts = [
        next((t for part, t in texts.items() if path.endswith(part)), "")
        for path in original.paths
    ]
    header, *lines, rest = original.convert(parts).decode().split("\r\n")
    assert header.split(",") == list(original.columns) and rest == ""
    return lines


def json_lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_lines_of_three_files_are_joined() -> None:
    assert converted("nmthpo-so-en", SO_EN) == SO_EN_ROWS
    with pytest.raises(ValueError, match="shorter"):
        converted("nmthpo-so-en", SO_EN | {"fronts": "0\n"})


def test_llama() -> None:
    scores = {
        "hellaswag": {"acc,none": 0.5, "acc_norm,none": 0.75},
        "mmlu": {"acc,none": 0.25, "acc_stderr,none": 0.0039},
    }
    run = {"solution": {"converted_values": [9, 4, 0.5, 1e-10, 0.1]}, "score": scores, "info": {}}
    guess = run | {
        "score": {"UCB": 0.5, "LCB": 0.2},
        "info": {"score": None, "score_state": "approximated"},
    }
    texts = {
        "/lhs.json": json_lines(run),
        "/bo.json": json_lines(run | {"info": {"phase": "sampling"}}),
        "/bamsoo_bis.json": json_lines(run | {"info": {"score_state": "evaluated"}}, guess),
    }
    assert converted("llama", texts) == [
        "lhs,0,lora_rank up to 512,9,4,0.5,1e-10,0.1,0.5,0.75,0.25,0.0039,,{}",
        "bo,0,lora_rank up to 512,9,4,0.5,1e-10,0.1,0.5,0.75,0.25,0.0039,sampling,{}",
        "bamsoo_bis,0,lora_rank up to 64,9,4,0.5,1e-10,0.1,0.5,0.75,0.25,0.0039,evaluated,{}",
        "bamsoo_bis,1,lora_rank up to 64,9,4,0.5,1e-10,0.1,,,,,approximated,"
        '"{""UCB"": 0.5, ""LCB"": 0.2}"',
    ]


def test_deberta() -> None:
    run = {
        **{"iteration": 1, "num_train_epochs": 3, "train_batch_size": 44},
        **{"total_model_steps": 26775, "learning_rate": 1.04591e-06, "warmup_steps": 4334},
        "cls_drop_out": 0.241746,
        "learning_curves": {
            "matched": [[1000, 0.32786551], [2000, 0.86041772], [26775, 0.86031584]],
            "mismatched": [[1000, 0.5], [2000, 0.85964198], [26775, 0.85943856]],
        },
    }
    assert converted("deberta", {"jsonl": json_lines(run)}) == [
        "1,3,44,1.04591e-06,4334,0.4856,0.241746,26775,0.860316,0.859439,0.860418,0.859642,3"
    ]


def test_gpt() -> None:
    configuration = {name: 8 for name in GPT_CONFIGURATION} | {"MATRIX_LR": 0.0362972861853}
    trial = {
        **{"trial_id": 1, "backend": "random", "config": configuration, "val_bpb": 1.018832},
        **{"train_loss": 2.8, "peak_memory_gb": 57.89892578125, "wall_time_seconds": 300.1},
        **{"tokens_per_second": 465945.0, "success": True, "error": None, "seed": 2},
        "extra_metrics": {"total_tokens_M": 140.5, "num_steps": 1072.0, "num_params_M": 205.5},
    }
    nothing = dict.fromkeys(("val_bpb", "train_loss", "peak_memory_gb", "tokens_per_second"))
    failed = trial | nothing | {"success": False, "error": "no memory", "extra_metrics": {}}
    start = "random,2,1," + ",".join(
        "0.0362973" if name == "MATRIX_LR" else "8" for name in GPT_CONFIGURATION
    )
    assert converted("gpt", {"random/seed_2/trials.jsonl": json_lines(trial, failed)}) == [
        f"{start},1.018832,True,2.8,57.8989258,300.1,465945.0,205.5,1072.0,140.5,random,",
        f"{start},,False,,,300.1,,,,,random,no memory",
    ]


class Server:
    """Stands in for the network: texts by the end of their address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, texts: Mapping[str, str]) -> None:
        self.texts, self.asked = texts, list[str]()
        monkeypatch.setattr(urllib.request, "urlopen", self._open)

    def _open(self, url: str, timeout: float) -> io.BytesIO:
        self.asked.append(url)
        return io.BytesIO(self.texts[url.rsplit(".", 1)[-1]].encode())


def pin(monkeypatch: pytest.MonkeyPatch, rows: list[str]) -> None:
    """Pin the checksum of a table of so-en with these rows."""
    header = ",".join(ORIGINALS["nmthpo-so-en"].columns)
    table = "".join(f"{line}\r\n" for line in (header, *rows))
    checksum = hashlib.sha256(table.encode()).hexdigest()
    source = dataclasses.replace(real_tables.SOURCES["nmthpo-so-en"], sha256=checksum)
    monkeypatch.setitem(real_tables.SOURCES, "nmthpo-so-en", source)


def test_a_table_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, SO_EN)
    pin(monkeypatch, SO_EN_ROWS)
    path = fetch_tables.fetch("nmthpo-so-en", tmp_path)
    assert path.read_text().splitlines()[1:] == SO_EN_ROWS
    assert [one.name for one in path.parent.iterdir()] == ["so-en.csv"]
    root = (
        "https://raw.githubusercontent.com/Este1le/hpo_nmt/"
        "7bd0a402b332a6fdea8bdfeabb0271afa5c5be1f/datasets"
    )
    assert server.asked == [f"{root}/so-en.{part}" for part in SO_EN]
    assert fetch_tables.fetch("nmthpo-so-en", tmp_path) == path and len(server.asked) == 3
    monkeypatch.setenv(real_tables.VARIABLE, str(tmp_path))
    assert real_tables.read("nmthpo-so-en")["dev_bleu"].tolist() == [9.4, 10.0]


def test_another_table_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, SO_EN)
    with pytest.raises(InputError, match=r"has SHA-256 \w+, expected d0acf8cf"):
        fetch_tables.fetch("nmthpo-so-en", tmp_path)
    Server(monkeypatch, SO_EN | {"fronts": "<html>"})
    with pytest.raises(InputError, match="is not in the expected form"):
        fetch_tables.fetch("nmthpo-so-en", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_table_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / real_tables.SOURCES["nmthpo-so-en"].file
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(InputError, match="is another table"):
        fetch_tables.fetch("nmthpo-so-en", tmp_path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("address", 404, "no route to host", None, None),  # type: ignore[arg-type]
        TimeoutError("no route to host"),
    ],
)
def test_no_network(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(InputError, match=r"cannot download https://raw.*no route.*RACE_TABLES"):
        fetch_tables.fetch("deberta", tmp_path)


@pytest.mark.parametrize(
    ("name", "original"),
    [("nmt", r"nmtlc\.pkl .* at 7bd0a402"), ("automl-errors", "TensorOboe.* at release 0.2.0")],
)
def test_tables_without_a_conversion(name: str, original: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no conversion of .*{original}.*Take .*\.csv from"):
        fetch_tables.fetch(name, tmp_path)


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown table 'nothing'"):
        fetch_tables.fetch("nothing", tmp_path)


def test_the_command_goes_on_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Server(monkeypatch, SO_EN)
    pin(monkeypatch, SO_EN_ROWS)
    command = ["fetch_tables", str(tmp_path), "--tables", "nmt,nmthpo-so-en"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="not made: nmt$"):
        fetch_tables.main()
    assert "nmt: the table nmt cannot be made here" in capsys.readouterr().err
    assert (tmp_path / "nmthpo_transformer" / "so-en.csv").is_file()


def test_the_message_names_the_command_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(real_tables.VARIABLE, raising=False)
    with pytest.raises(InputError, match="fetch_tables FOLDER` makes it"):
        real_tables.find("deberta")
    with pytest.raises(InputError) as told:
        real_tables.find("nmt")
    assert "fetch_tables" not in str(told.value)
