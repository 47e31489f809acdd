"""Hyperparameters of a LoRA run that can be searched: names, aliases and admissible values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import difflib
import math
import numbers
from typing import Any

from optuna_llmbo.errors import InputError


VARIANTS = ("lora", "rslora", "dora", "pissa", "olora", "lora+")
INITS = ("default", "gaussian", "orthogonal")
BIASES = ("none", "all", "lora_only")
SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = ("adamw", "adafactor", "adamw-8bit")
TARGETS = ("all-linear", "attention", "mlp")
NO_MODULES = "none"


@dataclass(frozen=True)
class Whole:
    """An integer of at least 1."""

    def check(self, role: str, value: Any) -> int:
        """The value as an int."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(f"{role}={value!r}: expected an integer.")
        if value < 1:
            raise InputError(f"{role}={value!r}: it must be at least 1.")
        return int(value)


@dataclass(frozen=True)
class Number:
    """A finite number within bounds."""

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf

    def check(self, role: str, value: Any) -> float:
        """The value as a float."""
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise InputError(f"{role}={value!r}: expected a finite number.")
        number = float(value)
        if not (self.above < number < self.below and self.least <= number):
            low = f"at least {self.least:g}" if self.least > -math.inf else f"above {self.above:g}"
            high = f" and below {self.below:g}" if self.below < math.inf else ""
            raise InputError(f"{role}={number!r}: it must be {low}{high}.")
        return number


@dataclass(frozen=True)
class Decision:
    """One of a fixed set of words."""

    choices: tuple[str, ...]

    def check(self, role: str, value: Any) -> str:
        """The value."""
        if value not in self.choices:
            raise InputError(f"{role}={value!r}: expected one of {', '.join(self.choices)}.")
        return str(value)


@dataclass(frozen=True)
class Modules:
    """Layers of a model: comma-separated names, or words that stand for several."""

    words: tuple[str, ...]

    def check(self, role: str, value: Any) -> str:
        """The value; a sequence of names becomes comma-separated."""
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            value = ",".join(value)
        if not isinstance(value, str) or not all(name.strip() for name in value.split(",")):
            raise InputError(
                f"{role}={value!r}: expected one of {', '.join(self.words)}, or names of layers, "
                "such as 'q_proj,v_proj'."
            )
        return ",".join(name.strip() for name in value.split(","))


KINDS: dict[str, Whole | Number | Decision | Modules] = {
    "rank": Whole(),
    "lora_alpha": Number(above=0),
    "alpha_ratio": Number(above=0),
    "lora_dropout": Number(least=0, below=1),
    "batch_size": Whole(),
    "learning_rate": Number(above=0),
    "variant": Decision(VARIANTS),
    "lr_ratio": Number(above=0),
    "target_modules": Modules(TARGETS),
    "modules_to_save": Modules((NO_MODULES,)),
    "bias": Decision(BIASES),
    "init": Decision(INITS),
    "warmup_ratio": Number(least=0, below=1),
    "schedule": Decision(SCHEDULES),
    "weight_decay": Number(least=0),
    "epochs": Whole(),
    "optimizer": Decision(OPTIMIZERS),
}
"""Admissible values by role: a field of `LoRARecipe`, or "alpha_ratio" (alpha / rank)."""

ALIASES = {role: role for role in KINDS} | {
    "r": "rank",
    "lora_r": "rank",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lr": "learning_rate",
    "loraplus_lr_ratio": "lr_ratio",
    "warmup": "warmup_ratio",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "epochs",
    "optim": "optimizer",
}


def checked(role: str, value: Any) -> Any:
    """`value` as a plain int, float or str, if it is admissible for the role.

    Raises:
        InputError: if it cannot.
    """
    return KINDS[role].check(role, value)


def roles_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameter names by role: `{"rank": "lora_r", ...}`.

    Raises:
        InputError: if a name is unknown, or two names have the same role (alpha and alpha_ratio
            do).
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
    """The role that a parameter's name stands for.

    Raises:
        InputError: if the name is unknown, with the nearest known one.
    """
    if name in ALIASES:
        return ALIASES[name]
    close = difflib.get_close_matches(str(name), ALIASES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"unknown hyperparameter {name!r}.{hint} Known: {', '.join(sorted(ALIASES))}."
    )
