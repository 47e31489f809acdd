from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora import train
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example


RECIPE = LoRARecipe(
    rank=4, lora_alpha=8.0, lora_dropout=0.0, batch_size=6, learning_rate=1e-2, variant="lora"
)
LINEAR_LAYERS = 2 * 7  # layers of the tiny model, each with q, k, v, o, gate, up, down


@pytest.fixture(autouse=True)
def base_stays_as_it_was(tiny: LanguageModel) -> Iterator[None]:
    """Whatever a test here does, the base model is bit-identical afterwards."""
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    modules = dict(tiny.model.named_modules())
    attributes = set(vars(tiny.model))
    state = torch.random.get_rng_state()
    yield
    after = tiny.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert dict(tiny.model.named_modules()) == modules
    assert set(vars(tiny.model)) == attributes
    assert not tiny.model.training
    assert not any(p.requires_grad or p.grad is not None for p in tiny.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def adapter_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def run(model: Any, examples: list[Example], recipe: LoRARecipe, **options: Any) -> Any:
    """Steps, final weights and final loss of a whole run."""
    with adapter(model, recipe, seed=options.get("seed", 0)):
        steps = list(train.training_steps(model, examples, recipe, **options))
        return steps, adapter_weights(model), validation_loss(model, examples)


@pytest.mark.parametrize(
    ("variant", "scaling"), [("lora", 0.5 / 4), ("rslora", 0.5 / 2), ("dora", 0.5 / 4)]
)
def test_adapters_are_what_the_recipe_says(
    tiny: LanguageModel, variant: str, scaling: float
) -> None:
    recipe = dataclasses.replace(RECIPE, lora_alpha=0.5, lora_dropout=0.25, variant=variant)
    with adapter(tiny.model, recipe, seed=0):
        layers = [m for m in tiny.model.modules() if hasattr(m, "lora_A")]
        assert len(layers) == LINEAR_LAYERS
        for layer in layers:
            assert layer.scaling["default"] == scaling
            assert layer.lora_dropout["default"].p == 0.25
            assert layer.lora_A["default"].weight.shape[0] == 4
            assert layer.use_dora.get("default", False) == (variant == "dora")
        assert all("lora_" in name for name in adapter_weights(tiny.model))


def test_adapters_of_a_bfloat16_model_are_float32(tiny_llm: str) -> None:
    half = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.bfloat16).model
    with adapter(half, RECIPE, seed=0):
        assert {w.dtype for w in adapter_weights(half).values()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_new_adapter_changes_nothing(tiny: LanguageModel, examples: list[Example]) -> None:
    base = validation_loss(tiny.model, examples)
    with adapter(tiny.model, RECIPE, seed=0):
        assert validation_loss(tiny.model, examples) == pytest.approx(base, rel=1e-6)


def test_the_seed_decides_the_adapter(tiny: LanguageModel) -> None:
    weights = []  # type: ignore[var-annotated]
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(weights))  # the caller's state does not matter
            with adapter(tiny.model, RECIPE, seed=seed):
                new = adapter_weights(tiny.model).values()
                weights.append(torch.cat([weight.flatten() for weight in new]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_base_is_restored_after_an_error(
    tiny: LanguageModel, examples: list[Example], error: type[BaseException]
) -> None:
    with pytest.raises(error), adapter(tiny.model, RECIPE, seed=0):
        next(train.training_steps(tiny.model, examples, RECIPE))
        raise error


def test_the_base_is_restored_after_half_an_injection(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    real, calls = LoraModel._create_and_replace, []

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(self, *args, **kwargs)

    monkeypatch.setattr(LoraModel, "_create_and_replace", interrupted)
    with pytest.raises(KeyboardInterrupt), adapter(tiny.model, RECIPE, seed=0):
        pytest.fail("the adapter was not interrupted")


def test_gradients_do_not_depend_on_the_micro_batches(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    gradients, losses = [], []
    for size in (1, 4, 8, 100):
        with adapter(tiny.model, RECIPE, seed=0):
            for name, parameter in tiny.model.named_parameters():
                if "lora_B" in name:  # zero at first, which would hide the gradient of A
                    torch.nn.init.constant_(parameter, 0.01)
            losses.append(train.accumulate_gradients(tiny.model, examples[:10], size))
            gradients.append(
                {n: p.grad for n, p in tiny.model.named_parameters() if p.grad is not None}
            )
    assert len(gradients[0]) == 2 * LINEAR_LAYERS
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-7)


def test_gradients_are_of_the_mean_over_tokens(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    with adapter(tiny.model, RECIPE, seed=0):
        loss = train.accumulate_gradients(tiny.model, examples[:10], 3)
        assert loss == pytest.approx(validation_loss(tiny.model, examples[:10]), rel=1e-5)


def test_runs_are_reproducible(tiny: LanguageModel, examples: list[Example]) -> None:
    recipe = dataclasses.replace(RECIPE, lora_dropout=0.2)
    first, again = (run(tiny.model, examples, recipe, seed=3) for _ in range(2))
    other = run(tiny.model, examples, recipe, seed=4)
    assert first[0] == again[0]
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert first[2] == again[2] != other[2]


def test_dropout_differs_between_steps(tiny: LanguageModel, examples: list[Example]) -> None:
    frozen = dataclasses.replace(
        RECIPE, lora_dropout=0.5, batch_size=len(examples), learning_rate=1e-12, epochs=3
    )
    with adapter(tiny.model, frozen, seed=0):
        for name, parameter in tiny.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.3)
        steps = train.training_steps(tiny.model, examples, frozen)
        losses = [step.loss for step in steps]
    assert len(set(losses)) == 3
    assert np.std(losses) > 1e-4


def test_training_lowers_the_loss(tiny: LanguageModel, examples: list[Example]) -> None:
    base = validation_loss(tiny.model, examples)
    assert run(tiny.model, examples, dataclasses.replace(RECIPE, epochs=5))[2] < base - 1.0


def test_training_in_bfloat16(tiny_llm: str, examples: list[Example]) -> None:
    half = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.bfloat16).model
    before = {name: value.clone() for name, value in half.state_dict().items()}
    base = validation_loss(half, examples)
    assert run(half, examples, dataclasses.replace(RECIPE, epochs=5))[2] < base - 1.0
    assert all(torch.equal(value, before[name]) for name, value in half.state_dict().items())


@pytest.mark.parametrize("variant", ["rslora", "dora", "pissa", "olora", "lora+"])
def test_variants_train(tiny: LanguageModel, examples: list[Example], variant: str) -> None:
    base = validation_loss(tiny.model, examples)
    steps, _, loss = run(tiny.model, examples, of_variant(variant))
    assert steps[-1].loss < steps[0].loss
    assert loss < base - 0.2


def of_variant(variant: str, **changes: Any) -> LoRARecipe:
    return LoRARecipe.from_params({"variant": variant, **changes}, RECIPE)


def assert_same_run(first: Any, second: Any) -> None:
    """Bit by bit."""
    assert first[0] == second[0]
    assert list(first[1]) == list(second[1])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    assert first[2] == second[2]


def test_rslora_is_lora_with_the_roots_alpha(tiny: LanguageModel, examples: list[Example]) -> None:
    """alpha / sqrt(r) = (alpha sqrt(r)) / r (Kalajdzievski 2023, arXiv:2312.03732); of rank 4 both
    are exact."""
    other = of_variant("rslora", lora_alpha=8.0)
    plain = of_variant("lora", lora_alpha=8.0 * 2)
    assert_same_run(run(tiny.model, examples, other), run(tiny.model, examples, plain))


def test_lora_plus_is_lora_with_another_rate_of_b(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    """A ratio of 1 is LoRA itself; see `test_optimizer` for which weights the ratio is of."""
    level, plain = of_variant("lora+", lr_ratio=1.0), of_variant("lora")
    assert_same_run(run(tiny.model, examples, level), run(tiny.model, examples, plain))
    usual, explicit = of_variant("lora+"), of_variant("lora", lr_ratio=16.0)
    assert_same_run(run(tiny.model, examples, usual), run(tiny.model, examples, explicit))


def test_dora_trains_magnitude_and_direction_apart(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    """W' = m (W + s B A) / |W + s B A|, row by row (Liu et al. 2024, arXiv:2402.09353, eq. 5)."""
    recipe = of_variant("dora")
    with adapter(tiny.model, recipe, seed=0):
        layer: Any = tiny.model.model.layers[0].mlp.up_proj
        magnitude = layer.lora_magnitude_vector["default"].weight
        weight = layer.base_layer.weight
        torch.testing.assert_close(magnitude, weight.norm(dim=1))
        list(train.training_steps(tiny.model, examples, recipe))
        assert not torch.allclose(magnitude, weight.norm(dim=1), rtol=1e-3)
        with torch.no_grad():
            a, b = (getattr(layer, f"lora_{part}")["default"].weight for part in "AB")
            direction = weight + 8.0 / 4 * b @ a
            expected = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
            found = layer(torch.eye(layer.in_features)).T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def adapter_start(tiny: LanguageModel, variant: str) -> tuple[torch.Tensor, ...]:
    """A layer's weights, and A and B of its new adapter."""
    weight: torch.Tensor = tiny.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    with adapter(tiny.model, of_variant(variant), seed=0):
        layer: Any = tiny.model.model.layers[0].mlp.up_proj
        a, b = (getattr(layer, f"lora_{part}")["default"].weight for part in "AB")
        return weight, a.detach().clone(), b.detach().clone()


def test_pissa_starts_at_the_best_of_its_rank(tiny: LanguageModel) -> None:
    """What is left out is no more than the other singular values (Eckart & Young 1936), but for
    the randomized decomposition's error on random weights with a flat spectrum (Meng, Wang & Zhang
    2024, arXiv:2404.02948).
    """
    weight, a, b = adapter_start(tiny, "pissa")
    left = np.linalg.norm((weight - 8.0 / 4 * b @ a).numpy())
    rest = np.linalg.svd(weight.numpy(), compute_uv=False)[4:]
    least = np.linalg.norm(rest)
    assert least <= left < 1.02 * least < 0.95 * np.linalg.norm(weight.numpy())
    torch.testing.assert_close(a @ a.T, b.T @ b, atol=1e-4, rtol=1e-4)  # the root in each


def test_olora_starts_at_an_orthonormal_basis(tiny: LanguageModel) -> None:
    """W = Q R: B is the first r columns of Q, A the first r rows of R (Büyükakyüz 2024,
    arXiv:2406.01775)."""
    weight, a, b = adapter_start(tiny, "olora")
    torch.testing.assert_close(b.T @ b, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(a, b.T @ weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(b @ a[:, :4], weight[:, :4], atol=1e-5, rtol=1e-4)
    assert float(a[:, :4].tril(-1).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "steps"),
    [(24, 6, 1, 4), (24, 7, 1, 3), (24, 7, 2, 6), (5, 5, 1, 1)],
)
def test_each_step_has_exactly_one_batch(
    tiny: LanguageModel,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    batch_size: int,
    epochs: int,
    steps: int,
) -> None:
    batches: list[list[Example]] = []

    def record(model: Any, batch: list[Example], size: int) -> float:
        batches.append(batch)
        return real(model, batch, size)

    real = train.accumulate_gradients
    monkeypatch.setattr(train, "accumulate_gradients", record)
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size, epochs=epochs)
    made, _, _ = run(tiny.model, examples[:n], recipe)
    assert [(step.number, step.total) for step in made] == [(i + 1, steps) for i in range(steps)]
    assert [len(batch) for batch in batches] == [batch_size] * steps
    assert [step.tokens for step in made] == [sum(map(len, batch)) for batch in batches]
    trained = [id(example) for batch in batches for example in batch]
    assert len(set(trained[:n])) == min(n, len(trained))  # an epoch repeats nothing
    if epochs == 2:
        assert trained[:n] != trained[n : 2 * n]


def test_the_rate_is_used(tiny: LanguageModel, examples: list[Example]) -> None:
    """The first step of AdamW moves each weight with a gradient by the rate."""
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-3, batch_size=24)
    with adapter(tiny.model, recipe, seed=0):
        before = adapter_weights(tiny.model)
        list(train.training_steps(tiny.model, examples, recipe))
        after = adapter_weights(tiny.model)
    moved = torch.cat([(after[n] - before[n]).flatten() for n in before if "lora_B" in n]).abs()
    assert float(moved.max()) == pytest.approx(1e-3, rel=1e-2)
    assert float(moved.median()) == pytest.approx(1e-3, rel=0.1)


def test_gradients_are_clipped_after_the_backward_pass(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    real = torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, *args: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    recipe = dataclasses.replace(RECIPE, lora_alpha=4000.0)
    with adapter(tiny.model, recipe, seed=0):
        list(train.training_steps(tiny.model, examples, recipe))
    assert max(norms) == pytest.approx(1.0, rel=1e-4)


def test_divergence(tiny: LanguageModel, examples: list[Example]) -> None:
    recipe = dataclasses.replace(RECIPE, lora_alpha=1e38, learning_rate=1e3)
    with pytest.raises(train.TrainingDiverged, match="gradient's norm (nan|inf) at step 1 of 4"):
        run(tiny.model, examples, recipe)


@pytest.mark.parametrize("found", [True, False])
def test_default_dtype_of_the_cpu(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: found, raising=False)
    expected = torch.bfloat16 if found else torch.float32
    assert train.default_dtype(torch.device("cpu")) is expected


def test_default_dtype_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert train.default_dtype(torch.device("cpu")) is torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_random_state_is_left_alone(tiny_llm: str, examples: list[Example]) -> None:
    model = load_model(resolve_source(tiny_llm), device="cuda").model
    state = torch.cuda.get_rng_state()
    recipe = dataclasses.replace(DEFAULT, batch_size=6)
    first, again = (run(model, examples, recipe) for _ in range(2))
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert first[0] == again[0]
