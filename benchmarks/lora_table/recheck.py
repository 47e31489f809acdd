"""Run some rows of a table again and compare the results.

    python -m benchmarks.lora_table.recheck --rows 10

Before extending the table, or merging a part made elsewhere, use this to check that this machine
gives the same results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import optuna
import pandas
import torch

from benchmarks.lora_table import run as runs
from benchmarks.lora_table import tables
from benchmarks.lora_table.facts import seed_noise
from benchmarks.lora_table.plan import Planned
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import PROXY
from benchmarks.lora_table.tiers import TIERS
from benchmarks.provenance import commit
from optuna_llmbo.errors import differences
from optuna_llmbo.errors import InputError


def recheck(
    table: pandas.DataFrame, tier: str, n_rows: int, *, seed: int, device: str, data: Path | None
) -> list[dict[str, Any]]:
    """Run `n_rows` random rows again.

    Raises:
        InputError: if model, data or settings differ from those of the table.
    """
    version, results = commit(), []
    for row in table.sample(n_rows, random_state=seed).to_dict("records"):
        params = {name: row[name] for name in PARAMS}
        planned = Planned(row["design"], params, row["fraction"], row["seed"])
        context = runs.context(tier, planned.fraction, planned.seed, device, data)
        if differ := differences(json.loads(row["context"]), context, label="here"):
            raise InputError(
                f"run {row['run_id']} of the table differs in its model, data or settings: "
                f"{differ}."
            )
        again = runs.run(tier, planned, device, data, version)
        results.append(
            {
                "run_id": row["run_id"],
                "params": params,
                "fraction": row["fraction"],
                "seed": row["seed"],
                "status": row["status"],
                "loss": row["loss"],
                "again_status": again["status"],
                "again_loss": again["loss"],
                "seed_noise": seed_noise(table, 1.0 if row["fraction"] == 1.0 else PROXY),
                "device": again["device"],
                "versions": json.loads(again["versions"]),
                "commit": version,
                "date": again["date"],
            }
        )
    return results


def report(results: list[dict[str, Any]]) -> str:
    """Format one line per row."""
    lines = ["| run | fraction | seed | loss | again | difference | seed noise |"]
    lines.append("|---|---|---|---|---|---|---|")
    for result in results:
        lines.append(
            f"| {result['run_id']} | {result['fraction']:.0%} | {result['seed']} | "
            f"{result['loss']:.6f} | {result['again_loss']:.6f} | "
            f"{abs(result['loss'] - result['again_loss']):.1e} | {result['seed_noise']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run rows again, save the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="cpu")
    parser.add_argument("--table", type=Path, help="default: tables/TIER.parquet beside this file")
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of rows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, help="folder with the task's data")
    parser.add_argument("--report", action="store_true", help="print the last result and stop")
    arguments = parser.parse_args()
    path = tables.RESULTS / f"recheck-{arguments.tier}.json"
    if not arguments.report:
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        table = tables.read(arguments.table or tables.FOLDER / f"{arguments.tier}.parquet")
        try:
            results = recheck(
                table,
                arguments.tier,
                arguments.rows,
                seed=arguments.seed,
                device=arguments.device,
                data=arguments.data,
            )
        except InputError as error:
            parser.error(str(error))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(report(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
