"""A training program for tests: reads a JSON file and writes metrics in the ways that tools do.

    python fake_trainer.py settings.json

It knows the standard library only. What it does wrong is the setting `mode`. Each start and end is
a line of the file `ledger`, if it is set.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any


def main() -> None:
    """Train."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True)
    note(settings, "begins", folder)
    if settings.get("mode") == "children":
        leave_children(folder)
    for step in range(1, settings["max_steps"] + 1):
        time.sleep(settings.get("seconds_a_step", 0.0))
        write(settings, folder, step)
    finish(settings, folder)
    note(settings, "ends", folder, loss_of(settings, settings["max_steps"]))
    if settings.get("ledger"):
        sys.stdout.flush()
        os._exit(0)  # it ends as soon as its ledger says so


def note(settings: dict[str, Any], what: str, folder: Path, loss: float | None = None) -> None:
    """Add a line to the ledger."""
    if ledger := settings.get("ledger"):
        line = {"what": what, "process": os.getpid(), "folder": str(folder), "loss": loss}
        line |= {"params": [settings["training"]["learning_rate"], settings["lora_rank"]]}
        with Path(ledger).open("a") as file:
            file.write(json.dumps(line) + "\n")


def leave_children(folder: Path) -> None:
    """Start processes that ignore being asked to stop, in this session and in one of their own."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    children = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=own)
        for own in (False, True)
    ]
    pids = [os.getpid(), *(child.pid for child in children)]
    (folder / "new").write_text(json.dumps(pids))
    (folder / "new").rename(folder / "processes")


def loss_of(settings: dict[str, Any], step: int) -> float:
    """Best at a rate of 1e-3 and rank 16; it falls to its end as 1 / step."""
    rate, rank = settings["training"]["learning_rate"], settings["lora_rank"]
    assert isinstance(rate, float) and isinstance(rank, int)
    last = (math.log10(rate) + 3) ** 2 + abs(math.log2(rank) - 4) / 10
    return last + 1 / step - 1 / int(settings["max_steps"])


def write(settings: dict[str, Any], folder: Path, step: int) -> None:
    """Tell of a step as LLaMA-Factory and the Trainer do."""
    total, loss = settings["max_steps"], loss_of(settings, step)
    if settings.get("mode") == "diverges" and step == 2:
        loss = math.nan
    name = "eval_losses" if settings.get("mode") == "no metric" else "eval_loss"
    print({name: f"{loss:.3g}", "epoch": f"{step / total:.3g}"})
    place = {"current_steps": step, "total_steps": total}
    with (folder / "trainer_log.jsonl").open("a") as log:
        log.write(json.dumps(place | {"loss": 2 * loss}) + "\n")
        log.write(json.dumps(place | {name: loss}) + "\n")


def finish(settings: dict[str, Any], folder: Path) -> None:
    """End as the mode says."""
    mode = settings.get("mode")
    if mode == "out of memory":
        print("Traceback (most recent call last):", file=sys.stderr)
        print("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.", file=sys.stderr)
        sys.exit(1)
    if mode == "fails":
        print("ValueError: no such dataset 'mine'", file=sys.stderr)
        sys.exit(3)
    if mode == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hangs":
        time.sleep(600)


if __name__ == "__main__":
    main()
