"""The loss of a model on response tokens."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from optuna_llmbo.lora.tokens import Batch
from optuna_llmbo.lora.tokens import by_length
from optuna_llmbo.lora.tokens import collate
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import IGNORED


def validation_loss(model: Any, examples: Sequence[Example], *, batch_size: int = 8) -> float:
    """Mean negative log likelihood of the response tokens, in nats per token.

    Args:
        model: a causal language model of `transformers`; left in evaluation mode.
        examples: each is weighted by its number of response tokens.
        batch_size: examples per forward pass; it does not change the result.

    Returns:
        The loss, which is not finite if the model's outputs are not.
    """
    model.eval()
    total = 0.0
    with torch.no_grad():
        for group in by_length(examples, batch_size):
            total += float(response_nll(model, collate(group, device_of(model))))
    return total / sum(example.n_response for example in examples)


def response_nll(model: Any, batch: Batch) -> torch.Tensor:
    """Summed negative log likelihood of a batch's response tokens, in nats.

    The vocabulary projection is computed only at positions that predict a response token.
    The softmax is float32; see `autocast` for the rest.

    Returns:
        () float32, differentiable.
    """
    logits, labels = _response_logits(model, batch)
    return cross_entropy(logits.float(), labels, reduction="sum")


def response_log_likelihoods(model: Any, batch: Batch) -> torch.Tensor:
    """Log likelihood of each example's response, its end included, in nats.

    Returns:
        (n,) float32, differentiable.
    """
    logits, labels = _response_logits(model, batch)
    losses = cross_entropy(logits.float(), labels, reduction="none")
    rows = (batch.labels != IGNORED).nonzero()[:, 0]
    return -losses.new_zeros(len(batch.ids)).index_add(0, rows, losses)


def response_nll_by_part(model: Any, batch: Batch, sizes: Sequence[int]) -> torch.Tensor:
    """`response_nll` of each part of a batch, in one forward pass.

    Args:
        model: a causal language model of `transformers`.
        batch: of n rows.
        sizes: rows of each of k parts, one after the other; their sum is n.

    Returns:
        (k,) float32, differentiable.
    """
    logits, labels = _response_logits(model, batch)
    wanted = batch.labels != IGNORED
    tokens = torch.stack([part.sum() for part in wanted.split(list(sizes))]).tolist()
    parts = zip(logits.split(tokens), labels.split(tokens), strict=True)
    return torch.stack([cross_entropy(x.float(), y, reduction="sum") for x, y in parts])


def autocast(model: Any) -> torch.autocast:
    """Context in which a bfloat16 model multiplies in bfloat16, adapters included."""
    half = model.dtype is torch.bfloat16
    return torch.autocast(device_of(model).type, dtype=torch.bfloat16, enabled=half)


def device_of(model: Any) -> torch.device:
    """Device of the model's weights."""
    device: torch.device = next(model.parameters()).device
    return device


def _response_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(k, vocabulary) logits that predict response tokens, row by row, and those (k,) tokens."""
    wanted = batch.labels != IGNORED
    with _head_reads_only(model, wanted), autocast(model):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
    if logits.dim() == 3:  # this model computes its logits without its output embeddings
        logits = logits[wanted]
    return logits, batch.labels[wanted]


@contextlib.contextmanager
def _head_reads_only(model: Any, wanted: torch.Tensor) -> Iterator[None]:
    """Pass only the hidden states at `wanted` (n, t) to the vocabulary projection.

    A response is at most about a third of an example, and the projection of a small model is a
    fifth of its arithmetic and most of its memory. What the model does with its logits afterwards
    (scaling, capping) is elementwise and unaffected.
    """

    def select(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *rest = inputs
        return (hidden[wanted], *rest) if hidden.shape[:2] == wanted.shape else inputs

    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
