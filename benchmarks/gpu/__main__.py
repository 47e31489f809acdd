"""Measure on one CUDA device, in eight minutes, all that is worth knowing of it.

Each part has a process, a budget and a result file of its own: what fails or takes too long costs
no other part anything, and what was measured before it ended is kept. No hub is needed: real
losses are those of SmolLM2-135M, time and memory those of models of real shapes with random
weights. Figures stand beside the device's own limit, or are ratios within one process.

    python -m benchmarks.gpu                                         # 8 minutes at most
    python -m benchmarks.gpu --parts training,memory                 # some of it
    python -m benchmarks.gpu --report                                # the kept results as Markdown
    python -m benchmarks.gpu --device cpu --size tiny --save FOLDER  # tried out, without a GPU
"""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from benchmarks import console
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.report import chapter
from benchmarks.gpu.report import page
from benchmarks.gpu.run import has_failed
from benchmarks.gpu.run import RESULTS
from benchmarks.gpu.run import run


def main() -> None:
    """Measure, save and print; exit with 1 if anything failed."""
    options = _options()
    if options.report:
        print(page(options.save or RESULTS))
        return
    names = console.names(options.parts)
    result = run(names, options)
    print(f"\n{chapter(result)}")
    sys.exit(any(has_failed(result["parts"][name]) for name in names))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated; default: all")
    parser.add_argument("--device", default="cuda", help="such as cuda or cuda:1")
    parser.add_argument("--size", default="full", help="full, or tiny to try the command out")
    parser.add_argument("--llm", default="embedded", help="as LLMBOSampler(llm=...)")
    parser.add_argument("--data", default="stdlib-docstrings", help="as LoRAObjective(train=...)")
    parser.add_argument("--minutes", type=float, default=7.75, help="of all parts together")
    parser.add_argument("--commit", help="of the checkout, where git does not know it")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, help="folder of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
