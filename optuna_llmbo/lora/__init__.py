"""LoRA fine-tuning as an Optuna objective."""

from optuna_llmbo.lora.objective import LoRAObjective as LoRAObjective
from optuna_llmbo.lora.packed.parallel import optimize_packed as optimize_packed
from optuna_llmbo.lora.recipe import default_space as default_space
from optuna_llmbo.lora.recipe import LoRARecipe as LoRARecipe
from optuna_llmbo.lora.run import TrainingProgress as TrainingProgress


__all__ = ["LoRAObjective", "LoRARecipe", "TrainingProgress", "default_space", "optimize_packed"]
