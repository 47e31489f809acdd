"""The examples run as they are, with a small budget and a tiny model."""

from __future__ import annotations

import json
import os
from pathlib import Path
import pickle
import signal
import subprocess
import sys
import time

import optuna
import pytest
from ray.tune.search.optuna import OptunaSearch

from optuna_llmbo import LLMBOSampler


ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart(tiny_llm: Path) -> None:
    assert "learning_rate" in run("examples/quickstart.py", "--trials", 7, "--llm", tiny_llm)


@pytest.fixture
def lora_arguments(tiny_llm: Path, tmp_path: Path) -> list[object]:
    rows = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(60)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--model", tiny_llm, "--llm", tiny_llm, "--train", data, "--validation", 8]


def test_lora(lora_arguments: list[object]) -> None:
    printed = run("examples/lora.py", *lora_arguments, "--trials", 6, "--proxy", 0.5)
    assert "base model" in printed and "best" in printed


@pytest.mark.slow
def test_lora_on_the_embedded_model() -> None:
    printed = run("examples/lora.py", "--trials", 1, "--proxy", 0.008, "--validation", 8)
    base, default = printed.splitlines()[:2]
    assert float(default.split()[1]) < float(base.split()[2])


def test_sklearn_search_cv(tiny_llm: Path) -> None:
    printed = run("examples/sklearn_search_cv.py", "--trials", 7, "--llm", tiny_llm)
    assert "best on held-out data" in printed and "mlpclassifier__alpha" in printed


def test_hf_trainer(tiny_llm: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    run("examples/hf_trainer.py", "--llm", tiny_llm, "--storage", storage,
        "--trials", 7, "--steps", 8)  # fmt: skip
    (study,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).trials
    assert len(trials) == 7
    assert {frozenset(trial.params) for trial in trials} == {
        frozenset({"lora_r", "lora_alpha", "learning_rate", "warmup_steps"})
    }
    first, *rest = (trial.intermediate_values for trial in trials)
    assert list(first) == [2, 4, 6, 8] and all(2 in values for values in rest)


def test_hf_trainer_gives_the_model_its_rank() -> None:
    from examples import hf_trainer

    model_init = hf_trainer.with_adapter(str(hf_trainer.HERE / "base"))
    trial = optuna.trial.FixedTrial({"lora_r": 3, "lora_alpha": 7.5})
    for model, rank, alpha in ((model_init(trial), 3, 7.5), (model_init(None), 8, 16.0)):
        (adapter,) = model.peft_config.values()
        assert (adapter.r, adapter.lora_alpha) == (rank, alpha)
        assert model.get_nb_trainable_parameters()[0] > 0


def test_ray_tune_interrupted_and_resumed(tiny_llm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    command = [sys.executable, str(ROOT / "examples/ray_tune.py"), "--llm", str(tiny_llm),
               "--trials", "10", "--results", str(folder)]  # fmt: skip
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as search:
        try:
            deadline = time.monotonic() + 200
            while n_trained(folder) < 2 and search.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            search.send_signal(signal.SIGINT)
            printed, _ = search.communicate(timeout=100)
        finally:
            search.kill()  # nothing to do if it has ended
    assert "interrupted" in printed, printed
    before = ray_trials(folder)
    assert 2 <= len(before) < 10

    result = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=200
    )
    assert "10 trials" in result.stdout, result.stderr
    after = ray_trials(folder)
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    assert len(after) == 10 and all(trial.value is not None for trial in after)
    steps = {len(trial.intermediate_values) for trial in after}
    assert len(steps) > 1, "ASHA stopped no trial"


def n_trained(folder: Path) -> int:
    """Trials that have reported to Ray Tune."""
    return sum(path.stat().st_size > 0 for path in folder.glob("train_*/result.json"))


def ray_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="digits", storage=f"sqlite:///{folder}/study.db").trials


SPACE = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    "batch_size": optuna.distributions.IntDistribution(4, 256, log=True),
}


def ray_searcher(llm: Path) -> OptunaSearch:
    sampler = LLMBOSampler(llm=llm, n_startup_trials=2, n_candidates=8, seed=0)
    return OptunaSearch(SPACE, metric="loss", mode="min", sampler=sampler)


def suggestions(searcher: OptunaSearch, numbers: range) -> list[dict[str, float]]:
    """Trials with a known loss, each begun while the one before is still running."""
    configs = []
    for i in numbers:
        configs.append(searcher.suggest(f"t{i}"))
        if i > 0:
            loss = configs[-1]["batch_size"] / 256 + i
            searcher.on_trial_result(f"t{i - 1}", {"loss": loss + 1, "training_iteration": 1})
            searcher.on_trial_complete(f"t{i - 1}", {"loss": loss, "training_iteration": 2})
    return configs


@pytest.mark.usefixtures("one_thread")
def test_ray_searcher_goes_on_as_if_never_stopped(tiny_llm: Path, tmp_path: Path) -> None:
    expected = suggestions(ray_searcher(tiny_llm), range(6))
    searcher = ray_searcher(tiny_llm)
    begun = suggestions(searcher, range(4))
    searcher.save(str(tmp_path / "searcher.pkl"))
    assert len(pickle.dumps(searcher.__dict__)) < 200_000  # no language model in it
    resumed = OptunaSearch(SPACE, metric="loss", mode="min")
    resumed.restore(str(tmp_path / "searcher.pkl"))
    assert begun + suggestions(resumed, range(4, 6)) == expected
