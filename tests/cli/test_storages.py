"""Where a study may be: what `--storage` names, in every command, and what reading leaves."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner
from typer.testing import Result

from optuna_llmbo import cli
from optuna_llmbo.cli import storages
from optuna_llmbo.cli.storages import open_storage
from optuna_llmbo.cli.storages import read_storage
from optuna_llmbo.cli.storages import shown
from optuna_llmbo.errors import InputError
from tests import lora_like


def run(*arguments: object) -> Result:
    words = [str(one) for one in arguments]
    return CliRunner().invoke(cli.app, words, env={"COLUMNS": "300"})


READERS = {
    "report": ("report", "lora", "--out", "out"),
    "export": ("export", "--to", "peft", "--out", "out"),
    "promote": ("promote", "--out", "out"),
    "dashboard": ("dashboard", "--publish-only"),
    "dashboard of a study": ("dashboard", "lora", "--publish-only"),
}


@pytest.mark.parametrize("storage", ["sqlite:///no.db", "no.db", "no.log", "no/such.journal"])
@pytest.mark.parametrize("command", READERS.values(), ids=READERS.keys())
def test_reading_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, "--storage", storage)
    assert result.exit_code == 2
    assert "does not exist. `optuna-llmbo tune` makes it" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", READERS.values(), ids=READERS.keys())
def test_files_that_hold_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content, message in (
        ("empty.db", "", "it has none of Optuna's tables"),
        ("text.db", "hello" * 1000, "file is not a database"),
        ("other.log", '{"prompt": "a"}\n', "it is no journal of Optuna's"),
    ):
        Path(name).write_text(content)
        result = run(*command, "--storage", name)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert Path(name).read_text() == content


@pytest.mark.parametrize("storage", ["study.log", "study.journal", "study.db", "study.sqlite3"])
@pytest.mark.usefixtures("model_not_asked")
def test_a_file_as_the_guide_advises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lora_like.make_study(open_storage(storage, 30), n_trials=2, name="lora")
    is_journal = storage.endswith((".log", ".journal"))
    assert isinstance(read_storage(storage), optuna.storages.JournalStorage) == is_journal
    assert run("report", "lora", "--storage", storage, "--out", "r.html").exit_code == 0
    published = run("dashboard", "--storage", storage, "--publish-only")
    assert "Published lora: 2 finished trials" in published.output
    other = run("report", "other", "--storage", storage)
    assert (
        other.exit_code == 2 and "no study 'other' in the storage; it has 'lora'." in other.stderr
    )


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:"])
def test_a_study_in_memory(storage: str) -> None:
    lora_like.make_study(open_storage(storage, 30), n_trials=2)


@pytest.mark.parametrize("storage", ["study", "folder/", "study.txt", "data.jsonl", ""])
def test_what_names_no_storage(storage: str) -> None:
    for opened in (lambda: open_storage(storage, 30), lambda: storages._url(storage)):
        with pytest.raises(InputError, match="Expected a database URL such as sqlite:///lora.db"):
            opened()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2@localhost:1/x",
        "mysql://me:hunter2@localhost:1/x",
        "redis://me:hunter2@localhost:1/0",
        "nonsense://me:hunter2@localhost/x",
    ],
)
@pytest.mark.parametrize("command", READERS.values(), ids=READERS.keys())
def test_a_password_is_not_shown(command: tuple[str, ...], url: str) -> None:
    result = run(*command, "--storage", url)
    assert result.exit_code == 2, result.output
    assert "me:***@localhost" in result.stderr and "hunter2" not in result.output
    assert shown(url) == url.replace("hunter2", "***")
    assert shown("lora.log") == "lora.log"


def test_workers_that_make_a_databases_tables_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    real, calls = storages.compat.storage_with_heartbeat, []  # type: ignore[attr-defined]

    def late(*about: object, **more: object) -> object:
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("", {}, Exception("table studies already exists"))
        return real(*about, **more)

    monkeypatch.setattr(storages.compat, "storage_with_heartbeat", late)  # type: ignore[attr-defined]
    monkeypatch.setattr(storages.time, "sleep", lambda _: None)  # type: ignore[attr-defined]
    open_storage(f"sqlite:///{tmp_path}/study.db", 30)
    assert len(calls) == 3
