"""What a suggestion costs as a study grows in one way or another, beside GPSampler.

Each scenario has one quantity that grows: trials spread out over the space, trials that cluster
at the optimum, running trials, trials asked for in one batch, choices of a parameter, trials in an
SQLite database. In each, both samplers are asked for a few suggestions in turn, in one process on
one thread, and told their values, a bowl with a little noise. The median processor time counts, as
wall time depends on what else the machine does. The first suggestion is not counted. GPSampler is
not asked in a study of 10,000 trials: it fits to all of them, for longer than ten minutes.

    OMP_NUM_THREADS=1 python -m benchmarks.costs      # ten minutes, and the table
    python -m benchmarks.costs --only running batch   # some scenarios; the others are kept
    python -m benchmarks.costs --report               # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import create_trial
import torch

from benchmarks import console
from benchmarks.provenance import commit
from benchmarks.race.run import provenance
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.space.search_space import suggest


RESULTS = Path(__file__).parent / "results" / "costs.json"
LORA: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "lora_alpha": FloatDistribution(1, 256, log=True),
    "lora_dropout": FloatDistribution(0, 0.3),
    "batch_size": IntDistribution(4, 128, log=True),
    "rank": IntDistribution(1, 256, log=True),
}
OPTIMUM = 0.6
"""Of each number, in [0, 1]."""
NOISE = 0.01
WORDS = (
    "a data learn rate train loss token prompt answer write code list number text table".split()
)


@dataclass(frozen=True)
class Scenario:
    """Studies that differ in one number."""

    title: str
    sizes: tuple[int, ...]
    make: Callable[[int], optuna.Study]
    """A study of some size."""
    asked: int = 1
    """How many trials are asked for at once; the cost is the whole batch's."""
    repeats: int = 5
    gp_up_to: int | None = None
    """The largest size at which GPSampler is asked. None: at all."""
    llm: str | None = None
    """The language model of our sampler."""

    def samplers(self, size: int) -> dict[str, BaseSampler]:
        """The samplers that are asked at a size."""
        samplers: dict[str, BaseSampler] = {"ours": LLMBOSampler(llm=self.llm, seed=0)}
        if self.gp_up_to is None or size <= self.gp_up_to:
            samplers["GPSampler"] = optuna.samplers.GPSampler(seed=0)
        return samplers


def objective(space: SearchSpace, params: dict[str, Any], rng: np.random.Generator) -> float:
    """A noisy bowl around `OPTIMUM`, with choices far apart in value; smaller is better."""
    (point,) = space.to_unit([params])
    nominal = np.array([axis.is_nominal for axis in space.axes])
    numbers = float(np.square(point[~nominal] - OPTIMUM).sum())
    return numbers + float(np.sin(40 * point[nominal]).sum()) / 4 + NOISE * rng.normal()


def study_of(
    distributions: dict[str, BaseDistribution],
    n: int,
    *,
    near: float = 0.0,
    running: int = 0,
    storage: str | None = None,
) -> optuna.Study:
    """A study with finished trials at random points.

    Args:
        distributions: its search space.
        n: finished trials.
        near: the share of them within a hundredth of the optimum, the last ones.
        running: further trials that are running.
        storage: where it is kept; None: in memory.
    """
    space = SearchSpace(distributions)
    rng = np.random.default_rng(0)
    points = rng.random((n + running, len(distributions)))
    close = np.arange(n + running) >= round((1 - near) * n)
    if near:
        points[close] = OPTIMUM + 0.01 * rng.normal(size=points[close].shape)
    configurations = space.from_unit(space.snap(points))
    study = optuna.create_study(storage=storage)
    study.add_trials(
        [
            create_trial(
                params=dict(params),
                distributions=distributions,
                value=objective(space, dict(params), rng),
            )
            for params in configurations[:n]
        ]
    )
    for params in configurations[n:]:
        study.enqueue_trial(dict(params))
        suggest(study.ask(), distributions)
    return study


