"""The examples run as they are, with a small budget: in this process where they can, for importing
takes longer than running; what they print is read and has to make sense."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
import os
from pathlib import Path
import pickle
import re
import runpy
import signal
import subprocess
import sys
import time

import optuna
import pytest
from ray.tune.search.optuna import OptunaSearch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from benchmarks import examples as benchmark
from examples.command import data as command_data
from optuna_llmbo import cli
from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.knowledge import load_pack
from tests.test_command_recipes import searches as recipe_searches
from tests.tiny import make_tiny_llm


pytestmark = pytest.mark.long


ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DOCSTRINGS = ROOT / "benchmarks/lora_table/cpu/train.parquet"  # those of the library take long

Run = Callable[..., str]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> Run:
    """Runs an example as a script, and returns what it printed."""

    def run(name: str, *arguments: object) -> str:
        script = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(printed: str) -> list[float]:
    """All numbers in a text; a percentage is a number of hundredths."""
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", printed)]


def test_quickstart(run: Run) -> None:
    printed = run("quickstart", "--trials", 8)
    default, best, recommended = printed.splitlines()
    assert numbers(default) == [pytest.approx(70.44, abs=0.01)]  # of scikit-learn, not of ours
    assert 50 < numbers(best)[1] < 65
    trial, expected = numbers(recommended)
    assert 0 <= trial < 8 and expected == pytest.approx(numbers(best)[1], abs=5)
    assert run("quickstart", "--trials", 8) == printed


def test_gbdt(run: Run, tiny_llm: Path) -> None:
    head, *rows = run("gbdt", "--trials", 6, "--seeds", 1, "--llm", tiny_llm).splitlines()
    assert head.split() == ["best", "error", "after", "1", "3", "5", "6"]
    assert [row[:12] for row in rows] == ["boosting pac", "no knowledge", "TPESampler  "]
    for row in rows:
        errors = numbers(row)
        assert errors == sorted(errors, reverse=True) and 50 < errors[-1] < 70
    assert numbers(rows[0])[0] != numbers(rows[1])[0]  # the pack's defaults, not the middle


def test_conditional(run: Run) -> None:
    _, head, *rows = run("conditional", "--trials", 9).splitlines()
    assert head.split() == ["svm", "forest", "network"] and len(rows) == 2
    for row in rows:
        cells = re.findall(r"(\d+)(?: \(([\d.]+)%\))?(?=\s)", row.partition("best:")[0])
        assert sum(int(trials) for trials, _ in cells) == 9
        (winner, error) = re.findall(r"best: (\w+), ([\d.]+)%", row)[0]
        errors = {
            name: float(cell[1]) for name, cell in zip(head.split(), cells, strict=True) if cell[1]
        }
        assert errors[winner] == min(errors.values()) == pytest.approx(float(error), abs=0.051)


def test_multi_objective(run: Run) -> None:
    head, *front, last = run("multi_objective", "--trials", 8).splitlines()
    assert head.split() == ["nodes", "log", "loss", "trees", "depth"]
    nodes, losses, *_ = zip(*map(numbers, front), strict=True)
    assert list(nodes) == sorted(set(nodes)) and list(losses) == sorted(losses, reverse=True)
    assert all(0 < volume < 1 for volume in numbers(last)) and len(numbers(last)) == 2


def test_pruning(run: Run) -> None:
    alone, pruned, saved = map(numbers, run("pruning", "--trials", 9).splitlines())
    assert alone[:3] == [9 * 27, 0, 9]
    assert 9 <= pruned[0] < alone[0] and 0 < pruned[1] < 9
    assert saved == [pytest.approx(100 * (1 - pruned[0] / alone[0]), abs=0.51)]
    assert 0 < alone[3] < 2.3 and 0 < pruned[3] < 2.3  # below chance among ten digits: log 10


def test_ask_and_tell(run: Run) -> None:
    *batches, together, alone = map(numbers, run("ask_and_tell", "--batches", 3).splitlines())
    assert [batch[0] for batch in batches] == [1, 2, 3]
    assert all(nearest > 0.01 for _, nearest, _ in batches)
    assert together == [12, min(batch[2] for batch in batches), 3]
    assert alone[0] == 12 and 0 < alone[1] < 1.1  # below chance among three wines: log 3


def test_transfer(run: Run) -> None:
    _, found, losses = run("transfer", "--trials", 10, "--seeds", 1).splitlines()
    first_with, first_without, best_with, best_without = numbers(losses)
    assert first_with < first_without  # the earlier study's best, not the pack's
    (good,) = re.findall(r"good is ([\d.]+)", found)
    assert float(good) == pytest.approx(1.1 * min(best_with, best_without), abs=2e-4)
    assert re.search(r"(study|without) trial \d+", found)  # one of them has found the best


def test_custom_knowledge(run: Run) -> None:
    from examples import custom_knowledge

    pack = load_pack(custom_knowledge.PACK)
    assert len(pack.derived) == 1 and len(pack.recommended) == 1
    head, with_pack, without = run("custom_knowledge", "--trials", 6, "--seeds", 1).splitlines()
    assert head.split() == ["misread", "after", "1", "3", "6"]
    for row in (with_pack, without):
        errors = numbers(row.replace(".toml", ""))
        assert errors == sorted(errors, reverse=True) and errors[-1] < 10
    cost, gamma = pack.recommended[0].values.values()
    recommended = custom_knowledge.objective(optuna.trial.FixedTrial({"C": cost, "gamma": gamma}))  # type: ignore[arg-type]
    assert numbers(with_pack)[0] == pytest.approx(100 * recommended, abs=0.0051)


def test_the_readme_lists_every_example_and_its_seconds() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\.py\].*\| (\d+) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in rows] == list(benchmark.EXAMPLES)
    assert set(benchmark.EXAMPLES) == {path.stem for path in EXAMPLES.glob("*.py")}
    kept = json.loads(benchmark.RESULTS.read_text())
    assert [seconds for _, seconds in rows] == [
        f"{kept[name]['seconds']:.0f}" for name in benchmark.EXAMPLES
    ]


def test_lora(run: Run, tiny_llm: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"count on from {i}", "response": f"{i + 1}"} for i in range(60)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    printed = run("lora", "--model", tiny_llm, "--llm", tiny_llm, "--train", data,
                  "--validation", 8, "--trials", 6, "--proxy", 0.5)  # fmt: skip
    base, default, best = (numbers(line)[0] for line in printed.splitlines())
    assert best <= default < base


@pytest.mark.slow
def test_lora_on_the_embedded_model(run: Run) -> None:
    printed = run("lora", "--trials", 1, "--train", DOCSTRINGS, "--max-length", 64,
                  "--proxy", 0.02, "--validation", 8)  # fmt: skip
    base, default, best = (numbers(line)[0] for line in printed.splitlines())
    assert best == default < base


def test_prompts(run: Run, tiny_llm: Path) -> None:
    from examples import prompts

    head, first, best, *written = run(
        "prompts", "--model", tiny_llm, "--llm", tiny_llm, "--trials", 8
    ).splitlines()
    assert numbers(head) == [len(prompts.templates()), 8]
    assert numbers(best)[0] <= numbers(first)[0]
    assert "\n".join(written) in prompts.templates()


def test_prompts_are_different_and_leave_one_place_for_the_review() -> None:
    from examples import prompts

    templates = prompts.templates()
    assert len(set(templates)) == len(templates) >= 60
    for template in templates:
        assert template.count("{text}") == 1 and "{answer}" not in template
        assert template == template.strip()  # the answer brings its own blank
    shots = [text for shots in prompts.FILE["few_shot"]["shots"] for text, _ in shots]
    reviews = [review for kind in prompts.REVIEWS.values() for review in kind]
    assert len(set(reviews)) == len(reviews) and not set(shots) & set(reviews)
    assert len({len(kind) for kind in prompts.REVIEWS.values()}) == 1


@pytest.mark.parametrize("template", ["Is it good? {text} It is", "{text}\nThis is"])
def test_prompts_are_scored_as_if_read_one_by_one(template: str, tiny_llm: Path) -> None:
    from examples import prompts

    llm = load_model(resolve_source(str(tiny_llm)), device="cpu")
    losses = []
    for answer, texts in prompts.REVIEWS.items():
        for text in texts[prompts.HELD_OUT]:
            asked = llm.tokenizer(template.replace("{text}", text) + " ", return_tensors="pt")
            p = llm.model(asked.input_ids).logits[0, -1].softmax(dim=0)
            both = {word: p[llm.tokenizer(word[0]).input_ids[0]] for word in prompts.ANSWERS}
            losses.append(-math.log(both[answer] / sum(both.values())))
    loss, accuracy = prompts.score(llm, template, prompts.HELD_OUT)
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert accuracy == sum(loss < math.log(2) for loss in losses) / len(losses)


def test_recipes(run: Run, tiny_llm: Path) -> None:
    printed = run("recipes", "--model", tiny_llm, "--llm", tiny_llm, "--trials", 8,
                  "--max-length", 400, "--validation", 16)  # fmt: skip
    base, default, best, *choices = printed.splitlines()
    assert numbers(best)[0] <= numbers(default)[0] < numbers(base)[0]
    names = [line.partition(":")[0] for line in choices[::3]]
    assert names == ["init", "schedule", "target_modules", "variant"]  # optimizer: two choices
    for weighs, alike, expected in zip(choices[::3], choices[1::3], choices[2::3], strict=True):
        assert 0 <= numbers(weighs)[-1] <= 1 and -1 <= numbers(alike)[-1] <= 1
        name = weighs.partition(":")[0]
        texts = re.findall(r"([^ ]+) -?\d+\.\d{3}(?:, |$)", expected)
        assert sorted(texts) == sorted(recipe_choices(name))
        one, _, other = alike.split()[1:4]
        assert {one, other.rstrip(",")} < set(texts)


def recipe_choices(name: str) -> tuple[str, ...]:
    from examples import recipes

    return recipes.SPACE[name].choices  # type: ignore[attr-defined]


def test_sklearn_search_cv(run: Run) -> None:
    cv, held_out, params = run("sklearn_search_cv", "--trials", 6).splitlines()
    first, best, folds = numbers(cv)
    assert first <= best < 0 and folds == 3
    assert -1.1 < numbers(held_out)[0] < 0  # better than chance among three wines
    assert "mlpclassifier__alpha" in params


def test_hf_trainer(run: Run, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    run("hf_trainer", "--storage", storage, "--trials", 7, "--steps", 4, "--rows", 8)
    (study,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).trials
    assert len(trials) == 7
    assert {frozenset(trial.params) for trial in trials} == {
        frozenset({"lora_r", "lora_alpha", "learning_rate", "warmup_steps"})
    }
    first, *rest = (trial.intermediate_values for trial in trials)
    assert list(first) == [25, 50, 75, 100] and all(25 in values for values in rest)
    assert all(trial.user_attrs["steps"] <= 4 for trial in trials)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `examples.command.data` makes it, with a small model; the current one."""
    pairs = [(f"def f{i}():\n    return {i}", f"Return {i}.") for i in range(400)]
    command_data.write(tmp_path, pairs)
    make_tiny_llm(tmp_path / "model", chat=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hf_script(run: Run, work: Path) -> None:
    run("command/hf_script/hf_script", EXAMPLES / "command" / "hf_script" / "train.yaml")
    state = json.loads((work / "out" / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert (work / "out" / "adapter_model.safetensors").exists()


def test_hf_script_trains_on_completions_alone(work: Path) -> None:
    from examples.command.hf_script import hf_script

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    (row, *_) = hf_script.read("chat/validation.jsonl", tokenizer)
    trained = [i for i in row["labels"] if i != -100]
    said = json.loads((work / "chat" / "validation.jsonl").read_text().splitlines()[0])
    (assistant,) = said["completion"]
    assert tokenizer.decode(trained) == assistant["content"] + tokenizer.eos_token
    assert trained == row["input_ids"][-len(trained) :]


def test_hf_script_is_searched_by_its_command(work: Path) -> None:
    (words,) = [words for tool, words in recipe_searches() if tool == "hf_script"]
    words = [word.replace("../examples", str(EXAMPLES)) for word in words]
    words[words.index("--command") + 1] = words[words.index("--command") + 1].replace(
        "python ", f"{sys.executable} "
    )
    words[words.index("--trials") + 1] = "2"
    result = CliRunner().invoke(cli.app, ["search", *words, "--study", "s"])
    assert result.exit_code == 0, result.output
    default, other = optuna.load_study(study_name="s", storage="sqlite:///search.db").trials
    assert default.params == {"learning_rate": 2e-4, "lora_r": 8, "alpha_ratio": 2.0}
    for trial in (default, other):
        folder = work / "runs" / f"trial-{trial.number:04}"
        state = json.loads((folder / "out" / "trainer_state.json").read_text())
        losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
        assert list(trial.intermediate_values) == [50, 100]
        assert trial.value == losses[-1] == trial.intermediate_values[100]
        assert trial.intermediate_values[50] == pytest.approx(losses[0], rel=1e-3)  # as printed
        adapter = json.loads((folder / "out" / "adapter_config.json").read_text())
        assert adapter["r"] == trial.params["lora_r"]
        assert adapter["lora_alpha"] == round(trial.params["lora_r"] * trial.params["alpha_ratio"])


def test_hf_trainer_gives_the_model_its_rank() -> None:
    from examples import hf_trainer

    trial = optuna.trial.FixedTrial({"lora_r": 3, "lora_alpha": 7.5})
    model = hf_trainer.with_adapter(str(hf_trainer.HERE / "base"), trial)
    (adapter,) = model.peft_config.values()
    assert (adapter.r, adapter.lora_alpha) == (3, 7.5)
    assert model.get_nb_trainable_parameters()[0] > 0


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    """A library of small documented functions."""
    folder = tmp_path / "stdlib"
    folder.mkdir()
    functions = [f'def f{i}(x):\n    """Add {i} to x."""\n    return x + {i}\n' for i in range(70)]
    (folder / "m.py").write_text("\n\n".join(functions))
    return folder


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_trl(task: str, run: Run, stdlib: Path, tiny_llm: Path, tmp_path: Path) -> None:
    """The example's own file, with another model and adapters that learn from few steps."""
    import yaml

    values = yaml.safe_load((EXAMPLES / f"{task}.yaml").read_text())
    data = tmp_path / "data"
    values |= {"model_name_or_path": str(tiny_llm), "dataset_name": str(data), "max_length": 200}
    values |= {"learning_rate": 1e-3}
    file = tmp_path / f"{task}.yaml"
    file.write_text(yaml.safe_dump(values))
    printed = run(f"trl_{task}", "--file", file, "--data", data, "--stdlib", stdlib,
                  "--trials", 3, "--proxy", 16, "--validation", 8, "--test", 8)  # fmt: skip
    base, default, best = printed.splitlines()
    assert numbers(best)[0] <= numbers(default)[0]
    if task == "sft":  # a tiny model of random weights has no preferences to learn
        assert numbers(default)[0] < numbers(base)[0]
    assert default.startswith("default: validation ") and " test " in best
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 70
    if task == "dpo":
        assert all(row["chosen"] != row["rejected"] for row in rows)


def test_ray_tune_interrupted_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    command = [sys.executable, str(EXAMPLES / "ray_tune.py"), "--trials", "14",
               "--results", str(folder)]  # fmt: skip
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as search:
        try:
            deadline = time.monotonic() + 200
            while n_trained(folder) < 1 and search.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            search.send_signal(signal.SIGINT)
            printed, _ = search.communicate(timeout=100)
        finally:
            search.kill()  # nothing to do if it has ended
    assert "interrupted" in printed, printed
    before = ray_trials(folder)
    assert len(before) >= 2  # on busy cores all 14 may have begun; "interrupted" is what counts

    result = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=200
    )
    assert "14 trials" in result.stdout, result.stderr
    after = ray_trials(folder)
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    assert len(after) == 14 and all(trial.value is not None for trial in after)
    steps = {len(trial.intermediate_values) for trial in after}
    assert len(steps) > 1, "ASHA stopped no trial"


def n_trained(folder: Path) -> int:
    """Trials that have reported to Ray Tune."""
    return sum(path.stat().st_size > 0 for path in folder.glob("train_*/result.json"))


def ray_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="digits", storage=f"sqlite:///{folder}/study.db").trials


SPACE = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    "batch_size": optuna.distributions.IntDistribution(4, 256, log=True),
}


