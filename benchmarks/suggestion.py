"""Time a suggestion: ours with and without a language model, and Optuna's GPSampler.

A study over LoRA's five hyperparameters has a number of complete trials, at random points of the
space, with losses from the LoRA table's surrogate; then each sampler in turn chooses a few more,
and the median time counts. A sampler's first choice does not count, as it loads the language
model. GPSampler uses one thread, as does our sampler except for the language model.

    python -m benchmarks.suggestion                   # 10 minutes on 2 cores, and the table
    python -m benchmarks.suggestion --report          # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import os
from pathlib import Path
import statistics
import time
from typing import Any

import optuna
from optuna.samplers import BaseSampler
import torch

from benchmarks import console
from benchmarks.provenance import commit
from benchmarks.race import tasks
from benchmarks.race.run import provenance
from optuna_llmbo import LLMBOSampler


RESULTS = Path(__file__).parent / "results" / "suggestion.json"
TASK = "lora-10"
OURS, WITH_LLM, OTHERS = "ours", 'ours, `llm="embedded"`', "GPSampler"
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    OURS: lambda: LLMBOSampler(seed=0),
    WITH_LLM: lambda: reading("embedded"),
    OTHERS: lambda: optuna.samplers.GPSampler(seed=0),
}


def reading(llm: str, device: str | None = None) -> LLMBOSampler:
    """Make our sampler with a language model that reads every configuration."""
    return LLMBOSampler(llm=llm, device=device, kernel="sum", seed=0)


def measure(sampler: BaseSampler, n_trials: int, repeats: int) -> list[float]:
    """Time suggestions after `n_trials` complete trials; a first one is not counted."""
    task = tasks.load(TASK)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(task.objective, n_trials=n_trials)
    study.sampler = sampler
    seconds = []
    for _ in range(repeats + 1):
        trial = study.ask()
        began = time.perf_counter()
        value = task.objective(trial)
        seconds.append(time.perf_counter() - began)
        study.tell(trial, value)
    return seconds[1:]


def table(result: dict[str, Any]) -> str:
    """Format the medians, and their ratios to GPSampler's."""
    sizes = [str(n) for n in result["trials"]]
    rows = []
    for name, by_size in result["seconds"].items():
        medians = [statistics.median(by_size[n]) for n in sizes]
        others = [statistics.median(result["seconds"][OTHERS][n]) for n in sizes]
        ratios = [f"{m:.2f} s ({m / o:.1f})" for m, o in zip(medians, others, strict=True)]
        rows.append([name, *ratios])
    head = ["sampler", *(f"{n} trials" for n in sizes)]
    return console.table(head, rows)


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[30, 200])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.report:
        print(table(json.loads(options.save.read_text())))
        return
    of_commit = commit()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result = {
        "trials": options.trials,
        "seconds": {
            name: {str(n): measure(make(), n, options.repeats) for n in options.trials}
            for name, make in SAMPLERS.items()
        },
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        **provenance(),
        "commit": of_commit,
    }
    options.save.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
