"""Draw what the sampler believes, with plotly: an `Insight` in, figures out."""

from optuna_llmbo.figures.draw import draw as draw
from optuna_llmbo.figures.figure import Figure as Figure


__all__ = ["Figure", "draw"]
