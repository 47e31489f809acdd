"""What an adapter's folder says of its base model, for whoever loads it later and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Base:
    """The base model of adapters, as others find it."""

    location: str
    """What `from_pretrained` takes: a hub id, or the absolute path of a folder."""
    name: str
    """A hub id, or the name of a folder or file."""
    tokenizer: Any
    gguf: str | None = None
    """Absolute path of the GGUF file whose dequantized weights lie at `location`."""
    quantization: str | None = None
    """"4bit" or "8bit" weights while the adapter was trained; None: as at `location`."""


def front_matter(base: Base) -> str:
    """Lines at the start of a model card, which model hubs read."""
    return f"---\nbase_model: {base.location}\nlibrary_name: peft\ntags: [lora, optuna]\n---\n"


def how_to_load(base: Base) -> str:
    """A section in Markdown: how to load the adapter with its base model."""
    notes = []
    if base.gguf is not None:
        notes.append(
            f"`base_model_name_or_path` is a dequantized copy of the GGUF file `{base.gguf}` in "
            "the cache of optuna-llmbo. Where it is missing (`optuna-llmbo clear-cache` removes "
            "it), any command of optuna-llmbo with this model makes it again; or give peft the "
            "model that `from_pretrained(folder, gguf_file=...)` of transformers returns."
        )
    elif base.location != base.name:
        notes.append(
            "`base_model_name_or_path` in `adapter_config.json` is a folder of the machine that "
            "trained the adapter: change it where the base model lies elsewhere."
        )
    if base.quantization is not None:
        notes.append(
            f"The base model had {base.quantization} weights in training; with unquantized ones "
            "the adapter's outputs differ a little."
        )
    text = "\n\n".join(notes)
    return f"""## How to load it

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = "path of this folder"
model = AutoPeftModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```
{f"{chr(10)}{text}{chr(10)}" if text else ""}"""


def short_card(base: Base) -> str:
    """The card of an adapter of which nothing more is to be said than how to load it."""
    title = f"# LoRA adapter for {base.name}"
    return f"{front_matter(base)}\n{title}\n\n{how_to_load(base)}"


def front_matter_of_whole(base: Base) -> str:
    """As `front_matter`, of a model that needs no adapter."""
    return (
        f"---\nbase_model: {base.location}\nbase_model_relation: finetune\n"
        "library_name: transformers\npipeline_tag: text-generation\ntags: [lora, optuna]\n---\n"
    )


def how_to_load_whole(base: Base) -> str:
    """A section in Markdown: how to load a model that needs no adapter."""
    text = ""
    if base.quantization is not None:
        text = (
            f"\nThe adapter was trained on {base.quantization} weights, and is merged into the "
            "base model's weights as they\nwere before quantization: the outputs differ a little "
            "from those in training, beyond the difference given above.\n"
        )
    return f"""## How to load it

```python
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

folder = "path of this folder"
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(folder)
```
{text}"""
