"""A shared base model is the same after a training, however that ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.trainer.shared_base import SharedBase
from optuna_llmbo.trainer.snapshot import checksums
from tests.trainer.conftest import tiny_model


def seen(model: Any) -> dict[str, Any]:
    """All that a trial could leave behind: weights, structure, flags, hooks, settings."""
    return {
        "weights": {
            n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]
        },
        "modules": [(n, id(m), type(m), sorted(vars(m))) for n, m in model.named_modules()],
        "flags": [(n, p.requires_grad, p.grad, p.dtype) for n, p in model.named_parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.pop("weights").items():
        assert torch.equal(weight, other["weights"][name]), name
    other.pop("weights")
    assert one == other


def with_lora(model: Any, **more: Any) -> Any:
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", **more))


def attach(model: Any) -> None:
    wrapped = with_lora(model)
    wrapped.train()
    wrapped.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.forward = lambda *args, **kwargs: None
    model.config.use_cache, model.config.pad_token_id = False, 3
    model.generation_config.eos_token_id = [1, 2]
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = torch.ones_like(parameter)


def add_tokens(model: Any) -> None:
    model.resize_token_embeddings(300)


def start_at_the_weights(model: Any) -> None:
    with_lora(model, init_lora_weights="pissa_niter_4")


def cast(model: Any) -> None:
    model.to(torch.bfloat16)


@pytest.mark.parametrize("change", [attach, add_tokens, start_at_the_weights, cast])
@pytest.mark.parametrize("crashes", [False, True])
def test_all_traces_are_removed(
    change: Callable[[Any], None], crashes: bool, chat_llm: Path
) -> None:
    base = SharedBase(lambda: tiny_model(chat_llm))
    model, _ = base.there
    before = seen(model)
    try:
        with base.lent() as loan:
            assert loan.model is model
            change(loan.model)
            if crashes:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert crashes
    assert base.there[0] is model  # not loaded again
    assert_same(seen(model), before)


def test_weights_that_were_trained_are_loaded_again(chat_llm: Path) -> None:
    base = SharedBase(lambda: tiny_model(chat_llm))
    first = base.there[0]
    before = seen(first)["weights"]
    with base.lent() as loan, torch.no_grad():
        # without a trace in the version counter, as peft merges
        loan.model.lm_head.weight.data[0, 0] += 1e-7
    second = base.there[0]
    assert second is not first
    for name, weight in seen(second)["weights"].items():
        assert torch.equal(weight, before[name])


def test_nothing_is_loaded_that_is_not_used(chat_llm: Path) -> None:
    loads = []

    def load() -> tuple[Any, Any]:
        loads.append(1)
        return tiny_model(chat_llm)

    base = SharedBase(load)
    with base.lent():
        pass
    assert not loads
    for _ in range(2):
        with base.lent() as loan:
            assert loan.tokenizer is not base.there[1]  # a copy
    assert len(loads) == 1


def test_no_base_to_share() -> None:
    with SharedBase(None).lent() as loan, pytest.raises(InputError, match="no shared base model"):
        _ = loan.model


def test_a_loan_ends(chat_llm: Path) -> None:
    base = SharedBase(lambda: tiny_model(chat_llm))
    with base.lent() as loan:
        pass
    with pytest.raises(InputError, match="the trial is over"):
        _ = loan.model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_every_value_counts(dtype: torch.dtype) -> None:
    """Also the last one of an odd number, and two that change places."""

    def sums(values: torch.Tensor) -> dict[str, int]:
        module = torch.nn.Module()
        module.register_buffer("x", values)
        return checksums(module)

    values = torch.tensor([1, 0, 1, 1, 0, 1, 1]).to(dtype)
    assert sums(values) == sums(values.clone())
    for i in range(len(values)):
        other = values.clone()
        other[i] = 1 - int(values[i])
        assert sums(other) != sums(values)
    assert sums(values[[1, 0, 2, 3, 4, 5, 6]]) != sums(values)
