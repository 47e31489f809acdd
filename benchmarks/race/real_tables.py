"""Published tables of real runs, of training and others, read from a folder that the user names.

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
    """Commit, or a release of the package that the repository is of."""
    path: str
    """Path of the original files in the repository."""
    licence: str


_OBOE = (
    "udellgroup/oboe",
    "release 0.2.0 of the package oboe",
    "oboe/defaults/TensorOboe/{error_tensor_imputed,runtime_tensor}*.npz",
    "BSD",
)
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
    "direct-arylation": Source(
        "chem_direct_arylation/data.csv",
        "bdc7583d8dc155bc6ccd3cb1f0ae06a7aa81d20c68cc25cda9473ed7a9b2f691",
        "b-shields/edbo",
        "9b41eac3f6d9e520547702fd5b0c7ef6441625a4",
        "experiments/data/direct_arylation/",
        "MIT",
    ),
    "amide-coupling": Source(
        "chem_amide_coupling/data.csv",
        "958ce5fe11cb700ab119b565feed7bd8fed18a73def7d3d098942a859aa97124",
        "beef-broccoli/ochem-data",
        "e739f4d4d2002218fd225de5e8b2e6c235cabd6b",
        "deebo/amidation.csv",
        "CC BY 4.0",
    ),
    "methane-coupling": Source(
        "chem_methane_coupling_catalysts/data.csv",
        "c01487cc0fdd6c0703e354985bae15fc51e3798d46ec118fe0ee9396b82b0edb",
        "ur-whitelab/BO-LIFT",
        "43d38efca6fd91116c7550625ffb7859b6185b54",
        "paper/dataset/oxidative_methane_coupling.csv",
        "MIT, says its README",
    ),
    "buchwald-hartwig": Source(
        "chem_buchwald_hartwig/data.csv",
        "1e2a6ecc6ce7f43c517d3295daccd3fedc6c3e3bcd40434b933cc77e02f68985",
        "emdgroup/baybe",
        "02177ac04c2c981d516ef23ca881a77fe628adcf",
        "benchmarks/data/aryl_halide/data.csv",
        "Apache-2.0",
    ),
    "automl-pipelines": Source(
        "automl_tensoroboe_pipelines/pipelines.csv",
        "43b302453b29453349fc41d7e87851d06213006dff4d64d7e62a5bcc1994f2a0",
        *_OBOE,
    ),
    "automl-errors": Source(
        "automl_tensoroboe_pipelines/errors.csv",
        "8dcd9486a8c01f1f34c79fb4827cfd71c4930ae55947ffe84572d2cab5388a35",
        *_OBOE,
    ),
    "lmentry": Source(
        "prompts_multiprompt/lmentry.csv",
        "65a37bce9e676c156bc2819f5324092d56f3b105b299fff321d2d41e55c71787",
        "SLAB-NLP/Multi-Prompt-LLM-Evaluation",
        "04f57ef4d5201ef817f54f0e1b09e3fc0c481fb6",
        "data/paraphrases accuracies and rankings (aggregated)/",
        "CDLA-Permissive-2.0, says its README",
    ),
    "ragsmith": Source(
        "rag_ragsmith_pipelines/data.csv",
        "0fd5d268992865f4cd37489637740c67ced30903628ea92d085b05cfb0e3b605",
        "yAquila/RAGSmith",
        "982070a49213480c2380d77e779d41e4a823cc1c",
        "results_md/*/*.md",
        "MIT",
    ),
    "peft": Source(
        "peft_metamathqa/current_head.csv",
        "2bc10d3270f8a4c8d2f3f6af4ca5e8b1c6224efd3306e144bd894a3fc8d3d0b7",
        "huggingface/peft",
        "5d602fdbff04c33c1c4de55cda9d4ae1d7cb7e40",
        "method_comparison/MetaMathQA/results/*.json",
        "Apache-2.0",
    ),
    "redoxmers": Source(
        "control_redoxmers_opaque_labels/data.csv",
        "e17aaab994c21d6ad244b431036b9ebb1c79bd1346fe66f2bdb44c89d37a8d6e",
        "aspuru-guzik-group/olympus",
        "440b6b58ebfcaa2391cff7e94b570fb4fda98d68",
        "src/olympus/datasets/dataset_redoxmers/data.csv",
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
        f"its rows come from {source.path} of github.com/{source.repository} at "
        f"{source.commit} ({source.licence}). Set {VARIABLE} to a folder that holds "
        f"{source.file}{made}."
    )


def read(name: str) -> pandas.DataFrame:
    """Read a table.

    Raises:
        InputError: as `find` does.
    """
    return pandas.read_csv(find(name))
