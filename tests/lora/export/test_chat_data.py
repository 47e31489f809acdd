"""Conversations go to each tool as a trial trains on them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
from typer.testing import CliRunner

from optuna_llmbo.cli import app
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.export import files
from optuna_llmbo.lora.objective import LoRAObjective
from optuna_llmbo.lora.tokens import Example
from optuna_llmbo.lora.tokens import IGNORED
from tests.lora.conftest import rows
from tests.lora.export.samples import facts
from tests.tiny import make_tiny_llm


trl = pytest.importorskip("trl")

MORE = {"role": "assistant", "content": "and on"}


def chats(n: int) -> list[dict[str, Any]]:
    """Two turns each, with a system prompt; some end with the user."""
    made = []
    for i, row in enumerate(rows(n)):
        ask, say = (
            {"role": role, "content": row[name]}
            for role, name in (("user", "prompt"), ("assistant", "response"))
        )
        end = [] if i % 5 == 0 else [MORE]
        turns = [
            {"role": "system", "content": "Count."},
            ask,
            say,
            {**ask, "content": "on?"},
            *end,
        ]
        made.append({"messages": turns})
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chats(40)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llm(tmp_path_factory.mktemp("llm"), chat=True)


def written(place: Path, to: str, model: Path, source: Path, **changes: Any) -> dict[str, str]:
    settings = {"format": "conversations (messages)", "validation": 8, **changes}
    made = files(facts(model=str(model), train=str(source), **settings), to)
    for name, text in made.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return made


def of_trials(model: Path, source: Path, **changes: Any) -> dict[str, tuple[Example, ...]]:
    prepared = LoRAObjective(model, str(source), validation=8, proxy=1.0, **changes).prepare()
    return {"train": prepared.pool, "validation": prepared.validation}


def labelled(example: Example) -> tuple[list[int], list[int]]:
    pairs = zip(example.ids.tolist(), example.trained, strict=True)
    return example.ids.tolist(), [i if on else IGNORED for i, on in pairs]


def read(place: Path, name: str) -> list[dict[str, Any]]:
    lines = (place / "data" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


CHANGES: list[dict[str, Any]] = [
    {},
    {"train_on": "last"},
    {"truncation": "left", "max_length": 45},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("to", ["trl", "unsloth"])
def test_tokens(
    to: str, changes: dict[str, Any], model: Path, source: Path, tmp_path: Path
) -> None:
    made = written(tmp_path, to, model, source, **changes)
    assert "make_data.py" not in str(made)
    for name, part in of_trials(model, source, **changes).items():
        expected = sorted(map(labelled, part))
        assert sorted((r["input_ids"], r["labels"]) for r in read(tmp_path, name)) == expected


@pytest.mark.parametrize("changes", CHANGES[:2])
@pytest.mark.parametrize("to", ["axolotl", "llamafactory"])
def test_texts(
    to: str, changes: dict[str, Any], model: Path, source: Path, tmp_path: Path
) -> None:
    written(tmp_path, to, model, source, **changes)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)

    def of_row(row: dict[str, Any]) -> tuple[list[int], list[int]]:
        if to == "axolotl":
            pieces = [(one["label"], one["text"]) for one in row["segments"]]
        else:
            turns = row["conversations"]
            assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2)
            pieces = [(turn["from"] == "gpt", turn["value"]) for turn in turns]
        ids: list[int] = []
        labels: list[int] = []
        for is_trained, text in pieces:
            more = tokenizer(text, add_special_tokens=False).input_ids
            ids += more
            labels += more if is_trained else [IGNORED] * len(more)
        return ids, labels

    for name, part in of_trials(model, source, **changes).items():
        expected = []
        for ids, labels in map(labelled, part):
            n = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
            end = n if to == "llamafactory" else None  # what follows the last answer is left out
            expected.append((ids[:end], labels[:end]))
        assert sorted(map(of_row, read(tmp_path, name))) == sorted(expected)


def test_texts_that_come_back_as_other_tokens(model: Path, source: Path, tmp_path: Path) -> None:
    """A tokenizer that writes a mark before every text makes other tokens of pieces."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("_")
    folder = tmp_path / "marks"
    transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        InputError, match="other tokens when Axolotl reads it in pieces: export to"
    ):
        written(tmp_path, "axolotl", folder, source)


@pytest.mark.long
def test_from_a_chat_file_to_trl(
    model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tune, promote, export, `trl sft`: the validation loss of the model is the same."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    space = tmp_path / "space.toml"
    space.write_text(
        '[learning_rate]\ntype = "float"\nlow = 1e-4\nhigh = 1e-2\nlog = true\n'
        '[lora_alpha]\ntype = "int"\nlow = 8\nhigh = 32\n'
    )
    run(
        *("tune", "--model", str(model), "--train", "chats.jsonl", "--validation", "8"),
        *("--test", "4", "--proxy", "1.0", "--trials", "2", "--space", str(space)),
        *("--dtype", "float32", "--max-length", "200"),
    )
    run("promote", "--out", "final", "--top", "1", "--seeds", "1", "--device", "cpu")
    assert (tmp_path / "final" / "adapter" / "adapter_model.safetensors").is_file()
    run(
        *("export", "--to", "trl", "--out", "trl", "--validation", "8"),
        *("--dtype", "float32", "--micro-batch-size", "8"),
    )
    monkeypatch.chdir(tmp_path / "trl")
    kinds = (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig)
    arguments = ["--config", "sft.yaml", "--use_cpu", "true"]
    script, training, about, _ = trl.TrlParser(kinds).parse_args_and_config(arguments)
    training.disable_tqdm, training.report_to = True, []
    data = datasets.load_dataset(script.dataset_name, cache_dir=str(tmp_path / "cache"))
    trainer = trl.SFTTrainer(
        model=about.model_name_or_path,
        args=training,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        peft_config=trl.get_peft_config(about),
    )
    # eight examples in one batch: TRL's mean over batches is ours over tokens
    base = json.loads((tmp_path / "final" / "promotion.json").read_text())["base_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(base, rel=1e-5)
    assert len(trainer.train_dataset) == 28
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < base
    assert (
        trainer.processing_class.chat_template
        == (tmp_path / "trl" / "chat_template.jinja").read_text()
    )
    assert os.path.isdir("output")
