"""How far a running trial has come, as an objective tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a trial after an optimizer step, or whenever there is news of it."""

    trial_number: int
    fraction: float | None
    """Fraction of the training done, in (0, 1]; None if it is not known."""
    loss: float | None
    """Training loss of the step; for `LoRAObjective` in nats per response token. None if it is not
    known."""
