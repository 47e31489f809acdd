"""Files of trials in the study's artifacts: adapters that were kept, tracebacks."""

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


def upload_files(study: optuna.Study, store: Any, study_facts: StudyFacts) -> dict[str, str]:
    """Upload what is not there yet.

    To the study, not to its trials: the attributes of a finished trial are closed. The trial's
    number is in the file's name, such as trial-7-adapter.zip.

    Args:
        study: the study.
        store: an artifact store of Optuna.
        study_facts: the facts of the study.

    Returns:
        Of all that was ever uploaded, name to artifact id.
    """
    there = {}
    for facts in study_facts.trials:
        for name, make in _files(facts):
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
    """Names of a trial's files, and how to write them; None where that is no longer possible."""
    attributes = facts.trial.user_attrs
    if adapter := attributes.get(ADAPTER):
        folder = Path(str(adapter))
        can = folder.is_dir()  # a better trial's has taken its place, or it is on another machine
        yield f"trial-{facts.number}-adapter.zip", (lambda to: _pack(folder, to)) if can else None
    if text := attributes.get(TRACEBACK):
        name = f"trial-{facts.number}-traceback.txt"
        yield name, lambda to: to.write_text(str(text), encoding="utf-8")


def _pack(folder: Path, archive: Path) -> None:
    """The files of a folder in an archive; stored as they are, weights do not compress."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as pack:
        for file in sorted(folder.iterdir()):
            pack.write(file, file.name)
