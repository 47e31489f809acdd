"""`python -m benchmarks.gpu`."""

from __future__ import annotations

from benchmarks.gpu.run import main


if __name__ == "__main__":
    main()
