"""What a study optimizes."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.study import Study

from optuna_llmbo.study.history import sign_of


@dataclass(frozen=True)
class Objective:
    """A study's single objective."""

    name: str
    """The study's metric name, else "objective value"."""
    sign: float
    """Factor that makes larger values better: -1 where the study minimizes."""

    @property
    def direction(self) -> str:
        """ "lower is better" or "higher is better"."""
        return "lower is better" if self.sign < 0 else "higher is better"


def objective_of(study: Study) -> Objective:
    """Read a study's single objective."""
    names = study.metric_names
    return Objective(names[0] if names else "objective value", sign_of(study.direction))
