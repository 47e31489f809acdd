"""Download the published files that tables of real runs are made from, and make the tables.

    python -m benchmarks.race.fetch_tables FOLDER
    python -m benchmarks.race.fetch_tables FOLDER --tables llama,deberta

The files are those of a pinned commit, and a table is written only if it has the pinned SHA-256.
Only some tables have a conversion, those that are made by default; the folder has to hold the
others. What the folder holds already is kept. The race reads the tables from the folder that
RACE_TABLES names.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
from pathlib import Path
import sys
import urllib.request

from benchmarks import console
from benchmarks.race import real_tables
from benchmarks.race.originals import ORIGINALS
from optuna_llmbo.errors import InputError


RAW = "https://raw.githubusercontent.com"
TIMEOUT = 60
"""Seconds that the server may be silent."""


def fetch(name: str, folder: Path) -> Path:
    """Make a table in a folder, if it is not there.

    Returns:
        The path of the table.

    Raises:
        InputError: if the table cannot be made, a file cannot be downloaded, or the table is
            another one than the pinned; nothing is written then.
    """
    source = real_tables.source_of(name)
    path = folder / source.file
    if path.is_file():
        return real_tables.checked(name, path)
    if name not in ORIGINALS:
        raise InputError(
            f"the table {name} cannot be made here: there is no conversion of {source.path} of "
            f"github.com/{source.repository} at {source.commit} (a pickle is not read, as it may "
            f"run code). Take {source.file} from a folder that has it, or convert it yourself to "
            f"{os.fspath(path)!r}, whose SHA-256 has to be {source.sha256}."
        )
    original = ORIGINALS[name]
    root = f"{RAW}/{source.repository}/{source.commit}"
    texts = [_download(f"{root}/{part}") for part in original.paths]
    try:
        table = original.convert(texts)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"{source.path} of github.com/{source.repository} is not in the expected form "
            f"({error!r}): what was downloaded is not the file of commit {source.commit}."
        ) from error
    found = hashlib.sha256(table).hexdigest()
    if found != source.sha256:
        raise InputError(
            f"the table made from {source.path} of github.com/{source.repository} at commit "
            f"{source.commit} has SHA-256 {found}, expected {source.sha256}: it is not written, "
            f"as results would be of another table. Take {source.file} from a folder that has it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(table)
    return part.replace(path)


def _download(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            text: str = answer.read().decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot download {url}: {error}. Check the network, or take the tables from a folder "
            f"that has them ({real_tables.VARIABLE})."
        ) from error
    return text


def main() -> None:
    """Make the tables; go on after one that cannot be made, and fail in the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the tables")
    parser.add_argument(
        "--tables",
        type=console.names,
        default=list(ORIGINALS),
        help=f"names, comma-separated; default: {', '.join(ORIGINALS)}",
    )
    given = parser.parse_args()
    failed = []
    for name in given.tables:
        try:
            print(fetch(name, given.folder), file=sys.stderr)
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed.append(name)
    if failed:
        sys.exit(f"not made: {', '.join(failed)}")


if __name__ == "__main__":
    main()
