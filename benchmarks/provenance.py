"""Provenance of a benchmark's raw results: commit and versions."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
import subprocess


def commit() -> str:
    """Return the commit, marked if the tree has changes; call it before the first trial."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: importlib.metadata.version(package) for package in packages}
