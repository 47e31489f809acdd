"""Make the CPU tier's model and data from Python's own standard library.

The model is pre-trained on the library's code *without* the docstrings of its functions; LoRA
then teaches it to write them. Rebuild the folder `cpu/` beside this file, in minutes:

    python -m benchmarks.lora_table.base --folder benchmarks/lora_table/cpu
"""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
import platform
import time
from typing import Any

import numpy as np
import pandas
import tokenizers
import torch
import transformers

from benchmarks.provenance import versions
from optuna_llmbo.lora import data
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.stdlib_docstrings import functions_of
from optuna_llmbo.lora.stdlib_docstrings import INSTRUCTION
from optuna_llmbo.lora.stdlib_docstrings import stdlib_docstrings
from optuna_llmbo.lora.stdlib_docstrings import stdlib_sources


FOLDER = Path(__file__).parent / "cpu"

VOCABULARY = 4096
END = "<|endoftext|>"
CONTEXT = 128
BATCH = 32  # sequences of `CONTEXT` tokens
EPOCHS = 2
RATE = 3e-3
HELD_OUT = 64  # sequences

MAX_LENGTH = 64  # tokens per example, so that a run takes seconds
N_VALIDATION = 128

ARCHITECTURE = dict(
    vocab_size=VOCABULARY,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=256,
    tie_word_embeddings=True,
)


def code_without_docstrings(folder: Path | None = None) -> list[str]:
    """Read every module of the standard library, without the docstrings of functions.

    The fine-tuned model has to write these, so the base must not have read them.

    Args:
        folder: folder to read; default: the standard library of the running Python.
    """
    texts = []
    for source, tree in stdlib_sources(folder):
        documented = [f.body[0] for f in functions_of(tree) if ast.get_docstring(f) is not None]
        removed = {
            line for node in documented for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        lines = enumerate(source.splitlines(), 1)
        texts.append("\n".join(line for number, line in lines if number not in removed) + "\n")
    return texts


def make_tokenizer(texts: list[str]) -> Any:
    """Train a byte-level BPE tokenizer on the texts."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END
    )


def pretrain(texts: list[str], tokenizer: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train a small Llama on the texts.

    Returns:
        The model, its weights rounded to float16; and a record with the loss on `HELD_OUT`
        sequences in nats per token.
    """
    torch.manual_seed(seed)  # weights and order
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**ARCHITECTURE, eos_token_id=0, bos_token_id=None)
    )
    sequences = _packed(texts, tokenizer)
    sequences = sequences[torch.randperm(len(sequences))]
    held_out, train = sequences[:HELD_OUT], sequences[HELD_OUT:]
    steps = EPOCHS * len(train) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    order = torch.cat([torch.randperm(len(train)) for _ in range(EPOCHS)])
    started = time.perf_counter()
    for step in range(steps):
        batch = train[order[BATCH * step : BATCH * (step + 1)]]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: {loss.item():.3f} nats per token", flush=True)
    model.half().float().eval()
    with torch.no_grad():
        held_out_loss = model(input_ids=held_out, labels=held_out).loss.item()
    record = {
        "parameters": model.num_parameters(),
        "tokens_per_epoch": train.numel(),
        "steps": steps,
        "seconds": round(time.perf_counter() - started, 1),
        "held_out_loss": held_out_loss,
        "seed": seed,
    }
    return model.half(), record


def make_pairs(tokenizer: Any, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Make training and validation pairs of at most `MAX_LENGTH` tokens: code -> docstring.

    These are the project's "stdlib-docstrings" without the instruction, which a model with a
    single task does not need.
    """
    pairs = [Pair(p.removeprefix(f"{INSTRUCTION}\n\n"), r) for p, r in stdlib_docstrings()]
    kept = {example.record.key for example in tokens.encode(pairs, tokenizer, MAX_LENGTH)}
    usable = [pair for pair in pairs if pair.key in kept]
    return data.split(usable, [pair.key for pair in usable], N_VALIDATION, seed)


def write_pairs(pairs: list[Pair], path: Path) -> None:
    """Write pairs to a Parquet file that `LoRAObjective` reads."""
    columns = {"prompt": [p.prompt for p in pairs], "response": [p.response for p in pairs]}
    pandas.DataFrame(columns).to_parquet(path, index=False, compression="zstd")


def make(folder: Path, seed: int) -> None:
    """Make model and data, and write them with a record of how they were made."""
    texts = code_without_docstrings()
    tokenizer = make_tokenizer(texts)
    train, validation = make_pairs(tokenizer, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(train, folder / "train.parquet")
    write_pairs(validation, folder / "validation.parquet")
    model, record = pretrain(texts, tokenizer, seed)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    record |= {
        "modules": len(texts),
        "characters": sum(map(len, texts)),
        "train_pairs": len(train),
        "validation_pairs": len(validation),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": versions(("torch", "transformers", "tokenizers")),
    }
    (folder / "base.json").write_text(json.dumps(record, indent=1) + "\n")


def _packed(texts: list[str], tokenizer: Any) -> torch.Tensor:
    """Concatenate all texts and cut them into sequences, (n, CONTEXT) int64."""
    ids: list[int] = []
    for text in texts:
        ids += [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    whole = len(ids) // CONTEXT * CONTEXT
    return torch.from_numpy(np.array(ids[:whole])).reshape(-1, CONTEXT)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.seed)
    print((arguments.folder / "base.json").read_text())


if __name__ == "__main__":
    main()
