"""Variants of what the surrogate makes of nominal parameters: kernels, and places of choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.errors import InputError
from optuna_llmbo.surrogate import choice_view


KernelName = Literal["main", "equal", "one-hot", "product", "number-effects"]
LLMName = Literal["smollm2", "minilm", "gemma"]
LayerName = Literal["quarter", "half", "last"]


@dataclass(frozen=True)
class Read:
    """A way of reading choices; the defaults are the sampler's where nobody names a model."""

    llm: LLMName = "smollm2"
    layer: LayerName = "quarter"
    """Layer up to which the model is read; one of the BERT family is read whole."""
    pooling: Pooling | None = None
    """None: the learnable token's state, or the mean for the BERT family."""
    passage: bool = True
    """Whether the choices stand behind a passage."""
    everything: bool = False
    """Whether parameters of few choices are read too, as where a model is named."""
    whitening: float = choice_view._WHITENING
    """Power of the principal axes' deviations that they are divided by."""


@dataclass(frozen=True)
class Variant:
    """A kernel, and where it has the choices of nominal parameters."""

    name: str
    says: str
    """What it is, for the report."""
    kernel: KernelName = "main"
    """The shipped kernel with main effects; without ("equal"); a column and a lengthscale for each
    choice; a product of numbers and nominal parameters; main effects of numbers too."""
    read: Read | None = None
    """How a language model reads the choices; None: it does not."""
    train_token: bool = False
    random: bool = False
    """Whether the parameters that would be read have random places."""


_SHIPPED = (
    Variant("one-hot", "a column and a lengthscale a choice", kernel="one-hot"),
    Variant("equal", "equal or different, one lengthscale a parameter", kernel="equal"),
    Variant("equal+main", "the same and main effects of choices: shipped, no language model"),
    Variant("random", "random places of the parameters that are read", random=True),
    Variant("read", "shipped, SmolLM2, token at its neutral value", read=Read()),
    Variant("read+token", "shipped, SmolLM2, trained token", read=Read(), train_token=True),
)
_OTHERS = (
    Variant("product", "numbers times each nominal parameter", kernel="product"),
    Variant("number-effects", "main effects of numbers too", kernel="number-effects"),
    Variant("mean", "mean over the tokens", read=Read(pooling="mean")),
    Variant("half", "read up to half of the layers", read=Read(layer="half")),
    Variant("last", "all layers", read=Read(layer="last")),
    Variant("whitening-0", "axes as they are", read=Read(whitening=0.0)),
    Variant("whitening-0.5", "axes half whitened", read=Read(whitening=0.5)),
    Variant("whitening-1", "axes whitened", read=Read(whitening=1.0)),
    Variant("no-passage", "nothing before the choices", read=Read(passage=False)),
    Variant("all-read", "parameters of 3 choices and more are read", read=Read(everything=True)),
    Variant("minilm", "MiniLM, whole", read=Read(llm="minilm")),
    Variant("gemma", "Gemma 3 270M", read=Read(llm="gemma")),
)

VARIANTS = {variant.name: variant for variant in (*_SHIPPED, *_OTHERS)}
"""By name, in the order of the report."""
BASE = "equal+main"
"""Variant that the others are compared with."""


def check(names: list[str]) -> None:
    """Check names of variants.

    Raises:
        InputError: if there is no such variant.
    """
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise InputError(f"unknown variant {unknown[0]!r}: expected one of {', '.join(VARIANTS)}.")
