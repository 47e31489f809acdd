"""Cut a frozen language model off at a layer, and name the ways to pool its states."""

from __future__ import annotations

import copy
from itertools import chain
import numbers
from typing import Any
from typing import Literal

import torch
from torch import Tensor

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError


Pooling = Literal["last", "mean", "both"]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "both")
"""The learnable token's state, the mean over the assignment's tokens, or both concatenated."""


def embedding_width(d_model: int, pooling: Pooling) -> int:
    """Return the width of the embedding that a pooling makes of states of width `d_model`."""
    return 2 * d_model if pooling == "both" else d_model


class Body:
    """A language model cut off above one layer; the weights are shared, not copied.

    The layers above are not run. The model itself is unchanged.

    Args:
        llm: the frozen model.
        layer: layer whose states are returned, counted from 1; None for the last, whose states
            pass through the model's final normalization. Other layers' states are returned as is.
        attention: name of an attention function registered with transformers; None for the
            model's own.

    Raises:
        InputError: if the model has no such layer.
    """

    def __init__(
        self, llm: LanguageModel, layer: int | None, attention: str | None = None
    ) -> None:
        last = n_layers(llm)
        layer = checked_layer(layer, llm) if layer is not None else last
        body = llm.body
        weights = {id(w): w for w in chain(body.parameters(), body.buffers())}
        self._twin = copy.deepcopy(body, weights)
        self._taken: Tensor | None = None
        self._takes_inner = layer < last
        if self._takes_inner:
            layers = _layers(self._twin)
            if layers is None:
                raise InputError(
                    f"the layers of {llm.source} cannot be found: leave out layer={layer}, or "
                    "choose another model."
                )
            del layers[layer:]
            layers[-1].register_forward_hook(self._take)
        if attention is not None:
            self._twin.set_attn_implementation(attention)
        self._embedding = self._twin.get_input_embeddings()
        self.device = llm.device
        self.dtype = llm.dtype
        self.d_model = llm.d_model

    def embed_tokens(self, token_ids: Any) -> Tensor:
        """Look up the model's input embeddings, (..., d_model)."""
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self.device)
        embedded: Tensor = self._embedding(ids)
        return embedded

    def __call__(self, inputs: Tensor, **options: Any) -> Tensor:
        """Run the layers.

        Args:
            inputs: (batch, t, d_model) embedded tokens.
            **options: further arguments of the model's `forward`.

        Returns:
            (batch, t, d_model) states of the chosen layer.
        """
        output = self._twin(inputs_embeds=inputs, use_cache=False, **options)
        if not self._takes_inner:
            states: Tensor = output.last_hidden_state
            return states
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken

    def _take(self, module: Any, inputs: Any, output: Any) -> None:
        self._taken = output[0] if isinstance(output, tuple) else output


def early_layer(llm: LanguageModel) -> int | None:
    """Return the last layer of the first quarter; None where the layers cannot be found.

    Measured: its states predict as well as the last layer's (docs/benchmarks/race.md), for a
    quarter of the work.
    """
    return max(1, n_layers(llm) // 4) if _layers(llm.body) is not None else None


def n_layers(llm: LanguageModel) -> int:
    """Return the number of layers."""
    return int(llm.body.config.num_hidden_layers)


def checked_layer(layer: int, llm: LanguageModel) -> int:
    """Return the layer, counted from 1; raise InputError if the model does not have it."""
    n = n_layers(llm)
    if not isinstance(layer, numbers.Integral) or not 1 <= layer <= n:
        raise InputError(
            f"layer must be an integer from 1 to {n}, the number of layers of {llm.source}, "
            f"or None for the last; got {layer!r}."
        )
    return int(layer)


def _layers(body: Any) -> Any:
    """Find the list of layers, whatever the architecture calls it; None if there is none."""
    n = body.config.num_hidden_layers
    lists = (m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)
    return next(lists, None)
