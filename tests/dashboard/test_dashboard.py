"""What is published into optuna-dashboard, and that publishing harms nothing."""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
import json
from pathlib import Path
from typing import Any
import zipfile

import optuna
from optuna.artifacts import download_artifact
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
import optuna_dashboard
import pytest
from typer.testing import CliRunner

from optuna_llmbo import cli
from optuna_llmbo.cli.dashboard import _Publisher
from optuna_llmbo.cli.storages import read_storage
from optuna_llmbo.dashboard import callback as callbacks
from optuna_llmbo.dashboard import DashboardCallback
from optuna_llmbo.dashboard import publish
from optuna_llmbo.dashboard.section import escape
from optuna_llmbo.dashboard.section import with_section
from optuna_llmbo.errors import InputError
from optuna_llmbo.study import compat
from tests import lora_like
from tests.insight.studies import study_of_trust


STORAGES: dict[str, Callable[[Path], BaseStorage]] = {
    "in-memory": lambda folder: InMemoryStorage(),
    "sqlite": lambda folder: RDBStorage(f"sqlite:///{folder}/study.db"),
    "journal": lambda folder: JournalStorage(JournalFileBackend(str(folder / "study.log"))),
}


pytestmark = pytest.mark.usefixtures("model_not_asked")


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    return STORAGES[request.param](tmp_path)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many finished trials the study had whenever a callback has published it."""
    seen: list[int] = []

    def note(study: optuna.Study, *args: object, **options: object) -> None:
        seen.append(sum(trial.state.is_finished() for trial in study.trials))

    monkeypatch.setattr(callbacks, "publish", note)
    return seen


def trial_note(study: optuna.Study, number: int) -> str:
    trial = compat.trial_with_note(study, study.trials[number])
    return str(optuna_dashboard.get_note(trial))


def system_attributes(study: optuna.Study) -> dict[str, Any]:
    return dict(study._storage.get_study_system_attrs(study._study_id))


def test_figures_and_notes_in_every_storage(storage: BaseStorage) -> None:
    study = lora_like.make_study(storage)
    ids = publish(study)
    assert ids and all(name.startswith("llmbo-") for name in ids)
    attributes = system_attributes(study)
    for name in ids:
        pieces = [key for key in attributes if key.startswith(f"dashboard:plot_data:{name}:")]
        assert json.loads(
            "".join(attributes[f"dashboard:plot_data:{name}:{i}"] for i in range(len(pieces)))
        )
    note = optuna_dashboard.get_note(study)
    best = study.best_trial.number
    for words in (
        f"trial {best},",
        "1 infeasible, 1 failed",
        "How to read the figures",
        "The best is",
    ):
        assert words in note
    assert "**The best trial so far**" in trial_note(study, best)
    assert "**The default configuration.**" in trial_note(study, 0)
    assert lora_like.WHY_DIVERGED in trial_note(study, lora_like.DIVERGED)
    assert "device lost" in trial_note(study, lora_like.CRASHED)


@pytest.mark.long
@pytest.mark.parametrize("model_not_asked", [False], indirect=True)
def test_publishing_again_with_the_models_figures_changes_nothing() -> None:
    study = lora_like.make_study(n_trials=10)
    ids = publish(study)
    assert "llmbo-next" in ids
    first = system_attributes(study)
    publish(study)
    assert system_attributes(study) == first


def test_publishing_again_changes_nothing(storage: BaseStorage, tmp_path: Path) -> None:
    study = lora_like.make_study(storage, adapters=tmp_path / "adapters")
    store = FileSystemArtifactStore(str(_made(tmp_path / "store")))
    publish(study, artifact_store=store)
    first = system_attributes(study)
    publish(study, artifact_store=store)
    assert system_attributes(study) == first


def test_the_last_best_trial_loses_its_note_and_keeps_the_users() -> None:
    study = lora_like.make_study(n_trials=3)
    publish(study)
    best = study.best_trial
    noted = compat.trial_with_note(study, best)
    optuna_dashboard.save_note(noted, "My own words.\n\n" + optuna_dashboard.get_note(noted))
    study.add_trial(
        optuna.trial.create_trial(value=0.1, params=best.params, distributions=best.distributions)
    )
    publish(study)
    assert "best" not in trial_note(study, best.number)
    assert "My own words." in trial_note(study, best.number)
    assert "best" in trial_note(study, 3)


def test_what_the_user_wrote_stays_around_our_section() -> None:
    study = lora_like.make_study(n_trials=2)
    optuna_dashboard.save_note(study, "# Mine\n\nabove")
    publish(study)
    optuna_dashboard.save_note(study, optuna_dashboard.get_note(study) + "\n\nbelow, mine too")
    lora_like.run_trials(study, 1)
    publish(study)
    note = optuna_dashboard.get_note(study)
    assert note.startswith("# Mine\n\nabove") and note.endswith("below, mine too")
    assert "3 trials" in note and "2 trials" not in note


def test_a_note_with_half_of_our_marks_is_left_alone(warnings_logged: list[str]) -> None:
    study = lora_like.make_study(n_trials=2)
    publish(study)
    torn = optuna_dashboard.get_note(study).rsplit("[//]", 1)[0]
    optuna_dashboard.save_note(study, torn)
    publish(study)
    assert optuna_dashboard.get_note(study) == torn
    assert any("left unchanged" in message for message in warnings_logged)


def test_a_section_is_put_in_replaced_and_taken_out() -> None:
    first = with_section("mine", "one")
    assert first is not None and first.startswith("mine\n\n")
    second = with_section(first, "two")
    assert second is not None and "two" in second and "one" not in second
    assert with_section(second, "") == "mine"
    assert with_section("mine", "") == "mine"


def test_text_of_a_study_does_nothing_in_markdown() -> None:
    assert escape("<script> | [a](b)\n# `c`") == r"\<script\> \| \[a\](b) \# \`c\`"


def test_files_are_uploaded_once(tmp_path: Path) -> None:
    study = lora_like.make_study(adapters=tmp_path / "adapters")
    folder = _made(tmp_path / "store")
    store = FileSystemArtifactStore(str(folder))
    publish(study, artifact_store=store)
    publish(study, artifact_store=store)
    meta = {one.filename: one.artifact_id for one in get_all_artifact_meta(study)}
    complete = [t.number for t in study.trials if t.state.name == "COMPLETE"]
    names = {f"trial-{n}-adapter.zip" for n in complete} | {
        f"trial-{lora_like.CRASHED}-traceback.txt"
    }
    assert meta.keys() == names and len(list(folder.iterdir())) == len(names)
    best = f"trial-{study.best_trial.number}-adapter.zip"
    download_artifact(
        artifact_store=store, artifact_id=meta[best], file_path=str(tmp_path / "best.zip")
    )
    with zipfile.ZipFile(tmp_path / "best.zip") as pack:
        assert pack.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
        assert pack.read("adapter_model.safetensors") == b"weights"
    assert f"/{meta[best]})" in trial_note(study, study.best_trial.number)


def test_an_adapter_that_is_gone_is_no_error(tmp_path: Path) -> None:
    study = lora_like.make_study(n_trials=1)
    trial = study.ask()
    trial.set_user_attr("adapter", str(tmp_path / "gone"))
    study.tell(trial, 1.0)
    publish(study, artifact_store=FileSystemArtifactStore(str(tmp_path)))
    assert get_all_artifact_meta(study) == []


def test_an_empty_study() -> None:
    study = optuna.create_study()
    publish(study)
    assert "No trial is complete and feasible yet" in optuna_dashboard.get_note(study)


def test_several_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), n_trials=6)
    publish(study)
    assert "**Pareto front**: trial" in optuna_dashboard.get_note(study)
    assert "Pareto front" in trial_note(study, study.best_trials[0].number)


def test_the_callback_publishes_rarely_and_at_the_end(published: list[int]) -> None:
    study = optuna.create_study()
    with DashboardCallback(every=3) as callback:
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=7, callbacks=[callback])
        assert published == [3, 6]
    assert published == [3, 6, 7]
    callback.close()
    assert published == [3, 6, 7]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ((0.8, 0.9), "**Knowledge**: trusted 0.90 at trial 4, 0.75 before the first."),
        ((0.2, 0.1), "0.75 before the first; overruled from trial 3 on."),
        ((), None),
    ],
    ids=["right", "overruled", "none"],
)
def test_the_note_says_how_far_knowledge_is_trusted(
    told: tuple[float, ...], words: str | None
) -> None:
    study = study_of_trust(*told)
    assert ("llmbo-trust" in publish(study)) == (words is not None)
    note = optuna_dashboard.get_note(study)
    assert ("Knowledge" in note) == (words is not None)
    assert words is None or words in note


def test_of_several_workers_one_publishes_a_state(published: list[int], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="shared")
    workers = [optuna.load_study(storage=url, study_name="shared") for _ in range(2)]
    callbacks = [DashboardCallback(every=2) for _ in workers]
    for _ in range(4):  # by turns, each worker with its own study and callback
        for worker, callback in zip(workers, callbacks, strict=True):
            worker.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1, callbacks=[callback])
    for callback in callbacks:
        callback.close()
    assert len(study.trials) == 8
    assert published == [2, 4, 6, 8]


def test_threads_share_a_callback(published: list[int]) -> None:
    study = optuna.create_study()
    with DashboardCallback(every=4) as callback:
        study.optimize(
            lambda t: t.suggest_float("x", 0, 1), n_trials=20, n_jobs=2, callbacks=[callback]
        )
    assert published == sorted(published) and published[-1] == 20
    # one trial in four, and the end: while one is published, another thread can finish the last
    assert len(published) <= 6


def test_a_study_goes_on_when_publishing_fails(
    monkeypatch: pytest.MonkeyPatch, warnings_logged: list[str]
) -> None:
    def fail(*args: object) -> None:
        raise optuna.exceptions.StorageInternalError("the database is gone")

    monkeypatch.setattr(callbacks.compat, "set_system_attribute", fail)  # type: ignore[attr-defined]
    study = optuna.create_study()
    with DashboardCallback(every=1) as callback:
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3, callbacks=[callback])
    assert len(study.trials) == 3
    told = [message for message in warnings_logged if "the database is gone" in message]
    assert len(told) == 1


def test_without_optuna_dashboard_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "dashboard" in name else find(name)
    )
    for call in (DashboardCallback, lambda: publish(optuna.create_study())):
        with pytest.raises(InputError, match=r"optuna-llmbo\[dashboard\]"):
            call()


def test_every_must_be_a_number_of_trials() -> None:
    with pytest.raises(InputError, match="every"):
        DashboardCallback(every=0)


def test_the_command_publishes_all_studies_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    for name in ("one", "two"):
        lora_like.make_study(url, n_trials=2, name=name)
    served: list[tuple[Any, ...]] = []
    monkeypatch.setattr(optuna_dashboard, "run_server", lambda *args: served.append(args))
    arguments = ["dashboard", "--storage", url, "--port", "8081"]
    result = CliRunner().invoke(
        cli.app, [*arguments, "--artifact-dir", str(tmp_path / "new" / "files")]
    )
    assert result.exit_code == 0, result.output
    assert "Published one: 2 finished trials" in result.output
    assert "Published two: 2 finished trials" in result.output
    ((storage, host, port, store),) = served
    assert optuna.get_all_study_names(storage) == ["one", "two"]
    assert (host, port) == ("localhost", 8081) and store is not None
    result = CliRunner().invoke(cli.app, ["dashboard", "one", "--storage", url, "--publish-only"])
    assert result.exit_code == 0 and "two" not in result.output and len(served) == 1


def test_the_command_on_a_port_in_use_and_on_no_such_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*args: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(optuna_dashboard, "run_server", busy)
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.storages.RDBStorage(url)
    arguments = ["dashboard", "--storage", url]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and "Give another --port" in result.output
    assert "no study yet" in result.output
    result = CliRunner().invoke(cli.app, [*arguments, "--", "nothing"])
    assert result.exit_code == 2 and "no study 'nothing'" in result.output


def test_watching_publishes_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = lora_like.make_study(url, n_trials=2)
    publisher = _Publisher(read_storage(url), None, {})
    rounds = iter([None, lambda: lora_like.run_trials(study, 1), None])

    class Stop(Exception):
        pass

    def sleep(seconds: float) -> None:
        try:
            act = next(rounds)
        except StopIteration:
            raise Stop from None
        if act is not None:
            act()

    with pytest.raises(Stop):
        publisher.watch(1.0, sleep)
    told = capsys.readouterr().out
    assert told.count("Published lora: 2 finished") == told.count("lora: 3 finished") == 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
