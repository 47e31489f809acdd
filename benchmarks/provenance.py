"""What a benchmark's raw result says of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
import subprocess


def commit() -> str:
    """The commit that is run, with a mark if the tree has changes; ask before the first trial."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """What is installed."""
    return {package: importlib.metadata.version(package) for package in packages}
