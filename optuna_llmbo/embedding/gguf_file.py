"""A GGUF file's weights, dequantized once and kept as float32 safetensors."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
import shutil
import tempfile

from optuna_llmbo.errors import InputError


def dequantized(gguf_file: Path, kept: Path) -> Path:
    """The folder with a GGUF file's model and tokenizer, made if it is not there.

    It is written beside its final place and moved there whole, so that two processes may do it
    at once and a killed one leaves nothing half-written behind.

    Args:
        gguf_file: of a causal language model.
        kept: where such folders are kept; made if it is not there.

    Raises:
        InputError: if the folder is not there and the package gguf is not installed.
    """
    with gguf_file.open("rb") as file:  # by content: each installation has its own file
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
        if not folder.is_dir():  # another process was first: its folder serves as well
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
        # The loaded model calls itself quantized and refuses to be saved; its twin does not.
        settings = {
            key: value
            for key, value in json.loads(model.config.to_json_string(use_diff=False)).items()
            if key != "quantization_config"
        }
        twin = type(model)(type(model.config).from_dict(settings)).to(torch.float32)
        twin.load_state_dict(model.state_dict())
        twin.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
