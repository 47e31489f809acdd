"""Default configurations of tools and papers, for models of up to 7B parameters.

Where a tool sets no learning rate or batch size, those of `transformers.TrainingArguments`, on
which it is built, apply.
"""

from __future__ import annotations

from typing import Any

from benchmarks.lora_table.tables import PARAMS


def _configuration(*values: int | float) -> dict[str, Any]:
    return dict(zip(PARAMS, values, strict=True))


DEFAULTS: dict[str, dict[str, Any]] = {
    # peft.LoraConfig: r 8, lora_alpha 8, lora_dropout 0; TrainingArguments: 5e-5, batch 8.
    "peft": _configuration(8, 1.0, 0.0, 8, 5e-5),
    # examples/train_lora/llama3_lora_sft.yaml; lora_alpha is twice the rank where it is not set.
    "LLaMA-Factory": _configuration(8, 2.0, 0.0, 8, 1e-4),
    # examples/llama-3/lora-8b.yml: r 32, alpha 16, 2 examples times 4 accumulations.
    "Axolotl": _configuration(32, 0.5, 0.05, 8, 2e-4),
    # The notebooks: r 16, alpha 16, 2 examples times 4 accumulations.
    "Unsloth": _configuration(16, 1.0, 0.0, 8, 2e-4),
    # Hu et al. 2021, arXiv:2106.09685, GPT-2 on E2E (table 11): r 4, alpha 32.
    "LoRA paper": _configuration(4, 8.0, 0.1, 8, 2e-4),
    # Dettmers et al. 2023, arXiv:2305.14314, 7B (appendix B): r 64, alpha 16.
    "QLoRA paper": _configuration(64, 0.25, 0.1, 16, 2e-4),
    # `LoRAObjective.default_params`.
    "optuna-llmbo": _configuration(16, 2.0, 0.05, 16, 2e-4),
}
