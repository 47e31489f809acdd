"""Arguments of the Trainer of `transformers`, on which TRL, LLaMA-Factory and Unsloth build."""

from __future__ import annotations

from optuna_llmbo.lora.export.facts import Facts
from optuna_llmbo.lora.export.facts import largest_divisor
from optuna_llmbo.lora.export.facts import trainer_warmup_steps
from optuna_llmbo.lora.export.yaml_text import Scalar
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.train import MAX_GRADIENT_NORM


# Its Adafactor has neither scaled parameters nor relative steps, as in a trial.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "adamw-8bit": "adamw_bnb_8bit",
}
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def arguments(facts: Facts) -> dict[str, Scalar]:
    """By name, what the optimizer and the batches are to be."""
    values = of_recipe(facts.recipe, facts.n_examples, facts.micro_batch_size)
    return {**values, "bf16": facts.dtype == "bfloat16", "seed": facts.seed}


def of_recipe(recipe: LoRARecipe, n_examples: int, at_once: int) -> dict[str, Scalar]:
    """By name, what the arguments have of a recipe.

    The schedule is a trial's, one step later: where there is a warm-up, the first rate is zero.

    Args:
        recipe: its rate for B is not expressible, and left out.
        n_examples: of an epoch, which determines the length of the warm-up.
        at_once: maximum number of examples in memory.
    """
    per_device = largest_divisor(recipe.batch_size, at_once)
    return {
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": recipe.batch_size // per_device,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": SCHEDULES[recipe.schedule],
        "warmup_steps": trainer_warmup_steps(recipe, n_examples),
        "optim": OPTIMIZERS[recipe.optimizer],
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": MAX_GRADIENT_NORM,
    }


def evaluation(facts: Facts) -> dict[str, Scalar]:
    """By name, when to evaluate; nothing without validation data."""
    if facts.validation is None:
        return {}
    return {"eval_strategy": "epoch", "per_device_eval_batch_size": facts.micro_batch_size}
