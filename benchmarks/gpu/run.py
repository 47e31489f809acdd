"""Measure on one CUDA device, in eight minutes, all that is worth knowing of it.

Each part has a process, a budget and a result file of its own: what fails or takes too long costs
no other part anything, and what was measured before it ended is kept. No hub is needed: real
losses are those of SmolLM2-135M, time and memory those of models of real shapes with random
weights. Figures stand beside the device's own limit, or are ratios within one process.

    python -m benchmarks.gpu                                         # 8 minutes at most
    python -m benchmarks.gpu --parts training,memory                 # some of it
    python -m benchmarks.gpu --report                                # the kept results as Markdown
    python -m benchmarks.gpu --device cpu --size tiny --save FOLDER  # tried out, without a GPU
"""

from __future__ import annotations

import argparse
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

from benchmarks import console
from benchmarks import device as devices
from benchmarks.gpu.part import Setting
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import FAILED
from benchmarks.gpu.record import NO_TIME
from benchmarks.gpu.record import Record
from benchmarks.gpu.report import chapter
from benchmarks.gpu.report import page
from benchmarks.gpu.sizes import SIZES
from benchmarks.provenance import commit
from benchmarks.provenance import installed
from optuna_llmbo._util.device import resolve_device
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import InputError


RESULTS = Path(__file__).parents[1] / "results" / "gpu"
PACKAGES = ("optuna-llmbo", "optuna", "torch", "triton", "transformers", "peft", "bitsandbytes")
MINUTES = 8.0
DATA = "stdlib-docstrings"
STOPPED = "its time was over"
_LAST = 3.0
"""Seconds before the end of a part in which it begins nothing."""
_NEEDED = 10.0
"""Seconds that a part needs to begin."""


def main() -> None:
    """Measure, save and print; exit with 1 if anything failed."""
    options = _options()
    if options.report:
        print(page(options.save or RESULTS))
        return
    names = console.names(options.parts)
    result = run(names, options)
    print(f"\n{chapter(result)}")
    sys.exit(any(has_failed(result["parts"][name]) for name in names))


def run(names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run parts one after the other, and gather their results.

    Args:
        names: of the parts.
        options: device, size, llm, data, minutes, and the folder `save` in which `DEVICE/PART.json` and
            `DEVICE.json` are written.

    Returns:
        What `DEVICE.json` holds; of parts that are not run, what is in the folder.

    Raises:
        InputError: if there is no such part or device, or a size is not for it.
    """
    began, of_commit = time.time(), commit()
    for name in names:
        check_choice("--parts", name, tuple(PARTS))
    check_choice("--size", options.size, tuple(SIZES))
    processes = multiprocessing.get_context("forkserver")  # which have loaded all, and no CUDA
    processes.set_forkserver_preload(["benchmarks.gpu.parts"])
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        device = pool.submit(_about, options.device, options.size).result()
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


def _about(device: str, size: str) -> dict[str, Any]:
    place = resolve_device(device)
    if size == "full" and not devices.is_cuda(place):
        raise InputError(
            "--size full is for CUDA devices: without one, --size tiny tries the command out."
        )
    return devices.about(place)


def _folder(options: argparse.Namespace) -> Path:
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
    options: argparse.Namespace,
    folder: Path,
    about: Mapping[str, Any],
    left: float,
) -> dict[str, Any]:
    """Run one part within its budget and the time that is left; its record."""
    began = time.time()
    path, log = folder / f"{name}.json", folder / f"{name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    seconds = min(PARTS[name].seconds, left) if options.size == "full" else left
    ended: str | None = NO_TIME
    if seconds >= _NEEDED:
        until = began + seconds
        process = processes.Process(
            target=_measure, args=(name, options, path, log, dict(about), until - _LAST)
        )
        process.start()
        process.join(max(0.0, until - time.time()))
        ended = _end(process, log)
    record = json.loads(path.read_text()) if path.exists() else {"complete": False, "cells": {}}
    record |= {"ended": ended, "process_seconds": time.time() - began}
    record = {**about, **record}
    _write(path, record)
    log.unlink(missing_ok=True)
    return record


def _end(process: Any, log: Path) -> str | None:
    """End a process that is still there; why it did not come to its own end, or None."""
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return STOPPED
    if process.exitcode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"its process ended with {process.exitcode}: {lines[-1] if lines else 'no word'}"


def _measure(
    name: str,
    options: argparse.Namespace,
    path: Path,
    log: Path,
    about: dict[str, Any],
    until: float,
) -> None:
    """Measure one part; the process's own work."""
    os.setsid()  # what it starts ends with it
    with log.open("w") as said:
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated; default: all")
    parser.add_argument("--device", default="cuda", help="such as cuda or cuda:1")
    parser.add_argument("--size", default="full", help="full, or tiny to try the command out")
    parser.add_argument("--llm", default="embedded", help="as LLMBOSampler(llm=...)")
    parser.add_argument("--data", default=DATA, help="as LoRAObjective(train=...)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole run")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, help="folder of the results")
    return parser.parse_args()
