"""A study of a trainer's objective is promoted with that trainer, on all of the rows."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.promote import promote
from optuna_llmbo.trainer import TrainerJob
from optuna_llmbo.trainer import TrainerObjective
from optuna_llmbo.trainer.promotable import PromotableTrainer
from tests.lora.conftest import N_ROWS
from tests.lora.conftest import rows


Make = Callable[..., TrainerObjective]
SPACE: dict[str, Any] = {
    "rank": IntDistribution(2, 8),
    "batch_size": IntDistribution(3, 6),
    "learning_rate": FloatDistribution(1e-4, 2e-2, log=True),
}


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """In all tests of this file."""


def sft(job: TrainerJob) -> Any:
    """TRL's trainer for supervised fine-tuning."""
    import trl

    def to_text(row: dict[str, str]) -> dict[str, str]:
        return {"prompt": row["prompt"], "completion": row["response"]}

    parts = [
        part.map(to_text, remove_columns=["response"]) for part in (job.train, job.validation)
    ]
    return trl.SFTTrainer(
        model=job.model,
        args=job.sft_config(max_length=64, bf16=False),
        train_dataset=parts[0],
        eval_dataset=parts[1],
        processing_class=job.tokenizer,
        peft_config=job.lora_config(),
    )


def plain(job: TrainerJob, place: Path, config: Any) -> Any:
    """The Trainer of transformers, with a model of its own."""
    from transformers import DataCollatorForLanguageModeling
    from transformers import Trainer

    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    if config is not None:
        model = peft.get_peft_model(model, config)
    parts = [
        part.map(
            lambda row: tokenizer(row["prompt"] + row["response"]),
            remove_columns=part.column_names,
        )
        for part in (job.train, job.validation)
    ]
    return Trainer(
        model,
        job.training_arguments(bf16=False),
        train_dataset=parts[0],
        eval_dataset=parts[1],
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )


@pytest.fixture
def make_objective(tiny_llm: Path) -> Make:
    def make(**changes: Any) -> TrainerObjective:
        settings: dict[str, Any] = {
            "make_trainer": sft,
            "train": datasets.Dataset.from_list(rows(N_ROWS)),
            "validation": 6,
            "test": 8,
            "proxy": 0.5,
            "space": SPACE,
            "model": tiny_llm,
            "device": "cpu",
            "dtype": torch.float32,
            "reports": 1,
        }
        return TrainerObjective(**{**settings, **changes})

    return make


def searched(objective: TrainerObjective, n_trials: int = 3) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(objective.default_params or {})
    study.optimize(objective, n_trials=n_trials)
    return study


def eval_loss(model: Any, objective: TrainerObjective, part: datasets.Dataset) -> float:
    """The loss of a model on what TRL makes of the rows."""
    usual = objective.prepare().space.defaults
    with objective.untrained(usual, validation=part) as trainer:
        (batch,) = trainer.get_eval_dataloader()
    with torch.no_grad():
        return float(model.eval()(**{name: value.clone() for name, value in batch.items()}).loss)


@pytest.mark.long
def test_a_promotion(make_objective: Make, tmp_path: Path, tiny_llm: Path) -> None:
    """Resumed after an interruption, with test data, and merged."""

    def interrupt(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    told: list[str] = []
    objective = make_objective()
    study = searched(objective)
    about: dict[str, Any] = {
        "folder": tmp_path,
        "n_seeds": 2,
        "rank": lambda _: [2],
        "merge": True,
    }
    with pytest.raises(KeyboardInterrupt):
        promote(study, objective, **about, tell=interrupt)
    assert told[0] == "default, 46 examples, seed 0" and told[2] == "trial 2, 46 examples, seed 0"
    rest: list[str] = []
    result = promote(study, objective, **about, tell=rest.append)
    assert rest == [told[2], "trial 2, 46 examples, seed 1"]

    prepared = objective.prepare()
    assert len(prepared.rows.pool) == 46 > prepared.rows.n_proxy
    assert [one.trial for one in result.contenders] == [0, 2]
    assert result.winner is min(result.contenders, key=lambda one: sum(one.validation))
    assert all(len(one.validation) == len(one.test) == 2 for one in result.contenders)
    assert len({value for one in result.contenders for value in one.validation}) == 4

    seed = min(range(2), key=lambda i: result.winner.validation[i])
    fresh = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.float32).model
    adapted = peft.PeftModel.from_pretrained(fresh, str(result.adapter))
    assert result.merged is not None
    whole = AutoModelForCausalLM.from_pretrained(result.merged.folder)
    for model in (adapted, whole):
        for part, values in (
            (prepared.rows.validation, result.winner.validation),
            (prepared.rows.test, result.winner.test),
        ):
            assert part is not None
            assert eval_loss(model, objective, part) == pytest.approx(values[seed], abs=2e-5)
    assert AutoTokenizer.from_pretrained(result.adapter).eos_token == "<eos>"
    record = json.loads((tmp_path / "promotion.json").read_text())
    assert record["metric"] == "eval_loss" and record["examples"] == 46
    assert record["contenders"][1]["recipe"]["rank"] == study.trials[2].params["rank"]
    assert record["merged"]["logit_difference"] <= record["merged"]["tolerance"]
    card = (result.adapter / "README.md").read_text()
    assert card.startswith(f"---\nbase_model: {tiny_llm}\nlibrary_name: peft\n")
    assert "eval_loss, to minimize" in card and "| rank |" in card


