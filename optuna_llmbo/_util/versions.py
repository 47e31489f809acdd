"""What is installed."""

from __future__ import annotations

import importlib.metadata


def version_of(package: str) -> str:
    """Of a package as installed here, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
