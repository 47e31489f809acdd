from __future__ import annotations

import torch

from optuna_llmbo.lora.seeds import seeded
from optuna_llmbo.lora.seeds import Stream


def test_a_stream_draws_as_seeded_does_whatever_lies_between() -> None:
    device = torch.device("cpu")
    with seeded(device, 3, 1):
        expected = torch.rand(6)
    stream, drawn = Stream(device, 3, 1), []
    for _ in range(3):
        with stream.drawn():
            drawn.append(torch.rand(2))
        torch.rand(5)
    assert torch.equal(torch.cat(drawn), expected)
