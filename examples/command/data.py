"""Make a folder to train in: a small real model, and data as several tools want it.

The data are functions of Python's standard library with the first paragraphs of their docstrings,
short ones, so that a run takes seconds on a CPU. No example is in two files.

    FOLDER/model           SmolLM2-135M-Instruct, or what --model names: a link to its folder
    FOLDER/alpaca          instruction, input, output: train, validation, test (.jsonl), and
                           dataset_info.json, in which LLaMA-Factory looks data up
    FOLDER/chat            prompt and completion, lists of messages: for TRL and transformers

    python -m examples.command.data work
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import random
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora.stdlib_docstrings import INSTRUCTION
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings


PARTS = {"train": 128, "validation": 20, "test": 96}
Pair = tuple[str, str]


def model_folder(model: str) -> Path:
    """Find the folder of a model, as others read it; a GGUF file is written out first."""
    source = resolve_source(model)
    if source.kind == "folder":
        return Path(source.location).resolve()
    if source.kind == "hub":
        return Path(snapshot_download(source.location))
    return Path(load_model(source, device="cpu").model.name_or_path).resolve()


def short_pairs(tokenizer: Any, longest: int, seed: int) -> list[Pair]:
    """Shuffle the documented functions that have at most so many tokens with their docstrings."""
    pairs = [
        (prompt.removeprefix(INSTRUCTION).strip(), response)
        for prompt, response in stdlib_docstrings()
        if len(tokenizer(prompt + response).input_ids) <= longest
    ]
    random.Random(seed).shuffle(pairs)
    return pairs


def as_alpaca(pair: Pair) -> dict[str, Any]:
    """Write an example with the columns of Alpaca."""
    code, docstring = pair
    return {"instruction": INSTRUCTION, "input": code, "output": docstring}


def as_chat(pair: Pair) -> dict[str, Any]:
    """Write an example as TRL's prompt and completion, both lists of messages.

    The texts are those that LLaMA-Factory makes of the Alpaca columns.
    """
    code, docstring = pair
    return {
        "prompt": [{"role": "user", "content": f"{INSTRUCTION}\n{code}"}],
        "completion": [{"role": "assistant", "content": docstring}],
    }


def write(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write both kinds of data, and where LLaMA-Factory finds its own."""
    alpaca, chat = folder / "alpaca", folder / "chat"
    alpaca.mkdir(parents=True, exist_ok=True)
    chat.mkdir(exist_ok=True)
    begin = 0
    for part, n in PARTS.items():
        rows = pairs[begin : begin + n]
        begin += n
        _write_lines(alpaca / f"{part}.jsonl", [as_alpaca(pair) for pair in rows])
        _write_lines(chat / f"{part}.jsonl", [as_chat(pair) for pair in rows])
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    info = {part: {"file_name": f"{part}.jsonl", "columns": columns} for part in PARTS}
    (alpaca / "dataset_info.json").write_text(json.dumps(info, indent=1) + "\n")


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="embedded", help="as LoRAObjective takes it")
    parser.add_argument("--longest", type=int, default=48, help="tokens of an example")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = model_folder(given.model)
    pairs = short_pairs(AutoTokenizer.from_pretrained(model), given.longest, given.seed)
    write(given.folder, pairs)
    link = given.folder / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(model, target_is_directory=True)


if __name__ == "__main__":
    main()
