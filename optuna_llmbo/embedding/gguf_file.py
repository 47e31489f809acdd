"""Dequantize a GGUF file's weights, once, into float32 safetensors."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
import shutil
import tempfile

from optuna_llmbo.errors import InputError


def dequantized(gguf_file: Path, kept: Path) -> Path:
    """Return the folder with a GGUF file's dequantized model and tokenizer, creating it if needed.

    The folder is written under a temporary name and renamed when complete, so two processes may
    do so at once, and a killed one leaves nothing half-written.

    Args:
        gguf_file: the GGUF file of a causal language model.
        kept: parent of such folders; created if needed.

    Raises:
        InputError: if the folder has to be created and the package gguf is not installed.
    """
    with gguf_file.open("rb") as file:  # hashed by content: the path differs between installations
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = kept / f"{gguf_file.stem}-{digest[:32]}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"reading {gguf_file.name} needs the package gguf: `pip install gguf`, or install "
            "this package as optuna-llmbo[gguf]."
        )
    kept.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=kept, prefix="making-"))
    try:
        _dequantize(gguf_file, scratch)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was first; its folder is as good
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _dequantize(gguf_file: Path, folder: Path) -> None:
    import torch
    import transformers

    place, name = str(gguf_file.parent), gguf_file.name
    with torch.device("cpu"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            place, gguf_file=name, dtype=torch.float32
        )
        # The loaded model is marked as quantized and cannot be saved; an unmarked copy can.
        settings = {
            key: value
            for key, value in json.loads(model.config.to_json_string(use_diff=False)).items()
            if key != "quantization_config"
        }
        twin = type(model)(type(model.config).from_dict(settings)).to(torch.float32)
        twin.load_state_dict(model.state_dict())
        twin.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
