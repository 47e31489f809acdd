from __future__ import annotations

from pathlib import Path

import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export import files
from optuna_llmbo.lora.export import TOOLS
from optuna_llmbo.lora.export import write
from tests.lora.export.samples import facts


@pytest.mark.parametrize("to", TOOLS)
def test_all_files_are_written(to: str, tmp_path: Path) -> None:
    contents = files(facts(), to)
    paths = write(facts(), to, tmp_path / "deep" / "er")
    assert {str(p.relative_to(tmp_path / "deep" / "er")): p.read_text() for p in paths} == contents


def test_a_folder_with_files_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write(facts(), "trl", tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("sft.yaml", "mine")]
    write(facts(), "trl", tmp_path, overwrite=True)
    assert "lora_r: 8" in (tmp_path / "sft.yaml").read_text()


def test_nothing_is_written_of_what_cannot_be_expressed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="variant='pissa': TRL cannot express it"):
        write(facts(variant="pissa"), "trl", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        write(facts(), "trl", tmp_path / "file")
    with pytest.raises(InputError, match="cannot write"):
        write(facts(), "trl", tmp_path / "file" / "below")
    with pytest.raises(InputError, match="to must be one of peft, trl"):
        write(facts(), "torchtune", tmp_path / "new")
