"""Measure trials a minute: base model reloaded, loaded once, or shared by several trials.

The same trials of a LoRA study are run in several ways in one process, so their times can be
compared with each other, but not with those of another day or machine:

- "reload" loads the base model for every trial, as a freshly started script does, though data and
  modules stay loaded, and then trains as the next way does;
- "one at a time" loads it once (`study.optimize`);
- "packed" trains several adapters on it at once (`optimize_packed`).

Two cases: "small" is rank 8 with batches of 2 and no dropout in all trials, where a parallel
device has the least work per step and packing should pay off most; "mixed" has ranks from 2
to 64, batches of 1 to 8 and dropout. Random search, no pruner, one report a trial. One trial of
each case comes first and is not counted. Processor time is reported beside wall-clock time, as
other programs disturb it less; on a GPU only the wall clock counts.

    python -m benchmarks.training                     # 6 minutes on a busy core, and the table
    python -m benchmarks.training --device cuda --examples 64 --trials 32 --ways 8,16,32
    python -m benchmarks.training --report            # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import os
from pathlib import Path
import time
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import torch

from benchmarks import console
from benchmarks.device import is_cuda
from benchmarks.device import name as name_of
from benchmarks.provenance import versions
from benchmarks.race.run import provenance
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora.packed.parallel import optimize_packed
from optuna_llmbo.lora.run import Run
from optuna_llmbo.study.time_limits import TimeLimits


RESULTS = Path(__file__).parent / "results" / "training"
PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft")
CASES: dict[str, dict[str, BaseDistribution]] = {
    "small": {
        "rank": IntDistribution(8, 8),
        "batch_size": IntDistribution(2, 2),
        "lora_dropout": FloatDistribution(0.0, 0.0),
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
    },
    "mixed": {
        "rank": IntDistribution(2, 64, log=True),
        "batch_size": IntDistribution(1, 8, log=True),
        "lora_dropout": FloatDistribution(0.0, 0.3),
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
    },
}
ONE, RELOAD = "one at a time", "reload"


def measure(
    objective: LoRAObjective, n_trials: int, ways: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Run the same trials in every way.

    Args:
        objective: prepared or not.
        n_trials: trials for each way; only two for "reload", as all reloads are alike.
        ways: names of the packed ways, and the number of trials that each trains at a time.

    Returns:
        For each way: trials, wall-clock seconds, processor seconds and final losses.
    """
    objective.prepare()
    _timed(objective, 1, objective)
    result = {
        RELOAD: _timed(objective, min(2, n_trials), _reloading(objective)),
        ONE: _timed(objective, n_trials, objective),
    }
    for name, n_parallel in ways.items():
        result[name] = _timed(objective, n_trials, n_parallel)
    return result


def _timed(
    objective: LoRAObjective, n_trials: int, how: Callable[[optuna.Trial], Any] | int
) -> dict[str, Any]:
    """Time trials run by an objective, or several at a time."""
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner()
    )
    began, cpu = time.perf_counter(), time.process_time()
    if isinstance(how, int):
        optimize_packed(study, objective, n_trials, how)
    else:
        study.optimize(how, n_trials=n_trials)
    return {
        "trials": n_trials,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "losses": [trial.value for trial in study.trials],
    }


def _reloading(objective: LoRAObjective) -> Callable[[optuna.Trial], Any]:
    """Wrap the objective to load the model anew for each trial."""
    prepared, options = objective.prepare(), objective.options

    def run(trial: optuna.Trial) -> Any:
        model = prepared.model
        loaded = load_model(resolve_source(options.model), device=model.device, dtype=model.dtype)
        fresh = dataclasses.replace(prepared, model=loaded.model)
        return Run(trial, prepared.space.suggest(trial), fresh, options, None, TimeLimits())()

    return run


def table(result: Mapping[str, Any]) -> str:
    """Format trials a minute of each way, and ratios to one at a time."""
    rows = []
    for case, ways in result["cases"].items():
        one = ways[ONE]
        for way, cost in ways.items():
            cells = [f"{60 * cost['trials'] / cost['seconds']:.1f}"]
            for unit in ("seconds", "cpu_seconds"):
                ratio = (one[unit] / one["trials"]) / (cost[unit] / cost["trials"])
                cells.append(f"{ratio:.2f}")
            rows.append([case, way, *cells])
    head = ["trials", "way", "trials a minute", "of one at a time", "by processor time"]
    return console.table(head, rows)


def main() -> None:
    """Measure, save and print."""
    options = _options()
    if options.report:
        for path in sorted(options.save.glob("*.json")):
            saved = json.loads(path.read_text())
            print(f"{_about(saved)}\n\n{table(saved)}\n")
        return
    source = provenance()  # the commit being run, read before the first trial
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    is_gpu = is_cuda(device)
    ways = {f"packed, {n}": int(n) for n in console.names(options.ways)}
    result: dict[str, Any] = {
        "device": name_of(device) if is_gpu else source["cpu"],
        "model": options.model,
        "max_length": options.max_length,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg(),
        "cases": {},
    }
    for case, space in CASES.items():
        objective = LoRAObjective(
            options.model,
            "stdlib-docstrings",
            space=space,
            proxy=options.examples,
            validation=options.validation,
            max_length=options.max_length,
            reports=1,
            device=device,
        )
        result["cases"][case] = measure(objective, options.trials, ways)
        result["objective"] = objective.fingerprint
    result |= {"load_average_after": os.getloadavg(), **source, "versions": versions(PACKAGES)}
    options.save.mkdir(parents=True, exist_ok=True)
    name = "-".join(result["device"].lower().split()) if is_gpu else "cpu"
    (options.save / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{_about(result)}\n\n{table(result)}")


def _about(result: Mapping[str, Any]) -> str:
    """Describe in a line what was measured, and where."""
    objective = result["objective"]
    return (
        f"{result['device']}, {result['threads']} of {result['cores']} threads, load "
        f"{result['load_average_before'][0]:.1f} before and {result['load_average_after'][0]:.1f} "
        f"after; {objective['model']} in {objective['dtype'].removeprefix('torch.')}, "
        f"{objective['train_examples']} examples of at most {result['max_length']} tokens a "
        f"trial; commit {result['commit']}, {result['date']}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's choice")
    parser.add_argument("--trials", type=int, default=8, help="in each way")
    parser.add_argument("--ways", default="2,4,8", help="trials at a time, comma-separated")
    parser.add_argument("--examples", type=int, default=8, help="of a trial")
    parser.add_argument("--validation", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
