"""Measure what torch.compile costs in the LoRA objective, and after how many steps it pays off.

The base model is loaded once and each trial puts another adapter on it, so the next trial can
reuse compiled code only if its modules are alike. The same trials are run in several ways in one
process:

- "none": the objective as it is;
- "layers": each decoder layer is compiled on its own, and all layers share the compiled code;
- "body": the model with its adapters is compiled as a whole, except for the vocabulary projection,
  before which a hook picks the positions of the response.

Both with `dynamic=True`, as batches differ in length, and nothing compiled before: each way starts
with an empty cache. Two cases: "small" has one rank and batch size and no dropout in all trials,
where the first trial should compile for all; in "mixed" rank, batch size and dropout differ (the
cases of `benchmarks.training`). Random search, no pruner, one report a trial. Seconds are those of
the processor, the C++ compiler's among them, which other programs disturb least; the raw results
hold the clock's too.

A way pays off after the number of steps that makes up for the excess of its first trial, if its
later trials of "small" are faster at all. On a CPU, g++ is needed.

    python -m benchmarks.compile                                      # both cases, all ways
    python -m benchmarks.compile --cases mixed --ways none,layers     # a part of it
    python -m benchmarks.compile --ways none --dtype float32          # what rounding does
    python -m benchmarks.compile --report                             # the kept results
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
from pathlib import Path
import shutil
import statistics
import time
from typing import Any

import optuna
import torch
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from benchmarks import console
from benchmarks.provenance import versions
from benchmarks.race.run import provenance
from benchmarks.training import CASES
from benchmarks.training import PACKAGES
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective


RESULTS = Path(__file__).parent / "results" / "compile"
NONE = "none"
BACKEND = "inductor"
WAYS: dict[str, Callable[[Any], Sequence[torch.nn.Module]]] = {
    NONE: lambda model: (),
    "layers": lambda model: tuple(model.base_model.layers),
    "body": lambda model: (model.base_model,),
}

Cost = dict[str, Any]


def measure(objective: LoRAObjective, n_trials: int, way: str) -> list[Cost]:
    """Run trials in one way, starting with nothing compiled.

    Returns:
        For each trial: rank, steps, loss, wall-clock and processor seconds, and number of graphs
        compiled.
    """
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner()
    )
    with compiled(WAYS[way](objective.prepare().model)):
        return [_trial(study, objective) for _ in range(n_trials)]


def _trial(study: optuna.Study, objective: LoRAObjective) -> Cost:
    began, cpu, graphs = time.perf_counter(), _processor_seconds(), _graphs()
    study.optimize(objective, n_trials=1)
    trial = study.trials[-1]
    return {
        "rank": trial.params["rank"],
        "steps": trial.user_attrs["steps"],
        "loss": trial.value,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": _processor_seconds() - cpu,
        "graphs": _graphs() - graphs,
    }


@contextlib.contextmanager
def compiled(
    modules: Sequence[torch.nn.Module], *, threads: int | None = 1, backend: str | None = None
) -> Iterator[None]:
    """Run modules compiled inside; restore them and torch after.

    Args:
        modules: each is compiled on its own.
        threads: of the compiler; None: torch's choice.
        backend: what makes code of the graphs; None: `BACKEND`.
    """
    torch._dynamo.reset()
    settings = {} if threads is None else {"compile_threads": threads}
    with fresh_cache(), torch._inductor.config.patch(settings):
        for module in modules:
            module.compile(dynamic=True, backend=backend or BACKEND)
        try:
            yield
        finally:
            for module in modules:
                module._compiled_call_impl = None
            torch._dynamo.reset()


def _processor_seconds() -> float:
    """Processor seconds of this process and of those it has waited for, such as g++."""
    return sum(os.times()[:4])


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def break_even(ways: Mapping[str, Sequence[Cost]], way: str) -> tuple[float, float, float]:
    """Compute, from trials that are alike, what compiling costs and what a later step saves.

    Returns:
        Extra seconds of the first trial; seconds per step, with its share of the evaluation,
        relative to those without compiling; steps after which it pays off, or inf.
    """
    ours, without = _per_step(ways[way][1:]), _per_step(ways[NONE][1:])
    cost = ways[way][0]["cpu_seconds"] - ways[NONE][0]["cpu_seconds"]
    return cost, ours / without, cost / (without - ours) if ours < without else float("inf")


def _per_step(trials: Sequence[Cost]) -> float:
    return statistics.median(trial["cpu_seconds"] / trial["steps"] for trial in trials)


def report(result: Mapping[str, Any]) -> str:
    """Format the seconds of each way's trials, then where compiling pays off."""
    rows = []
    for case, ways in result["cases"].items():
        for way, trials in ways.items():
            seconds = [trial["cpu_seconds"] for trial in trials]
            pairs = zip(trials, ways[NONE], strict=True)
            rows.append(
                [
                    *(case, way, ", ".join(str(trial["rank"]) for trial in trials)),
                    ", ".join(f"{one:.1f}" for one in seconds),
                    f"{sum(seconds) / sum(trial['cpu_seconds'] for trial in ways[NONE]):.2f}",
                    ", ".join(str(trial["graphs"]) for trial in trials),
                    f"{max(abs(a['loss'] - b['loss']) for a, b in pairs):.1e}",
                ]
            )
    head = ["trials", "way", "ranks", "seconds of each", "of none", "graphs", "loss differs by"]
    tables = [console.table(head, rows)]
    alike = result["cases"].get("small", {NONE: []})
    if len(alike) > 1:
        tables.append(_when_it_pays(alike))
    return "\n\n".join(tables)


