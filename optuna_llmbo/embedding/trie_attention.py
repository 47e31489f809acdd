"""Attention in which each position attends to the passage and its own ancestors only.

transformers lets a registered function replace a model's attention (`AttentionInterface`). The
data that the function needs for one forward pass are handed on as the keyword argument `trie_pass`
of the model. Queries are grouped into blocks of neighbours that share a list of keys, so the cost
stays near-linear in the number of positions.

Shapes: L layers, h key-value heads, w head width, t0 positions of the passage.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
import torch.nn.functional as F

from optuna_llmbo.embedding.trie import Layout


_NAME = "optuna_llmbo_trie"


def register_trie_attention() -> str:
    """Register the attention function with transformers and return its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    return _NAME


class TriePass:
    """Inputs of the attention function for one forward pass, and the keys and values it collects.

    Args:
        layout: which positions attend to which.
        passage: (L, 2, h, t0, w) keys and values, or None.
        past: (L, 2, h, k, w) keys and values, or None.
        keep: collect the own keys and values, for `keys_and_values`.
        device: device of all of these.
    """

    def __init__(
        self,
        layout: Layout,
        passage: Tensor | None,
        past: Tensor | None,
        *,
        keep: bool,
        device: torch.device,
    ) -> None:
        self._layout = layout
        self._passage = passage
        self._past = past
        n_past = past.shape[-2] if past is not None else 0
        self._looks_at_own = bool(layout.nodes.size and layout.nodes.max() >= n_past)
        self._keep = keep
        self._own: list[Tensor] = []
        self._nodes = torch.from_numpy(layout.nodes.ravel()).to(device)
        self._biases: dict[tuple[int, int | None], Tensor] = {}

    def keys_and_values(self) -> Tensor:
        """Return the own keys and values, (L, 2, h, own, w); empty if they were not kept."""
        if self._keep and not self._own:
            raise NotImplementedError("attention outside of transformers' AttentionInterface")
        return torch.stack(self._own) if self._own else torch.empty(0)

    def attend(
        self, query: Tensor, kv: Tensor, layer: int, scale: float | None, window: int | None
    ) -> Tensor:
        """Compute the attention of the own positions in one layer.

        Args:
            query: (g * h, t, w), g query heads to each key-value head.
            kv: (2, h, t, w) own keys and values.
            layer: index of the layer.
            scale: scale of the scores.
            window: positions that a query attends to, itself included; None for all.

        Returns:
            (g * h, t, w)
        """
        if self._keep:
            self._own.append(kv)
        blocks, block = self._layout.visible.shape[:2]
        heads, t, width = kv.shape[1:]
        groups = query.shape[0] // heads
        padding = (0, 0, 0, blocks * block - t)
        keys, values = self._seen_by_blocks(kv, F.pad(kv, padding), layer)
        query = F.pad(query, padding).view(heads, groups, blocks, block, width)
        attended = F.scaled_dot_product_attention(
            query.permute(2, 0, 1, 3, 4).reshape(blocks, heads, groups * block, width),
            keys,
            values,
            attn_mask=self._bias(groups, window, query),
            scale=scale,
        )
        attended = attended.view(blocks, heads, groups, block, width).permute(1, 2, 0, 3, 4)
        return attended.reshape(heads * groups, blocks * block, width)[:, :t]

    def _seen_by_blocks(self, own: Tensor, padded: Tensor, layer: int) -> Tensor:
        """Gather the keys and values of each block, (2, blocks, h, t0 + k + block, w)."""
        _, heads, _, width = own.shape
        blocks, block, n_keys = self._layout.visible.shape
        k = self._layout.nodes.shape[1]
        seen = own.new_empty(2, blocks, heads, n_keys, width)
        t0 = n_keys - k - block
        if self._passage is not None:
            seen[..., :t0, :] = self._passage[layer][:, None]
        if k:
            nodes = [self._past[layer]] if self._past is not None else []
            all_nodes = torch.cat([*nodes, own], dim=-2) if self._looks_at_own else nodes[0]
            outside = all_nodes.index_select(-2, self._nodes).view(2, heads, blocks, k, width)
            seen[..., t0 : t0 + k, :] = outside.transpose(1, 2)
        seen[..., t0 + k :, :] = padded.view(2, heads, blocks, block, width).transpose(1, 2)
        return seen

    def _bias(self, groups: int, window: int | None, like: Tensor) -> Tensor:
        """Return (blocks, 1, groups * block, keys): 0 where a query may attend, -inf elsewhere."""
        if (groups, window) not in self._biases:
            layout = self._layout
            visible = layout.visible
            if window is not None:
                queries = layout.query_positions[:, :, None]
                visible = visible & (queries - layout.key_positions[:, None, :] < window)
            hidden = torch.from_numpy(~visible).to(like.device)
            bias = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            bias.masked_fill_(hidden, -torch.inf)
            self._biases[groups, window] = bias[:, None].repeat(1, 1, groups, 1)
        return self._biases[groups, window]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trie_pass: TriePass,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend, called by transformers in each layer; shapes as in its own attention functions.

    Raises:
        NotImplementedError: for attention other than plain scaled dot products.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    kv = torch.stack([key[0], value[0]])
    attended = trie_pass.attend(query[0], kv, module.layer_idx, scaling, sliding_window)
    return attended.transpose(0, 1)[None], None
