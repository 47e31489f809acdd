"""peft: `adapter_config.json`, for `peft.LoraConfig.from_pretrained(folder)`.

It holds the adapter and nothing of how it is trained: no learning rate, batch or optimizer.
"""

from __future__ import annotations

import json

from optuna_llmbo.lora.export.facts import adapter_arguments
from optuna_llmbo.lora.export.facts import Facts


def files(facts: Facts) -> dict[str, str]:
    """The files by name. peft can express every recipe's adapter, whatever its alpha."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": facts.model,
        **adapter_arguments(facts),
    }
    return {"adapter_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
