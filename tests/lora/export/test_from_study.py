from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export.from_study import facts_of
from optuna_llmbo.lora.export.modules import names_of_modules
from optuna_llmbo.lora.export.modules import names_of_saved
from optuna_llmbo.study.trial_attributes import FINGERPRINT
from optuna_llmbo.study.trial_attributes import OPTIONS
from optuna_llmbo.study.trial_attributes import WORKING_FOLDER
from tests.tiny import make_tiny_family


NOTED: dict[str, Any] = {
    "model": "org/model",
    "train": "pairs.jsonl",
    "train_examples": 50,
    "proxy": 0.1,
    "max_length": 256,
    "seed": 3,
    "dtype": "torch.bfloat16",
    "variant": "lora",
    "epochs": 2,
}


def study(params: list[dict[str, Any]], noted: dict[str, Any] | None = NOTED) -> optuna.Study:
    """With a complete trial for each, the last one the best, and a pruned one."""
    made = optuna.create_study(study_name="mine")
    if noted is not None:
        made.set_user_attr(FINGERPRINT, noted)
    for i, values in enumerate(params):
        made.add_trial(finished(values, loss=2.0 - i))
    made.add_trial(finished({}, state=TrialState.PRUNED))
    return made


def finished(
    params: dict[str, Any], loss: float | None = None, state: TrialState = TrialState.COMPLETE
) -> optuna.trial.FrozenTrial:
    def around(value: Any) -> BaseDistribution:
        if isinstance(value, float):
            return FloatDistribution(value, value + 1)
        return CategoricalDistribution([value])

    space = {name: around(value) for name, value in params.items()}
    return create_trial(state=state, params=params, distributions=space, value=loss)


def test_the_best_trial_or_the_one_named() -> None:
    made = study([{"r": 4, "lr": 1e-3}, {"r": 32, "lr": 1e-5, "alpha_ratio": 0.7}])
    best = facts_of(made)
    assert (best.recipe.rank, best.recipe.learning_rate, best.recipe.epochs) == (32, 1e-5, 2)
    assert best.recipe.lora_alpha == pytest.approx(22.4)
    assert (best.model, best.train, best.n_examples) == ("org/model", "pairs.jsonl", 500)
    assert (best.max_length, best.seed, best.dtype) == (256, 3, "bfloat16")
    assert best.origin == ("Trial 1 of the study 'mine': validation loss 1.0000 nats per token.",)
    named = facts_of(made, 0)
    assert (named.recipe.rank, named.recipe.lora_alpha) == (4, 8.0)


def test_what_the_space_left_to_the_defaults() -> None:
    own = {"target_modules": "q_proj,v_proj", "schedule": "cosine", "rank": 64, "lora_alpha": 64.0}
    noted = NOTED | {"variant": "rslora", "epochs": 3, "defaults": own}
    recipe = facts_of(study([{"lr": 1e-3}], noted)).recipe
    assert (recipe.variant, recipe.epochs, recipe.schedule) == ("rslora", 3, "cosine")
    assert (recipe.rank, recipe.lora_alpha) == (64, 64.0)
    assert facts_of(study([{"lr": 1e-3}], noted)).target_modules == ("q_proj", "v_proj")


def test_how_the_trials_read_the_data() -> None:
    made = study([{"lr": 1e-3}], NOTED | {"template_date": "2024-07-26"})
    assert (
        facts_of(made)
        .origin[-1]
        .endswith("writes the current date; in the trials it is 2024-07-26.")
    )
    assert (facts_of(made).prompt_column, facts_of(made).ignore_columns) == (None, ())
    options = {"prompt_column": "ask", "ignore_columns": ["text"], "test": 0.2, "validation": None}
    made.set_user_attr(OPTIONS, options)
    facts = facts_of(made)
    assert (facts.prompt_column, facts.response_column) == ("ask", None)
    assert (facts.ignore_columns, facts.validation, facts.test) == (("text",), None, None)
    assert facts_of(made, prompt_column="say", ignore_columns=("a",)).ignore_columns == ("a",)
    held_out = facts_of(made, validation=0.1)  # the test examples come first
    assert (held_out.validation, held_out.test) == (0.1, 0.2)
    assert facts_of(made, validation="dev.jsonl").test is None


def test_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("")
    made = facts_of(
        study([{"alpha": 20.4}]), epochs=5, rounded_alpha=True, n_examples=7, dtype=None
    )
    assert made.recipe.epochs == 5 and made.recipe.lora_alpha == 20.0
    assert made.n_examples == 7 and made.dtype == "bfloat16"
    assert made.train == str(tmp_path / "pairs.jsonl")  # the files are used in another folder
    assert made.origin[1:] == (
        "The trial made 2 passes over its data, this makes 5.",
        "lora_alpha was 20.4 and has been rounded (-1.96%).",
    )
    assert len(facts_of(study([{"alpha": 20.0}]), rounded_alpha=True).origin) == 1


