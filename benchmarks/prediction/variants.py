"""Variants of the surrogate, and the questions that comparing them answers.

A variant differs in one thing from its base, the surrogate as shipped with an untrained text view.
What training adds is a question of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import Any
from typing import Literal

from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.errors import InputError
from optuna_llmbo.surrogate import covariance as covariances
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.priors import LENGTHSCALE_STANDARD_DEVIATION
from optuna_llmbo.surrogate.targets import TransformName
from optuna_llmbo.surrogate.targets import TRANSFORMS
from optuna_llmbo.surrogate.text_view import MAX_WIDTH


LLMName = Literal["smollm2", "minilm", "gemma"]
WordingName = Literal["graded", "bare", "sentence"]
LayerName = Literal["quarter", "half", "three-quarters", "last"]
ScalingName = Literal["whitened", "half", "natural", "normalized"]
SecondName = Literal["matern", "ard", "linear", "numbers"]

TEXT_TASKS = ("hpobench-car", "hpobench-phoneme", "hpobench-vehicle", "lora-10")
"""Tuning tasks with meaningful hyperparameters, from which quantities can be derived."""
TASKS = (*TEXT_TASKS, "bbob-sharp-ridge-5d", "bbob-rastrigin-5d")


@dataclass(frozen=True)
class Text:
    """Way of reading configurations."""

    llm: LLMName = "smollm2"
    wording: WordingName = "graded"
    layer: LayerName = "quarter"
    """Layer up to which the model is read; one of the BERT family is read whole."""
    pooling: Pooling | None = None
    """None: the learnable token's state, or the mean for the BERT family."""


@dataclass(frozen=True)
class Variant:
    """A surrogate and its inputs."""

    kernel: KernelName = "sum"
    second: SecondName = "matern"
    """Second kernel: Matern on the text with one lengthscale, or with one per axis ("ard"), or
    linear; or "numbers", another Matern on the numbers, with one lengthscale."""
    derived: bool = True
    lengthscale: tuple[float, float] | None = None
    """Prior median in one dimension and standard deviation of the log; None: the package's."""
    transform: TransformName = Ablation().transform
    text: Text = Text()
    axes: int = MAX_WIDTH
    """Largest number of principal axes of the embedding."""
    scaling: ScalingName = "whitened"
    """Scaling of the axes: to one standard deviation, divided by its root ("half"), none, or none
    on embeddings of length 1 ("normalized")."""
    train_token: bool = False
    train_projection: bool = False
    free: bool = False
    """Whether training is unregularized: no priors, no early stopping, more steps."""

    @property
    def reads(self) -> bool:
        """Whether the variant needs a language model."""
        return self.kernel != "numeric" and self.second != "numbers"

    @property
    def is_trained(self) -> bool:
        """Whether the text view is trained."""
        return self.train_token or self.train_projection


BASES = {
    "numeric": Variant(kernel="numeric"),
    "sum": Variant(),
    "text": Variant(kernel="text"),
    "sum-underived": Variant(derived=False),
}
"""Variants that the others are compared with."""

Change = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """Variants compared in one table."""

    name: str
    title: str
    bases: tuple[str, ...]
    default: str
    """Label of what the bases have."""
    changes: Mapping[str, Change]
    """Changes of the variants with respect to the bases, by label."""
    tasks: tuple[str, ...] = TEXT_TASKS

    def rows(self, base: str) -> dict[str, str]:
        """Map each variant's label to its name, the base first."""
        variants = {
            label: replace(BASES[base], **change) for label, change in self.changes.items()
        }
        return {self.default: base} | {label: NAMES[v] for label, v in variants.items()}


HVARFNER = (math.exp(math.sqrt(2)), math.sqrt(3))
"""Hvarfner, Hellsten & Nardi 2024 (arXiv:2402.02229)."""

_TEXT = ("sum", "text")

