"""Load and check everything once, before the first trial of a trainer's objective."""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

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
    """The shared base model, as saved adapters name it; None if there is none, or it was loaded by
    a function."""


def prepare(options: TrainerOptions) -> PreparedTrainer:
    """Load and check everything but what the user's function does.

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
        default_space(n) if options.space is None else options.space,
        n_examples=n,
        defaults=defaults,
        extra=options.extra or {},
    )
    base, loaded = _base(options)
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
        None if loaded is None else as_base(loaded[0], options.quantization),
    )


def _base(options: TrainerOptions) -> tuple[SharedBase, list[LanguageModel] | None]:
    """The shared base, and what it was loaded as where it is named."""
    model = options.model
    if model is None:
        return SharedBase(None), None
    if callable(model):
        return SharedBase(model), None
    loads: list[LanguageModel] = []

    def load() -> tuple[Any, Any]:
        one = load_base(
            model,
            device=options.device,
            dtype=options.dtype,
            max_length=1,
            quantization=options.quantization,
        )
        loads[:] = [one]
        return one.model, one.tokenizer

    base = SharedBase(load)
    _ = base.there  # what is wrong with it is said now
    return base, loads


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
