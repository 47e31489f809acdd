"""The sampler's options as one frozen value, checked once."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import os
from typing import Any
import zlib

import numpy as np
from optuna.distributions import BaseDistribution

from optuna_llmbo.embedding.language_model import AUTO
from optuna_llmbo.embedding.language_model import ModelSource
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.embedding.truncated import POOLINGS
from optuna_llmbo.errors import check_at_least
from optuna_llmbo.errors import check_choice
from optuna_llmbo.errors import check_type
from optuna_llmbo.errors import warn_once
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.axis import Axis
from optuna_llmbo.space.descriptions import Descriptions
from optuna_llmbo.space.prior import Range
from optuna_llmbo.study.transfer import SourceStudy
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.acquisition import ACQUISITIONS
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.covariance import KERNELS


FEWEST_READ = 3
"""Of two choices nothing can be said but that they differ."""
FEWEST_READ_UNASKED = 13
"""The same where nobody asked for a language model: with fewer choices it was measured to make no
difference (docs/llm.md)."""


_N_STARTUP = 6
_N_STARTUP_OF_MANY_CHOICES = 10
"""Start-up trials where a nominal parameter has more choices than fit into the usual number."""


def is_named(llm: str | os.PathLike[str] | None, kernel: str) -> bool:
    """Whether the user asks for a language model: by name, or with a kernel that needs one."""
    return kernel != "numeric" or llm not in (None, AUTO)


def warn_of_unused(**given: Any) -> None:
    """Warn of options of the language model that are given where there is none."""
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        warn_once(
            f"{', '.join(unused)}: not used, as there is no language model. Name one in llm=, or "
            "leave these out."
        )


@dataclass(frozen=True)
class SamplerOptions:
    """What `LLMBOSampler` was asked to do; its docstring explains each option.

    Raises:
        InputError: if an option is not one of those that there are.
    """

    kernel: KernelName
    model: ModelSource | None
    """Where the language model comes from; None: there is none."""
    device: str | None
    pooling: Pooling | None
    layer: int | None
    knowledge: Knowledge
    task: str | None
    prior: Mapping[str, Range]
    source_studies: tuple[SourceStudy, ...]
    n_startup_trials: int | None
    n_candidates: int
    acquisition: AcquisitionName
    cost_aware: bool
    provenance: bool
    seed: int
    is_model_named: bool = True
    """Whether the user wants a language model, and not only one that happens to be there."""
    ablation: Ablation = field(default_factory=Ablation)
    descriptions: Descriptions = Descriptions()
    """The user's words for choices."""

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("acquisition", self.acquisition, ACQUISITIONS)
        if self.pooling is not None:
            check_choice("pooling", self.pooling, POOLINGS)
        if self.layer is not None:
            check_at_least("layer", self.layer, 1)
        if self.n_startup_trials is not None:
            check_at_least("n_startup_trials", self.n_startup_trials, 0)
        check_at_least("n_candidates", self.n_candidates, 1)
        check_at_least("seed", self.seed, 0)
        if self.task is not None:
            check_type("task", self.task, str, "a sentence")
        for name in ("cost_aware", "provenance"):
            check_type(name, getattr(self, name), bool, "True or False")

    @property
    def reads_text(self) -> bool:
        """Whether the language model reads whole configurations."""
        return self.kernel != "numeric"

    @property
    def reads_choices(self) -> bool:
        """Whether the language model reads the choices of nominal parameters."""
        return self.kernel == "numeric" and self.model is not None

    @property
    def fewest_read(self) -> int:
        """Fewest different choices with letters that make a nominal parameter worth reading."""
        return FEWEST_READ if self.is_model_named else FEWEST_READ_UNASKED

    def n_startup(self, distributions: Iterable[BaseDistribution]) -> int:
        """Number of observed trials that the model needs in a space."""
        if self.n_startup_trials is not None:
            return self.n_startup_trials
        nominal = (axis for axis in map(Axis, distributions) if axis.is_nominal)
        most = max((axis.n_values for axis in nominal), default=0)
        return _N_STARTUP if most <= _N_STARTUP else _N_STARTUP_OF_MANY_CHOICES

    def without_model(self) -> SamplerOptions:
        """The same options with numbers and choices alone, as nothing is read."""
        return replace(self, kernel="numeric", model=None)

    def rng(self, *purpose: int | str) -> np.random.Generator:
        """Random numbers that derive from the seed and a purpose, the same in every process."""
        words = [zlib.crc32(str(word).encode()) for word in purpose]
        return np.random.default_rng([self.seed, *words])

    def seed_of(self, number: int) -> int:
        """Seed of the suggestion for trial `number`."""
        return int(self.rng(number, "suggestion").integers(2**31))
