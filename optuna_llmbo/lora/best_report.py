"""The weights of a run's best report, to return to at its end."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import torch


class BestReport:
    """Keeps a copy of what is trained as it was at the best report; on the CPU.

    Args:
        larger_is_better: of the values that are reported.
    """

    def __init__(self, *, larger_is_better: bool) -> None:
        self._sign = 1.0 if larger_is_better else -1.0
        self.percent: int | None = None
        """Percentage of the training at the best report, the first of equal ones; None before the
        first report."""
        self.value: float | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def see(self, percent: int, value: float, trained: Mapping[str, torch.nn.Parameter]) -> None:
        """Copy what is trained, if its value is finite and the best so far."""
        if not math.isfinite(value):
            return
        if self.value is None or self._sign * value > self._sign * self.value:
            self.percent, self.value = percent, value
            self._weights = {name: p.detach().cpu().clone() for name, p in trained.items()}

    def restore_(self, trained: Mapping[str, torch.nn.Parameter]) -> None:
        """Set what is trained to the copy, in place; left as it is if no report was finite."""
        with torch.no_grad():
            for name, value in self._weights.items():
                trained[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """State that `load_state_dict` restores."""
        return {"percent": self.percent, "value": self.value, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of the same run."""
        self.percent, self.value = state["percent"], state["value"]
        self._weights = {name: value.cpu() for name, value in state["weights"].items()}
