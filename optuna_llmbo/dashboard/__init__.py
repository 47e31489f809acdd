"""Publish what a search has found to optuna-dashboard: figures, notes, artifacts."""

from __future__ import annotations

from optuna_llmbo.dashboard.callback import DashboardCallback
from optuna_llmbo.dashboard.publish import publish


__all__ = ["DashboardCallback", "publish"]
