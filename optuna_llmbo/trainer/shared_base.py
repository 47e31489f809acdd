"""The base model of all trials: loaded once, lent to each trial, and the same afterwards."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import copy
import hashlib
import json
from typing import Any

from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.lora.memory import release
from optuna_llmbo.trainer.snapshot import checksums
from optuna_llmbo.trainer.snapshot import Snapshot


Load = Callable[[], tuple[Any, Any]]
"""Loads a model of `transformers` and its tokenizer."""


class SharedBase:
    """A model that is loaded at its first use and lent to one trial after the other.

    Args:
        load: loads the model and its tokenizer; None: there is none to share.
    """

    def __init__(self, load: Load | None) -> None:
        self._load = load
        self._loaded: tuple[Any, Any] | None = None
        self._sums: dict[str, int] = {}

    @property
    def exists(self) -> bool:
        """Whether there is one to share, loaded or not."""
        return self._load is not None

    @property
    def there(self) -> tuple[Any, Any]:
        """The model and its tokenizer.

        Raises:
            InputError: if there is none to share.
        """
        if self._load is None:
            raise InputError(
                "there is no shared base model: give the objective one with model=, or load the "
                "model in your function."
            )
        if self._loaded is None:
            self._loaded = self._load()
            self._sums = checksums(self._loaded[0])
        return self._loaded

    @property
    def digest(self) -> str:
        """Short hash of all weights.

        Raises:
            InputError: if there is no base to share.
        """
        _ = self.there
        text = json.dumps(self._sums, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @contextlib.contextmanager
    def lent(self) -> Iterator[Loan]:
        """The base for the duration of the block, and the same as before however it is left.

        Modules, hooks, flags, gradients and the configuration are restored. Where the weights
        themselves were trained or merged, the model is loaded again at its next use.
        """
        loan = Loan(self)
        try:
            yield loan
        finally:
            if loan.snapshot is not None and self._loaded is not None:
                loan.snapshot.restore()
                self._check_unchanged(self._loaded[0])
            loan.end()

    def _check_unchanged(self, model: Any) -> None:
        now = checksums(model)
        changed = [name for name, value in self._sums.items() if now.get(name) != value]
        if changed:
            self._loaded = None
            release()
            warn_once(
                f"a trial has changed {len(changed)} weights of the shared base model, "
                f"{changed[0]} first: it is loaded again for the next one. Train adapters only, "
                "or load the model in your function."
            )


class Loan:
    """What one trial may use of a shared base."""

    def __init__(self, base: SharedBase) -> None:
        self._base: SharedBase | None = base
        self._tokenizer: Any = None
        self.snapshot: Snapshot | None = None
        """The model before the trial used it; None if it has not."""

    @property
    def has_model(self) -> bool:
        """Whether there is a model to use."""
        return self._of.exists

    @property
    def model(self) -> Any:
        """The shared model: to attach adapters to, which are removed after the trial."""
        model, _ = self._of.there
        if self.snapshot is None:
            self.snapshot = Snapshot(model)
        return model

    @property
    def tokenizer(self) -> Any:
        """The trial's own copy of the tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = copy.deepcopy(self._of.there[1])
        return self._tokenizer

    def end(self) -> None:
        """Take the model back."""
        self._base = None

    @property
    def _of(self) -> SharedBase:
        if self._base is None:
            raise InputError("the trial is over, and the shared base model with it.")
        return self._base
