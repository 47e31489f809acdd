"""Published tables of real training runs, read from a folder that the user names.

The tables are not part of the repository. `RACE_TABLES` names the folder that holds them; each
file is checked by its SHA-256, so that all results are of the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import os
from pathlib import Path

import pandas

from benchmarks.race.originals import ORIGINALS
from optuna_llmbo.errors import InputError


VARIABLE = "RACE_TABLES"
"""Environment variable with the folder of the tables."""


@dataclass(frozen=True)
class Source:
    """A table, and where its rows come from."""

    file: str
    """Path in the folder of tables."""
    sha256: str
    repository: str
    """Repository on GitHub."""
    commit: str
    path: str
    """Path of the original files in the repository."""
    licence: str


_HPO_NMT = ("Este1le/hpo_nmt", "7bd0a402b332a6fdea8bdfeabb0271afa5c5be1f")

SOURCES = {
    "llama": Source(
        "llama_lora_bo_pbo/runs.csv",
        "51fa4b579be483657dcddccbbcd19ada28940d41719112058fb82f7fa2fe4ddd",
        "Kiwy3/BO_PBO_HPO_LLM",
        "121f8a2145fc673204f27aafc111ea01915c4eb9",
        "computation_experiments/results/*.json",
        "MIT",
    ),
    "nmt": Source(
        "nmtlc_lora_llm/nmtlc_finetune.csv",
        "fd2b83354d8707c7dea684e5c61181ecf52636e41e0467e335fb8314f8a710df",
        *_HPO_NMT,
        "lc_datasets/nmtlc.pkl",
        "MIT",
    ),
    "deberta": Source(
        "opda_deberta_mnli/deberta-base_mnli.csv",
        "8bd489acfdb15182b56c1d568e488c8db1f2c7efb2c6a9867459a833158e32f6",
        "nicholaslourie/opda",
        "9529a34b7715e0b32920f630c1f7f7ff6f891060",
        "data/deberta/deberta-base_tuning.results.jsonl",
        "CC BY-SA 4.0",
    ),
    "nmthpo-sw-en": Source(
        "nmthpo_transformer/sw-en.csv",
        "11e77a21c545d1a9149116289335b218aa8a6143171cc91b4522034bfd4956da",
        *_HPO_NMT,
        "datasets/sw-en.{hyps,evals,fronts}",
        "MIT",
    ),
    "nmthpo-so-en": Source(
        "nmthpo_transformer/so-en.csv",
        "d0acf8cf0cece1425c215fd0bd59a7eb2f0756d35a1dd639354be159b9d478d4",
        *_HPO_NMT,
        "datasets/so-en.{hyps,evals,fronts}",
        "MIT",
    ),
    "gpt": Source(
        "autoresearch_gpt_pretrain/trials_fixed_space.csv",
        "648e65e82665762c399a4e144f94afe6049d49ad20312d36413ae71f906e4c48",
        "ferreirafabio/autoresearch-automl",
        "2959c3c69be32da677a37ca4b6e0c9a9fff020c8",
        "results/*/seed_*/trials.jsonl",
        "MIT",
    ),
}
"""All tables by name."""


def source_of(name: str) -> Source:
    """Return where a table comes from.

    Raises:
        InputError: if there is no such table.
    """
    if name not in SOURCES:
        raise InputError(f"unknown table {name!r}: expected one of {', '.join(SOURCES)}.")
    return SOURCES[name]


def find(name: str) -> Path:
    """Find the file of a table and check it.

    Raises:
        InputError: if no folder is named, it lacks the file, or the file is another one.
    """
    source = source_of(name)
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise InputError(
            f"{VARIABLE} is not set, so there is no table {source.file}: {_origin(name)}"
        )
    path = Path(folder) / source.file
    if not path.is_file():
        raise InputError(f"{folder!r} ({VARIABLE}) has no file {source.file}: {_origin(name)}")
    return checked(name, path)


def checked(name: str, path: Path) -> Path:
    """Check that a file is a table.

    Raises:
        InputError: if it is another one.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = source_of(name).sha256
    if found != expected:
        raise InputError(
            f"{os.fspath(path)!r} is another table: expected SHA-256 {expected}, got "
            f"{found}; {_origin(name)}"
        )
    return path


def _origin(name: str) -> str:
    source = SOURCES[name]
    made = (
        "; `python -m benchmarks.race.fetch_tables FOLDER` makes it" if name in ORIGINALS else ""
    )
    return (
        f"its rows come from {source.path} of github.com/{source.repository} at commit "
        f"{source.commit} ({source.licence}). Set {VARIABLE} to a folder that holds "
        f"{source.file}{made}."
    )


def read(name: str) -> pandas.DataFrame:
    """Read a table.

    Raises:
        InputError: as `find` does.
    """
    return pandas.read_csv(find(name))
