"""Stands for `llamafactory-cli train CONFIG`: writes what it would write, after a second."""

from __future__ import annotations

import json
from pathlib import Path
import sys
import time

import yaml


def main() -> None:
    """Pretend to train: the loss is least at a learning rate of 1e-3."""
    command, config = sys.argv[1:]
    assert command == "train"
    settings = yaml.safe_load(Path(config).read_text())
    loss = 2 + abs(settings["learning_rate"] - 1e-3) * 100
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    for step in (1, 2):
        time.sleep(0.5)
        said = {"current_steps": step, "total_steps": 2, "eval_loss": loss, "epoch": step / 2}
        with (folder / "trainer_log.jsonl").open("a") as log:
            log.write(json.dumps(said) + "\n")
    (folder / "all_results.json").write_text(json.dumps({"eval_loss": loss}))


if __name__ == "__main__":
    main()
