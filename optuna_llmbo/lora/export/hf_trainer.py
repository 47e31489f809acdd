"""Arguments of the Trainer of `transformers`, on which TRL, LLaMA-Factory and Unsloth build."""

from __future__ import annotations

from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.yaml_text import Scalar
from optuna_llmbo.lora.train import MAX_GRADIENT_NORM


# Its Adafactor has neither scaled parameters nor relative steps, as in a trial.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "adamw-8bit": "adamw_bnb_8bit",
}
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def arguments(facts: Facts) -> dict[str, Scalar]:
    """By name, what the optimizer and the batches are to be.

    The schedule is a trial's, one step later: where there is a warm-up, the first rate is zero.
    """
    recipe = facts.recipe
    return {
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": facts.per_device_batch_size,
        "gradient_accumulation_steps": facts.accumulation_steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": SCHEDULES[recipe.schedule],
        "warmup_steps": facts.warmup_steps,
        "optim": OPTIMIZERS[recipe.optimizer],
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": MAX_GRADIENT_NORM,
        "bf16": facts.dtype == "bfloat16",
        "seed": facts.seed,
    }


def evaluation(facts: Facts) -> dict[str, Scalar]:
    """By name, when to evaluate; nothing without validation data."""
    if facts.validation is None:
        return {}
    return {"eval_strategy": "epoch", "per_device_eval_batch_size": facts.micro_batch_size}
