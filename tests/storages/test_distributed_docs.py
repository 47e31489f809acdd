"""The scripts of docs/distributed.md do what it says."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys

import optuna
from optuna.storages import GrpcStorageProxy
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import TrialState
import pytest

from benchmarks import postgres


pytestmark = pytest.mark.long


ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "distributed.md").read_text()
SCRIPTS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", DOCUMENT, re.DOTALL))


def environment(cluster: postgres.Cluster, llm: Path) -> dict[str, str]:
    urls = {"STORAGE": cluster.url, "DATABASE": cluster.url.replace("+psycopg", "")}
    return {**os.environ, **urls, "OPTUNA_LLMBO_LLM": str(llm), "PYTHONPATH": str(ROOT)}


def run_optuna(command: str, environment: dict[str, str], **changes: object) -> None:
    """Run a command of the document, with an option changed."""
    line = re.search(rf"\$ optuna ({command} .*)", DOCUMENT)
    assert line is not None
    arguments = line[1]
    for option, value in changes.items():
        name = option.replace("_", "-")
        arguments = re.sub(rf"--{name} \S+", f"--{name} {value}", arguments)
    program = f'{sys.executable} -c "import optuna.cli, sys; sys.exit(optuna.cli.main())"'
    subprocess.run(f"{program} {arguments}", shell=True, check=True, env=environment)


@pytest.mark.slow
def test_workers(postgresql: postgres.Cluster, tiny_llm: Path, tmp_path: Path) -> None:
    script = SCRIPTS["worker"].replace("MaxTrialsCallback(100", "MaxTrialsCallback(6")
    assert script != SCRIPTS["worker"]
    (tmp_path / "worker.py").write_text(script)
    variables = environment(postgresql, tiny_llm)
    run_optuna("create-study", variables)
    command = [sys.executable, str(tmp_path / "worker.py")]
    workers = [subprocess.Popen(command, env=variables) for _ in range(2)]
    assert [process.wait(240) for process in workers] == [0, 0]
    study = optuna.load_study(storage=postgresql.url, study_name="lora")
    assert len(study.trials) in (6, 7)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)

    dead = study.ask()
    run_optuna("tell", variables, trial_number=dead.number)
    assert study.trials[dead.number].state == TrialState.FAIL


def test_proxy(postgresql: postgres.Cluster, tiny_llm: Path, tmp_path: Path) -> None:
    port = postgres.free_port()
    script = SCRIPTS["proxy"].replace("0.0.0.0", "localhost").replace("13000", str(port))
    (tmp_path / "proxy.py").write_text(script)
    command = [sys.executable, str(tmp_path / "proxy.py")]
    with subprocess.Popen(command, env=environment(postgresql, tiny_llm)) as server:
        storage = GrpcStorageProxy(port=port)
        try:
            storage.wait_server_ready(timeout=120)
            study = optuna.create_study(storage=storage)
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
            assert len(study.trials) == 2
            assert not is_heartbeat_enabled(storage)  # as the document says
        finally:
            storage.close()
            server.kill()
