"""The former place of `optuna_llmbo.space.space_file`."""

from __future__ import annotations

from optuna_llmbo.space.space_file import read_space as read_space
