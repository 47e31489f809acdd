"""The texts that stand in source files, such as messages."""

from __future__ import annotations

import ast
from pathlib import Path


def texts(path: Path) -> list[str]:
    """All texts of a file, joined as they are written, "..." for what is put into them."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found
