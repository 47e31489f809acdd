"""Take a chat file from the search to TRL, and compare the losses on the way.

Conversations with a system prompt and two turns of the assistant's (docstrings of functions of
Python's standard library, by SmolLM2-135M) go through the command line as a user's do: `tune`,
`promote`, `export --to trl`. TRL trains from the exported files, and its validation loss, before
and after, stands beside that of the promotion.

    python -m benchmarks.chat             # ten minutes on two cores
    python -m benchmarks.chat --report    # the kept results as Markdown
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
from pathlib import Path
import statistics
import tempfile
from typing import Any

from benchmarks.console import table
from benchmarks.race.run import provenance
from optuna_llmbo.lora.stdlib_docstrings import INSTRUCTION
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings


RESULTS = Path(__file__).parent / "results" / "chat.json"

N, N_VALIDATION, N_TEST, N_TRIALS, N_SEEDS = 80, 16, 16, 6, 2
MAX_LENGTH, LONGEST = 200, 160
"""Tokens of an example; characters of a function, so that two of them fit."""
WHOLE = "--proxy 1.0 --dtype float32 --reports 2"
SYSTEM = "You write the first line of a Python function's docstring."


def conversations() -> list[dict[str, Any]]:
    """Conversations about two functions each, in TRL's format."""
    pairs = [(p.removeprefix(f"{INSTRUCTION}\n\n"), r) for p, r in stdlib_docstrings()]
    short = [pair for pair in pairs if len(pair[0]) <= LONGEST]
    made = []
    for first, second in zip(short[0 : 2 * N : 2], short[1 : 2 * N : 2], strict=True):
        turns = [{"role": "system", "content": SYSTEM}]
        for code, docstring in (first, second):
            turns.append({"role": "user", "content": code})
            turns.append({"role": "assistant", "content": docstring})
        made.append({"messages": turns})
    return made


def run(folder: Path) -> dict[str, Any]:
    """Search, promote, export and train, in a folder."""
    from typer.testing import CliRunner

    from optuna_llmbo.cli import app

    model = _model_folder()
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations()))
    os.chdir(folder)
    for line in commands(model):
        result = CliRunner().invoke(app, line, catch_exceptions=False)
        if result.exit_code:
            raise SystemExit(f"optuna-llmbo {line[0]} failed:\n{result.output}")
    promotion = json.loads((folder / "final" / "promotion.json").read_text())
    winner = next(one for one in promotion["contenders"] if one["is_winner"])
    default = next(one for one in promotion["contenders"] if one["is_default"])
    return {
        "examples": N,
        "trials": N_TRIALS,
        "base_loss": promotion["base_loss"],
        "winner": {name: winner[name] for name in ("params", "recipe", "validation", "test")},
        "default": {name: default[name] for name in ("validation", "test")},
        "trl": _trained_by_trl(folder / "trl"),
    }


def commands(model: str) -> list[list[str]]:
    """What is run on the command line; the trained types are float32, so that losses compare."""
    tune = f"tune --model {model} --train chats.jsonl --validation {N_VALIDATION} --test {N_TEST}"
    return [
        f"{tune} --trials {N_TRIALS} --max-length {MAX_LENGTH}".split() + WHOLE.split(),
        f"promote --out final --top 1 --seeds {N_SEEDS}".split(),
        (
            f"export --to trl --out trl --round-alpha --validation {N_VALIDATION} "
            f"--micro-batch-size {N_VALIDATION} --dtype float32"
        ).split(),
    ]


def _model_folder() -> str:
    """The embedded model as a folder, which TRL can load."""
    import torch

    from optuna_llmbo.lora.base_model import as_base
    from optuna_llmbo.lora.base_model import load_base

    loaded = load_base("embedded", device="cpu", dtype=torch.float32, max_length=MAX_LENGTH)
    return as_base(loaded).location


def _trained_by_trl(folder: Path) -> dict[str, Any]:
    """Validation losses before and after TRL's training from the exported files.

    All validation examples are in one batch, as TRL's loss is a mean over batches.
    """
    import datasets

    trl: Any = importlib.import_module("trl")
    os.chdir(folder)
    kinds = (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig)
    arguments = ["--config", "sft.yaml", "--use_cpu", "true"]
    script, training, about, _ = trl.TrlParser(kinds).parse_args_and_config(arguments)
    training.disable_tqdm, training.report_to, training.save_strategy = True, [], "no"
    data = datasets.load_dataset(script.dataset_name, cache_dir=str(folder / "cache"))
    trainer = trl.SFTTrainer(
        model=about.model_name_or_path,
        args=training,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        peft_config=trl.get_peft_config(about),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    return {
        "version": trl.__version__,
        "examples": len(trainer.train_dataset),
        "steps": trainer.state.global_step,
        "lora_alpha": about.lora_alpha,
        "before": before,
        "after": trainer.evaluate()["eval_loss"],
    }


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    theirs, ours = results["trl"], results["winner"]["validation"]
    rows = [
        ["before training", f"{results['base_loss']:.5f}", f"{theirs['before']:.5f}"],
        ["after training", _mean(ours), f"{theirs['after']:.4f}"],
    ]
    shown = table(["validation loss, nats per token", "optuna-llmbo", "TRL"], rows)
    difference = theirs["after"] - statistics.fmean(ours)
    gain = statistics.fmean(results["default"]["test"]) - statistics.fmean(
        results["winner"]["test"]
    )
    return (
        f"{shown}\n\nAfter training TRL's differs by {difference:+.4f}. On the test examples the "
        f"searched configuration is better than the default by {gain:+.4f} nats per token."
    )


def _mean(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} (seeds differ by {spread:.4f})"


def main() -> None:
    """Run and write the results, or print those that are there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="print the kept results only")
    if not parser.parse_args().report:
        about = provenance()
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder))
        RESULTS.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
