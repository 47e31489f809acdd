"""Upload files of trials to the study's artifacts: adapters that were kept, tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import tempfile
from typing import Any
import zipfile

import optuna
from optuna.artifacts import upload_artifact

from optuna_llmbo.insight.facts import StudyFacts
from optuna_llmbo.study import compat
from optuna_llmbo.study.trial_attributes import ADAPTER
from optuna_llmbo.study.trial_attributes import TRACEBACK
from optuna_llmbo.study.trial_attributes import UPLOADED_PREFIX
from optuna_llmbo.study.trial_facts import TrialFacts


def upload_files(study: optuna.Study, store: Any, facts: StudyFacts) -> dict[str, str]:
    """Upload the files that are not there yet.

    They are attached to the study, not to its trials, as the attributes of a finished trial can no
    longer change. A file's name contains the trial's number, such as trial-7-adapter.zip.

    Args:
        study: the study.
        store: an Optuna artifact store.
        facts: facts about the study.

    Returns:
        Name -> artifact id, for every file ever uploaded.
    """
    there = {}
    for trial in facts.trials:
        for name, make in _files(trial):
            key = UPLOADED_PREFIX + name
            artifact_id = compat.system_attribute(study, key)
            if artifact_id is None and make is not None:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / name
                    make(path)
                    artifact_id = upload_artifact(
                        artifact_store=store, file_path=str(path), study_or_trial=study
                    )
                compat.set_system_attribute(study, key, artifact_id)
            if artifact_id is not None:
                there[name] = artifact_id
    return there


def _files(facts: TrialFacts) -> Iterator[tuple[str, Any]]:
    """Yield a trial's file names and functions to write them; None if it is no longer possible."""
    attributes = facts.trial.user_attrs
    if adapter := attributes.get(ADAPTER):
        folder = Path(str(adapter))
        can = folder.is_dir()  # it was replaced by a better trial's, or is on another machine
        yield f"trial-{facts.number}-adapter.zip", (lambda to: _pack(folder, to)) if can else None
    if text := attributes.get(TRACEBACK):
        name = f"trial-{facts.number}-traceback.txt"
        yield name, lambda to: to.write_text(str(text), encoding="utf-8")


def _pack(folder: Path, archive: Path) -> None:
    """Write a folder's files to an archive, uncompressed, as weights do not compress."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as pack:
        for file in sorted(folder.iterdir()):
            pack.write(file, file.name)
