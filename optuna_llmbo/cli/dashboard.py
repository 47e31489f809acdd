"""`optuna-llmbo dashboard`: publish studies into optuna-dashboard, and serve it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
import threading
from typing import Annotated
from typing import Any
from typing import TYPE_CHECKING

from rich.markup import escape
import typer

from optuna_llmbo.cli import options
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import errors
from optuna_llmbo.cli.terminal import out as terminal
from optuna_llmbo.errors import InputError


if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def dashboard(
    study: Annotated[
        str | None, typer.Argument(help="Name of the study. Default: all studies of the storage.")
    ] = None,
    storage: options.Storage = "sqlite:///lora.db",
    publish_only: Annotated[
        bool, typer.Option("--publish-only", help="Publish without serving.")
    ] = False,
    host: Annotated[str, typer.Option(help="Host to listen on.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    artifact_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for files of trials, such as adapters. Default: none."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="Seconds between checks for new trials to publish. Default: never."
        ),
    ] = None,
    llm: options.ReadingModel = None,
    proxy_check: options.ProxyCheckFolder = None,
) -> None:
    """Publish figures and notes of a study into optuna-dashboard, and serve it."""
    with bad_input_exits_with_2():
        from optuna_llmbo.cli import storages
        from optuna_llmbo.cli import studies
        from optuna_llmbo.dashboard.publish import check_installed

        check_installed()
        store = _store(artifact_dir)
        opened = storages.read_storage(storage)
        publisher = _Publisher(
            opened,
            study,
            {
                "sampler": studies.make_reader(llm),
                "proxy_check": proxy_check,
                "artifact_store": store,
            },
        )
        publisher.publish_new()
    if publish_only:
        return
    if watch is not None:
        threading.Thread(target=publisher.watch, args=(watch,), daemon=True).start()
    with bad_input_exits_with_2():
        _serve(opened, host, port, store)


class _Publisher:
    """Publishes the studies of a storage that have unpublished trials.

    Args:
        storage: the storage.
        name: name of the study; None: all studies.
        options: keywords of `publish`.
    """

    def __init__(self, storage: BaseStorage, name: str | None, options: dict[str, Any]) -> None:
        self._storage = storage
        self._name = name
        self._options = options
        self._published: dict[str, int] = {}

    def publish_new(self) -> None:
        from optuna import get_all_study_names

        from optuna_llmbo.cli import studies
        from optuna_llmbo.dashboard import publish

        names = get_all_study_names(self._storage) if self._name is None else [self._name]
        for name in names:
            study = studies.study_in(self._storage, name)
            n_finished = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
            if self._published.get(name) == n_finished:
                continue
            figures = publish(study, **self._options)
            self._published[name] = n_finished
            what = f"{n_finished} finished trials, {len(figures)} figures"
            terminal.print(f"Published {escape(name)}: {what}.", soft_wrap=True)
        if not names:
            terminal.print("The storage holds no study yet.")

    def watch(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Publish repeatedly; report errors and retry."""
        pause = threading.Event().wait if sleep is None else sleep
        while True:
            pause(seconds)
            try:
                self.publish_new()
            except Exception as error:  # keep serving: the storage may be back next time
                errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)


def _store(folder: Path | None) -> Any:
    if folder is None:
        return None
    from optuna.artifacts import FileSystemArtifactStore

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --artifact-dir {folder}: {error.strerror}.") from error
    return FileSystemArtifactStore(str(folder))


def _serve(storage: BaseStorage, host: str, port: int, store: Any) -> None:
    """Run the dashboard until it is interrupted."""
    import optuna_dashboard

    terminal.print(f"optuna-dashboard: http://{host}:{port} (Ctrl+C ends it)", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        try:
            optuna_dashboard.run_server(storage, host, port, store)
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port}: {error.strerror}. Give another --port or --host."
            ) from error
