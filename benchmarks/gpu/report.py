"""The page that is made of the results."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Part
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import FAILED
from benchmarks.gpu.record import LEFT_OUT


NOTHING = "**No GPU has been measured yet.** What the command measures:"


def page(folder: Path) -> str:
    """Return the page of all devices whose results are in a folder, as Markdown."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n\n".join(map(chapter, kept)) if kept else f"{NOTHING}\n\n{_plan()}"


def _plan() -> str:
    """What would be measured, for a page without results."""
    return "\n".join(
        f"- **{part.title}** (`{name}`, {part.seconds:.0f} seconds at most): {part.about}"
        for name, part in PARTS.items()
    )


def chapter(result: Mapping[str, Any]) -> str:
    """Return the chapter of one device."""
    device = result["device"]
    named = {"driver": device.get("driver"), "CUDA": device.get("cuda")} | result["versions"]
    facts = [f"{name} {version}" for name, version in named.items() if version is not None]
    lines = [f"## {device['name']}", f"{'; '.join(facts)}."]
    for name, part in PARTS.items():
        lines.append(f"### {part.title}")
        if name in result["parts"]:
            lines += _section(part, result["parts"][name])
        else:
            lines.append("Not measured.")
    return "\n\n".join(lines)


def _section(part: Part, record: Mapping[str, Any]) -> list[str]:
    """What a part has measured, and what not."""
    made = f"Commit {record['commit']}, {record['date']}; {record['process_seconds']:.0f} seconds."
    lines = [f"{part.about} {made}", *part.tables(record)]
    missing = [_missing(name, cell) for name, cell in record["cells"].items()]
    missing = [line for line in missing if line is not None]
    if not record["complete"]:
        missing.append(f"- all that would have followed: {record['ended']}")
    return [*lines, "Not measured:", "\n".join(map(str, missing))] if missing else lines


def _missing(name: str, cell: Mapping[str, Any]) -> str | None:
    """Why a cell is not measured; None if it is."""
    for reason in (LEFT_OUT, FAILED):
        if reason in cell:
            said = " ".join(str(cell[reason]).split())
            return f"- {name}: {'it failed: ' if reason == FAILED else ''}{said}"
    return None
