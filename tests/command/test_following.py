from __future__ import annotations

import os
from pathlib import Path
import random

from optuna_llmbo.command.following import Following


def new(file: Following, *, is_final: bool = False) -> list[str]:
    return file.read(is_final=is_final)[0]


def test_lines_come_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = Following(path)
    assert file.read(is_final=False) == ([], False)
    path.write_text("one\ntw")
    assert new(file) == ["one"] and new(file) == []
    with path.open("a") as more:
        more.write("o\n\nthree")
    assert new(file) == ["two"]
    assert new(file, is_final=True) == ["three"] and new(file, is_final=True) == []


def test_progress_bars_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"10%\r20%\r\ndone \xff\n")
    assert new(Following(path)) == ["10%", "20%", "done \N{REPLACEMENT CHARACTER}"]


def test_any_pieces_give_the_same_lines(tmp_path: Path) -> None:
    path, rng = tmp_path / "log", random.Random(0)
    text = "".join(f"line {i} é{'x' * rng.randrange(400)}\n" for i in range(60)).encode()
    file, got = Following(path), []
    while text:
        n = rng.randrange(1, 200)
        with path.open("ab") as more:
            more.write(text[:n])
        text = text[n:]
        got += new(file)
    assert got == path.read_text().splitlines()


def test_a_file_that_is_replaced_cut_or_written_anew_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    file = Following(path)
    assert file.read(is_final=False) == (["one", "two"], False)
    path.write_text("1\n")
    assert file.read(is_final=False) == (["1"], True)
    path.write_text("other\nlonger\nthan before\n")  # written anew, not shorter
    assert file.read(is_final=False) == (["other", "longer", "than before"], True)
    (tmp_path / "new").write_text("other\nlonger\nthan before\nand more\n")
    os.replace(tmp_path / "new", path)
    lines, again = file.read(is_final=False)
    assert again and lines[-1] == "and more" and len(lines) == 4
    path.unlink()
    assert file.read(is_final=False) == ([], False)