def ray_searcher(llm: Path) -> OptunaSearch:
    sampler = LLMBOSampler(llm=llm, n_startup_trials=2, n_candidates=8, seed=0)
    return OptunaSearch(SPACE, metric="loss", mode="min", sampler=sampler)


def suggestions(searcher: OptunaSearch, numbers: range) -> list[dict[str, float]]:
    """Trials with a known loss, each begun while the one before is still running."""
    configs = []
    for i in numbers:
        configs.append(searcher.suggest(f"t{i}"))
        if i > 0:
            loss = configs[-1]["batch_size"] / 256 + i  # type: ignore[index]
            searcher.on_trial_result(f"t{i - 1}", {"loss": loss + 1, "training_iteration": 1})
            searcher.on_trial_complete(f"t{i - 1}", {"loss": loss, "training_iteration": 2})
    return configs  # type: ignore[return-value]


@pytest.mark.usefixtures("one_thread")
def test_ray_searcher_goes_on_as_if_never_stopped(tiny_llm: Path, tmp_path: Path) -> None:
    expected = suggestions(ray_searcher(tiny_llm), range(6))
    searcher = ray_searcher(tiny_llm)
    begun = suggestions(searcher, range(4))
    searcher.save(str(tmp_path / "searcher.pkl"))
    assert len(pickle.dumps(searcher.__dict__)) < 200_000  # no language model in it
    resumed = OptunaSearch(SPACE, metric="loss", mode="min")
    resumed.restore(str(tmp_path / "searcher.pkl"))
    assert begun + suggestions(resumed, range(4, 6)) == expected