def nominal(n: int, characters: int = 0) -> dict[str, BaseDistribution]:
    """Two numbers and a parameter with n choices, of at least a number of characters."""
    rng = np.random.default_rng(0)
    texts = (" ".join(rng.choice(WORDS, size=characters // 4)) for _ in range(n))
    choices = [f"choice-{i} {text[:characters]}".strip() for i, text in enumerate(texts)]
    numbers: dict[str, BaseDistribution] = {
        "x": FloatDistribution(0, 1),
        "y": FloatDistribution(0, 1),
    }
    return {**numbers, "choice": CategoricalDistribution(choices)}


def in_sqlite(n: int) -> optuna.Study:
    """A study in an SQLite file."""
    folder = tempfile.mkdtemp()
    return study_of(LORA, n, storage=f"sqlite:///{folder}/study.db")


SCENARIOS = {
    "spread": Scenario(
        "complete trials, spread out", (25, 50, 100, 200, 500), lambda n: study_of(LORA, n)
    ),
    "clustered": Scenario(
        "complete trials, 9 of 10 at the optimum",
        (25, 50, 100, 200, 500),
        lambda n: study_of(LORA, n, near=0.9),
    ),
    "running": Scenario(
        "running trials, beside 30 complete ones",
        (0, 1, 5, 10, 50, 200),
        lambda n: study_of(LORA, 30, running=n),
    ),
    "batch": Scenario(
        "trials asked for in one batch, after 30 complete ones",
        (50,),
        lambda n: study_of(LORA, 30),
        asked=50,
        repeats=1,
    ),
    "choices": Scenario(
        "choices of one parameter beside two numbers, 30 complete trials",
        (10, 100, 1000, 3000),
        lambda n: study_of(nominal(n), 30),
    ),
    "texts": Scenario(
        "choices of 3,000 characters with a language model (SmolLM2), 30 complete trials",
        (10,),
        lambda n: study_of(nominal(n, characters=3000), 30),
        llm="embedded",
        gp_up_to=0,
    ),
    "sqlite": Scenario("complete trials in SQLite", (1000, 10_000), in_sqlite, gp_up_to=1000),
}


def measure(scenario: Scenario, size: int, sampler: BaseSampler) -> dict[str, list[float]]:
    """Processor time and wall time in seconds of each suggestion, or of each batch."""
    study = scenario.make(size)
    study.sampler = sampler
    distributions = study.trials[0].distributions
    space, rng = SearchSpace(distributions), np.random.default_rng(1)
    times: dict[str, list[float]] = {"processor": [], "wall": []}
    for _ in range(scenario.repeats + 1):
        began = time.process_time(), time.perf_counter()
        asked = [study.ask() for _ in range(scenario.asked)]
        for trial in asked:
            suggest(trial, distributions)
        times["processor"].append(time.process_time() - began[0])
        times["wall"].append(time.perf_counter() - began[1])
        for trial in asked:
            study.tell(trial, objective(space, trial.params, rng))
        if scenario.repeats == 1:  # too long to be done for warming up
            break
    skip = 0 if scenario.repeats == 1 else 1
    return {name: seconds[skip:] for name, seconds in times.items()}


def table(result: dict[str, Any]) -> str:
    """Format the median processor times and their ratio."""
    rows = []
    for name, by_size in result["seconds"].items():
        for size, by_sampler in by_size.items():
            medians = {s: statistics.median(t["processor"]) for s, t in by_sampler.items()}
            ours, theirs = medians["ours"], medians.get("GPSampler")
            figures = [f"{ours:.2f}"]
            figures += ["", ""] if theirs is None else [f"{theirs:.2f}", f"{ours / theirs:.2f}"]
            rows.append([SCENARIOS[name].title, size, *figures])
    head = ["what grows", "", "ours, s", "GPSampler, s", "ratio"]
    return console.table(head, rows)


def run(names: Sequence[str], sizes: Sequence[int] | None, save: Path | None) -> dict[str, Any]:
    """Measure scenarios, saving after each size."""
    kept = json.loads(save.read_text()) if save is not None and save.exists() else {}
    result: dict[str, Any] = {
        "seconds": kept.get("seconds", {}),
        "made": kept.get("made", {}),
    }
    of_commit = commit()
    for name in names:
        scenario = SCENARIOS[name]
        result["seconds"][name] = {}
        for size in scenario.sizes if sizes is None else sizes:
            result["seconds"][name][str(size)] = {
                label: measure(scenario, size, sampler)
                for label, sampler in scenario.samplers(size).items()
            }
            print(name, size, _brief(result["seconds"][name][str(size)]), flush=True)
            result["made"][name] = {**provenance(), "commit": of_commit}
            if save is not None:
                save.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _brief(by_sampler: dict[str, dict[str, list[float]]]) -> str:
    medians = {s: statistics.median(t["processor"]) for s, t in by_sampler.items()}
    return ", ".join(f"{sampler} {seconds:.2f} s" for sampler, seconds in medians.items())


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--sizes", nargs="+", type=int, help="instead of the scenario's own")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.report:
        print(table(json.loads(options.save.read_text())))
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    print(table(run(options.only, options.sizes, options.save)))


if __name__ == "__main__":
    main()
