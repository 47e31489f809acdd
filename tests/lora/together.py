"""A script for `torchrun` or `accelerate launch`: its processes train each trial together."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
import sys

import accelerate
import datasets
import optuna
from optuna.distributions import IntDistribution
from optuna_integration import TorchDistributedTrial
import torch

from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import train
from tests.lora.conftest import rows


N_TRIALS = 3


def main(model: str, *outs: str) -> None:
    """Run three studies and write down what came of them; in the second one memory runs out, and
    in the third one time, each in the second process only."""
    torch.set_num_threads(1)
    state = accelerate.PartialState(cpu=True)
    real = train.response_nll  # type: ignore[attr-defined]

    def nll(model: torch.nn.Module, batch: train.Any) -> torch.Tensor:  # type: ignore[name-defined]
        if state.process_index == 1 and len(batch.ids) > 1:
            raise torch.OutOfMemoryError("in the second process only")
        return real(model, batch)

    late = 1e-9 if state.process_index == 1 else 1e9
    cases = ((real, None), (nll, None), (real, late))
    for out, (function, seconds) in zip(outs, cases, strict=True):
        train.response_nll = function  # type: ignore[attr-defined]
        study(model, Path(out), state, seconds)


def study(
    model: str, out: Path, state: accelerate.PartialState, trial_timeout: float | None
) -> None:
    """One study, by all processes."""
    objective = LoRAObjective(
        model,
        datasets.Dataset.from_list(rows(60)),
        proxy=0.5,
        device="cpu",
        dtype=torch.float32,
        folder=out.parent / out.stem,
        space={"rank": IntDistribution(1, 8), "batch_size": IntDistribution(3, 7)},
        defaults={"lora_dropout": 0.0, "learning_rate": 5e-3},
        trial_timeout=trial_timeout,
    )
    if state.is_main_process:
        made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        made.optimize(lambda trial: objective(TorchDistributedTrial(trial)), n_trials=N_TRIALS)
        trials = [{"value": t.value, "params": t.params, **t.user_attrs} for t in made.trials]
        out.write_text(json.dumps(trials))
    else:
        for _ in range(N_TRIALS):
            with contextlib.suppress(optuna.TrialPruned):
                objective(TorchDistributedTrial(None))


if __name__ == "__main__":
    main(*sys.argv[1:])
