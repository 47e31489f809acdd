"""Titles of metrics in headings."""

from __future__ import annotations


_TITLES = {
    "loss": "validation loss in nats per response token",
    "seconds": "seconds of training",
    "adapter_size": "parameters of the adapter",
}


def title_of(name: str) -> str:
    """A metric's title, with its unit where it has one."""
    return _TITLES.get(name, f"{name} on the validation examples")
