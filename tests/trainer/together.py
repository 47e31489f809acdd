"""A script for `torchrun`: its processes train each trial together with a Trainer."""

from __future__ import annotations

import json
from pathlib import Path
import sys
from typing import Any

import accelerate
import datasets
import optuna
from optuna_integration import TorchDistributedTrial
import torch
import transformers

from optuna_llmbo.errors import InputError
from optuna_llmbo.trainer import TrialCallback


class PruneAt50(optuna.pruners.BasePruner):
    """Prunes the second trial, in the process that has it."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1 and trial.last_step == 50


def main(model: str, out: str) -> None:
    """Run a study of two trials, and write down what came of it and what each process saw."""
    torch.set_num_threads(1)
    state = accelerate.PartialState(cpu=True)
    rows = datasets.Dataset.from_list(
        [{"input_ids": [65 + i % 8] * 6, "labels": [65 + i % 8] * 6} for i in range(24)]
    )
    seen: list[Any] = []

    def objective(trial: optuna.trial.BaseTrial) -> float:
        trainer = transformers.Trainer(
            transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            transformers.TrainingArguments(
                str(Path(out).parent / "output"),
                per_device_train_batch_size=2,
                use_cpu=True,
                num_train_epochs=1,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
            ),  # fmt: skip
            train_dataset=rows.select(range(16)),
            eval_dataset=rows.select(range(16, 24)),
        )
        callback = TrialCallback(trial, reports=2)
        trainer.add_callback(callback)
        try:
            with callback:
                trainer.train()
        finally:
            seen.append(trainer.state.global_step)
        return callback.value

    if state.is_main_process:
        study = optuna.create_study(pruner=PruneAt50())
        study.optimize(lambda trial: objective(TorchDistributedTrial(trial)), n_trials=2)
        trials = [
            {"state": t.state.name, "reports": list(t.intermediate_values), **t.user_attrs}
            for t in study.trials
        ]
        try:  # a trial that the other process does not have
            objective(optuna.trial.FixedTrial({}))
        except InputError as error:
            trials.append({"error": str(error)})
        Path(out).write_text(json.dumps(trials))
    else:
        for _ in range(2):
            try:
                objective(TorchDistributedTrial(None))
            except optuna.TrialPruned:
                seen.append("pruned")
        try:
            objective(optuna.trial.FixedTrial({}))
        except InputError:
            pass
    Path(f"{out}.{state.process_index}").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
