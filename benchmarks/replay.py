"""Replay ten studies, trial for trial, to see whether a code change has changed a decision.

python -m benchmarks.replay run --out benchmarks/results/replay/before.json     # minutes
python -m benchmarks.replay compare benchmarks/results/replay/before.json \
    benchmarks/results/replay/after.json

Only public names of Optuna and of the package are used, so the same file runs on older and newer
commits. The seed fixes every decision; compare runs on one machine only, as processors round
differently.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from datetime import timedelta
import json
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from benchmarks import provenance
from optuna_llmbo import LLMBOSampler


Study = Callable[[], list[FrozenTrial]]

LORA_DEFAULT = {"rank": 16, "alpha_ratio": 2.0, "batch_size": 16, "learning_rate": 2e-4}


def mixed(trial: optuna.Trial) -> float:
    """Objective with its minimum at x = 1, y = 3, c = "a"."""
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_int("y", 0, 10)
    shift = {"a": 0.0, "b": 1.0, "c": 2.5}[trial.suggest_categorical("c", ["a", "b", "c"])]
    return (x - 1) ** 2 + (y - 3) ** 2 + shift


def lora(trial: optuna.Trial) -> float:
    """Objective with its minimum where learning_rate * alpha_ratio is 10 ** -2.5."""
    rate = trial.suggest_float("learning_rate", 1e-6, 5e-3, log=True)
    ratio = trial.suggest_float("alpha_ratio", 0.5, 128, log=True)
    rank = trial.suggest_int("rank", 1, 256, log=True)
    batch = trial.suggest_int("batch_size", 2, 64, log=True)
    return abs(math.log10(rate * ratio) + 2.5) + 0.05 * math.log2(batch / 8) ** 2 + 1 / rank


def pruned(trial: optuna.Trial) -> float:
    """Objective `lora` with a learning curve of four reports."""
    final = lora(trial)
    for percent in (25, 50, 75, 100):
        trial.report(final + (4 - final) * (1 - percent / 100) ** 2, percent)
        if percent < 100 and trial.should_prune():
            raise optuna.TrialPruned
    return final


def failing(trial: optuna.Trial) -> float:
    """Objective whose best values lie next to where trials fail."""
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    if x + y > 1.2:
        raise ValueError("no luck")
    return -x - y


def conditional(trial: optuna.Trial) -> float:
    """Objective in which each optimizer has a parameter of its own."""
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
        momentum = trial.suggest_float("momentum", 0.0, 0.99)
        return abs(math.log10(rate) + 2) + abs(momentum - 0.9)
    beta2 = trial.suggest_float("beta2", 0.9, 0.9999)
    return abs(math.log10(rate) + 3) + 10 * abs(beta2 - 0.98) + 0.2


def two(trial: optuna.Trial) -> tuple[float, float]:
    """Two objectives with different best values of x."""
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return x**2 + y, (x - 1) ** 2 + y


def _optimized(
    objective: Callable[[optuna.Trial], Any],
    n_trials: int,
    *,
    directions: tuple[StudyDirection, ...] = (StudyDirection.MINIMIZE,),
    pruner: optuna.pruners.BasePruner | None = None,
    enqueued: dict[str, Any] | None = None,
    **options: Any,
) -> list[FrozenTrial]:
    study = optuna.create_study(
        sampler=LLMBOSampler(**{"seed": 0, **options}),
        directions=directions,
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    if enqueued is not None:
        study.enqueue_trial(enqueued)
    study.optimize(objective, n_trials=n_trials, catch=ValueError)
    return study.trials


def _in_batches() -> list[FrozenTrial]:
    study = optuna.create_study(sampler=LLMBOSampler(seed=3))
    for _ in range(5):
        batch = [study.ask() for _ in range(4)]
        values = [mixed(trial) for trial in batch]
        for trial, value in zip(batch, values, strict=True):
            study.tell(trial, value)
    return study.trials


def _transferred() -> list[FrozenTrial]:
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    source.optimize(lora, n_trials=20)
    return _optimized(lora, 14, source_studies=[source], knowledge=None)


def _cost_aware() -> list[FrozenTrial]:
    """Run a cost-aware study whose durations follow from the rank, not from the clock."""
    told: list[FrozenTrial] = []
    for _ in range(14):
        sampler = LLMBOSampler(seed=5, cost_aware=True, prior={"learning_rate": (1e-5, 1e-4)})
        study = optuna.create_study(sampler=sampler)
        study.add_trials(told)
        trial = study.ask()
        value, start = lora(trial), datetime(2020, 1, 1)
        one = create_trial(params=trial.params, distributions=trial.distributions, value=value)
        one.datetime_start = start
        one.datetime_complete = start + timedelta(seconds=10 + trial.params["rank"])
        told.append(one)
    return told


def _predicted() -> list[FrozenTrial]:
    """Record predictions, recommendation and ranking after a study, as one more trial."""
    sampler = LLMBOSampler(seed=7)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(lambda trial: -lora(trial), n_trials=16)
    expected = sampler.predict(study, LORA_DEFAULT)
    said = {
        "predict": [expected.mean, expected.low, expected.high],
        "rank": [one.number for one in sampler.rank(study)],
    }
    return [*study.trials, create_trial(state=TrialState.COMPLETE, value=0.0, user_attrs=said)]


STUDIES: dict[str, Study] = {
    "mixed": lambda: _optimized(mixed, 25),
    "lora": lambda: _optimized(pruned, 30, pruner=optuna.pruners.MedianPruner(),
        enqueued=LORA_DEFAULT),
    "failing": lambda: _optimized(failing, 20),
    "conditional": lambda: _optimized(conditional, 25),
    "constrained": lambda: _optimized(mixed, 18,
        constraints_func=lambda trial: (trial.params["x"] - 0.5,)),
    "two-objectives": lambda: _optimized(two, 14, directions=(StudyDirection.MINIMIZE,) * 2),
    "batches": _in_batches,
    "transfer": _transferred,
    "cost-aware": _cost_aware,
    "predict": _predicted,
    "text": lambda: _optimized(lora, 9, llm="embedded", kernel="sum", n_candidates=16),
    "text-alone": lambda: _optimized(mixed, 8, llm="embedded", kernel="text", n_candidates=8),
}  # fmt: skip


def record_of(trial: FrozenTrial) -> dict[str, Any]:
    """Record a decision: everything except times and the names of attributes."""
    attributes = {
        name: value for name, value in trial.user_attrs.items() if not name.endswith("seconds")
    }
    return {
        "params": trial.params,
        "state": trial.state.name,
        "values": trial.values,
        "attributes": dict(sorted(attributes.items())),
    }


def run(names: list[str], out: Path) -> None:
    """Run the studies and write their decisions to a file."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, Any] = {
        "commit": provenance.commit(),
        "versions": provenance.versions(["optuna", "torch", "gpytorch", "botorch"]),
        "studies": {},
    }
    for name in names:
        found["studies"][name] = [record_of(trial) for trial in STUDIES[name]()]
        print(f"{name}: {len(found['studies'][name])} trials", flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


def compare(before: Path, after: Path) -> int:
    """Print which studies are the same, and return how many are not."""
    one, other = (json.loads(path.read_text())["studies"] for path in (before, after))
    different = 0
    for name in sorted(one.keys() | other.keys()):
        rows = one.get(name, []), other.get(name, [])
        pairs = zip(*rows, strict=False)
        first = next((i for i, (left, right) in enumerate(pairs) if left != right), None)
        if first is None and len(rows[0]) == len(rows[1]):
            print(f"{name}: {len(rows[0])} trials, the same")
            continue
        different += 1
        print(f"{name}: different from trial {first}")
    return different


def main() -> None:
    """Run the studies, or compare two runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    running.add_argument("--out", type=Path, required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options.studies, options.out)
    else:
        raise SystemExit(compare(options.before, options.after))


if __name__ == "__main__":
    main()
