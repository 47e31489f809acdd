"""Measure what bfloat16 changes: the same trials on a base model in bfloat16 and float32.

SmolLM2-135M on docstrings of the standard library (64 examples, one epoch), at learning rates
from the default upwards. The adapter is in float32 in both cases; its output is added to an output
of the base model that is rounded to the base model's type.

    python -m benchmarks.precision            # 5 minutes on one core, and the table
    python -m benchmarks.precision --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import time
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
import torch

from benchmarks import console
from benchmarks.provenance import versions
from benchmarks.race.run import provenance
from optuna_llmbo import LoRAObjective


RESULTS = Path(__file__).parent / "results" / "precision.json"
PACKAGES = ("optuna-llmbo", "optuna", "torch", "transformers", "peft")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
RATES = (2e-4, 6e-4, 2e-3)
SPACE: dict[str, BaseDistribution] = {"learning_rate": FloatDistribution(1e-5, 1e-2, log=True)}


def measure(
    name: str,
    *,
    rates: Sequence[float] = RATES,
    model: str = "embedded",
    train: str = "stdlib-docstrings",
    device: torch.device | None = None,
    proxy: float = 64,
    validation: int = 32,
    max_length: int = 96,
) -> dict[str, Any]:
    """Measure the base model's loss and a trial's at each rate, in nats per response token."""
    objective = LoRAObjective(
        model,
        train,
        space=SPACE,
        proxy=proxy,
        validation=validation,
        max_length=max_length,
        reports=1,
        device=device,
        dtype=DTYPES[name],
    )
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    for rate in rates:
        study.enqueue_trial({"learning_rate": rate})
    began = time.perf_counter()
    study.optimize(objective, n_trials=len(rates))
    return {
        "base": objective.base_loss,
        "losses": [trial.value for trial in study.trials],
        "seconds": time.perf_counter() - began,
        "objective": objective.fingerprint,
    }


def table(record: dict[str, Any]) -> str:
    """Format the losses by type, and how much higher those of bfloat16 are."""
    half, full = ([found["base"], *found["losses"]] for found in map(record["dtypes"].get, DTYPES))
    names = ["no adapter", *(f"{rate:g}" for rate in RATES)]
    rows = [
        [name, f"{a:.4f}", f"{b:.4f}", f"{a - b:+.4f}"]
        for name, a, b in zip(names, half, full, strict=True)
    ]
    return console.table(["learning rate", "bfloat16", "float32", "difference"], rows)


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    if not parser.parse_args().report:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        source = provenance()
        found = {name: measure(name) for name in DTYPES}
        record = {"dtypes": found, **source, "versions": versions(PACKAGES)}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
