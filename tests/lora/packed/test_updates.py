from __future__ import annotations

from typing import Any

import pytest
import torch

from optuna_llmbo.lora.packed.updates import is_plain
from optuna_llmbo.lora.packed.updates import rank_class
from optuna_llmbo.lora.packed.updates import Updates


N, T, D_IN, D_OUT = 2, 5, 48, 32
RANKS = (3, 8, 1)


@pytest.fixture(autouse=True)
def seeds() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def layer(base: torch.nn.Module, rank: int = 4, **settings: Any) -> Any:
    """peft's layer for a base layer, in float32, with a B that is not zero."""
    import peft

    model = torch.nn.ModuleDict({"one": base})
    config = peft.LoraConfig(
        r=rank, target_modules=["one"], init_lora_weights=False, **{"lora_alpha": 7, **settings}
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float() if "lora" in name else parameter.data
    return model["one"]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_is_what_peft_computes(dtype: torch.dtype, tolerance: float) -> None:
    """Without autocast, as of float32 and float16 models, and with that of bfloat16 models."""
    base = torch.nn.Linear(D_IN, D_OUT).to(dtype).requires_grad_(False)
    layers = [layer(base, rank) for rank in RANKS]
    x = torch.randn(len(RANKS) * N, T, D_IN).to(dtype).requires_grad_()
    away = torch.randn(len(RANKS) * N, T, D_OUT).to(dtype)
    read = [x, *(w for one in layers for w in one.parameters() if w.requires_grad)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        mine = Updates().added(layers, x, base(x))
        theirs = torch.cat([one(part) for one, part in zip(layers, x.split(N), strict=True)])
    assert mine.dtype is theirs.dtype is dtype
    assert len(read) == 1 + 2 * len(RANKS)
    for one, other in zip(
        [mine, *torch.autograd.grad(mine, read, away)],
        [theirs, *torch.autograd.grad(theirs, read, away)],
        strict=True,
    ):
        assert one.dtype is other.dtype
        assert (one - other).norm() <= tolerance * other.norm()


def test_the_scaling_is_not_rounded_to_the_models_dtype() -> None:
    base = torch.nn.Linear(256, 256, bias=False).bfloat16().requires_grad_(False)
    base.weight.zero_()
    layers = [layer(base, 4, lora_alpha=4 * 1.003), layer(base, 4, lora_alpha=4 * 1.003)]
    x = torch.randn(2 * N, 64, 256).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        mine = Updates().added(layers, x, base(x)).double()
        theirs = torch.cat([one(part) for one, part in zip(layers, x.split(N), strict=True)])
    ratio = (mine * theirs).sum() / theirs.double().square().sum()
    assert float(ratio) == pytest.approx(1.0, abs=5e-4)  # 1.003 is 1.0 in bfloat16


def test_which_layers_are_plain() -> None:
    from transformers.pytorch_utils import Conv1D

    assert is_plain(layer(torch.nn.Linear(D_IN, D_OUT), lora_dropout=0.1, use_rslora=True))
    assert is_plain(layer(Conv1D(D_OUT, D_IN), fan_in_fan_out=True))
    assert not is_plain(layer(torch.nn.Linear(D_IN, D_OUT), use_dora=True))
    assert not is_plain(layer(torch.nn.Linear(D_IN, D_OUT), lora_bias=True))
    assert not is_plain(layer(torch.nn.Embedding(D_IN, D_OUT)))


def test_at_most_half_of_a_wide_product_is_padding() -> None:
    assert len({rank_class(rank) for rank in range(1, 33)}) == 1
    for rank in range(33, 300):
        together = [other for other in range(1, 300) if rank_class(other) == rank_class(rank)]
        assert max(together) < 2 * min(together)
