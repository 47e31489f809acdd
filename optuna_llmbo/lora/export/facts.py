"""Facts about a training that exported files express, whatever the tool."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import math

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import initialization
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.records import ALL_TURNS
from optuna_llmbo.lora.records import DROP
from optuna_llmbo.lora.stdlib_docstrings import NAME as STDLIB_DOCSTRINGS


DTYPES = ("bfloat16", "float32")

_COUNTS = ("n_examples", "max_length", "micro_batch_size")


@dataclass(frozen=True)
class Facts:
    """One training with one recipe.

    Raises:
        InputError: if a value is out of its range, or no tool could train from it.
    """

    model: str
    """A hub id or a folder, as the tool is to find it."""
    recipe: LoRARecipe
    target_modules: str | tuple[str, ...]
    """"all-linear", or ends of layers' names; `names_of_modules` finds those of a part."""
    train: str
    """A file, a folder of files or a dataset of the hub, as `options.ObjectiveOptions` has it."""
    n_examples: int
    """Number of examples in `train`; determines the length of the warm-up."""
    validation: str | float | None = None
    """As `train`; or the number or fraction of examples to split off it, the same ones as in the
    trials; None: nothing is evaluated."""
    test: float | None = None
    """The number or fraction of examples that the trials held out before the validation examples:
    they are left out; None: there are none."""
    prompt_column: str | None = None
    """None: the first known pair of columns, as in training trials."""
    response_column: str | None = None
    ignore_columns: tuple[str, ...] = ()
    """Columns that are not read."""
    format: str | None = None
    """What the data are, if they are not prompts and responses alone: then the export writes them
    as they are trained on, and otherwise a script that makes them."""
    chat_template: str | None = None
    """As `options.ObjectiveOptions` has it, like the next two."""
    train_on: str = ALL_TURNS
    truncation: str = DROP
    max_length: int = 512
    """Tokens of the longest example; longer ones are left out, or cut."""
    micro_batch_size: int = 8
    """Maximum number of examples in memory at once."""
    seed: int = 0
    dtype: str = "bfloat16"
    """Type of the base model's weights: one of `DTYPES`."""
    modules_to_save: tuple[str, ...] = ()
    """Names of the modules of which a whole copy is trained; `names_of_saved` finds them."""
    ensure_weight_tying: bool = False
    """Whether `modules_to_save` are embeddings and projection that share their weight."""
    origin: tuple[str, ...] = ()
    """Lines on where the recipe comes from, for the files' comments."""

    def __post_init__(self) -> None:
        if not self.model or self.model.endswith(".gguf"):
            raise InputError(
                f"model={self.model!r}: the tools train models of the hub or in folders. Name the "
                "one with the weights that are not quantized."
            )
        if self.dtype not in DTYPES:
            raise InputError(f"dtype={self.dtype!r}: expected one of {', '.join(DTYPES)}.")
        self._check_modules()
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}={value!r}: expected an integer of at least 1.")
        for text in (self.model, self.train, str(self.validation or ""), *self.origin):
            if not text.isprintable():
                raise InputError(f"{text!r}: it goes into comments and cannot have line breaks.")

    def _check_modules(self) -> None:
        modules = self.target_modules
        if modules != "all-linear" and (isinstance(modules, str) or not modules):
            raise InputError(
                f"target_modules={modules!r}: expected 'all-linear' or a tuple of layers' names."
            )
        if bool(self.modules_to_save) != (self.recipe.modules_to_save != NO_MODULES):
            raise InputError(
                f"modules_to_save={self.modules_to_save!r}: the recipe has "
                f"{self.recipe.modules_to_save!r}; names_of_saved(model, ...) gives the names."
            )

    @property
    def is_written_out(self) -> bool:
        """Whether the export writes the data themselves: a script could not make them."""
        usual = (None, None, ALL_TURNS, DROP)
        return (self.format, self.chat_template, self.train_on, self.truncation) != usual

    @property
    def per_device_batch_size(self) -> int:
        """The largest divisor of the batch size that is no larger than `micro_batch_size`."""
        return largest_divisor(self.recipe.batch_size, self.micro_batch_size)

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step: times `per_device_batch_size` it is the batch size."""
        return self.recipe.batch_size // self.per_device_batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps of the training; each epoch ends with what is left over as a batch."""
        return trainer_steps(self.recipe, self.n_examples)

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of the warm-up; one that is over at once is none, as in a trial.

        A whole number and not a ratio: what a number below 1 means differs between the versions
        of `transformers` that the tools accept.
        """
        return trainer_warmup_steps(self.recipe, self.n_examples)

    @property
    def init_lora_weights(self) -> str | bool:
        """peft's name for the initialization."""
        return initialization(self.recipe)


