"""What a study optimizes."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.study import Study

from optuna_llmbo.study.history import sign_of


@dataclass(frozen=True)
class Objective:
    """What a study is about."""

    name: str
    """As the study's metric names say, else "objective value"."""
    sign: float
    """Which values are multiplied by so that larger is better: -1 where the study minimizes."""

    @property
    def direction(self) -> str:
        """Which values are good: "lower is better" or "higher is better"."""
        return "lower is better" if self.sign < 0 else "higher is better"


def objective_of(study: Study) -> Objective:
    """Of a study with one objective."""
    names = study.metric_names
    return Objective(names[0] if names else "objective value", sign_of(study.direction))
