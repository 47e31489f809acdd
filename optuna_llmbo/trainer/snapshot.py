"""What a model is like, to be restored after somebody has trained on it."""

from __future__ import annotations

from collections.abc import Iterator
import copy
import itertools
from typing import Any

import torch


_CHUNK = 1 << 22  # elements of a checksum at once


class Snapshot:
    """All that training with an adapter changes in a model, except values of its weights in place.

    Modules that are wrapped or replaced, hooks, forward methods put in the place of others,
    settings such as a dropout set to 0, flags, gradients, the configuration, and weights that are
    replaced by others, moved or cast. `checksums` shows whether weights were changed in place.

    Args:
        model: of `transformers`.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [(module, _copied(vars(module))) for module in model.modules()]
        self._configs = [(config, copy.deepcopy(_own(config))) for config in _configs(model)]
        self._weights = [
            (tensor, tensor.data, tensor.requires_grad) for _, tensor in _tensors(model)
        ]

    def restore(self) -> None:
        """Make the model what it was."""
        for module, attributes in self._modules:
            _restore(vars(module), attributes)
        for config, settings in self._configs:
            nested = {name: value for name, value in vars(config).items() if _is_config(value)}
            vars(config).clear()
            vars(config).update(copy.deepcopy(settings) | nested)
        for tensor, data, flag in self._weights:
            if tensor.data_ptr() != data.data_ptr() or tensor.dtype != data.dtype:
                tensor.data = data
            tensor.requires_grad_(flag)
            tensor.grad = None


def checksums(model: torch.nn.Module) -> dict[str, int]:
    """A number for each weight and buffer of a model, by name, which another value changes."""
    return {name: _checksum(tensor) for name, tensor in _tensors(model)}


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


@torch.no_grad()
def _checksum(tensor: torch.Tensor) -> int:
    """The sum of a tensor's bits, four bytes at a time and each weighted by its place."""
    if tensor.is_meta:
        return 0
    words = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = words.view(torch.int32) if len(words) % 4 == 0 else words.to(torch.int32)
    total = 0
    for start in range(0, len(words), _CHUNK):
        chunk = words[start : start + _CHUNK]
        # odd weights, so that every single bit counts, modulo 2**32
        places = torch.arange(start, start + len(chunk), device=chunk.device, dtype=torch.int64)
        weights = (2 * places + 1).to(torch.int32)
        total += int((chunk * weights).sum(dtype=torch.int64))
    return total


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes with copies of the containers, such as a module's children and hooks."""
    return {name: _copy_of(value) for name, value in attributes.items()}


def _copy_of(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, (dict, list, set)) else value


def _restore(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Make attributes what they were; containers stay the objects that others may hold."""
    for name in now.keys() - before.keys():
        del now[name]
    for name, value in before.items():
        there: Any = now.get(name)
        if isinstance(value, (dict, set)) and type(there) is type(value):
            there.clear()
            there.update(value)
        elif isinstance(value, list) and type(there) is list:
            there[:] = value
        else:
            now[name] = _copy_of(value)


def _configs(model: torch.nn.Module) -> list[Any]:
    """The configurations of a model and of its parts, each once."""
    found: dict[int, Any] = {}
    held = [
        getattr(module, name, None)
        for module in model.modules()
        for name in ("config", "generation_config")
    ]
    while held:
        config = held.pop()
        if _is_config(config) and id(config) not in found:
            found[id(config)] = config
            held.extend(vars(config).values())
    return list(found.values())


def _is_config(value: Any) -> bool:
    from transformers import GenerationConfig
    from transformers import PretrainedConfig

    return isinstance(value, (GenerationConfig, PretrainedConfig))


def _own(config: Any) -> dict[str, Any]:
    """Settings of a configuration, without those of nested ones."""
    return {name: value for name, value in vars(config).items() if not _is_config(value)}
