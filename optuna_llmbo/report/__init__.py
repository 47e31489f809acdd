"""Write a study as one HTML file that needs no network."""

from __future__ import annotations

from optuna_llmbo.report.write import write_report


__all__ = ["write_report"]
