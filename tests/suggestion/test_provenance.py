"""What a trial says of how it was chosen."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.suggestion import fitted


def line(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)


def study_of(sampler: LLMBOSampler, n: int = 8, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(sampler=sampler, direction=direction)  # type: ignore[arg-type]
    study.enqueue_trial({"x": 0.1, "y": 0.2})
    study.optimize(line, n_trials=n)
    return study


def test_every_path() -> None:
    study = study_of(LLMBOSampler(seed=0, n_startup_trials=4))
    paths = [trial.user_attrs["llmbo:path"] for trial in study.trials]
    assert paths == ["enqueued", "default", "start-up", "start-up", *["model"] * 4]
    for trial in study.trials[4:]:
        for name in ("mean", "deviation", "acquisition", "seconds"):
            assert math.isfinite(trial.user_attrs[f"llmbo:{name}"])
        assert "llmbo:text" not in trial.user_attrs
    first = optuna.create_study(sampler=LLMBOSampler(seed=0))
    first.optimize(line, n_trials=1)
    assert first.trials[0].user_attrs["llmbo:path"] == "default"


@pytest.mark.long
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_means_are_in_the_objectives_units(direction: str) -> None:
    study = study_of(LLMBOSampler(seed=0), n=16, direction=direction)
    last = study.trials[-1]
    assert last.user_attrs["llmbo:mean"] == pytest.approx(last.value, abs=0.1)
    assert 0 < last.user_attrs["llmbo:deviation"] < 0.3


@pytest.mark.long
def test_one_mean_an_objective() -> None:
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=LLMBOSampler(seed=0, n_startup_trials=4)
    )
    study.optimize(lambda trial: (line(trial), trial.params["x"] * 10), n_trials=10)
    last = study.trials[-1]
    means, deviations = (last.user_attrs[f"llmbo:{name}"] for name in ("mean", "deviation"))
    assert means[0] == pytest.approx(last.values[0], abs=0.4)
    assert means[1] == pytest.approx(last.values[1], abs=2.5)
    assert len(deviations) == 2 and min(deviations) > 0


def test_the_language_model_and_its_prompt(tiny_llm: Path) -> None:
    texts = []
    for task in ("tea", "coffee"):
        sampler = LLMBOSampler(seed=0, llm=tiny_llm, kernel="sum", n_candidates=4, task=task)
        texts.append(study_of(sampler, n=7).trials[-1].user_attrs["llmbo:text"])
    sources, hashes = zip(*(text.rsplit(" ", 1) for text in texts), strict=True)
    assert sources[0] == sources[1] and tiny_llm.name in sources[0]
    assert hashes[0] != hashes[1]


def test_fallbacks_say_so(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitted.fit_surrogates  # type: ignore[attr-defined]

    def fail(observed: object, targets: object, kernel: str, *rest: object) -> object:
        if kernel == "sum" or broken:
            raise SurrogateFitError("no")
        return fit(observed, targets, kernel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fitted, "fit_surrogates", fail)
    for broken, path in ((False, "fallback"), (True, "independent")):  # noqa: B007
        sampler = LLMBOSampler(seed=0, llm=tiny_llm, kernel="sum", n_candidates=4)
        attributes = study_of(sampler, n=7).trials[-1].user_attrs
        assert attributes["llmbo:path"] == path and "llmbo:text" not in attributes


def test_it_can_be_switched_off() -> None:
    study = study_of(LLMBOSampler(seed=0, provenance=False))
    assert all(trial.user_attrs == {} for trial in study.trials)
