"""From the study to the adapter: who is trained, who wins, what is saved."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
from pathlib import Path
import statistics
from typing import Any

import datasets
import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import peft
import pytest
import torch

from optuna_llmbo import promote as promotes
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import fit as fits
from optuna_llmbo.lora import LoRAObjective
from optuna_llmbo.lora import metrics
from optuna_llmbo.lora.evaluate import validation_loss
from optuna_llmbo.promote import promote
from optuna_llmbo.promotion import mean_and_deviation
from tests.lora.conftest import N_ROWS
from tests.lora.conftest import objective_maker
from tests.lora.conftest import rows


Make = Callable[..., LoRAObjective]
SPACE: dict[str, Any] = {
    "rank": IntDistribution(1, 8),
    "batch_size": IntDistribution(3, 6),
    "learning_rate": FloatDistribution(1e-4, 2e-2, log=True),
}


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """In all tests of this file."""


@pytest.fixture
def make_objective(tiny_llm: Path) -> Make:
    return objective_maker(tiny_llm, datasets.Dataset.from_list(rows(N_ROWS)))


@pytest.fixture
def objective(make_objective: Make) -> LoRAObjective:
    return make_objective(space=SPACE, test=8)


@pytest.fixture
def study(objective: LoRAObjective) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(objective.default_params)
    study.optimize(objective, n_trials=6)
    return study


def test_a_promotion(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path, tiny_llm: Path
) -> None:
    told: list[str] = []
    result = promote(study, objective, folder=tmp_path, top=2, n_seeds=2, tell=told.append)
    best = promotes.by_posterior_mean(study)[:2]
    prepared = objective.prepare()
    assert [one.trial for one in result.contenders] == [0, *best]
    assert len(told) == 6 and told[0] == "default, 47 examples, seed 0"
    assert len(prepared.pool) == 47 > len(prepared.train)
    means = [statistics.fmean(one.validation) for one in result.contenders]
    assert statistics.fmean(result.winner.validation) == min(means)
    assert result.default is result.contenders[0]
    assert all(bool(one.test) == (one in (result.winner, result.default))
               for one in result.contenders)  # fmt: skip

    # the adapter on disk is the winner's best one
    fresh = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    loaded = peft.PeftModel.from_pretrained(fresh, str(result.adapter))
    seed = min(range(2), key=lambda i: result.winner.validation[i])
    for examples, expected in (
        (prepared.validation, result.winner.validation[seed]),
        (prepared.test, result.winner.test[seed]),
    ):
        assert validation_loss(loaded, examples) == pytest.approx(expected, abs=2e-5)

    record = json.loads((tmp_path / "promotion.json").read_text())
    assert [c["is_winner"] for c in record["contenders"]].count(True) == 1
    assert record["contenders"][0]["is_default"] and record["examples"] == 47
    card = (result.adapter / "README.md").read_text()
    assert card.startswith("---\nbase_model: ") and str(tiny_llm) in card
    assert mean_and_deviation(result.winner.test) in card


def test_the_test_set_is_read_once_and_last(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = objective.prepare()
    read: list[str] = []
    real = type(prepared).loss_on

    def loss_on(self: Any, examples: Any) -> float:
        read.append("test" if examples is prepared.test else "validation")
        return real(self, examples)

    monkeypatch.setattr(type(prepared), "loss_on", loss_on)
    promote(study, objective, folder=tmp_path, top=1, n_seeds=2)
    assert read == ["validation"] * 4 + ["test"] * 4


def test_an_interrupted_promotion_goes_on(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path
) -> None:
    def interrupt(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        promote(study, objective, folder=tmp_path, top=1, n_seeds=2, tell=interrupt)
    rest: list[str] = []
    result = promote(study, objective, folder=tmp_path, top=1, n_seeds=2, tell=rest.append)
    assert len(rest) == 2 and rest[0] == told[2]
    again = promote(study, objective, folder=tmp_path, top=1, n_seeds=2, tell=rest.append)
    assert len(rest) == 2 and again.winner == result.winner


def test_a_fit_of_a_quantized_base_is_another_one(
    objective: LoRAObjective, tmp_path: Path
) -> None:
    prepared = objective.prepare()
    fingerprint = {**prepared.fingerprint, "quantization": "4bit"}
    quantized = dataclasses.replace(prepared, fingerprint=fingerprint)
    recipe = prepared.space.default_recipe
    assert recipe is not None
    paths = {
        fits.Fits(one, tmp_path).fit(recipe, prepared.pool[:6], seed=0, name="default").path
        for one in (prepared, quantized)
    }
    assert len(paths) == 2


def test_without_a_test_set(make_objective: Make, tmp_path: Path) -> None:
    objective = make_objective(space=SPACE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=2)
    result = promote(
        study, objective, folder=tmp_path, top=5, n_seeds=1, rank=lambda study: [1, 0]
    )
    assert [one.trial for one in result.contenders] == [None, 1, 0]
    assert not any(one.test for one in result.contenders)
    assert "| test |" not in (result.adapter / "README.md").read_text()


# --- the merged model ---


def test_a_merged_model(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path, tiny_llm: Path
) -> None:
    """It has the loss that the adapter won with, and cards and numbers say what was lost."""
    promote(study, objective, folder=tmp_path, top=1, n_seeds=1)
    told: list[str] = []
    result = promote(
        study, objective, folder=tmp_path, top=1, n_seeds=1, merge=True, tell=told.append
    )
    assert not told  # merging an earlier promotion trains nothing
    merged = result.merged
    assert merged is not None and merged.folder == tmp_path / "merged"
    loaded = load_model(resolve_source(merged.folder), device="cpu", dtype=torch.float32)
    prepared = objective.prepare()
    loss = validation_loss(loaded.model, prepared.validation)
    assert loss == pytest.approx(result.winner.validation[0], abs=2e-5)
    assert merged.tokens == sum(len(example.ids) for example in prepared.validation)
    record = json.loads((tmp_path / "promotion.json").read_text())["merged"]
    assert record == {"dtype": "float32", "logit_difference": merged.difference,
        "logit_effect": merged.effect, "tolerance": merged.tolerance,
        "tokens": merged.tokens}  # fmt: skip
    card = (merged.folder / "README.md").read_text()
    assert card.startswith(f"---\nbase_model: {tiny_llm}\nbase_model_relation: finetune\n")
    assert f"by at most {merged.difference:.2g}" in card and "## Results" in card
    assert "AutoPeftModelForCausalLM" not in card


def test_a_base_that_was_quantized(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path
) -> None:
    """The adapter is merged into the weights before quantization, and the card says so."""
    prepared = objective.prepare()
    base = dataclasses.replace(prepared.base, quantization="4bit")
    objective._prepared = dataclasses.replace(prepared, base=base)
    result = promote(study, objective, folder=tmp_path, top=1, n_seeds=1, merge=True)
    assert result.merged is not None
    card = (result.merged.folder / "README.md").read_text()
    assert "trained on 4bit weights, and is merged into the base model's weights as they" in card


def test_a_merged_model_of_an_earlier_call_is_named(
    objective: LoRAObjective,
    study: optuna.Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(promotes, "warn_once", said.append)
    (tmp_path / "merged").mkdir()
    promote(study, objective, folder=tmp_path, top=1, n_seeds=1)
    (text,) = said
    assert "merged by an earlier call" in text and str(tmp_path / "merged") in text


def test_what_cannot_be_merged_is_said_before_any_training(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path
) -> None:
    (tmp_path / "merged").touch()
    told: list[str] = []
    with pytest.raises(InputError, match="is no folder"):
        promote(study, objective, folder=tmp_path, merge=True, tell=told.append)
    assert not told


def constrained(study: optuna.Study, *broken: int) -> optuna.Study:
    """The same trials in a new study, some of which break a constraint."""
    copy = optuna.create_study()
    for trial in study.trials:
        value = 1.0 if trial.number in broken else 0.0
        copy.add_trial(
            optuna.trial.create_trial(
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                system_attrs={"constraints": [value]},
            )
        )
    return copy


def test_what_breaks_a_constraint_is_not_promoted(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path
) -> None:
    """Whoever ranks it; the default is trained as the control, and does not win."""

    def by_value(study: optuna.Study) -> list[int]:
        return [t.number for t in sorted(study.trials, key=lambda trial: trial.value)]  # type: ignore[arg-type, return-value]

    best, second, *_, worst = by_value(study)
    broken = constrained(study, best)
    result = promote(broken, objective, folder=tmp_path, top=1, n_seeds=1, rank=by_value)
    assert result.contenders[-1].trial == second
    broken = constrained(study, 0)
    result = promote(broken, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [worst])
    default, other = result.contenders
    assert default.validation < other.validation and result.winner.trial == worst
    with pytest.raises(InputError, match="breaks a constraint, and no other is ranked"):
        promote(broken, objective, folder=tmp_path, rank=lambda _: [0])
    with pytest.raises(InputError, match="no complete trial to promote that breaks no constraint"):
        promote(constrained(study, *range(6)), objective, folder=tmp_path)


def test_the_default_is_the_trial_that_completed(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path
) -> None:
    copy = optuna.create_study()
    failed = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL, user_attrs={"is_default": True}
    )
    copy.add_trials([failed, study.trials[0]])
    result = promote(copy, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [1])
    assert [one.trial for one in result.contenders] == [1]


def test_what_diverges_does_not_win(
    objective: LoRAObjective, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(fits.Training):  # type: ignore[name-defined]
        def __iter__(self) -> Any:
            raise fits.TrainingDiverged("a loss of nan")  # type: ignore[attr-defined]

    monkeypatch.setattr(fits, "Training", Diverging)
    with pytest.raises(InputError, match="every configuration diverges on all data"):
        promote(study, objective, folder=tmp_path, top=1, n_seeds=1)


def test_a_metric_to_maximize(make_objective: Make, tmp_path: Path) -> None:
    """The larger mean wins, its better seed is saved, and the test data are read once."""
    values = iter([0.0, 0.1, 0.9, 0.6, 0.6, 0.3, 0.7, 0.8])  # the first before any trial
    score = metrics.Custom("score", "maximize", lambda *_: next(values))
    objective = make_objective(space=SPACE, test=8, metric=score, reports=1)
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=1)  # the second value
    result = promote(study, objective, folder=tmp_path, top=1, n_seeds=2, rank=lambda _: [0])
    default, other = result.contenders
    assert (default.validation, other.validation) == ((0.9, 0.6), (0.6, 0.3))
    assert result.winner is default and default.test == (0.7, 0.8)
    record = json.loads((tmp_path / "promotion.json").read_text())
    assert record["metric"] == "score" and record["adapter_seed"] == 0


def test_metrics_that_decide_nothing(make_objective: Make, tmp_path: Path) -> None:
    for metric, directions in (("seconds", ["minimize"]), (["loss", "seconds"], ["minimize"] * 2)):
        study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="one metric of the trained model, the study is on"):
            promote(study, make_objective(space=SPACE, metric=metric), folder=tmp_path)


def test_bad_input(objective: LoRAObjective, tmp_path: Path) -> None:
    empty = optuna.create_study()
    with pytest.raises(InputError, match="no complete trial to"):
        promote(empty, objective, folder=tmp_path)
    with pytest.raises(InputError, match="top must be an integer of at least 1"):
        promote(empty, objective, folder=tmp_path, top=0)


# --- what is promoted is what was searched ---


def changed_spaces() -> list[Any]:
    """Spaces that an objective may have after the study's: narrower, of other parameters, with
    other constants, and in other words."""
    return [
        {"batch_size": IntDistribution(3, 4)},
        {"lora_dropout": FloatDistribution(0.0, 0.1), "batch_size": IntDistribution(2, 3)},
        lambda trial: {"schedule": "constant", "rank": 8, "batch_size": 5},
        lambda trial: {"rank": 2 ** trial.suggest_int("log_rank", 0, 2), "batch_size": 4},
    ]


@pytest.mark.parametrize("space", changed_spaces())
def test_a_trial_is_promoted_as_it_was_run(
    make_objective: Make, study: optuna.Study, tmp_path: Path, space: Any
) -> None:
    objective = make_objective(space=space, test=8)
    result = promote(study, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [3])
    default, other = result.contenders
    assert result.default is default and default.trial == 0
    for one, trial in ((default, study.trials[0]), (other, study.trials[3])):
        assert dict(one.params) == trial.params
        assert dataclasses.asdict(one.recipe) == trial.user_attrs["recipe"]
        assert one.recipe.learning_rate == trial.params["learning_rate"]
    record = json.loads((tmp_path / "promotion.json").read_text())
    assert record["contenders"][1]["recipe"] == study.trials[3].user_attrs["recipe"]


def test_trials_of_two_spaces_are_promoted_side_by_side(
    make_objective: Make, study: optuna.Study, tmp_path: Path
) -> None:
    other = make_objective(space={"warmup_ratio": FloatDistribution(0.0, 0.2),
        "batch_size": IntDistribution(4, 5)}, test=8)  # fmt: skip
    study.pruner = optuna.pruners.NopPruner()
    study.enqueue_trial({"warmup_ratio": 0.2, "batch_size": 4})
    study.optimize(other, n_trials=1)
    result = promote(study, other, folder=tmp_path, n_seeds=1, rank=lambda _: [1, 6])
    _, first, last = result.contenders
    assert first.recipe.rank == study.trials[1].params["rank"] and last.recipe.rank == 16
    assert (first.recipe.warmup_ratio, last.recipe.warmup_ratio) == (0.1, 0.2)
    ranked = promotes.by_posterior_mean(study)  # whatever it ranks can be promoted
    assert set(ranked) <= {trial.number for trial in study.trials}


def without_records(study: optuna.Study) -> optuna.Study:
    """The study as a version that recorded no recipes left it."""
    copy = optuna.create_study()
    for trial in study.trials:
        attributes = {k: v for k, v in trial.user_attrs.items() if k != "recipe"}
        copy.add_trial(
            optuna.trial.create_trial(
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )
    return copy


def test_an_earlier_versions_trial_is_promoted_if_its_parameters_say_all(
    objective: LoRAObjective, make_objective: Make, study: optuna.Study, tmp_path: Path
) -> None:
    old = without_records(study)
    result = promote(old, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [3])
    assert dataclasses.asdict(result.contenders[1].recipe) == study.trials[3].user_attrs["recipe"]
    for space in changed_spaces()[2:]:
        changed = make_objective(space=space, test=8)
        with pytest.raises(InputError, match="did not record all its hyperparameters"):
            promote(old, changed, folder=tmp_path, n_seeds=1, rank=lambda _: [3])