def _when_it_pays(ways: Mapping[str, Sequence[Cost]]) -> str:
    rows = []
    for way in [way for way in ways if way != NONE]:
        cost, ratio, steps = break_even(ways, way)
        pays = f"{steps:.0f}" if steps < float("inf") else "never"
        rows.append([way, f"{cost:.1f}", f"{ratio:.2f}", pays])
    head = ["way", "seconds to compile", "a later step, of none", "pays after steps"]
    return console.table(head, rows)


def main() -> None:
    """Measure, save and print."""
    options = _options()
    if options.report:
        for path in sorted(RESULTS.glob("*.json")):
            saved = json.loads(path.read_text())
            print(f"{_about(saved)}\n\n{report(saved)}\n")
        return
    if options.device == "cpu" and shutil.which("g++") is None:
        raise InputError("torch.compile needs g++ on a CPU: install it.")
    source = provenance()  # the commit being run, read before the first trial
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg(),
        "cases": {},
        **source,
        "versions": versions(PACKAGES),
    }
    options.save.parent.mkdir(parents=True, exist_ok=True)
    for case in console.names(options.cases):
        objective = LoRAObjective(
            "embedded",
            "stdlib-docstrings",
            space=CASES[case],
            proxy=options.examples,
            validation=4,
            max_length=64,
            reports=1,
            device=options.device,
            dtype=None if options.dtype is None else getattr(torch, options.dtype),
        )
        measure(objective, 1, NONE)  # not counted
        result["cases"][case] = {}
        for way in console.names(options.ways):
            result["cases"][case][way] = measure(objective, options.trials, way)
            result |= {"objective": objective.fingerprint, "load_average_after": os.getloadavg()}
            options.save.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{_about(result)}\n\n{report(result)}")


def _about(result: Mapping[str, Any]) -> str:
    """Describe in a line what was measured, and where."""
    objective = result["objective"]
    return (
        f"{result['cpu']}, {result['threads']} of {result['cores']} threads, load "
        f"{result['load_average_before'][0]:.1f} before and {result['load_average_after'][0]:.1f} "
        f"after; {objective['model']} in {objective['dtype'].removeprefix('torch.')}, "
        f"{objective['train_examples']} examples of at most 64 tokens a trial; commit "
        f"{result['commit']}, {result['date']}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help="with commas")
    parser.add_argument("--dtype", help="of the base model; default: the objective's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--trials", type=int, default=3, help="in each way")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated, none first")
    parser.add_argument("--examples", type=int, default=16, help="of a trial")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument(
        "--save", type=Path, default=RESULTS / "cpu.json", help="file of the results"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
