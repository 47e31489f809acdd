"""What cannot be trained is found before the first trial, for every choice of the space."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
import pytest
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import optimize_packed
from optuna_llmbo.lora import optimizer
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.adapter import largest_rank
from optuna_llmbo.lora.preflight import preflight
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.train import training_steps
from tests.lora.families import make_family
from tests.tiny import _byte_tokenizer


Make = Callable[..., LoRAObjective]
RECIPE = dataclasses.replace(DEFAULT, rank=4, lora_alpha=8.0, batch_size=24, learning_rate=1e-2)


def changed(**changes: Any) -> LoRARecipe:
    return dataclasses.replace(RECIPE, **changes)


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Asserts that modules, weights and flags are bitwise what they were."""
    modules = {name: id(module) for name, module in model.named_modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    assert {name: id(module) for name, module in model.named_modules()} == modules
    now = model.state_dict()
    assert now.keys() == weights.keys()
    assert all(torch.equal(now[name], value) for name, value in weights.items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


# family -> what is said of "all-linear" and of "attention"; None where they can be trained
FAMILIES = {
    "Mixtral": ("peft puts adapters on model.layers.0.mlp.experts", None),
    "Qwen2Moe": (None, None),
    "Qwen3Moe": ("peft puts adapters on model.layers.0.mlp.experts", None),
    "GraniteMoe": (None, None),
    "Phimoe": ("'tuple' object has no attribute", None),
    "DeepseekV3": ("peft puts adapters on model.layers.1.mlp.experts", None),
    "Mamba": ("'out_proj' is incompatible with Mamba", "no linear layer lies in a module that is"),
    "Mamba2": ("'out_proj' is incompatible with Mamba", "no linear layer lies in a module"),
    "Jamba": (None, None),
    "Rwkv": (None, None),
    "RecurrentGemma": (None, "no linear layer lies in a module that is called like attn"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_or_is_refused(family: str, examples: list[Example]) -> None:
    model = make_family(family)
    for named, refusal in zip(("all-linear", "attention"), FAMILIES[family], strict=True):
        for variant in ("lora", "dora"):
            recipe = changed(target_modules=named, variant=variant)
            with unchanged(model):
                if refusal is not None:
                    with pytest.raises(InputError, match=f"target_modules='{named}'") as caught:
                        preflight(model, [recipe], examples)
                    assert refusal in str(caught.value) or variant == "dora"
                    continue
                preflight(model, [recipe], examples)
                with adapter(model, recipe, seed=0):
                    (step,) = training_steps(model, examples, recipe)
                    assert step.loss < 10


def test_names_of_a_state_space_model(examples: list[Example], warnings_logged: list[str]) -> None:
    """What peft refuses is left to the user to leave out; what has no effect is said."""
    model = make_family("Mamba")
    recipe = changed(target_modules="in_proj,x_proj,dt_proj")
    with unchanged(model):
        preflight(model, [recipe], examples)
    (told,) = warnings_logged
    assert "the adapters of dt_proj have no effect, because MambaForCausalLM reads" in told


def test_experts_without_an_adapter_are_told_of(
    examples: list[Example], warnings_logged: list[str]
) -> None:
    model = make_family("Qwen2Moe")
    preflight(model, [changed(target_modules="attention")], examples)
    assert not warnings_logged
    preflight(model, [changed(), changed(rank=8)], examples)
    (told,) = warnings_logged
    assert "the model's experts (experts.gate_up_proj, experts.down_proj) are no linear" in told


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("Llama", {"target_modules": "query_key_value"}, "no linear layer query_key_value; there"),
        ("Llama", {"target_modules": "attention,q"}, "no linear layer q; there are down_proj"),
        ("Llama", {"modules_to_save": "wte"}, "no module 'wte'. Its embeddings are embed_tokens"),
        ("Llama", {"bias": "all"}, "bias='all': the model has no biases"),
        ("RecurrentGemma", {"bias": "lora_only", "target_modules": "q_proj"},
            "bias='lora_only': the layers 'q_proj' have no biases"),
        ("Llama", {"variant": "pissa", "rank": 17}, "rank=17: the weight of .*k_proj has a rank "
            "of at most 16"),
        ("Llama", {"variant": "olora", "rank": 17}, "rank=17: the weight of"),
        ("GPT2", {"variant": "olora"}, "needs layers of torch.nn.Linear, and .*c_attn is a Conv1"),
        ("GPT2", {"variant": "pissa", "target_modules": "lm_head"}, "lm_head is an embedding or "
            "shares its weight"),
        ("Llama", {"variant": "olora", "target_modules": "embed_tokens"}, "is an embedding or"),
        ("Llama", {"modules_to_save": "lm_head", "target_modules": "attention,lm_head"},
            "lm_head would have a whole copy and an adapter"),
        ("Llama", {"modules_to_save": "layers.1.mlp"}, "gate_proj, .* would have a whole"),
        ("GPT2", {"modules_to_save": "lm_head", "target_modules": "wte"}, "wte would have a"),
        ("Llama", {"init": "orthogonal", "rank": 5}, "rank=5: it needs an even rank"),
        ("Llama", {"optimizer": "adamw-8bit"}, "optimizer='adamw-8bit' needs a CUDA device"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_be_trained_with(
    family: str, change: dict[str, Any], message: str, examples: list[Example]
) -> None:
    model = make_family(family)
    with unchanged(model), pytest.raises(InputError, match=message):
        preflight(model, [RECIPE, changed(**change)], examples)


def test_every_kind_that_passes_can_be_attached(examples: list[Example]) -> None:
    """The check of one variant of a kind holds for the others."""
    for family in ("Llama", "GPT2"):
        model = make_family(family)
        for variant in ("lora", "rslora", "dora", "pissa", "olora", "lora+"):
            for init in ("default", "gaussian", "orthogonal"):
                with contextlib.suppress(InputError):
                    recipe = changed(variant=variant, init=init)
                    preflight(model, [recipe], examples)
                    with unchanged(model), adapter(model, recipe, seed=0):
                        list(training_steps(model, examples, recipe))


def test_an_optimizer_that_does_not_work_here(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(optimizer.torch.optim, "AdamW", broken)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="optimizer='adamw' does not work on cpu: no kernel"):
        preflight(make_family("Llama"), [RECIPE], examples)


def test_lack_of_memory_is_left_to_the_trials(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("optuna_llmbo.lora.preflight.response_nll", exhausted)
    model = make_family("Llama")
    with unchanged(model):
        preflight(model, [RECIPE], examples)


# --- through an objective: every choice of the space ---


def a_branch(name: str, value: Any) -> Callable[[optuna.Trial], dict[str, Any]]:
    """A function that asks for a value in one of its branches only."""

    def space(trial: optuna.Trial) -> dict[str, Any]:
        if trial.suggest_categorical("other", [False, True]):
            return {"batch_size": 4, name: trial.suggest_categorical(name, [value])}
        return {"batch_size": 4}

    return space


@pytest.mark.parametrize("as_function", [False, True], ids=["dict", "function"])
@pytest.mark.parametrize(
    ("name", "first", "value", "message"),
    [
        ("target_modules", "q_proj", "query_key_value", "no linear layer query_key_value"),
        ("modules_to_save", "none", "wte", "the model has no module 'wte'"),
        ("optimizer", "adamw", "adamw-8bit", "needs a CUDA device"),
        ("bias", "none", "lora_only", "the layers 'all-linear' have no biases to train"),
        ("variant", "lora", "pissa", "rank=17: the weight of"),
        ("init", "default", "orthogonal", "rank=17: it needs an even rank"),
    ],
)
def test_every_choice_of_a_space_is_checked(
    make_objective: Make, name: str, first: str, value: str, message: str, as_function: bool
) -> None:
    space: Any = {
        "batch_size": IntDistribution(4, 4),
        name: CategoricalDistribution([first, value]),
    }
    objective = make_objective(
        space=a_branch(name, value) if as_function else space,
        defaults={"rank": 17} if name in ("variant", "init") else {},
    )
    with pytest.raises(InputError, match=message):
        objective.prepare()


def test_every_rank_of_a_space_is_checked(make_objective: Make) -> None:
    space: dict[str, Any] = {"batch_size": IntDistribution(4, 4), "rank": IntDistribution(2, 32)}
    with pytest.raises(InputError, match="rank=32: the weight of .* at most 16"):
        make_objective(space=space, variant="olora").prepare()
    with pytest.raises(InputError, match="rank=3: it needs an even rank"):
        make_objective(space=space, defaults={"init": "orthogonal"}).prepare()
    space["rank"] = IntDistribution(2, 16, step=2)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for changes in ({"variant": "olora"}, {"defaults": {"init": "orthogonal"}}):
        make_objective(space=space, **changes).prepare()
    study.optimize(make_objective(space=space, defaults={"init": "orthogonal"}), n_trials=3)


def test_the_default_space_ends_at_the_largest_rank(make_objective: Make) -> None:
    """The default space of a variant that starts at the weights can be searched as it is."""
    prepared = make_objective(variant="pissa").prepare()
    assert prepared.space.distributions["rank"] == IntDistribution(1, 16, log=True)
    assert largest_rank(prepared.model, prepared.space.defaults) == 16
    assert make_objective().prepare().space.distributions["rank"].high == 256  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe")
    make_family("Qwen2Moe").save_pretrained(folder)
    _byte_tokenizer(chat=False).save_pretrained(folder)
    return folder


def test_a_search_on_a_mixture_of_experts(make_objective: Make, moe_folder: Path) -> None:
    space = {"target_modules": CategoricalDistribution(["all-linear", "attention", "mlp"]),
        "batch_size": IntDistribution(9, 9)}  # fmt: skip
    objective = make_objective(model=moe_folder, space=space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    with unchanged(objective.prepare().model):
        study.optimize(objective, n_trials=3)
    assert all(trial.value is not None for trial in study.trials)


def test_a_pack_on_a_mixture_of_experts(make_objective: Make, moe_folder: Path) -> None:
    """Its shared expert reads tokens, not examples: found before the first trial."""
    study = optuna.create_study()
    space = {"target_modules": CategoricalDistribution(["attention", "mlp"]),
        "batch_size": IntDistribution(9, 9)}  # fmt: skip
    objective = make_objective(model=moe_folder, space=space)
    with unchanged(objective.prepare().model):
        with pytest.raises(InputError, match="does not keep the rows of a batch apart"):
            optimize_packed(study, objective, 2, 2)
    assert not study.trials
    space = {**space, "target_modules": CategoricalDistribution(["attention"])}
    optimize_packed(study, make_objective(model=moe_folder, space=space), 2, 2)
    assert len(study.trials) == 2
