"""The hyperparameters of one LoRA run: checked values, names, search space and default."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.hyperparameters import checked
from optuna_llmbo.lora.hyperparameters import roles_of
from optuna_llmbo.space.axis import Axis


_MAX_BATCH = 256
_MAX_RANK = 256
_MIN_STEPS = 4  # optimizer steps that every run of the default space takes


@dataclass(frozen=True)
class LoRARecipe:
    """The hyperparameters of one training run. Values are checked, never rounded or truncated.

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
    """"lora"; "rslora", the update is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732);
    "dora" (Liu et al. 2024, arXiv:2402.09353); "pissa" (Meng, Wang & Zhang 2024, arXiv:2404.02948)
    and "olora" (Buyukakyuz 2024, arXiv:2406.01775), which start from a part of the weights
    themselves; "lora+", LoRA with two rates: read by `from_params`, its `lr_ratio` is 16
    where none is given."""
    lr_ratio: float = 1.0
    """Learning rate of B over that of A, > 0 (LoRA+: Hayou, Ghosh & Yu 2024, arXiv:2402.12354)."""
    target_modules: str = "all-linear"
    """Layers that get an adapter: "all-linear" (linear layers except the vocabulary projection),
    "attention", "mlp", names of linear layers or embeddings ("lm_head" and "embed_tokens" too), or
    several of these, comma-separated."""
    bias: str = "none"
    """Biases that are trained too: "none", "all", or "lora_only", those of the target modules."""
    init: str = "default"
    """Initialization of A, where B is zero: "default" (Kaiming uniform), "gaussian"; or of both:
    "orthogonal"."""
    warmup_ratio: float = 0.1
    """Fraction of the steps over which the rate rises, in [0, 1)."""
    schedule: str = "linear"
    """Schedule after the warm-up: "linear" or "cosine" to zero, or "constant"."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, >= 0; not applied to biases."""
    epochs: int = 1
    """Passes over the training data of a trial, >= 1."""
    optimizer: str = "adamw"
    """"adamw"; "adafactor" at the given rate; "adamw-8bit" from bitsandbytes, on CUDA."""
    modules_to_save: str = "none"
    """Modules of which a whole copy is trained and saved with the adapter: comma-separated names,
    such as "embed_tokens,lm_head"; "none". Tied embeddings stay tied."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field.name, getattr(self, field.name)))
        if self.init != "default" and self.variant in ("pissa", "olora"):
            raise InputError(
                f"init={self.init!r}: the variant {self.variant!r} is an initialization of its "
                "own; leave init at 'default'."
            )

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
            params: values by name; see `hyperparameters.ALIASES`. `alpha_ratio` is alpha / rank.
            defaults: source of what is not named. Where neither alpha nor its ratio is
                named, the ratio is kept and not alpha, so that the rank alone does not rescale
                the update. Default: `DEFAULT`.

        Raises:
            InputError: if a name is unknown or given twice, or a value is not admissible.
        """
        defaults = DEFAULT if defaults is None else defaults
        values = {role: params[name] for role, name in roles_of(params).items()}
        if "lora_alpha" not in values:
            rank = checked("rank", values.get("rank", defaults.rank))
            ratio = checked("alpha_ratio", values.pop("alpha_ratio", defaults.alpha_ratio))
            values["lora_alpha"] = ratio * rank
        if defaults.lr_ratio == _usual_lr_ratio(defaults.variant):
            variant = values.get("variant", defaults.variant)
            values.setdefault("lr_ratio", _usual_lr_ratio(variant))
        return dataclasses.replace(defaults, **values)


def _usual_lr_ratio(variant: str) -> float:
    """16 for LoRA+, as recommended (Hayou, Ghosh & Yu 2024, arXiv:2402.12354)."""
    return 16.0 if variant == "lora+" else 1.0


# Common starting point, hence the control: a rate of 2e-4 and a batch of 16 are QLoRA's for 7B
# and 13B models (Dettmers et al. 2023, arXiv:2305.14314, table 9), rank 16 with alpha twice the
# rank is the starting point of Unsloth's guide to LoRA hyperparameters, and a dropout of 0.05 is
# in QLoRA's recipe for larger models and in Axolotl's examples.
DEFAULT = LoRARecipe(
    rank=16, lora_alpha=32.0, lora_dropout=0.05, batch_size=16, learning_rate=2e-4
)


def default_space(n_examples: int, largest_rank: int = _MAX_RANK) -> dict[str, BaseDistribution]:
    """Five hyperparameters, over the ranges of the grid in arXiv:2602.11171.

    The batch size is bounded so that a run of one epoch takes at least four optimizer steps.

    Args:
        n_examples: training examples per epoch of a trial.
        largest_rank: that the variant can start from; ranks beyond 256 are not searched.

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
        "rank": IntDistribution(1, min(_MAX_RANK, largest_rank), log=True),
        "alpha_ratio": FloatDistribution(0.5, 128.0, log=True),
        "lora_dropout": FloatDistribution(0.0, 0.3),
        "batch_size": IntDistribution(2, largest_batch, log=True),
        "learning_rate": FloatDistribution(1e-6, 5e-3, log=True),
    }


def default_params(
    space: Mapping[str, BaseDistribution], defaults: LoRARecipe | None = None
) -> dict[str, Any]:
    """The default configuration in a space's own names, for `study.enqueue_trial`.

    Where the default lies outside a distribution, the nearest admissible value is taken (a batch
    of 16 in a space that ends at 12 becomes 12), for words the first. If the space has alpha
    instead of its ratio, alpha follows the rank so that the ratio stays the default's.

    Args:
        space: distributions by parameter name.
        defaults: the default configuration; None: `DEFAULT`.

    Raises:
        InputError: if a name is unknown, or given twice.
    """
    defaults = DEFAULT if defaults is None else defaults
    roles = roles_of(space)
    rank: Any = defaults.rank
    if "rank" in roles:
        rank = Axis(space[roles["rank"]]).nearest(defaults.rank)
    targets = dataclasses.asdict(defaults) | {
        "rank": rank,
        "lora_alpha": defaults.alpha_ratio * rank,
        "alpha_ratio": defaults.alpha_ratio,
    }
    names = {name: role for role, name in roles.items()}
    return {name: _nearest(space[name], targets[names[name]]) for name in space}


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


def _nearest(distribution: BaseDistribution, target: Any) -> Any:
    nearest = Axis(distribution).nearest(target)
    if nearest is None and isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return nearest


def _extremes(name: str, distribution: Any) -> tuple[Any, ...]:
    """The values whose admissibility implies that of the whole distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return (distribution.low, distribution.high)
    raise InputError(
        f"space[{name!r}] is {distribution!r}: expected a distribution of "
        "optuna.distributions, for example IntDistribution(1, 64, log=True)."
    )
