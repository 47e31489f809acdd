"""Change values in the text of a YAML file, and nothing else in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """The text with other values of its top-level keys; comments, order and style of all others
    stay.

    Args:
        text: a YAML mapping.
        values: plain values by key; keys that the text lacks are added at its end.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    expected = {**(yaml.safe_load(text) or {}), **values}
    if isinstance(root, yaml.MappingNode) and not root.flow_style:
        made = _spliced(text, root, values)
        if _read(made) == expected:  # not so where an anchor went that is referred to
            return made
    return yaml.safe_dump(expected, sort_keys=False, allow_unicode=True)


def _spliced(text: str, root: yaml.MappingNode, values: Mapping[str, Any]) -> str:
    """The text with the places of the values replaced, from the last one to the first."""
    places = {
        key.value: (key.end_mark.index, value.end_mark.index)
        for key, value in root.value
        if isinstance(key, yaml.ScalarNode)
    }
    for name in sorted(places.keys() & values.keys(), key=lambda name: -places[name][0]):
        start, end = places[name]
        old = text[start:end]
        kept = old[len(old.rstrip()) :]  # the line break after a list
        text = f"{text[:start]}: {_dumped(values[name])}{kept}{text[end:]}"
    if added := [name for name in values if name not in places]:
        lines = "".join(f"{name}: {_dumped(values[name])}\n" for name in added)
        text = f"{text.rstrip()}\n{lines}"
    return text


def _dumped(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...")


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
