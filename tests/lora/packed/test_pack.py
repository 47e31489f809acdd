from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import copy
import dataclasses
from typing import Any

import pytest
import torch

from benchmarks.gpu.trials import Operations
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import train
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.lora.packed import pack as packed
from optuna_llmbo.lora.packed.job import Job
from optuna_llmbo.lora.packed.pack import Pack
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import TrainStep
from tests.tiny import make_tiny_family


PLAIN = LoRARecipe(rank=4, lora_alpha=8.0, lora_dropout=0.0, batch_size=6, learning_rate=1e-2)
RECIPES = [
    PLAIN,
    dataclasses.replace(PLAIN, rank=2, batch_size=3, learning_rate=3e-3, lora_dropout=0.3),
    dataclasses.replace(PLAIN, variant="rslora", batch_size=12, schedule="cosine", epochs=2),
    dataclasses.replace(PLAIN, rank=8, variant="lora+", lr_ratio=16.0, learning_rate=1e-3),
    dataclasses.replace(PLAIN, variant="dora", batch_size=5, target_modules="attention"),
    dataclasses.replace(
        PLAIN, variant="dora", lora_dropout=0.2, weight_decay=0.1, init="gaussian"
    ),
    dataclasses.replace(PLAIN, optimizer="adafactor", target_modules="mlp", warmup_ratio=0.5),
    dataclasses.replace(PLAIN, init="orthogonal", schedule="constant", batch_size=24, epochs=3),
]
MICRO = 4


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model without dropout of its own."""
    folder = make_tiny_family(tmp_path_factory.mktemp(request.param), request.param)
    model = load_model(resolve_source(folder), device="cpu", dtype=torch.float32).model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture(autouse=True)
def base_stays_as_it_was(model: Any) -> Iterator[None]:
    """Whatever a test here does, the base model is bit-identical afterwards."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules, attributes = dict(model.named_modules()), set(vars(model))
    state = torch.random.get_rng_state()
    yield
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dict(model.named_modules()) == modules
    assert set(vars(model)) == attributes
    assert not any(module._forward_hooks for module in modules.values())
    assert not model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run has come to."""

    steps: list[TrainStep]
    weights: list[torch.Tensor]
    loss: float


def alone(model: Any, examples: Sequence[Example], recipe: LoRARecipe, seed: int = 0) -> Ran:
    with adapter(model, recipe, seed):
        steps = train.training_steps(model, examples, recipe, micro_batch_size=MICRO, seed=seed)
        made = list(steps)
        weights = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        return Ran(made, weights, validation_loss(model, examples))


def to_the_end(pack: Pack, jobs: dict[Job, list[TrainStep]]) -> None:
    """Train until all in the pack are finished."""
    while any(not job.finished for job in pack.jobs):
        for job, made in pack.step().items():
            assert isinstance(made, TrainStep)
            jobs[job].append(made)


def ran(pack: Pack, jobs: dict[Job, list[TrainStep]], examples: Sequence[Example]) -> list[Ran]:
    losses = pack.evaluate(list(jobs), examples)
    weights = [[p.detach().clone() for p in job.adapter.parameters] for job in jobs]
    return [Ran(*parts) for parts in zip(jobs.values(), weights, losses, strict=True)]


def together(model: Any, examples: Sequence[Example], recipes: Sequence[LoRARecipe]) -> list[Ran]:
    with Pack(model, micro_batch_size=MICRO) as pack:
        jobs: dict[Job, list[TrainStep]] = {pack.add(r, examples): [] for r in recipes}
        to_the_end(pack, jobs)
        return ran(pack, jobs, examples)


def assert_same(one: Ran, other: Ran) -> None:
    assert [(s.number, s.total, s.tokens) for s in one.steps] == [
        (s.number, s.total, s.tokens) for s in other.steps
    ]
    assert [s.loss for s in one.steps] == pytest.approx([s.loss for s in other.steps], rel=1e-4)
    assert one.loss == pytest.approx(other.loss, rel=1e-4)
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_each_trains_as_it_would_alone(model: Any, examples: list[Example]) -> None:
    for recipe, packed_run in zip(RECIPES, together(model, examples, RECIPES), strict=True):
        lone = alone(model, examples, recipe)
        assert_same(packed_run, lone)
        assert packed_run.loss < validation_loss(model, examples) - 0.01


def test_who_else_is_in_the_pack_does_not_matter(model: Any, examples: list[Example]) -> None:
    """Some join late, one leaves early, one diverges; the others train as if alone."""
    first, late, leaver = RECIPES[1], RECIPES[5], RECIPES[2]
    broken = dataclasses.replace(PLAIN, lora_alpha=1e38, learning_rate=1e3)
    with Pack(model, micro_batch_size=MICRO) as pack:
        jobs: dict[Job, list[TrainStep]] = {pack.add(first, examples): []}
        leaving, diverging = pack.add(leaver, examples), pack.add(broken, examples)
        failures = []
        for _ in range(5):
            for job, made in pack.step().items():
                if isinstance(made, TrainStep):
                    jobs.setdefault(job, []).append(made)
                else:
                    failures.append((job, made))
        jobs.pop(leaving)
        jobs.pop(diverging, None)
        pack.remove(leaving)
        jobs[pack.add(late, examples, seed=7)] = []
        to_the_end(pack, jobs)
        runs = ran(pack, jobs, examples)
    ((job, failure),) = failures
    assert job is diverging and isinstance(failure, train.TrainingDiverged)
    assert "gradient's norm" in str(failure)
    assert_same(runs[0], alone(model, examples, first))
    assert_same(runs[1], alone(model, examples, late, seed=7))


@pytest.mark.parametrize("ranks", [[4] * 8, [2, 8, 3, 4, 6, 4, 5, 2]], ids=["equal", "mixed"])
def test_more_adapters_take_hardly_more_operations(
    model: Any, examples: list[Example], ranks: list[int]
) -> None:
    counts = []
    for n in (2, 8):
        with Pack(model, micro_batch_size=1) as pack:
            for rank in ranks[:n]:
                pack.add(dataclasses.replace(PLAIN, rank=rank), examples)
            with Operations() as operations:
                assert pack.step() == {}  # a pass without an optimizer step
            counts.append(operations.count)
            for parameter in (p for job in pack.jobs for p in job.adapter.parameters):
                # fused optimizers demand that both are laid out alike
                assert parameter.grad is not None
                assert parameter.grad.stride() == parameter.stride()
    assert counts[1] < 1.6 * counts[0]


@pytest.mark.long
@pytest.mark.parametrize("max_rows", [1, 5, 9])
def test_bounded_passes_change_nothing(
    model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    rows: list[int] = []
    real = packed.response_nll_by_part  # type: ignore[attr-defined]

    def record(model: Any, batch: Any, sizes: list[int]) -> torch.Tensor:
        rows.append(len(batch.ids))
        return real(model, batch, sizes)

    monkeypatch.setattr(packed, "response_nll_by_part", record)
    recipes = RECIPES[:3]
    with Pack(model, micro_batch_size=MICRO, max_rows=max_rows) as pack:
        jobs: dict[Job, list[TrainStep]] = {pack.add(r, examples): [] for r in recipes}
        to_the_end(pack, jobs)
        losses = pack.evaluate(list(jobs), examples, batch_size=2)
    assert 1 < max(rows) <= max(max_rows, MICRO)
    for job, made, loss in zip(jobs, jobs.values(), losses, strict=True):
        lone = alone(model, examples, job.recipe)
        assert_same(Ran(made, [p.detach() for p in job.adapter.parameters], loss), lone)


def test_too_little_memory_halves_the_pass_and_changes_nothing(
    model: Any,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: list[str],
) -> None:
    real = torch.autograd.grad

    def short_of_memory(loss: Any, parameters: Any, **options: Any) -> Any:
        gradients = real(loss, parameters, **options)
        if len(parameters) > 2 * biggest:  # those of three adapters
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradients

    monkeypatch.setattr(torch.autograd, "grad", short_of_memory)
    with Pack(model, micro_batch_size=MICRO) as pack:
        recipes = RECIPES[1:4]
        jobs: dict[Job, list[TrainStep]] = {pack.add(r, examples): [] for r in recipes}
        biggest = max(len(job.adapter.parameters) for job in jobs)
        to_the_end(pack, jobs)
        runs = ran(pack, jobs, examples)
    assert warnings_logged == [
        "a pass over 11 examples has run out of GPU memory; passes have at most 5 examples from "
        "now on, or one adapter's 4."
    ]
    for recipe, packed_run in zip(recipes, runs, strict=True):
        assert_same(packed_run, alone(model, examples, recipe))


def test_an_adapter_too_large_for_the_memory_leaves(
    model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.autograd.grad

    def short_of_memory(loss: Any, parameters: Any, **options: Any) -> Any:
        if any(8 in parameter.shape for parameter in parameters):  # the rank
            raise RuntimeError("CUDA error: out of memory")  # a library of CUDA
        return real(loss, parameters, **options)

    monkeypatch.setattr(torch.autograd, "grad", short_of_memory)
    with Pack(model, micro_batch_size=MICRO) as pack:
        small = pack.add(RECIPES[1], examples)
        large = pack.add(dataclasses.replace(PLAIN, rank=8), examples)
        outcomes = pack.step()
        assert isinstance(outcomes.pop(large), torch.OutOfMemoryError)
        assert pack.jobs == (small,)
        jobs = {small: [made for made in outcomes.values() if isinstance(made, TrainStep)]}
        to_the_end(pack, jobs)
        (run,) = ran(pack, jobs, examples)
    assert_same(run, alone(model, examples, RECIPES[1]))


def test_the_model_is_bare_between_calls_and_can_carry_one_adapter(
    model: Any, examples: list[Example]
) -> None:
    base = validation_loss(model, examples)
    with Pack(model, micro_batch_size=MICRO) as pack:
        jobs: dict[Job, list[TrainStep]] = {pack.add(r, examples): [] for r in RECIPES[:2]}
        to_the_end(pack, jobs)
        losses = pack.evaluate(list(jobs), examples)
        assert not model.training
        assert validation_loss(model, examples) == base
        for job, loss in zip(jobs, losses, strict=True):
            with pack.alone(job):
                assert validation_loss(model, examples) == pytest.approx(loss, rel=1e-5)
                assert sum("lora_B" in name for name, _ in model.named_parameters()) > 4
                assert model.peft_config["default"].r == job.recipe.rank
        assert pack.evaluate(list(jobs), examples) == losses
        assert all(job.finished and job.seconds > 0 for job in pack.jobs)
        assert pack.step() == {}


def test_losses_are_in_the_order_of_the_jobs(model: Any, examples: list[Example]) -> None:
    """Whatever the order in which a pass computes them."""
    fast = dataclasses.replace(PLAIN, learning_rate=3e-2)
    with Pack(model, micro_batch_size=MICRO) as pack:
        for targets in ("attention", "mlp", "all-linear"):
            pack.add(dataclasses.replace(fast, target_modules=targets), examples)
        pack.add(dataclasses.replace(fast, rank=40), examples)
        jobs = pack.jobs
        for _ in range(4):
            pack.step()
        losses = pack.evaluate(jobs, examples)
        assert pack.jobs == jobs
        assert len({round(loss, 3) for loss in losses}) == len(jobs)
        for job, loss in zip(jobs, losses, strict=True):
            with pack.alone(job):
                assert validation_loss(model, examples) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_base_is_restored_after_an_error(
    model: Any, examples: list[Example], error: type[BaseException]
) -> None:
    with pytest.raises(error), Pack(model) as pack:
        job = pack.add(PLAIN, examples)
        pack.step()
        with pack.alone(job):
            raise error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "pissa"}, "variant='pissa' starts by changing the base model's weights"),
        ({"variant": "olora"}, "variant='olora' starts by"),
        ({"bias": "all"}, "bias='all' trains the base model's biases"),
        ({"target_modules": "nothing"}, "the model has no linear layer nothing"),
    ],
)
def test_what_cannot_share_a_base(
    model: Any, examples: list[Example], changes: dict[str, Any], message: str
) -> None:
    with Pack(model) as pack:
        job = pack.add(PLAIN, examples)
        with pytest.raises(InputError, match=message):
            pack.add(dataclasses.replace(PLAIN, **changes), examples)
        assert pack.jobs == (job,)


def test_a_layer_that_mixes_rows_is_refused(
    model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pack(model) as pack:
        job = pack.add(PLAIN, examples)
        base = next(iter(job.adapter.bases.values()))
        real = base.forward
        monkeypatch.setattr(base, "forward", lambda x: real(x))
        handle = base.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1),))
        with pytest.raises(InputError, match="does not keep the rows of a batch apart"):
            pack.step()
        handle.remove()
        monkeypatch.undo()


@pytest.mark.long
def test_training_in_bfloat16(model: Any, examples: list[Example]) -> None:
    half = copy.deepcopy(model).to(torch.bfloat16)
    recipes = [dataclasses.replace(recipe, epochs=3) for recipe in RECIPES[:2]]
    for recipe, run in zip(recipes, together(half, examples, recipes), strict=True):
        assert all(weight.dtype is torch.float32 for weight in run.weights)
        assert run.loss == pytest.approx(alone(half, examples, recipe).loss, rel=2e-2)


def test_dropout_of_the_base_model_itself(model: Any, examples: list[Example]) -> None:
    """It is drawn for the whole pack: not as alone, but the same in every such pack."""
    model = copy.deepcopy(model)
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    if not dropouts:
        pytest.skip("this family has no dropout")
    for module in dropouts:
        module.p = 0.1
    runs, again = (together(model, examples, [PLAIN, PLAIN]) for _ in range(2))
    assert [run.loss for run in runs] == [run.loss for run in again]
    assert runs[0].loss != runs[1].loss  # other rows, other draws
    assert runs[0].loss == pytest.approx(alone(model, examples, PLAIN).loss, abs=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_each_trains_on_cuda_as_it_would_alone(model: Any, examples: list[Example]) -> None:
    """Dropout drops the same inputs there too; sums are rounded otherwise than on a CPU."""
    there = copy.deepcopy(model).cuda()
    state = torch.cuda.get_rng_state()
    for recipe, run in zip(RECIPES, together(there, examples, RECIPES), strict=True):
        lone = alone(there, examples, recipe)
        losses = [step.loss for step in lone.steps]
        assert [step.loss for step in run.steps] == pytest.approx(losses, rel=1e-3)
        assert run.loss == pytest.approx(lone.loss, rel=1e-3)
    assert torch.equal(torch.cuda.get_rng_state(), state)
