"""The updates of several plain LoRA layers at once, in batched matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


NARROW = 32
"""Ranks up to this are padded to one another: on a GPU narrower products are not faster."""


def is_plain(layer: Any) -> bool:
    """Whether a layer of peft adds B A dropout(x) times its scaling and nothing else."""
    from peft.tuners.lora.layer import Linear

    return type(layer) is Linear and not layer.lora_variant and not any(layer.lora_bias.values())


def rank_class(rank: int) -> int:
    """Equal for ranks that are computed together: all up to `NARROW`, then within twofold.

    So at most half of a wider product is padding.
    """
    return (max(rank, NARROW) - 1).bit_length()


class Updates:
    """Adds the updates of plain layers, as peft does up to the rounding of sums.

    The factors are stacked, those of lower rank padded with zeros, so that k layers take hardly
    more operations than one. Not one product over the concatenated ranks instead, as that one
    would multiply every row with the factors of all k adapters.

    Keeps the constants that these products need: use one for each pass.
    """

    def __init__(self) -> None:
        self._scales: dict[tuple[float, ...], torch.Tensor] = {}
        self._zeros: dict[tuple[int, int], torch.Tensor] = {}

    def added(self, layers: Sequence[Any], x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output of a base layer with the update of each layer on its own rows.

        Args:
            layers: k plain layers of peft (`is_plain`) on the same base layer.
            x: (k * n, t, d_in) input, after dropout; n consecutive rows for each layer.
            output: (k * n, t, d_out) of the base layer.

        Returns:
            (k * n, t, d_out), of the dtype of `output`.
        """
        k = len(layers)
        a = [layer.lora_A["default"].weight for layer in layers]
        b = [layer.lora_B["default"].weight for layer in layers]
        rank = max(map(len, a))
        down = self._side_by_side(a, rank, 0).view(k, rank, -1)
        up = self._side_by_side(b, rank, 1).view(-1, k, rank)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(down.dtype)
        hidden = torch.bmm(x.reshape(k, -1, x.shape[-1]), down.transpose(1, 2))
        update = torch.bmm(hidden * self._scale(layers, down), up.permute(1, 2, 0))
        return (output + update.view(output.shape)).to(output.dtype)

    def _side_by_side(self, factors: Sequence[torch.Tensor], rank: int, dim: int) -> torch.Tensor:
        """Factors concatenated along their rank `dim`, each padded with zeros to `rank`."""
        pieces = []
        for factor in factors:
            pieces.append(factor)
            if factor.shape[dim] < rank:
                missing, width = rank - factor.shape[dim], factor.shape[1 - dim]
                shape = (missing, width) if dim == 0 else (width, missing)
                if shape not in self._zeros:
                    self._zeros[shape] = factor.new_zeros(shape)
                pieces.append(self._zeros[shape])
        return torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0]

    def _scale(self, layers: Sequence[Any], like: torch.Tensor) -> torch.Tensor:
        """(k, 1, 1) scaling of each layer, in the adapters' dtype: bfloat16 would change it."""
        values = tuple(layer.scaling["default"] for layer in layers)
        if values not in self._scales:
            self._scales[values] = like.new_tensor(values).view(-1, 1, 1)
        return self._scales[values]