@pytest.mark.long
@pytest.mark.parametrize("variant", ["pissa", "olora"])
def test_an_adapter_that_starts_at_the_weights_is_saved_as_a_difference(
    make_objective: Make, tmp_path: Path, tiny_llm: Path, variant: str
) -> None:
    objective = make_objective(defaults={"variant": variant, "rank": 4}, measure_base=False,
        space={"learning_rate": FloatDistribution(1e-3, 2e-2)})  # fmt: skip
    study = searched(objective, 1)
    result = promote(study, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [0], merge=True)
    config = json.loads((result.adapter / "adapter_config.json").read_text())
    assert config["r"] == 8 and config["init_lora_weights"] is True
    assert result.merged is not None
    whole = AutoModelForCausalLM.from_pretrained(result.merged.folder)
    validation = objective.prepare().rows.validation
    assert eval_loss(whole, objective, validation) == pytest.approx(
        result.winner.validation[0], abs=1e-4
    )


@pytest.mark.long
def test_a_trainer_that_loads_its_own_model(
    make_objective: Make, tmp_path: Path, tiny_llm: Path
) -> None:
    """The card and the merged model take the base from what was trained; a whole model is saved
    as one, and is not merged."""

    def own(job: TrainerJob) -> Any:
        return plain(job, tiny_llm, job.lora_config() if adapted else None)

    adapted = True
    objective = make_objective(make_trainer=own, model=None, test=None)
    study = searched(objective, 1)
    result = promote(study, objective, folder=tmp_path / "a", n_seeds=1, rank=lambda _: [0],
        merge=True)  # fmt: skip
    assert result.merged is not None and not result.winner.test
    assert f"base_model: {tiny_llm}" in (result.adapter / "README.md").read_text()
    adapted = False
    with pytest.raises(InputError, match="trains no adapter"):
        promote(study, objective, folder=tmp_path / "b", rank=lambda _: [0], merge=True)
    result = promote(study, objective, folder=tmp_path / "b", n_seeds=1, rank=lambda _: [0])
    AutoModelForCausalLM.from_pretrained(result.adapter)
    card = (result.adapter / "README.md").read_text()
    assert "library_name: transformers" in card and "AutoPeft" not in card
    with pytest.raises(InputError, match=r"model has no model\.embed_tokens\.weight, which"):
        adapted = True
        promote(study, objective, folder=tmp_path / "b", n_seeds=1, rank=lambda _: [0])


# --- without any training


class Fake:
    """An objective whose trainings end as they are told to."""

    def __init__(self, objective: TrainerObjective, ends: dict[int, Any]) -> None:
        self._objective = objective
        self._ends = ends
        self.trained_seeds: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    @contextlib.contextmanager
    def trained(self, configuration: Any, *, seed: int, **_: Any) -> Any:
        self.trained_seeds.append(seed)
        end = self._ends[seed]
        if isinstance(end, BaseException):
            raise end
        model = torch.nn.Linear(2, 2)
        trainer = SimpleNamespace(
            model=model,
            accelerator=SimpleNamespace(unwrap_model=lambda one: one),
            state=SimpleNamespace(global_step=3),
        )
        yield SimpleNamespace(trainer=trainer, value=end)


def fits_of(fake: Fake, folder: Path) -> PromotableTrainer:
    objective: Any = fake
    return PromotableTrainer(objective, folder)


def test_how_fits_end(make_objective: Make, tmp_path: Path) -> None:
    """What diverges is infinitely bad and is kept; lack of memory is an error, and is not."""
    objective = make_objective(measure_base=False)
    no_memory = optuna.TrialPruned("out of memory with 2 examples at once on a device")
    ends = {0: 2.5, 1: optuna.TrialPruned("eval_loss is nan at 100%"), 2: no_memory}
    fake = Fake(objective, ends)
    fits = fits_of(fake, tmp_path)
    usual = objective.prepare().space.defaults
    found = [fits.fit(usual, seed=seed, name="default") for seed in (0, 1, 1, 0)]
    assert [one.value for one in found] == [2.5, math.inf, math.inf, 2.5]
    assert [one.steps for one in found] == [3, 0, 0, 3] and fake.trained_seeds == [0, 1]
    assert fits.validation(usual, found[1], seed=1) == math.inf
    for _ in range(2):
        with pytest.raises(InputError, match="all of the data with seed 2: lower at_once"):
            fits.fit(usual, seed=2, name="default")
    assert fake.trained_seeds == [0, 1, 2, 2]
    # another proxy, seed of the search or test set is the same training; other rows are not
    same = fits_of(Fake(make_objective(measure_base=False, proxy=0.2), {}), tmp_path)
    assert same.fit(usual, seed=0, name="default") == found[0]
    other = make_objective(measure_base=False, seed=5)
    with pytest.raises(KeyError):
        fits_of(Fake(other, {}), tmp_path).fit(usual, seed=0, name="default")


@pytest.mark.long
def test_a_start_that_is_drawn_without_the_seed(
    make_objective: Make, tmp_path: Path, tiny_llm: Path
) -> None:
    def unseeded(job: TrainerJob) -> Any:
        torch.seed()
        return plain(job, tiny_llm, job.lora_config(init_lora_weights="pissa_niter_0"))

    objective = make_objective(make_trainer=unseeded, model=None,
        defaults={"variant": "pissa", "rank": 4},
        measure_base=False, space={"learning_rate": FloatDistribution(1e-3, 2e-2)})  # fmt: skip
    study = searched(objective, 1)
    with pytest.raises(InputError, match="without the job's seed"):
        promote(study, objective, folder=tmp_path, n_seeds=1, rank=lambda _: [0])
