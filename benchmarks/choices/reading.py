"""Places of choices: where language models have them, as the sampler reads, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import functools
from typing import cast

import torch
from torch import Tensor

from benchmarks.choices import problems
from benchmarks.choices.problems import Problem
from benchmarks.choices.variants import LayerName
from benchmarks.choices.variants import LLMName
from benchmarks.choices.variants import Read
from benchmarks.prediction.fit import replaced
from benchmarks.prediction.texts import LLMS
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.embedding.truncated import n_layers
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.suggestion.choice_reader import ChoiceReader
from optuna_llmbo.suggestion.options import FEWEST_READ_UNASKED
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.surrogate import choice_view
from optuna_llmbo.surrogate.choice_view import ChoiceView
from optuna_llmbo.surrogate.choice_view import ChoiceViews


_PARTS: dict[LayerName, int] = {"half": 2, "last": 1}
N_RANDOM = 64
"""Dimensions of random places."""


class _Bare(ChoiceTexts):
    """Writes choices with nothing before them."""

    passage = ""


@functools.cache
def views(read: Read, task_name: str) -> ChoiceViews | None:
    """Read the choices of a problem; None if no parameter is worth reading.

    Raises:
        InputError: if the language model is not installed.
    """
    texts = problems.load(task_name).texts
    if not read.passage:
        texts = _Bare(texts.space, texts.knowledge)
    reader = ChoiceReader(_options(read.llm, read.layer, read.pooling, read.everything))
    with replaced(choice_view, _WHITENING=read.whitening):
        meaning = reader.read(texts)
    return None if meaning is None else meaning.neutral


@functools.cache
def _options(
    name: LLMName, layer: LayerName, pooling: Pooling | None, everything: bool
) -> SamplerOptions:
    """The sampler's options; a model that is not named reads parameters of many choices only."""
    source = LLMS[name]()
    n = None
    if layer != "quarter":
        n = max(1, n_layers(load_shared_model(resolve_source(source))) // _PARTS[layer])
    sampler = LLMBOSampler(llm=source, pooling=pooling, layer=n, seed=0)
    return replace(sampler._engine.options, is_model_named=everything)


@dataclass(frozen=True)
class _RandomReading:
    """Embeddings of choices that mean nothing, in the place of a reading."""

    embedding: Tensor
    """(C, 64)."""

    def neutral_token(self) -> Tensor:
        """No token."""
        return self.embedding.new_zeros(0)

    def embed(self, token: Tensor) -> Tensor:
        """The embeddings, whatever the token is."""
        return self.embedding


def random_coordinates(problem: Problem, seed: int) -> list[Tensor | None]:
    """Draw places of the choices of the parameters that would be read, normally distributed.

    They become coordinates as embeddings do.

    Args:
        problem: has the parameters.
        seed: of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    coordinates: list[Tensor | None] = []
    for name, n in zip(problem.texts.names, problem.sizes, strict=True):
        placed = None
        if problem.texts.n_with_letters(name) >= FEWEST_READ_UNASKED:
            drawn = torch.randn(n, N_RANDOM, generator=generator, dtype=torch.float64)
            view = ChoiceView.neutral(cast(Reading, _RandomReading(drawn)))
            assert view is not None
            placed = view.places
        coordinates.append(placed)
    return coordinates
