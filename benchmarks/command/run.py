"""Tune LLaMA-Factory through its own command, and kill the search ten times meanwhile.

`optuna-llmbo search --command "llamafactory-cli train {config}"` on a real small model, as in
examples/command. The search is killed with SIGKILL at random moments and started again;
afterwards the control and the best configuration are trained on all data with several seeds, and
measured on data that the search has not seen. All is kept in --work, so that the same command
goes on where it stopped.

    python -m benchmarks.command.run --llamafactory ~/envs/llamafactory    # an hour of one core
    python -m benchmarks.command.run --report                              # the kept result
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from optuna.trial import FrozenTrial

from benchmarks.command.final import best_of
from benchmarks.command.final import default_of
from benchmarks.command.final import measure
from benchmarks.command.killing import kept_kills
from benchmarks.command.killing import search
from benchmarks.command.killing import trials
from benchmarks.command.report import report
from benchmarks.command.tool import Missing
from benchmarks.command.tool import Tool
from benchmarks.race.run import provenance
from optuna_llmbo.study.trial_attributes import FAILED_REASON
from optuna_llmbo.study.trial_attributes import PRUNED_REASON
from optuna_llmbo.study.trial_attributes import SECONDS


RESULTS = Path(__file__).parents[1] / "results" / "command" / "llamafactory.json"


def prepare(work: Path) -> None:
    """Make the model and the data, unless they are there."""
    if not (work / "model").exists():
        subprocess.run([sys.executable, "-m", "examples.command.data", str(work)], check=True)


def plain(trial: FrozenTrial) -> dict[str, Any]:
    """What is kept of a trial."""
    attributes = trial.user_attrs
    reason = attributes.get(PRUNED_REASON) or attributes.get(FAILED_REASON)
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value if trial.state.name == "COMPLETE" else None,
        "params": trial.params,
        "reports": trial.intermediate_values,
        "seconds": attributes.get(SECONDS),
        "reason": reason,
        # its process had no time to say how it ended
        "killed": trial.state.name == "FAIL" and reason is None,
        "retries": trial.system_attrs.get("failed_trial"),
    }


def main() -> None:
    """Search, measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llamafactory", type=Path, help="a virtual environment that has it")
    parser.add_argument("--work", type=Path, default=Path("command-benchmark"))
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="only print the kept result")
    given = parser.parse_args()
    if not given.report:
        if given.llamafactory is None:
            parser.error("--llamafactory is needed, or --report")
        try:
            tool = Tool(given.llamafactory, given.work)
        except Missing as error:
            print(f"skipped: {error}")
            return
        prepare(given.work)
        search(tool, given.trials, given.kills)
        record = {
            **provenance(),
            "tool": tool.versions(),
            "n_trials": given.trials,
            "trials": [plain(trial) for trial in trials(tool)],
            "default": default_of(tool).number,
            "best": best_of(tool).number,
            "kills": kept_kills(tool),
            "left_running": len(tool.running()),
            "final": measure(tool, given.seeds),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