QUESTIONS = (
    Question(
        "derived",
        "Derived quantities",
        ("numeric",),
        "derived",
        {"hyperparameters": {"derived": False}},
    ),
    Question(
        "lengthscale",
        "Lengthscale prior: median in one dimension, deviation of the logarithm",
        ("numeric",),
        f"{covariances._LENGTHSCALE_MEDIAN:g}, {LENGTHSCALE_STANDARD_DEVIATION:g}",
        {
            "hvarfner": {"lengthscale": HVARFNER},
            "2, 1": {"lengthscale": (2.0, 1.0)},
            "1, 1": {"lengthscale": (1.0, 1.0)},
            "1, 0.7": {"lengthscale": (1.0, 0.7)},
        },
        TASKS,
    ),
    Question(
        "transform",
        "Transform of the targets",
        ("numeric",),
        Ablation().transform,
        {name: {"transform": name} for name in TRANSFORMS if name != Ablation().transform},
        TASKS,
    ),
    Question(
        "kernel",
        "Kernel",
        ("sum",),
        "sum",
        {name: {"kernel": name} for name in ("numeric", "text")},
    ),
    Question(
        "control",
        "What stands beside the numbers' kernel, with and without derived quantities",
        ("sum", "sum-underived"),
        "text",
        {"nothing": {"kernel": "numeric"}, "numbers": {"second": "numbers"}},
    ),
    Question(
        "layer",
        "Layer that is read",
        _TEXT,
        "quarter",
        {name: {"text": Text(layer=name)} for name in ("half", "three-quarters", "last")},
    ),
    Question(
        "wording",
        "Wording",
        _TEXT,
        "graded",
        {name: {"text": Text(wording=name)} for name in ("bare", "sentence")},
    ),
    Question("pooling", "Pooling", _TEXT, "last", {"mean": {"text": Text(pooling="mean")}}),
    Question(
        "llm",
        "Language model",
        _TEXT,
        "smollm2",
        {name: {"text": Text(llm=name)} for name in ("minilm", "gemma")},
    ),
    Question(
        "axes",
        "Principal axes",
        _TEXT,
        str(MAX_WIDTH),
        {str(k): {"axes": k} for k in (4, 8, 16, 32) if k != MAX_WIDTH},
    ),
    Question(
        "scaling",
        "Scaling of the axes",
        _TEXT,
        "whitened",
        {name: {"scaling": name} for name in ("half", "natural", "normalized")},
    ),
    Question(
        "second",
        "Kernel of the text",
        _TEXT,
        "matern",
        {name: {"second": name} for name in ("ard", "linear")},
    ),
    Question(
        "training",
        "What is trained: learnable token, projection; with priors and stop, or free",
        _TEXT,
        "nothing",
        {
            "token": {"train_token": True},
            "projection": {"train_projection": True},
            "both": {"train_token": True, "train_projection": True},
            "free token": {"train_token": True, "free": True},
            "free projection": {"train_projection": True, "free": True},
            "free both": {"train_token": True, "train_projection": True, "free": True},
        },
    ),
)
"""Questions in the order of the report."""


def _named() -> dict[str, Variant]:
    """Name all variants; one in several questions is named after the first."""
    variants = dict(BASES)
    for question in QUESTIONS:
        for base in question.bases:
            for label, change in question.changes.items():
                variant = replace(BASES[base], **change)
                if variant not in variants.values():
                    variants[f"{base}-{question.name}-{_slug(label)}"] = variant
    return variants


def _slug(label: str) -> str:
    return label.replace(", ", "-").replace(" ", "-").replace("_", "-")


VARIANTS = _named()
NAMES = {variant: name for name, variant in VARIANTS.items()}


def tasks_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Collect the tasks of each variant: those of the questions that include it.

    Args:
        names: names of questions.

    Raises:
        InputError: if there is no such question.
    """
    questions = {question.name: question for question in QUESTIONS}
    unknown = [name for name in names if name not in questions]
    if unknown:
        raise InputError(f"unknown question {unknown[0]!r}: expected {', '.join(questions)}.")
    found: dict[str, dict[str, None]] = {}
    for question in map(questions.__getitem__, names):
        for base in question.bases:
            for name in question.rows(base).values():
                found.setdefault(name, {}).update(dict.fromkeys(question.tasks))
    return {name: [task for task in TASKS if task in some] for name, some in found.items()}
