"""Run the parts, each in a process of its own, and gather what they have measured."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
import contextlib
import json
import logging
import multiprocessing
import os
from pathlib import Path
import signal
import sys
import time
import traceback
from typing import Any

import optuna

from benchmarks import device as devices
from benchmarks.gpu.part import Setting
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import FAILED
from benchmarks.gpu.record import NO_TIME
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import SIZES
from benchmarks.provenance import commit
from benchmarks.provenance import installed
from optuna_llmbo._util.device import resolve_device
from optuna_llmbo.embedding.language_model import model_folder
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError


RESULTS = Path(__file__).parents[1] / "results" / "gpu"
"""Where results are kept, unless a folder is given."""
PACKAGES = ("optuna-llmbo", "optuna", "torch", "triton", "transformers", "peft", "bitsandbytes")
STOPPED = "its time was over"
_LAST = 3.0
"""Seconds before the end of a part in which it begins nothing."""
_NEEDED = 10.0
"""Seconds that a part needs to begin."""


def run(names: Sequence[str], options: Namespace) -> dict[str, Any]:
    """Run parts one after the other, and gather their results.

    Args:
        names: of the parts.
        options: device, size, llm, data, minutes, commit (None: git says it), and the folder
            `save`, which gets `DEVICE/PART.json` and `DEVICE.json`.

    Returns:
        What `DEVICE.json` holds; of parts that are not run, what is in the folder.

    Raises:
        InputError: if there is no such part, device or language model, or a size is not for the
            device.
    """
    began, of_commit = time.time(), options.commit or commit()
    for name in names:
        check_choice("--parts", name, tuple(PARTS))
    check_choice("--size", options.size, tuple(SIZES))
    processes, device = _begin(options)
    result: dict[str, Any] = {
        "device": device,
        "size": options.size,
        "commit": of_commit,
        "date": time.strftime("%Y-%m-%d"),
        "versions": installed(PACKAGES),
        "python": sys.version.split()[0],
    }
    folder = _folder(options) / "-".join(device["name"].lower().split())
    for name in names:
        left = began + 60 * options.minutes - time.time()
        record = _run_part(processes, name, options, folder, result, left)
        print(f"{name}: {record['process_seconds']:.0f} s", flush=True)
    kept = {name: folder / f"{name}.json" for name in PARTS}
    parts = {name: json.loads(path.read_text()) for name, path in kept.items() if path.exists()}
    result |= {"seconds": time.time() - began, "parts": parts}
    _write(folder.with_suffix(".json"), result)
    return result


def has_failed(record: Mapping[str, Any]) -> bool:
    """Tell whether anything of a part failed, and was not only left out or stopped."""
    cells = record["cells"].values()
    failed = any(FAILED in cell or cell.get("exit_code", 0) != 0 for cell in cells)
    return failed or record["ended"] not in (None, STOPPED, NO_TIME)


def _begin(options: Namespace) -> tuple[Any, dict[str, Any]]:
    """How processes are started, and what the device is."""
    forked = multiprocessing.get_context("forkserver")  # they have loaded all, and not used CUDA
    forked.set_forkserver_preload(["benchmarks.gpu.parts"])
    try:
        return forked, _asked(forked, options)
    except InputError:  # a CUDA that was used by what was loaded is not there in a fork
        spawned = multiprocessing.get_context("spawn")
        return spawned, _asked(spawned, options)


def _asked(processes: Any, options: Namespace) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        return pool.submit(_about, options.device, options.size, options.llm).result()


def _about(device: str, size: str, llm: str) -> dict[str, Any]:
    """What the device is, once it is clear that the parts can run."""
    place = resolve_device(device)
    if size == "full" and not devices.is_cuda(place):
        raise InputError(
            "--size full is for CUDA devices: without one, --size tiny tries the command out."
        )
    model_folder(resolve_source(llm))  # a GGUF file is dequantized once, here
    return devices.about(place)


def _folder(options: Namespace) -> Path:
    if options.save is not None:
        return Path(options.save).absolute()
    if options.size != "full":
        raise InputError(
            f"--size {options.size} tries the command out, and its figures are no results: give "
            "a folder with --save."
        )
    return RESULTS


def _run_part(
    processes: Any,
    name: str,
    options: Namespace,
    folder: Path,
    about: Mapping[str, Any],
    left: float,
) -> dict[str, Any]:
    """Run one part within its budget and the time that is left.

    Returns:
        Its record; without time that of an earlier run, if there is one.
    """
    began = time.time()
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    seconds = min(PARTS[name].seconds, left) if options.size == "full" else left
    ended: str | None = NO_TIME
    if seconds >= _NEEDED:
        path.unlink(missing_ok=True)
        args = (name, options, path, dict(about), began + seconds - _LAST)
        process = processes.Process(target=_measure, args=args)
        process.start()
        try:
            process.join(max(0.0, began + seconds - time.time()))
        finally:
            ended = _end(process, path)
    record = {**about, "complete": False, "cells": {}}
    if path.exists():
        record = json.loads(path.read_text())
    if "ended" not in record:
        record |= {"ended": ended, "process_seconds": time.time() - began}
        _write(path, record)
    return record


def _end(process: Any, path: Path) -> str | None:
    """End a part's process that is still there, and remove all of its files but the record.

    Returns:
        Why it did not come to its own end, or None.
    """
    was_alive = process.is_alive()
    if was_alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    log = _log_of(path)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    for file in (log, path.with_suffix(".new")):
        file.unlink(missing_ok=True)
    if was_alive:
        return STOPPED
    if process.exitcode == 0:
        return None
    return f"its process ended with {process.exitcode}: {lines[-1] if lines else 'no word'}"


def _log_of(path: Path) -> Path:
    return path.with_suffix(".log")


def _measure(
    name: str,
    options: Namespace,
    path: Path,
    about: dict[str, Any],
    until: float,
) -> None:
    """Measure one part; the process's own work."""
    os.setsid()  # what it starts ends with it
    with _log_of(path).open("w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.captureWarnings(True)
    try:
        device = resolve_device(options.device)
        record = Record(path, about, until)
        PARTS[name].measure(
            Setting(device, SIZES[options.size], options.llm, options.data), record
        )
        record.complete()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # threads of a library cannot hold it


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
