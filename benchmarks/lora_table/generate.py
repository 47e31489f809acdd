"""Make or continue a table of real LoRA runs.

    python -m benchmarks.lora_table.generate --tier cpu --minutes 90 --workers 2

Runs in the table are not repeated, so the same command continues after an interruption or when the
minutes are over. Each result is written to a journal beside the table at once. Several machines
share the work with `--part 1/3`, `--part 2/3`, ...; their tables are joined, and their common runs
compared, with

    python -m benchmarks.lora_table.generate --merge a.parquet b.parquet --table whole.parquet
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait
from dataclasses import dataclass
import itertools
import json
import multiprocessing
from pathlib import Path
import time
from typing import Any

import optuna
import pandas
import torch

from benchmarks.lora_table import plan
from benchmarks.lora_table import run as runs
from benchmarks.lora_table import tables
from benchmarks.lora_table.plan import Planned
from benchmarks.lora_table.tiers import Tier
from benchmarks.lora_table.tiers import tier
from benchmarks.lora_table.tiers import TIERS
from benchmarks.provenance import commit
from optuna_llmbo.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Settings that do not change a result."""

    tier: Tier
    path: Path
    """Path of the table; its journal lies beside it."""
    device: str
    data: Path | None
    workers: int
    minutes: float
    part: tuple[int, int]
    """(i, n): make every n-th run of the first stage, starting with the i-th, counted from 1."""

    @property
    def journal(self) -> Path:
        """File of results that are not yet in the table, one JSON object per line."""
        return self.path.with_suffix(".journal.jsonl")


def generate(settings: Settings) -> pandas.DataFrame:
    """Run what is missing until the time is over; write and return the table."""
    deadline = time.monotonic() + 60 * settings.minutes
    version = commit()
    table = load(settings)
    index, parts = settings.part
    first = plan.first_stage(settings.tier)
    missing = _missing(settings, first[index - 1 :: parts], table)
    table = _run_all(settings, missing, deadline, version)
    if not _missing(settings, first, table):
        second = plan.second_stage(settings.tier, table)
        table = _run_all(settings, _missing(settings, second, table), deadline, version)
    return table


def load(settings: Settings) -> pandas.DataFrame:
    """Load the table as far as it is made, including the journal of an interrupted run."""
    parts = [tables.read(settings.path)] if settings.path.exists() else []
    if settings.journal.exists():
        lines = settings.journal.read_text().splitlines()
        rows = [row for line in lines if (row := _parsed(line)) is not None]
        parts.append(tables.frame(rows))
    table = tables.merge([tables.frame([]), *parts], tolerance=tables.TOLERANCE)
    tables.write(table, settings.path)
    settings.journal.unlink(missing_ok=True)
    return table


def _parsed(line: str) -> dict[str, Any] | None:
    """Parse a line of the journal; None if an interruption cut it off."""
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row


def _missing(settings: Settings, planned: list[Planned], table: pandas.DataFrame) -> list[Planned]:
    done, missing = set(table["run_id"]), []
    for one in planned:
        where = (settings.tier.name, one.fraction, one.seed, settings.device, settings.data)
        run = tables.run_id(one.params, runs.context(*where))
        if run not in done:
            done.add(run)  # a configuration may be in two designs
            missing.append(one)
    return missing


def _run_all(
    settings: Settings, planned: list[Planned], deadline: float, version: str
) -> pandas.DataFrame:
    """Run in worker processes of one thread each, until all is done or the time is over."""
    started = time.monotonic()
    settings.journal.parent.mkdir(parents=True, exist_ok=True)
    with (
        settings.journal.open("a") as journal,
        ProcessPoolExecutor(
            settings.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
        ) as pool,
    ):
        common = (settings.device, settings.data, version)
        upcoming = (
            pool.submit(runs.run, settings.tier.name, one, *common)
            for one in planned
            if time.monotonic() < deadline
        )
        for number, row in enumerate(_as_completed(upcoming, 2 * settings.workers), 1):
            journal.write(json.dumps(row) + "\n")
            journal.flush()
            if number % 20 == 0 or number == len(planned):
                minutes = (time.monotonic() - started) / 60
                print(f"{number} of {len(planned)} runs, {minutes:.1f} minutes", flush=True)
    return load(settings)


def _as_completed(upcoming: Iterator[Future[Any]], at_once: int) -> Iterator[Any]:
    """Yield results as they come, with at most `at_once` futures pending."""
    waiting = set(itertools.islice(upcoming, at_once))
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
        waiting |= set(itertools.islice(upcoming, len(done)))


def _start_worker() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _part(text: str) -> tuple[int, int]:
    index, _, parts = text.partition("/")
    if index.isdigit() and parts.isdigit() and 1 <= int(index) <= int(parts):
        return int(index), int(parts)
    raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 1 <= I <= N, such as 1/3")


def main() -> None:
    """Generate or merge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=TIERS, default="cpu")
    parser.add_argument("--table", type=Path, help="default: tables/TIER.parquet beside this file")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no run after this time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, help="folder with the task's data")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N")
    parser.add_argument("--merge", type=Path, nargs="+", help="tables to join into --table")
    parser.add_argument("--tolerance", type=float, default=tables.TOLERANCE)
    arguments = parser.parse_args()
    path = arguments.table or tables.FOLDER / f"{arguments.tier}.parquet"
    try:
        if arguments.merge:
            parts = [tables.read(part) for part in arguments.merge]
            table = tables.merge(parts, tolerance=arguments.tolerance)
            tables.write(table, path)
        else:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            table = generate(
                Settings(
                    tier=tier(arguments.tier),
                    path=path,
                    device=arguments.device,
                    data=arguments.data,
                    workers=arguments.workers,
                    minutes=arguments.minutes,
                    part=arguments.part,
                )
            )
    except InputError as error:
        parser.error(str(error))
    print(f"{len(table)} runs in {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