def test_nothing_to_export() -> None:
    with pytest.raises(InputError, match="'mine' holds no results of a LoRAObjective"):
        facts_of(study([{}], None))
    with pytest.raises(InputError, match="'mine' has no complete trial yet"):
        facts_of(study([]))
    with pytest.raises(InputError, match="has no complete trial 1; complete are 0"):
        facts_of(study([{}]), 1)
    with pytest.raises(InputError, match="trial 0 are no hyperparameters.*unknown.*'width'"):
        facts_of(study([{"width": 3}]))
    with pytest.raises(InputError, match="'SmolLM2.gguf': .* not quantized"):
        facts_of(study([{}], NOTED | {"model": "SmolLM2.gguf"}))


def test_a_trial_that_breaks_a_constraint_is_not_the_best_one() -> None:
    """Nor is it exported unasked where there is no other; by its number it is."""
    made = study([{"lr": 1e-3}])
    broken = create_trial(
        value=0.5,
        params={"lr": 1e-5},
        distributions={"lr": FloatDistribution(1e-6, 1e-2)},
        system_attrs={"constraints": [1.0]},
    )
    made.add_trial(broken)
    assert facts_of(made).recipe.learning_rate == 1e-3
    alone = study([])
    alone.add_trial(broken)
    with pytest.raises(InputError, match="no complete trial yet that breaks no constraint"):
        facts_of(alone)
    assert facts_of(alone, 1).recipe.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("family", "named", "names"),
    [
        ("llama", "attention", ("k_proj", "o_proj", "q_proj", "v_proj")),
        ("llama", "mlp", ("down_proj", "gate_proj", "up_proj")),
        # c_proj is in both parts, so that its parent belongs to the name
        ("gpt2", "attention", ("c_attn", "attn.c_proj")),
        ("gpt2", "mlp", ("c_fc", "mlp.c_proj")),
    ],
)
def test_names_of_a_part(family: str, named: str, names: tuple[str, ...], tmp_path: Path) -> None:
    folder = make_tiny_family(tmp_path, family)
    (folder / "model.safetensors").unlink()  # the configuration is enough
    assert set(names_of_modules(str(folder), named)) == set(names)


def test_names_that_need_no_model() -> None:
    assert names_of_modules("./nowhere", "all-linear") == "all-linear"
    assert names_of_modules("./nowhere", "q_proj,mlp.up_proj") == ("q_proj", "mlp.up_proj")
    with pytest.raises(InputError, match="target_modules='attention'.*'./nowhere'.*--model"):
        names_of_modules("./nowhere", "attention")


def test_model_and_data_are_found_where_the_search_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the folder of the export, where another thing may have the name."""
    (tmp_path / "work").mkdir()
    for place in (tmp_path / "work", tmp_path):
        (place / "pairs.jsonl").write_text("")
    make_tiny_family(tmp_path / "work" / "models" / "llama", "llama")
    made = study([{"lr": 1e-3}], NOTED | {"model": "llama"})
    told = {"model": "models/llama", "train": "pairs.jsonl"}
    made.set_user_attr(OPTIONS, told | {WORKING_FOLDER: str(tmp_path / "work")})
    monkeypatch.chdir(tmp_path)
    facts = facts_of(made)
    assert facts.model == str(tmp_path / "work" / "models" / "llama")
    assert facts.train == str(tmp_path / "work" / "pairs.jsonl")
    assert facts_of(made, train="pairs.jsonl").train == str(tmp_path / "pairs.jsonl")
    made.set_user_attr(FINGERPRINT, NOTED)  # the study was run with another one
    assert facts_of(made).model == "org/model"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("none", ((), False)),
        ("lm_head", (("lm_head", "model.embed_tokens"), True)),
        ("norm", (("model.norm",), False)),
    ],
)
def test_names_of_whole_modules(
    named: str, expected: tuple[tuple[str, ...], bool], tiny_llm: Path
) -> None:
    names, tied = names_of_saved(str(tiny_llm), named)
    assert (tuple(sorted(names)), tied) == expected
    recipe = {"lr": 1e-3, "modules_to_save": named}
    facts = facts_of(study([recipe]), model=str(tiny_llm))
    assert (facts.modules_to_save, facts.ensure_weight_tying) == (names, tied)


def test_parts_and_names_together(tiny_llm: Path) -> None:
    names = names_of_modules(str(tiny_llm), "attention,lm_head")
    assert set(names) == {"k_proj", "o_proj", "q_proj", "v_proj", "lm_head"}


@pytest.mark.parametrize(
    ("proxy", "fraction", "expected"),
    [(0.1, None, 500), (0.1, 0.1, 500), (50, 0.25, 200), (50, None, 50)],
)
def test_the_examples_of_a_proxy_given_as_a_share_or_a_number(
    proxy: float, fraction: float | None, expected: int
) -> None:
    made = study([], NOTED | {"proxy": proxy})
    trial = finished({"lr": 1e-3}, loss=1.0)
    if fraction is not None:
        trial.set_user_attr("fraction", fraction)
    made.add_trial(trial)
    assert facts_of(made).n_examples == expected
