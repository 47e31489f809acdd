"""Measure what pruning saves: studies of the LoRA table's real runs with and without a pruner.

Each trial looks up a real run (`TableObjective`, 10% of the data), with its learning curve and the
seconds it took; a pruned trial counts with the share of its run that it completed. The sampler is
ours as shipped, 30 trials, each pruner with the same seeds.

    python -m benchmarks.pruning            # 10 minutes on 2 cores, and the table
    python -m benchmarks.pruning --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks.lora_table import tables
from benchmarks.lora_table.objective import TableObjective
from benchmarks.provenance import commit
from benchmarks.race.run import provenance
from benchmarks.race.statistics import bootstrap
from optuna_llmbo import LLMBOSampler


RESULTS = Path(__file__).parent / "results" / "pruning.json"
TABLE = Path(__file__).parent / "lora_table" / "tables" / "cpu.parquet"
N_TRIALS, N_SEEDS = 30, 20
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=25, max_resource=100),
}


def run(objective: TableObjective, pruner: str, seed: int) -> dict[str, Any]:
    """Run one study; record its best loss, the seconds of its runs and its pruned trials."""
    study = optuna.create_study(sampler=LLMBOSampler(seed=seed), pruner=PRUNERS[pruner]())
    study.optimize(objective, n_trials=N_TRIALS)
    seconds = sum(
        trial.user_attrs["seconds"] * share_made(trial.state, trial.last_step)
        for trial in study.trials
    )
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    return {
        "pruner": pruner,
        "seed": seed,
        "best": study.best_value,
        "seconds": seconds,
        "pruned": len(pruned),
    }


def share_made(state: TrialState, last_step: int | None) -> float:
    """Return the share of its run that a trial completed; its last step is a percentage."""
    return 1.0 if state == TrialState.COMPLETE or last_step is None else last_step / 100


def table(record: dict[str, Any]) -> str:
    """Format medians over seeds, and paired differences to no pruner with 95% intervals."""
    lines = [
        "| pruner | pruned trials | seconds of training | of those without | best loss | "
        "worse than without |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    studies = record["studies"]
    without = [one for one in studies if one["pruner"] == "none"]
    for name in PRUNERS:
        ours = [one for one in studies if one["pruner"] == name]
        pairs = list(zip(ours, without, strict=True))
        saved = bootstrap(np.array([a["seconds"] / b["seconds"] for a, b in pairs]))
        worse = bootstrap(np.array([a["best"] - b["best"] for a, b in pairs]), np.mean)
        lines.append(
            f"| {name} | {np.median([one['pruned'] for one in ours]):g} of {N_TRIALS} | "
            f"{np.median([one['seconds'] for one in ours]):.0f} | "
            f"{saved.value:.2f} ({saved.low:.2f} to {saved.high:.2f}) | "
            f"{np.median([one['best'] for one in ours]):.4f} | "
            f"{worse.value:+.4f} ({worse.low:+.4f} to {worse.high:+.4f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all studies, save them and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    if not parser.parse_args().report:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        began_at, objective = commit(), TableObjective(tables.read(TABLE))
        studies = [run(objective, name, seed) for seed in range(N_SEEDS) for name in PRUNERS]
        record = {"studies": studies, **provenance(), "commit": began_at}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
