"""The hyperparameters of one LoRA run: checked values, names, search space and default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import difflib
import math
import numbers
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.axis import Axis
from optuna_llmbo.errors import InputError


VARIANTS = ("lora", "rslora", "dora")

_ALIASES = {
    "rank": "rank",
    "r": "rank",
    "lora_r": "rank",
    "alpha": "lora_alpha",
    "lora_alpha": "lora_alpha",
    "alpha_ratio": "alpha_ratio",
    "dropout": "lora_dropout",
    "lora_dropout": "lora_dropout",
    "batch_size": "batch_size",
    "lr": "learning_rate",
    "learning_rate": "learning_rate",
}
_WHOLE = ("rank", "batch_size")
_MAX_BATCH = 256
_MIN_STEPS = 4  # optimizer steps that every run of the default space makes


def checked(role: str, value: Any) -> Any:
    """`value` as a plain int or float, if the field `role` can have it.

    Raises:
        InputError: if it cannot.
    """
    whole = role in _WHOLE
    kind: Any = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        expected = "an integer" if whole else "a finite number"
        raise InputError(f"{role}={value!r}: expected {expected}.")
    number = int(value) if whole else float(value)
    if whole and number < 1:
        raise InputError(f"{role}={number!r}: it must be at least 1.")
    if role == "lora_dropout" and not 0 <= number < 1:
        raise InputError(f"{role}={number!r}: it must be at least 0 and below 1.")
    if role in ("lora_alpha", "alpha_ratio", "learning_rate") and number <= 0:
        raise InputError(f"{role}={number!r}: it must be above 0.")
    return number


def check_variant(variant: str) -> None:
    """Check that `variant` is one of `VARIANTS`.

    Raises:
        InputError: if it is not.
    """
    if variant not in VARIANTS:
        raise InputError(f"variant={variant!r}: expected one of {', '.join(VARIANTS)}.")


@dataclass(frozen=True)
class LoRARecipe:
    """What one run is trained with. Values are checked, never rounded or truncated.

    Raises:
        InputError: if a value is out of its range or of another type.
    """

    rank: int
    """Width r of the two low-rank factors, >= 1."""
    lora_alpha: float
    """Scale, > 0; the update is (alpha / rank) B A x (Hu et al. 2021, arXiv:2106.09685, 4.1)."""
    lora_dropout: float
    """Probability that an input of A is dropped in training, in [0, 1)."""
    batch_size: int
    """Examples per optimizer step, over all micro-batches, >= 1."""
    learning_rate: float
    """Peak rate of AdamW, > 0."""
    variant: str = "lora"
    """One of `VARIANTS`."""

    def __post_init__(self) -> None:
        for name in ("rank", "lora_alpha", "lora_dropout", "batch_size", "learning_rate"):
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        check_variant(self.variant)

    @property
    def alpha_ratio(self) -> float:
        """alpha / rank: how strongly the adapter's output is scaled."""
        return self.lora_alpha / self.rank

    @classmethod
    def from_params(
        cls, params: Mapping[str, Any], defaults: LoRARecipe | None = None
    ) -> LoRARecipe:
        """Read the parameters of a trial.

        Args:
            params: values by name; see `role_of` for the names. `alpha_ratio` is alpha / rank.
            defaults: what is not named comes from here. Where neither alpha nor its ratio is
                named, the ratio is kept and not alpha, so that the rank alone does not rescale
                the update. Default: `DEFAULT`.

        Raises:
            InputError: if a name is unknown or given twice, or a value is not admissible.
        """
        defaults = DEFAULT if defaults is None else defaults
        roles = roles_of(params)
        values = {role: params[name] for role, name in roles.items()}
        rank = checked("rank", values.get("rank", defaults.rank))
        ratio = checked("alpha_ratio", values.get("alpha_ratio", defaults.alpha_ratio))
        return cls(
            rank=rank,
            lora_alpha=values.get("lora_alpha", ratio * rank),
            lora_dropout=values.get("lora_dropout", defaults.lora_dropout),
            batch_size=values.get("batch_size", defaults.batch_size),
            learning_rate=values.get("learning_rate", defaults.learning_rate),
            variant=defaults.variant,
        )


# Where people start, and hence the control: a rate of 2e-4 and a batch of 16 are QLoRA's for 7B
# and 13B models (Dettmers et al. 2023, arXiv:2305.14314, table 9), rank 16 with alpha twice the
# rank is the starting point of Unsloth's guide to LoRA hyperparameters, and a dropout of 0.05 is
# in QLoRA's recipe for larger models and in Axolotl's examples.
DEFAULT = LoRARecipe(
    rank=16, lora_alpha=32.0, lora_dropout=0.05, batch_size=16, learning_rate=2e-4
)


