"""Load and check everything once, before the first trial of a trainer's objective."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.lora.base_model import as_base
from optuna_llmbo.lora.base_model import load_base
from optuna_llmbo.lora.checkpoint import check_writable
from optuna_llmbo.lora.export.facts import trainer_steps
from optuna_llmbo.lora.model_card import Base
from optuna_llmbo.lora.proxy import RANDOM
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.recipe import default_space
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.table import source_name
from optuna_llmbo.trainer import space as spaces
from optuna_llmbo.trainer.options import TrainerOptions
from optuna_llmbo.trainer.rows import digest
from optuna_llmbo.trainer.rows import Rows
from optuna_llmbo.trainer.rows import rows_of
from optuna_llmbo.trainer.shared_base import SharedBase
from optuna_llmbo.trainer.space import TrainerSpace


@dataclass(frozen=True)
class PreparedTrainer:
    """Checked data and space, and the base model: all that a trial needs besides its values."""

    rows: Rows
    space: TrainerSpace
    base: SharedBase
    fingerprint: dict[str, Any]
    """Everything that is known to determine a trial's result besides its hyperparameters."""
    context: dict[str, Any]
    """What decides which values are good."""
    base_card: Base | None
    """The shared base model, as saved adapters name it; None if there is none."""


SpaceOf = Callable[[int], Mapping[str, BaseDistribution]]
"""From the number of training rows of a trial to a search space."""


def prepare(options: TrainerOptions, space_of: SpaceOf = default_space) -> PreparedTrainer:
    """Load and check everything but what the user's function does.

    Args:
        options: what the objective is asked to do.
        space_of: returns the search space where the options have none, of the number of training
            rows of a trial.

    Raises:
        InputError: for every mistake in the options, the data or the search space.
    """
    options.check()
    if options.folder is not None:
        check_writable(options.folder)
    rows = rows_of(
        options.train,
        options.validation,
        options.test,
        proxy=options.proxy,
        proxy_by=options.proxy_by,
        seed=options.seed,
    )
    defaults = LoRARecipe.from_params(options.defaults or {})
    n = rows.n_proxy
    space = spaces.check(
        space_of(n) if options.space is None else options.space,
        n_examples=n,
        defaults=defaults,
        extra=options.extra or {},
    )
    base, card = _base(options)
    about: dict[str, Any] = {"method": options.method} if options.method else {}
    usual = (space.default or space.defaults).recipe
    about["steps"] = trainer_steps(usual, n)
    if base.exists:
        about["parameters"] = base.there[0].num_parameters()
    return PreparedTrainer(
        rows,
        space,
        base,
        _fingerprint(options, rows, base, defaults),
        about,
        card,
    )


def _base(options: TrainerOptions) -> tuple[SharedBase, Base | None]:
    """The shared base, and how saved adapters name it; what is wrong with it is said now."""
    model = options.model
    if model is None:
        return SharedBase(None), None
    if callable(model):
        base = SharedBase(model)
        loaded, tokenizer = base.there
        place = str(loaded.name_or_path)
        return base, Base(place, Path(place).name if Path(place).is_dir() else place, tokenizer)

    def load() -> LanguageModel:
        return load_base(
            model,
            device=options.device,
            dtype=options.dtype,
            max_length=1,
            quantization=options.quantization,
        )

    first = [load()]

    def there() -> tuple[Any, Any]:
        one = first.pop() if first else load()
        return one.model, one.tokenizer

    card = as_base(first[0], options.quantization)
    return SharedBase(there), card


def _fingerprint(
    options: TrainerOptions, rows: Rows, base: SharedBase, defaults: LoRARecipe
) -> dict[str, Any]:
    made, usual = options.make_trainer, asdict(DEFAULT)
    record: dict[str, Any] = {
        "objective": "TrainerObjective",
        "trainer": getattr(made, "__qualname__", type(made).__qualname__),
        "train": "a function" if callable(options.train) else source_name(options.train),
        "train_examples": rows.n_proxy,
        "train_hash": digest(rows.train),
        "validation_examples": len(rows.validation),
        "validation_hash": digest(rows.validation),
        "proxy": options.proxy,
        "metric": options.metric,
        "seed": options.seed,
        "defaults": {n: v for n, v in asdict(defaults).items() if v != usual[n]},
        "extra": dict(options.extra or {}),
        "settings": dict(options.settings or {}),
    }
    if options.proxy_by != RANDOM:
        record["proxy_by"] = options.proxy_by
    if options.quantization is not None:
        record["quantization"] = options.quantization
    if base.exists:
        record |= {"model": _name(options.model), "weights": base.digest}
        record["dtype"] = str(base.there[0].dtype)
    if rows.test is not None:
        record |= {"test_examples": len(rows.test), "test_hash": digest(rows.test)}
    return record


def _name(model: Any) -> str:
    if callable(model):
        return "a function"
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else os.fspath(model)
