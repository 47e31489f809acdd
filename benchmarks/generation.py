"""Measure what one report of a trial costs whose metric is generated text, against the loss.

SmolLM2-135M, not trained further, on sixteen docstrings of the standard library. "whole" is
exact match with every answer written to its end; "exact_match" ends an answer once the rest cannot
change whether it is right. Both have the same value.

    python -m benchmarks.generation            # a minute on one core, and the table
    python -m benchmarks.generation --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import time
from typing import Any

import optuna
import torch

from benchmarks import console
from benchmarks.race.run import provenance
from optuna_llmbo import LoRAObjective
from optuna_llmbo.lora.metrics import ExactMatch
from optuna_llmbo.lora.metrics import Loss
from optuna_llmbo.lora.metrics import Measure
from optuna_llmbo.lora.tokens import Example


RESULTS = Path(__file__).parent / "results" / "generation.json"


class Whole(ExactMatch):
    """Exact match whose answers are written to their end."""

    def decided(self, text: str, example: Example) -> bool:
        """Answer no."""
        return False


METRICS: dict[str, Measure] = {
    "loss": Loss(),
    "whole": Whole(),
    "exact_match": ExactMatch(),
}


def measure() -> dict[str, Any]:
    """Measure the base model by each metric: seconds, tokens of the longest answer and value."""
    objective = LoRAObjective(
        "embedded", "stdlib-docstrings", proxy=64, validation=16, max_length=512
    )
    prepared = objective.prepare()
    about = (prepared.model, prepared.tokenizer, prepared.validation)
    passes: list[int] = []
    hook = prepared.model.register_forward_hook(lambda *_: passes.append(1))
    found = {}
    for name, metric in METRICS.items():
        metric(*about)  # the first call is slower
        passes.clear()
        began, used = time.perf_counter(), time.process_time()
        value = metric(*about)
        found[name] = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - used,
            "passes": len(passes),
            "value": value,
        }
    hook.remove()
    return {"metrics": found, "objective": objective.fingerprint}


def table(record: dict[str, Any]) -> str:
    """Format passes through the model and seconds by metric."""
    rows = [
        [name, str(found["passes"]), *(f"{found[key]:.1f}" for key in _SECONDS)]
        for name, found in record["metrics"].items()
    ]
    return console.table(["metric", "passes", "seconds", "processor seconds"], rows)


_SECONDS = ("seconds", "processor_seconds")


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    if not parser.parse_args().report:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        source = provenance()
        record = {**measure(), "threads": torch.get_num_threads(), **source}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
