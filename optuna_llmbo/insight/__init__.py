"""What the sampler believes of a study, and why it chose: a study in, plain values out."""

from optuna_llmbo.insight.examine import examine as examine
from optuna_llmbo.insight.examine import Insight as Insight


__all__ = ["Insight", "examine"]
