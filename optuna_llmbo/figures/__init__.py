"""What the sampler believes, drawn with plotly: an `Insight` in, figures out."""

from optuna_llmbo.figures.draw import draw as draw
from optuna_llmbo.figures.figure import Figure as Figure


__all__ = ["Figure", "draw"]
