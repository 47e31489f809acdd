"""A program's own configuration file, YAML, JSON or TOML: its values by key, and copies with other
values.

A key leads through tables and lists, such as `training.optimizer.0.lr`. The rest of a copy means
what it meant; YAML and TOML keep their comments as well.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import io
import json
from pathlib import Path
from typing import Any

from optuna_llmbo.command.numbers import number_text
from optuna_llmbo.errors import did_you_mean
from optuna_llmbo.errors import InputError


_FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}
_MISSING = object()


class SettingsFile:
    """A configuration file as it was when it was read.

    Args:
        path: path of the file; its ending says what it is.

    Raises:
        InputError: if it cannot be read, is not what its ending says, or holds no table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._format = _FORMATS.get(path.suffix.lower(), "")
        if not self._format:
            raise InputError(
                f"the configuration {str(path)!r} must end with one of {', '.join(_FORMATS)}: "
                "rename it, or put the values into the command, such as lr={learning_rate}."
            )
        try:
            self._text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"the configuration {str(path)!r} cannot be read ({why}): give the file that the "
                "command reads today."
            ) from error
        self._tree = self._parsed()
        if not isinstance(self._tree, Mapping):
            raise InputError(
                f"the configuration {str(path)!r} holds {_kind(self._tree)}: expected keys with "
                "values."
            )

    def __contains__(self, key: str) -> bool:
        return _find(self._tree, key.split(".")) is not _MISSING

    def __getitem__(self, key: str) -> Any:
        """The value of a key.

        Raises:
            InputError: if the file has no such key, with the nearest one.
        """
        value = _find(self._tree, key.split("."))
        if value is _MISSING:
            raise InputError(f"{self.path} has no key {key!r}.{self.nearest(key)}")
        return value

    def nearest(self, key: str) -> str:
        """The key that is meant, as a sentence: one with the same last part, or a similar one."""
        keys = list(self.leaves())
        last = key.rpartition(".")[2]
        same = [one for one in keys if one.rpartition(".")[2] == last]
        if same:
            return f" It has {' and '.join(map(repr, same[:3]))}."
        return did_you_mean(key, keys)

    def leaves(self) -> dict[str, Any]:
        """All values that are no tables, by key; lists of plain values are values."""
        return dict(_leaves(self._tree, ""))

    def with_values(self, values: Mapping[str, Any]) -> str:
        """The text of a copy in which these keys have these values; missing ones are added.

        Raises:
            InputError: if a value cannot be written in the format.
        """
        tree = self._parsed()
        for key, value in values.items():
            _put(tree, key.split("."), self._writable(key, value), key)
        return self._dumped(tree)

    def _parsed(self) -> Any:
        readers: dict[str, Callable[[str], Any]] = {
            "YAML": _read_yaml,
            "JSON": json.loads,
            "TOML": _read_toml,
        }
        try:
            return readers[self._format](self._text)
        except Exception as error:  # each parser has its own
            raise InputError(
                f"the configuration {str(self.path)!r} is not valid {self._format}: {error}"
            ) from error

    def _writable(self, key: str, value: Any) -> Any:
        if self._format == "YAML":
            return _for_yaml(value)
        if self._format == "TOML" and value is None:
            raise InputError(f"{self.path}: {key!r} cannot be null, which TOML does not have.")
        return value

    def _dumped(self, tree: Any) -> str:
        if self._format == "YAML":
            stream = io.StringIO()
            _yaml().dump(tree, stream)
            return stream.getvalue()
        if self._format == "TOML":
            import tomlkit

            return tomlkit.dumps(tree)
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _find(tree: Any, parts: Sequence[str]) -> Any:
    """The value at the end of a path; a name in a table may itself contain dots."""
    if not parts:
        return tree
    for n in range(len(parts), 0, -1):
        child = _child(tree, ".".join(parts[:n]))
        if child is not _MISSING:
            found = _find(child, parts[n:])
            if found is not _MISSING:
                return found
    return _MISSING


def _child(tree: Any, name: str) -> Any:
    where = _own_name(tree, name)
    return _MISSING if where is None else tree[where]


def _own_name(tree: Any, name: str) -> Any:
    """The key or index that a name stands for; None if there is none."""
    if isinstance(tree, Mapping):
        return next((key for key in tree if str(key) == name), None)
    if _is_list(tree) and name.isdecimal() and int(name) < len(tree):
        return int(name)
    return None


def _put(tree: Any, parts: Sequence[str], value: Any, key: str) -> None:
    """Set a value in place; tables that are missing on the way are made."""
    for n in range(len(parts), 0, -1):
        where = _own_name(tree, ".".join(parts[:n]))
        if where is not None and n == len(parts):
            tree[where] = value
            return
        if where is not None:
            _put(tree[where], parts[n:], value, key)
            return
    if not isinstance(tree, Mapping):
        raise InputError(
            f"the key {key!r} cannot be added: {parts[0]!r} would stand in {_kind(tree)}."
        )
    made = value
    for part in reversed(parts[1:]):
        made = {part: made}
    tree[parts[0]] = made  # type: ignore[index]


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    children: Iterator[tuple[Any, Any]]
    if isinstance(tree, Mapping):
        children = iter(tree.items())
    elif _is_list(tree) and any(isinstance(one, Mapping) or _is_list(one) for one in tree):
        children = enumerate(tree)
    else:
        yield prefix, tree
        return
    for name, child in children:
        yield from _leaves(child, f"{prefix}.{name}" if prefix else str(name))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if _is_list(value):
        return "a list"
    return "nothing" if value is None else f"the value {value!r}"


def _read_toml(text: str) -> Any:
    import tomlkit

    return tomlkit.parse(text)


def _read_yaml(text: str) -> Any:
    return _yaml().load(text)


def _yaml() -> Any:
    """A reader and writer that keeps what it does not change; one is made for each use, as it is
    not safe in several threads."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Knows the floats that every YAML reader takes for floats."""

    Representer.add_representer(
        _Float, lambda self, data: self.represent_scalar("tag:yaml.org,2002:float", data.text)
    )
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 1_000_000  # lines are not broken
    return yaml


class _Float:
    """A float and how it is written."""

    def __init__(self, value: float) -> None:
        self.text = number_text(value)


def _for_yaml(value: Any) -> Any:
    """A value for the writer: texts in quotes, so that `no` or `1e-4` stay texts."""
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, float):
        return _Float(value)
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        return CommentedMap((key, _for_yaml(one)) for key, one in value.items())
    if _is_list(value):
        items = CommentedSeq(_for_yaml(one) for one in value)
        items.fa.set_flow_style()
        return items
    return value
