"""What a language model makes of a space's choices, and when its token is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field

from optuna_llmbo.surrogate.choice_view import ChoiceView
from optuna_llmbo.surrogate.choice_view import ChoiceViews


FIRST_TRAINED = 10
"""Observed trials at which the token is trained first; then whenever they have doubled, so that a
long study spends hardly more on it than a short one."""

_MOST_CHOICES = 1024
"""Where there are more choices to place anew, the token keeps its neutral value."""
_MOST_REMEMBERED = 16


def n_trained_on(n: int) -> int:
    """Return how many of n observed trials the token was last trained on; 0 before the first."""
    if n < FIRST_TRAINED:
        return 0
    return FIRST_TRAINED << ((n // FIRST_TRAINED).bit_length() - 1)


@dataclass(frozen=True)
class Meaning:
    """The choices of a space as read, and the values of the token that were found for them."""

    views: tuple[ChoiceView | None, ...]
    """One for each nominal parameter of the space, None for those that are not read; at least one
    is."""
    has_token: bool
    """Whether the embeddings depend on a learnable token."""
    trained: dict[bytes, ChoiceViews] = field(default_factory=dict)
    """By what they were trained on."""

    @property
    def neutral(self) -> ChoiceViews:
        """The views at the token's neutral value."""
        return ChoiceViews.neutral(self.views)

    @property
    def is_trainable(self) -> bool:
        """Whether the token may move."""
        return self.has_token and sum(len(v) for v in self.views if v is not None) <= _MOST_CHOICES

    def at(self, key: bytes, train: Callable[[], ChoiceViews]) -> ChoiceViews:
        """Return the views that were trained on something; train them if they are not known.

        Args:
            key: names what they are trained on.
            train: trains them.
        """
        if key not in self.trained:
            while len(self.trained) >= _MOST_REMEMBERED:
                del self.trained[next(iter(self.trained))]
            self.trained[key] = train()
        return self.trained[key]
