"""Run docs/notebook.ipynb and store its outputs, with figures as SVG, which needs no network.

Plotly's own output needs JavaScript that a page would have to load. Chromium, which must be
installed, draws it here instead.

    python -m docs_tools.notebook    # writes docs/notebook.ipynb; a minute on one core
"""

from __future__ import annotations

from collections.abc import Iterator
import html
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile
from typing import Any

from nbclient import NotebookClient
import nbformat
from nbformat import NotebookNode
from plotly.offline import get_plotlyjs


NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"
_WIDTH, _HEIGHT = 760, 520
_PAGE = """<meta charset="utf-8"><script>{plotly}</script><pre id="drawn"></pre><script>
const figure = {figure};
const size = {{width: figure.layout.width || {width}, height: figure.layout.height || {height}}};
Plotly.toImage({{data: figure.data, layout: {{...figure.layout, paper_bgcolor: "white"}}}},
  {{format: "svg", imageDataOnly: true, ...size}})
  .then(svg => {{document.getElementById("drawn").textContent = svg}});
</script>"""


def execute(notebook: NotebookNode) -> NotebookNode:
    """Copy the notebook and run it from the first cell to the last, in a fresh process.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PLOTLY_RENDERER": "plotly_mimetype",
        "PYTHONWARNINGS": "ignore:IProgress",  # tqdm's widget is missing in a notebook
    }
    NotebookClient(copy, timeout=600, record_timing=False).execute(env=environment)
    return copy


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the outputs of all cells, in order."""
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def draw(figure: dict[str, Any]) -> str:
    """Draw a plotly figure as SVG.

    Raises:
        RuntimeError: if there is no Chromium, or it has drawn nothing.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise RuntimeError("the notebook's figures are drawn by chromium, which is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            _PAGE.format(
                plotly=get_plotlyjs(), figure=json.dumps(figure), width=_WIDTH, height=_HEIGHT
            )
        )
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
            "--virtual-time-budget=60000", "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r'<pre id="drawn">(.+?)</pre>', result.stdout, re.DOTALL)
    if found is None:
        raise RuntimeError(f"chromium has drawn nothing: {result.stderr[-2000:]}")
    return html.unescape(found[1])


def main() -> None:
    """Run the notebook, draw its figures, write it."""
    notebook = execute(nbformat.read(NOTEBOOK, as_version=4))
    for output in outputs(notebook):
        if PLOTLY in output.get("data", {}):
            output.data = {SVG: draw(output.data[PLOTLY])}
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec}
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
