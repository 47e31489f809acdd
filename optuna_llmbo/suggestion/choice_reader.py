"""Has the language model read the choices of nominal parameters, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import hashlib
from typing import Any
from typing import Literal

import optuna.logging

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import warn_once
from optuna_llmbo.space.choice_text import ChoiceTexts
from optuna_llmbo.suggestion.meaning import Meaning
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.surrogate.choice_view import ChoiceView


_logger = optuna.logging.get_logger(f"optuna.{__name__}")

_Texts = tuple[tuple[str, tuple[str, ...]], ...]
"""The parameters that are read, each with the texts of its choices."""

_MOST_REMEMBERED = 16
_SHOWN = 60
"""Characters of a choice that an error repeats."""


@dataclass
class ChoiceReader:
    """Reads the choices of search spaces, and remembers what was read."""

    options: SamplerOptions
    _encoders: dict[str, Encoder] = field(default_factory=dict, init=False)
    _meanings: dict[tuple[str, _Texts], Meaning] = field(default_factory=dict, init=False)
    _is_lost: bool = field(default=False, init=False)

    def read(self, texts: ChoiceTexts) -> Meaning | None:
        """Read the choices of a space's nominal parameters; None if none is worth reading.

        Raises:
            InputError: if a language model that was asked for cannot be loaded, or a choice is
                too long for it.
        """
        chosen = self._worth_reading(texts)
        if not chosen or self._is_lost:
            return None
        key = (texts.passage, chosen)
        if key not in self._meanings:
            encoder = self._encoder(texts.passage, chosen)
            if encoder is None:
                return None
            views = {
                name: ChoiceView.neutral(encoder.read([(line,) for line in lines]))
                for name, lines in chosen
            }
            ordered = tuple(views.get(name) for name in texts.names)
            if not any(view is not None for view in ordered):  # all read the same
                return None
            _forget_old(self._meanings)
            self._meanings[key] = Meaning(ordered, encoder.has_token)
        return self._meanings[key]

    def identity(self, texts: ChoiceTexts) -> str | None:
        """Name the language model and what it reads, by a hash; None if it reads nothing."""
        chosen = self._worth_reading(texts)
        if not chosen or self._is_lost:
            return None
        said = "\0".join([texts.passage, *(line for _, lines in chosen for line in lines)])
        return f"{self.options.model} {hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def check(self, texts: ChoiceTexts) -> None:
        """Check that the language model can read the choices of a space.

        Raises:
            InputError: as `read`.
        """
        chosen = self._worth_reading(texts)
        if chosen and not self._is_lost and (alone := self._encoder_behind("")) is not None:
            self._check(alone, chosen)

    def _worth_reading(self, texts: ChoiceTexts) -> _Texts:
        if not self.options.reads_choices:
            return ()
        return tuple(
            (name, tuple(texts.text(name, choice) for choice in _choices(texts, name)))
            for name in texts.names
            if texts.n_with_letters(name) >= self.options.fewest_read
        )

    def _encoder(self, passage: str, chosen: _Texts) -> Encoder | None:
        """The encoder behind a passage, or behind none if choices do not fit after it."""
        encoder = self._encoder_behind(passage)
        if encoder is None or _first_too_long(encoder, chosen) is None:
            return encoder
        alone = self._encoder_behind("")
        assert alone is not None
        self._check(alone, chosen)
        warn_once(
            f"{self.options.model} has no room for the passage of knowledge before the longest "
            "choice; choices are read without it."
        )
        return alone

    def _check(self, alone: Encoder, chosen: _Texts) -> None:
        """Raises InputError for a choice that does not fit, even without a passage."""
        if (too_long := _first_too_long(alone, chosen)) is not None:
            name, line = too_long
            words = line.removeprefix(f"\n{name}: ")
            raise InputError(
                f"the choice {words[:_SHOWN]!r}... of {name!r} has {alone.n_tokens((line,))} "
                f"tokens; {self.options.model} reads at most {alone.room}. Say it in fewer words "
                f"with describe={{{name!r}: {{...}}}}, or name a model with a longer context in "
                "llm=, or None."
            )

    def _encoder_behind(self, passage: str) -> Encoder | None:
        if passage not in self._encoders:
            assert self.options.model is not None
            try:
                model = load_shared_model(self.options.model, self.options.device)
                layer: Literal["early"] | int = self.options.layer or "early"
                encoder = Encoder(model, passage, pooling=self.options.pooling, layer=layer)
            except InputError as error:
                if self.options.is_model_named:
                    raise
                self._is_lost = True
                _logger.warning(f"choices are not read: {error} llm=None silences this.")
                return None
            _forget_old(self._encoders)
            self._encoders[passage] = encoder
        return self._encoders[passage]


def _choices(texts: ChoiceTexts, name: str) -> Sequence[Any]:
    choices: Sequence[Any] = texts.space.distributions[name].choices  # type: ignore[attr-defined]
    return choices


def _first_too_long(encoder: Encoder, chosen: _Texts) -> tuple[str, str] | None:
    """The first choice that does not fit after the encoder's passage, with its parameter."""
    pairs = ((name, line) for name, lines in chosen for line in lines)
    return next((pair for pair in pairs if not encoder.fits((pair[1],))), None)


def _forget_old(remembered: dict[Any, Any]) -> None:
    """Make room for one more entry."""
    while len(remembered) >= _MOST_REMEMBERED:
        del remembered[next(iter(remembered))]
