"""The structure of the package: light import, and arrows that point one way."""

from __future__ import annotations

import ast
from pathlib import Path
import subprocess
import sys

import optuna
import pytest

import optuna_llmbo


PACKAGE = Path(optuna_llmbo.__file__).parent

# room (a folder, or a file beside them) -> the rooms it may import; docs/architecture.md draws it
ARROWS = {
    "errors": set(),
    "_util": {"errors"},
    "knowledge": {"_util", "errors"},
    "space": {"_util", "errors", "knowledge"},
    "study": {"_util", "errors", "space"},
    "embedding": {"_util", "errors"},
    "surrogate": {"_util", "embedding", "errors", "space", "study"},
    "suggestion": {"_util", "embedding", "errors", "knowledge", "space", "study", "surrogate"},
    "sampler": {"embedding", "errors", "knowledge", "space", "study", "suggestion", "surrogate"},
    "lora": {"_util", "embedding", "errors", "space", "study"},
    "trainer": {"embedding", "errors", "lora", "space", "study"},
    "command": {"errors", "knowledge", "space", "study"},
    "promotable": {"lora", "study"},
    "promotion": {"lora", "promotable", "study"},
    "promote": {"errors", "lora", "promotable", "promotion", "sampler", "study"},
    "insight": {
        "_util",
        "errors",
        "lora",
        "sampler",
        "space",
        "study",
        "suggestion",
        "surrogate",
    },
    "figures": {"errors", "insight", "study"},
    "dashboard": {"errors", "figures", "insight", "sampler", "study"},
    "report": {"errors", "figures", "insight", "sampler", "space", "study"},
    "cli": {
        "_util",
        "command",
        "dashboard",
        "embedding",
        "errors",
        "lora",
        "promotable",
        "promote",
        "promotion",
        "report",
        "sampler",
        "space",
        "study",
        "suggestion",
        "trainer",
    },
    "__init__": {"command", "lora", "sampler"},
}
# The largest rooms in layers: a file, or a folder inside, imports from earlier layers only.
LAYERS = {
    "lora": [
        {
            "chat_template",
            "columns",
            "data_files",
            "best_report",
            "distributed",
            "hyperparameters",
            "messages",
            "model_card",
            "proxy_agreement",
            "resources",
            "seeds",
            "space_file",
            "stdlib_docstrings",
        },
        {"memory", "recipe", "records", "table"},
        {"data", "probe", "render"},
        {"optimizer", "recorded", "space", "tokens"},
        {"evaluate", "layers", "splits"},
        {"adapter", "generate", "train"},
        {"base_model", "checkpoint", "metrics", "preflight"},
        {"measuring", "merge", "options"},
        {"proxy"},
        {"examples"},
        {"export"},
        {"prepare"},
        {"fit", "record"},
        {"promotable", "run"},
        {"objective"},
        {"packed", "proxy_check"},
    ],
    "trainer": [
        {
            "configuration",
            "quiet",
            "random_state",
            "rows",
            "save",
            "snapshot",
            "trl_import",
            "yaml_text",
        },
        {"callback", "configs", "shared_base", "space"},
        {"job"},
        {"options"},
        {"prepare"},
        {"fits", "record"},
        {"promotable"},
        {"objective", "trl_file"},
        {"trl_values"},
        {"export"},
        {"trl_objective"},
    ],
    "cli": [
        {"budget", "duration", "metrics", "sparkline", "storages", "summary", "terminal"},
        {"events", "live", "options"},
        {"conclusion", "doctor", "proxy_check", "search", "studies", "tracking"},
        {"together", "tune_trl"},
        {"again"},
        {"own_files"},
        {"command", "dashboard", "export", "promote", "report", "tune"},
    ],
}
# third-party package -> the rooms that may import it
KNOWN_BY = {
    "transformers": {"embedding", "lora", "trainer"},
    "peft": {"lora", "trainer"},
    "datasets": {"lora", "trainer"},
    "trl": {"trainer"},
    "rich": {"cli"},
    "typer": {"cli"},
    "mlflow": {"cli"},
    "wandb": {"cli"},
    "tensorboard": {"cli"},
    "optuna_integration": {"cli"},
    "plotly": {"figures", "report"},
    "gpytorch": {"surrogate"},
    "botorch": {"surrogate"},
    "ruamel": {"command"},
    "tomlkit": {"command"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    """The folder's name, or the file's for one beside the folders."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    importer = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "optuna_llmbo" and len(parts) > 1:
            imported = parts[1]
            assert imported == importer or imported in ARROWS[importer], name
        if parts[0] in KNOWN_BY:
            assert importer in KNOWN_BY[parts[0]], name


@pytest.mark.parametrize("room", LAYERS)
def test_layers(room: str) -> None:
    layer = {name: i for i, names in enumerate(LAYERS[room]) for name in names}
    inside = {path for path in FILES if room_of(path) == room and path.parent.name != room}
    inside |= set((PACKAGE / room).glob("*.py")) - {PACKAGE / room / "__init__.py"}
    for path in inside:
        importer = path.relative_to(PACKAGE / room).parts[0].removesuffix(".py")
        for name in imports_of(path):
            parts = name.split(".")
            if parts[:2] == ["optuna_llmbo", room] and parts[2:] and parts[2] != importer:
                assert layer[parts[2]] < layer[importer], f"{importer} imports {name}"


def test_no_cycle_between_rooms() -> None:
    assert not cycle({name: set(targets) for name, targets in ARROWS.items()})


def test_no_cycle_between_files() -> None:
    """A folder's `__init__` re-exports what lies inside, so only direct imports of files count."""
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in FILES
        if path.name != "__init__.py"
    }
    assert not cycle(
        {
            module: {
                other
                for name in imports_of(path)
                for other in (name, name.rpartition(".")[0])
                if other in modules and other != module
            }
            for module, path in modules.items()
        }
    )


def cycle(arrows: dict[str, set[str]]) -> list[str]:
    """The nodes that are left when leaves are taken away again and again: those of circles."""
    rest = dict(arrows)
    while leaves := {name for name, targets in rest.items() if not targets & rest.keys()}:
        rest = {name: targets for name, targets in rest.items() if name not in leaves}
    return sorted(rest)


def test_only_the_terminal_modules_print() -> None:
    for path in FILES:
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        printed = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not printed, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, optuna_llmbo; "
        "print([m for m in ('torch', 'transformers', 'optuna') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(("command", "needed"), [("--help", set()), ("doctor", {"torch"})])
def test_commands_load_no_more_than_they_need(command: str, needed: set[str]) -> None:
    """Only torch can tell which devices it sees, which `doctor` shows."""
    heavy = {*KNOWN_BY, "torch", "optuna", "scipy"} - {"rich", "typer"}
    code = (
        "import sys\nfrom optuna_llmbo.cli import main\n"
        f"sys.argv = ['optuna-llmbo', {command!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*sorted({heavy!r} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert set(result.stdout.splitlines()[-1].split()) == needed, result.stderr


def test_a_report_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    """The model's part of a report needs torch and gpytorch; nothing reads or trains a model."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    code = (
        "import sys\nfrom optuna_llmbo.cli import main\n"
        f"sys.argv = ['x', 'report', 's', '--storage', {url!r}, '--out', '{tmp_path}/r.html']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted(loaded & {'transformers', 'peft', 'datasets', 'matplotlib', 'pandas',"
        " 'sklearn', 'optuna_dashboard', 'gpytorch'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (tmp_path / "r.html").exists()
    assert result.stdout.splitlines()[-1].split() == ["gpytorch"], result.stderr


def test_public_names() -> None:
    assert {"LLMBOSampler", "LoRAObjective"} <= set(dir(optuna_llmbo))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = optuna_llmbo.nothing_like_it
