from __future__ import annotations

import dataclasses

import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.optimizer import Optimizer
from optuna_llmbo.lora.optimizer import rate_factor
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import training_steps


RECIPE = dataclasses.replace(DEFAULT, rank=4, lora_alpha=8.0, lora_dropout=0.0, batch_size=24)


def factors(total: int, **changes: object) -> list[float]:
    recipe = dataclasses.replace(DEFAULT, **changes)  # type: ignore[arg-type]
    return [rate_factor(recipe, step, total) for step in range(1, total + 1)]


def test_linear_schedule() -> None:
    assert factors(4) == [1.0, 0.75, 0.5, 0.25]
    long = factors(40)
    assert long[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 36 / 37])
    assert long[-1] == pytest.approx(1 / 37)
    assert factors(1) == [1.0]
    assert factors(4, warmup_ratio=0.0) == factors(4)


def test_other_schedules() -> None:
    assert factors(4, schedule="constant") == [1.0] * 4
    assert factors(8, schedule="constant", warmup_ratio=0.5)[:4] == [0.25, 0.5, 0.75, 1.0]
    cosine = factors(4, schedule="cosine", warmup_ratio=0.0)
    assert cosine == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def moved(model: torch.nn.Module, examples: list[Example], recipe: LoRARecipe) -> dict[str, float]:
    """How far the first step moves A and B at most; B starts at zero, so that A has no gradient
    unless B is set."""
    with adapter(model, recipe, seed=0):
        weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, weight in weights.items():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.1)
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        list(training_steps(model, examples, recipe))
        change = {n: float((w.detach() - before[n]).abs().max()) for n, w in weights.items()}
    return {kind: max(v for n, v in change.items() if kind in n) for kind in ("lora_A", "lora_B")}


def test_b_has_its_own_rate(tiny: LanguageModel, examples: list[Example]) -> None:
    """The first step of AdamW moves each weight with a gradient by the rate."""
    recipe = LoRARecipe.from_params({"variant": "lora+", "learning_rate": 1e-3}, RECIPE)
    far = moved(tiny.model, examples, recipe)
    assert far == {
        "lora_A": pytest.approx(1e-3, rel=0.02),
        "lora_B": pytest.approx(0.016, rel=0.02),
    }


def test_weights_decay_and_vectors_do_not(tiny: LanguageModel) -> None:
    recipe = dataclasses.replace(RECIPE, variant="dora", weight_decay=0.5, learning_rate=0.1)
    with adapter(tiny.model, recipe, seed=0):
        weights = {n: p for n, p in tiny.model.named_parameters() if p.requires_grad}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        for weight in weights.values():
            weight.grad = torch.zeros_like(weight)
        Optimizer(tiny.model, recipe, total=1).step(1)
        for name, weight in weights.items():
            factor = 1.0 if weight.dim() == 1 else 1 - 0.1 * 0.5
            torch.testing.assert_close(weight.detach(), factor * before[name])


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_optimizers_train(tiny: LanguageModel, examples: list[Example], optimizer: str) -> None:
    recipe = dataclasses.replace(
        RECIPE, optimizer=optimizer, learning_rate=1e-2, batch_size=6, epochs=2
    )
    with adapter(tiny.model, recipe, seed=0):
        losses = [step.loss for step in training_steps(tiny.model, examples, recipe)]
    assert losses[-1] < losses[0] - 0.3


def test_eight_bits_need_cuda(tiny: LanguageModel, examples: list[Example]) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer="adamw-8bit")
    with (
        adapter(tiny.model, recipe, seed=0),
        pytest.raises(InputError, match="needs a CUDA device, and the model is on cpu"),
    ):
        next(training_steps(tiny.model, examples, recipe))


def test_state_goes_on(tiny: LanguageModel) -> None:
    """Two steps are one step, saved and loaded, and another."""

    def make(steps: tuple[int, ...], saved: dict[str, torch.Tensor] | None = None) -> None:
        optimizer = Optimizer(tiny.model, RECIPE, total=2)
        if saved is not None:
            optimizer.load_state_dict(saved)
        for step in steps:
            for i, weight in enumerate(p for p in tiny.model.parameters() if p.requires_grad):
                weight.grad = torch.full_like(weight, float(step + i))
            optimizer.step(step)
        states.append(optimizer.state_dict())
        ends.append([p.detach().clone() for p in tiny.model.parameters() if p.requires_grad])

    states: list[dict[str, torch.Tensor]] = []
    ends: list[list[torch.Tensor]] = []
    with adapter(tiny.model, RECIPE, seed=0):
        make((1, 2))
    with adapter(tiny.model, RECIPE, seed=0):
        make((1,))
        make((2,), states[-1])
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[2], strict=True))
