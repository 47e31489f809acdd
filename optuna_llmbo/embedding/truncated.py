"""A frozen language model up to the layer that is read, and how its states become one vector."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any
from typing import Literal

import torch
from torch import Tensor

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError


Pooling = Literal["last", "mean", "both"]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "both")
"""The learnable token's state, the mean over the assignment's tokens, or one after the other."""


def embedding_width(d_model: int, pooling: Pooling) -> int:
    """Width of what a pooling makes of states of width `d_model`."""
    return 2 * d_model if pooling == "both" else d_model


class Body:
    """The layers of a language model up to one of them; the weights are shared, not copied.

    Layers above the one that is read are not run. The model itself stays as it is.

    Args:
        llm: the frozen model.
        layer: which layer's states are read, counted from 1; None for the last, whose states go
            through the model's final normalization. Others are taken as they leave the layer.
        attention: name of an attention function registered with transformers; None for the
            model's own.

    Raises:
        InputError: if there is no such layer.
    """

    def __init__(
        self, llm: LanguageModel, layer: int | None, attention: str | None = None
    ) -> None:
        last = n_layers(llm)
        layer = _checked(layer, llm) if layer is not None else last
        body = llm.body
        weights = {id(w): w for w in chain(body.parameters(), body.buffers())}
        self._twin = copy.deepcopy(body, weights)
        self._taken: Tensor | None = None
        self._takes_inner = layer < last
        if self._takes_inner:
            layers = _layers(self._twin)
            if layers is None:
                raise InputError(
                    f"the layers of {llm.source} cannot be told apart: leave out layer={layer}, "
                    "or choose another model."
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
        """The model's input for some tokens, (..., d_model)."""
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self.device)
        embedded: Tensor = self._embedding(ids)
        return embedded

    def __call__(self, inputs: Tensor, **options: Any) -> Tensor:
        """Run the layers.

        Args:
            inputs: (batch, t, d_model) embedded tokens.
            **options: what else the model's forward takes.

        Returns:
            (batch, t, d_model) states of the layer that is read.
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
    """The last layer of the first quarter; None where the layers cannot be told apart.

    Measured: its states predict as well as the last layer's (docs/benchmarks/race.md), for a
    quarter of the work.
    """
    return max(1, n_layers(llm) // 4) if _layers(llm.body) is not None else None


def n_layers(llm: LanguageModel) -> int:
    """How many layers the model has."""
    return int(llm.body.config.num_hidden_layers)


def _checked(layer: int, llm: LanguageModel) -> int:
    n = n_layers(llm)
    if not isinstance(layer, int) or not 1 <= layer <= n:
        raise InputError(
            f"layer must be an integer from 1 to {n}, the number of layers of {llm.source}, "
            f"or None for the last; got {layer!r}."
        )
    return layer


def _layers(body: Any) -> Any:
    """The list that holds the layers, whatever the architecture calls it; None without one."""
    n = body.config.num_hidden_layers
    lists = (m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)
    return next(lists, None)
