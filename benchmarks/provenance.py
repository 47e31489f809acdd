"""Provenance of a benchmark's raw results: commit and versions."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
from pathlib import Path
import subprocess


def commit(folder: Path | None = None) -> str:
    """Return a checkout's commit, marked if the tree has changes; call it before the first trial.

    Args:
        folder: the checkout; None: the one in the working folder.
    """
    command = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout
    except FileNotFoundError:  # there is no git
        told = ""
    return told.strip() or "unknown"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: importlib.metadata.version(package) for package in packages}


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    there = {found.name.lower() for found in importlib.metadata.distributions()}
    return versions([package for package in packages if package.lower() in there])
