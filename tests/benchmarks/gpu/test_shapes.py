from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import shapes
from benchmarks.gpu import trials
from benchmarks.gpu.sizes import FULL
from benchmarks.gpu.sizes import Load
from benchmarks.gpu.sizes import TINY
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.train import accumulate_gradients


CPU = torch.device("cpu")


@pytest.fixture
def model() -> Any:
    return shapes.build("Llama 1B", CPU, torch.float32, TINY.shapes["Llama 1B"])


@pytest.mark.parametrize(
    ("shape", "n_weights"),
    [
        ("Qwen 0.5B", 494_032_768),
        ("Llama 1B", 1_235_814_400),
        ("Llama 3B", 3_212_749_824),
        ("Llama 8B", 8_030_261_248),
    ],
)
def test_shapes_have_the_weights_of_the_real_models(shape: str, n_weights: int) -> None:
    model = shapes.build(shape, torch.device("meta"), torch.bfloat16)
    assert sum(weight.numel() for weight in model.parameters()) == n_weights
    assert shapes.weight_bytes(model) == 2 * n_weights


def test_a_shape_is_saved_and_loaded_as_any_model(model: Any, tmp_path: Path) -> None:
    shapes.save(model, tmp_path)
    again = load_model(resolve_source(tmp_path), device="cpu", dtype=torch.float32)
    assert all(map(torch.equal, again.model.parameters(), model.parameters()))
    assert again.tokenizer.decode(again.tokenizer("read me").input_ids) == "read me"


def test_examples_are_those_of_the_load() -> None:
    load = FULL.loads["short"]
    made = shapes.examples(load, 1000)
    assert len(made) == load.steps * load.batch_size
    assert all(load.shortest <= len(one) <= load.longest for one in made)
    assert all(one.n_response / len(one) == pytest.approx(0.5, abs=0.02) for one in made)
    again = shapes.examples(load, 1000)
    assert all((one.ids == other.ids).all() for one, other in zip(made, again, strict=True))


def test_needed_operations_are_those_that_torch_counts(model: Any) -> None:
    """But for attention, of which torch's kernel counts the future too, and the adapters."""
    (example,) = shapes.examples(Load(1, 64, 64, 0.25, steps=1), 512)
    needed = shapes.training_flops(model, [example])
    (recipe,) = trials.recipes(1, Load(1, 64, 64, 0.25, steps=1))
    with adapter(model, recipe, seed=0), FlopCounterMode(display=False) as counter:
        accumulate_gradients(model, [example], 1)
    counts = counter.get_flop_counts()["Global"]
    linear = sum(n for op, n in counts.items() if "attention" not in str(op))
    body = [m for n, m in model.named_modules() if "layers." in n and hasattr(m, "in_features")]
    of_adapters = sum(
        3 * 2 * 64 * recipe.rank * (layer.in_features + layer.out_features) for layer in body
    )
    attention = 12 * 64 * 2 * 64 * 65 / 2
    assert needed - attention == pytest.approx(linear - of_adapters, rel=0.1)


def test_ways_train_the_same(model: Any) -> None:
    load = TINY.loads["short"]
    examples, chosen = shapes.examples(load, 512), trials.recipes(2, load)
    one = trials.one_at_a_time(model, examples, chosen)
    pack = trials.packed(model, examples, chosen)
    assert one.tokens == pack.tokens == 2 * sum(map(len, examples))
    assert sorted(one.losses) == pytest.approx(sorted(pack.losses), rel=1e-4)
    assert one.rows is pack.rows is None


def test_a_cost_counts_a_step(model: Any) -> None:
    load = TINY.loads["long"]
    cell = trials.cost(model, load, 2, trials.one_at_a_time)
    assert cell["trials"] == 2 and cell["steps"] == 2 * load.steps
    assert cell["tokens"] == 2 * load.steps * load.batch_size * load.longest
    single = trials.cost(model, load, 1, trials.one_at_a_time)
    assert cell["operations_per_step"] == 2 * single["operations_per_step"] > 100
    assert cell["flops_needed"] == 2 * single["flops_needed"]


def test_memory_that_runs_out_is_said(model: Any) -> None:
    """The rows of a pass are lowered, and the numbers stay those of all trials."""
    load = TINY.loads["long"]

    def refuse(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError

    handle = model.get_input_embeddings().register_forward_pre_hook(refuse)
    cell = trials.cost(model, load, 4, trials.packed)
    handle.remove()
    assert cell["rows_lowered_to"] == 2
    assert cell["tokens"] == 4 * load.steps * load.batch_size * load.longest
