"""Take GSM8K from the raw file to an adapter: proxy check, search, promotion, export on a CPU.

SmolLM2-135M on a small part of GSM8K (Cobbe et al. 2021, arXiv:2110.14168), with the command
line alone, as a user would. Each stage's output and time are saved in `benchmarks/results/gsm8k`.
An interrupted run continues where it stopped.

    python -m benchmarks.gsm8k --data FOLDER   # train.jsonl, test.jsonl; half an hour, one thread
    python -m benchmarks.gsm8k --report        # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

import optuna

from benchmarks.provenance import commit
from benchmarks.race.run import provenance


RESULTS = Path(__file__).parent / "results" / "gsm8k"
N_TRAIN, N_TEST, N_VALIDATION = 480, 120, 16
MAX_LENGTH = 160
STUDY = "gsm8k"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The original of the embedded model, whose file is quantized; other tools train this one."""
COMMON = {
    "model": "embedded",
    "train": "train.jsonl",
    "validation": N_VALIDATION,
    "test": "test.jsonl",
    "max-length": MAX_LENGTH,
}
TUNE = COMMON | {"proxy": 0.4, "reports": 2, "trials": 6, "study": STUDY}


def stages() -> dict[str, list[str]]:
    """Return the commands by stage."""
    storage = {"storage": "sqlite:///gsm8k.db"}
    promoted = storage | {"study": STUDY}
    return {
        "proxy-check": arguments(
            "proxy-check", COMMON | {"configs": 5, "fractions": "0.2,0.4", "out": "check"}
        )
        + ["--figure"],
        "tune": arguments("tune", TUNE | storage),
        "promote": arguments("promote", promoted | {"top": 1, "seeds": 2, "out": "final"}),
        "export": arguments("export", promoted | {"to": "peft", "model": HUB_ID, "out": "peft"})
        + ["--overwrite"],
    }


def arguments(command: str, options: dict[str, Any]) -> list[str]:
    """Format a command and its options as words."""
    return [command, *(word for k, v in options.items() for word in (f"--{k}", str(v)))]


def write_data(data: Path, folder: Path) -> None:
    """Write the first problems of both files."""
    for name, n in (("train", N_TRAIN), ("test", N_TEST)):
        lines = (data / f"{name}.jsonl").read_text().splitlines()[:n]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def run(folder: Path) -> dict[str, Any]:
    """Run the stages that are missing; return the seconds and commit of each."""
    path = folder / "stages.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    program = [sys.executable, "-c", "from optuna_llmbo.cli import main; main()"]
    for name, words in stages().items():
        if name in done:
            continue
        began, code = time.perf_counter(), commit()
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([*program, *words], cwd=folder, env=environment, check=True)
        done[name] = {"seconds": round(time.perf_counter() - began, 1), "commit": code}
        path.write_text(json.dumps(done))
    return done


def keep(folder: Path, done: dict[str, Any]) -> None:
    """Copy the results of the stages, without the weights."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in (
        "check/proxy-check.md",
        "check/proxy-check.svg",
        "final/promotion.json",
        "peft/adapter_config.json",
    ):
        shutil.copy(folder / path, RESULTS / Path(path).name)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'gsm8k.db'}")
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "seconds": trial.user_attrs.get("seconds"),
            "is_default": trial.user_attrs.get("is_default"),
            "path": trial.user_attrs.get("llmbo:path"),
        }
        for trial in study.trials
    ]
    record = {
        "stages": done,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cores": len(os.sched_getaffinity(0)),
        "commands": {name: " ".join(words) for name, words in stages().items()},
        "trials": trials,
        **provenance(),
    }
    (RESULTS / "run.json").write_text(json.dumps(record, indent=1) + "\n")


def report() -> str:
    """Format the saved results as Markdown."""
    record = json.loads((RESULTS / "run.json").read_text())
    promotion = json.loads((RESULTS / "promotion.json").read_text())
    lines = ["| stage | minutes |", "| --- | --- |"]
    stages = record["stages"].items()
    lines += [f"| {name} | {stage['seconds'] / 60:.1f} |" for name, stage in stages]
    lines += ["", (RESULTS / "proxy-check.md").read_text().strip(), ""]
    lines += ["| on all data | validation | test |", "| --- | --- | --- |"]
    for one in promotion["contenders"]:
        name = "default" if one["is_default"] else f"trial {one['trial']}"
        name += ", the winner" if one["is_winner"] else ""
        lines.append(f"| {name} | {_mean(one['validation'])} | {_mean(one['test'])} |")
    lines += ["", f"Base model: {promotion['base_loss']:.4f} on validation."]
    return "\n".join(lines)


def _mean(losses: Sequence[float]) -> str:
    if not losses:
        return "-"
    spread = f" ({statistics.stdev(losses):.4f})" if len(losses) > 1 else ""
    return f"{statistics.fmean(losses):.4f}{spread}"


def main() -> None:
    """Run what is missing and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--work", type=Path, default=Path("gsm8k-run"), help="working folder")
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    options = parser.parse_args()
    if not options.report:
        if options.data is None:
            parser.error("--data is missing: a folder with GSM8K's train.jsonl and test.jsonl.")
        options.work.mkdir(parents=True, exist_ok=True)
        write_data(options.data, options.work)
        keep(options.work, run(options.work))
    print(report())


if __name__ == "__main__":
    main()
