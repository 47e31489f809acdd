"""The packs know the names that fine-tuning tools give their hyperparameters."""

from __future__ import annotations

import pytest

from optuna_llmbo.knowledge import load_knowledge


TOOLS = {
    "LLaMA-Factory": (
        "lora_rank lora_alpha lora_dropout lora_target learning_rate per_device_train_batch_size "
        "gradient_accumulation_steps num_train_epochs lr_scheduler_type warmup_ratio "
        "loraplus_lr_ratio use_rslora use_dora pissa_init max_grad_norm cutoff_len optim"
    ),
    "Axolotl": (
        "lora_r lora_alpha lora_dropout lora_target_linear lora_target_modules micro_batch_size "
        "gradient_accumulation_steps num_epochs optimizer lr_scheduler learning_rate warmup_steps "
        "weight_decay peft_use_rslora peft_use_dora sequence_len cosine_min_lr_ratio"
    ),
    "TRL": (
        "lora_r lora_alpha lora_dropout lora_target_modules learning_rate use_rslora use_dora "
        "per_device_train_batch_size warmup_steps lr_scheduler_type max_length"
    ),
    "torchtune": (
        "model.lora_rank model.lora_alpha model.lora_dropout optimizer.lr optimizer.weight_decay "
        "batch_size lr_scheduler.num_warmup_steps gradient_accumulation_steps epochs"
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_names_of_a_tool(tool: str) -> None:
    names = TOOLS[tool].split()
    knowledge = load_knowledge("auto", {"method": "lora"}).relevant(names)
    assert [pack.name for pack in knowledge.packs] == ["lora", "training"]
    assert [name for name in names if knowledge.canonical(name) is None] == []
    rank = next(name for name in names if name.endswith(("lora_rank", "lora_r")))
    assert knowledge.canonical(rank) == "rank"
    assert knowledge.canonical("alpha_ratio") == "alpha_ratio"