def default_space(n_examples: int) -> dict[str, BaseDistribution]:
    """Five hyperparameters, over the ranges of the grid in arXiv:2602.11171.

    The batch size ends where a run of one epoch makes four optimizer steps.

    Args:
        n_examples: training examples of one epoch of a trial.

    Raises:
        InputError: if there are fewer than eight examples.
    """
    largest_batch = min(_MAX_BATCH, n_examples // _MIN_STEPS)
    if largest_batch < 2:
        raise InputError(
            f"{n_examples} training examples are too few for the default search space, which "
            f"needs at least {2 * _MIN_STEPS}: raise proxy, or give more data."
        )
    return {
        "rank": IntDistribution(1, 256, log=True),
        "alpha_ratio": FloatDistribution(0.5, 128.0, log=True),
        "lora_dropout": FloatDistribution(0.0, 0.3),
        "batch_size": IntDistribution(2, largest_batch, log=True),
        "learning_rate": FloatDistribution(1e-6, 5e-3, log=True),
    }


def default_params(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The default configuration in a space's own names, for `study.enqueue_trial`.

    Where the default lies outside a distribution, the nearest admissible value is taken (a batch
    of 16 in a space that ends at 12 becomes 12). If the space has alpha instead of its ratio,
    alpha follows the rank so that the ratio stays the default's.

    Raises:
        InputError: if a name is unknown, or given twice.
    """
    roles = roles_of(space)
    rank: Any = DEFAULT.rank
    if "rank" in roles:
        rank = Axis(space[roles["rank"]]).nearest(DEFAULT.rank)
    targets = {
        "rank": rank,
        "lora_alpha": DEFAULT.alpha_ratio * rank,
        "alpha_ratio": DEFAULT.alpha_ratio,
        "lora_dropout": DEFAULT.lora_dropout,
        "batch_size": DEFAULT.batch_size,
        "learning_rate": DEFAULT.learning_rate,
    }
    names = {name: role for role, name in roles.items()}
    return {name: Axis(space[name]).nearest(targets[names[name]]) for name in space}


def check_space(space: Mapping[str, BaseDistribution], n_examples: int) -> None:
    """Check that every value a space admits can be trained.

    Args:
        space: distributions by parameter name.
        n_examples: training examples of a trial; a batch cannot be larger.

    Raises:
        InputError: naming the parameter and the first value that cannot.
    """
    for role, name in roles_of(space).items():
        distribution = space[name]
        for value in _extremes(name, distribution):
            try:
                checked(role, value)
            except InputError as error:
                raise InputError(f"space[{name!r}] = {distribution} admits {error}") from error
            if role == "batch_size" and value > n_examples:
                raise InputError(
                    f"space[{name!r}] = {distribution} admits a batch of {value}, but a trial "
                    f"trains on {n_examples} examples: lower the batch size or raise proxy."
                )


def roles_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Which parameter plays which role: `{"rank": "lora_r", ...}`.

    Raises:
        InputError: if a name is unknown, or two names play one role (alpha and alpha_ratio do).
    """
    roles: dict[str, str] = {}
    for name in params:
        role = role_of(name)
        rivals = ("lora_alpha", "alpha_ratio") if "alpha" in role else (role,)
        taken = next((roles[rival] for rival in rivals if rival in roles), None)
        if taken is not None:
            raise InputError(f"{taken!r} and {name!r} set the same thing: give one of them.")
        roles[role] = name
    return roles


def role_of(name: str) -> str:
    """The field of `LoRARecipe` (or "alpha_ratio") that a parameter name stands for.

    Raises:
        InputError: if the name is unknown, with the nearest known one.
    """
    if name in _ALIASES:
        return _ALIASES[name]
    close = difflib.get_close_matches(str(name), _ALIASES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"unknown hyperparameter {name!r}.{hint} Known: {', '.join(sorted(_ALIASES))}."
    )


def _extremes(name: str, distribution: Any) -> tuple[Any, ...]:
    """The values that have to be admissible for all of a distribution to be."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return (distribution.low, distribution.high)
    raise InputError(
        f"space[{name!r}] is {distribution!r}: expected a distribution of "
        "optuna.distributions, for example IntDistribution(1, 64, log=True)."
    )