def largest_divisor(size: int, most: int) -> int:
    """The largest divisor of a batch's size that is no larger than `most`."""
    return next(n for n in range(min(size, most), 0, -1) if size % n == 0)


def trainer_steps(recipe: LoRARecipe, n_examples: int) -> int:
    """Optimizer steps of a Trainer; each epoch ends with what is left over as a batch."""
    return recipe.epochs * math.ceil(n_examples / recipe.batch_size)


def trainer_warmup_steps(recipe: LoRARecipe, n_examples: int) -> int:
    """Optimizer steps of the warm-up; one that is over at once is none, as in a trial."""
    steps = math.ceil(recipe.warmup_ratio * trainer_steps(recipe, n_examples))
    return steps if steps > 1 else 0


def adapter_arguments(facts: Facts) -> dict[str, object]:
    """What peft's configuration of the adapter takes, the model and the task apart."""
    recipe, modules = facts.recipe, facts.target_modules
    values: dict[str, object] = {
        "r": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": modules if isinstance(modules, str) else list(modules),
        "bias": recipe.bias,
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        "init_lora_weights": facts.init_lora_weights,
    }
    if facts.modules_to_save:
        values["modules_to_save"] = list(facts.modules_to_save)
    if facts.ensure_weight_tying:
        values["ensure_weight_tying"] = True
    return values


def whole_alpha(facts: Facts, tool: str) -> int:
    """Alpha for a tool that declares it an integer.

    Raises:
        InputError: if it is not a whole number.
    """
    alpha = facts.recipe.lora_alpha
    if not alpha.is_integer():
        raise InputError(
            f"lora_alpha={alpha:.6g}: {tool} takes whole numbers only. Round it with "
            "--round-alpha (round_alpha(recipe) in Python), or search lora_alpha as an integer."
        )
    return int(alpha)


def round_alpha(recipe: LoRARecipe) -> tuple[LoRARecipe, str]:
    """The recipe with the nearest whole alpha, at least 1, and a line that says what it was."""
    alpha = max(1, round(recipe.lora_alpha))
    change = alpha / recipe.lora_alpha - 1
    line = f"lora_alpha was {recipe.lora_alpha:.6g} and has been rounded ({change:+.2%})."
    return dataclasses.replace(recipe, lora_alpha=alpha), line


def refuse(facts: Facts, tool: str, expressible: Mapping[str, tuple[object, ...]]) -> None:
    """Check that a tool can express a recipe.

    Args:
        facts: with the recipe.
        tool: its name, for the message.
        expressible: by field of the recipe, the only values that the tool can express.

    Raises:
        InputError: naming the hyperparameter and the tool.
    """
    for name, values in expressible.items():
        value = getattr(facts.recipe, name)
        if value not in values:
            raise InputError(
                f"{name}={value!r}: {tool} cannot express it, only "
                f"{', '.join(str(v) for v in values)}. Export to another tool, or choose a trial "
                "without it."
            )


def refuse_decay_of_magnitude(facts: Facts, tool: str) -> None:
    """Check that no vector decays that does not in a trial.

    The Trainer of `transformers`, on which the tools build, tells what does not decay by its name,
    and DoRA's magnitude has none of these names.

    Raises:
        InputError: if it would.
    """
    if facts.recipe.variant == "dora" and facts.recipe.weight_decay > 0:
        raise InputError(
            f"weight_decay={facts.recipe.weight_decay:g} with variant='dora': {tool} would let "
            "DoRA's magnitude decay too, which a trial does not. Choose a trial without decay."
        )


def refuse_tied_modules(facts: Facts, tool: str) -> None:
    """Check that no whole modules are trained that have to stay one weight.

    Raises:
        InputError: if there are.
    """
    if facts.ensure_weight_tying:
        raise InputError(
            f"modules_to_save={','.join(facts.modules_to_save)!r}: they share their weight, which "
            f"{tool} would train apart. Export to peft, or choose a trial without them."
        )


def check_data(facts: Facts) -> None:
    """Check that the training data are somewhere a tool can read them.

    Raises:
        InputError: if they exist only in this package.
    """
    for source in (facts.train, facts.validation):
        if source == STDLIB_DOCSTRINGS:
            raise InputError(
                f"train={source!r}: these examples come with optuna-llmbo, and no other tool can "
                "read them. Name a file or a dataset's hub id."
            )
