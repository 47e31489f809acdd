from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lora_table import base
from optuna_llmbo.lora import data
from optuna_llmbo.lora import splits


MODULE = '''"""What the module is for."""


def documented(x):
    """Return x,

    whatever it is.
    """
    return x  # kept


class Thing:
    """A thing."""

    def method(self):
        "One line."
        return 1

    def bare(self):
        return "a string"
'''


def test_docstrings_of_functions_are_removed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    (text,) = base.code_without_docstrings(tmp_path)
    assert "whatever it is" not in text and "One line." not in text
    kept = ('"""What the module is for."""', "return x  # kept", '"""A thing."""', '"a string"')
    for line in ("def documented(x):", "def method(self):", *kept):
        assert line in text


@pytest.mark.long
def test_the_base_has_not_read_the_docstrings() -> None:
    """Of the shipped data; short phrases may stand in comments as well."""
    text = "\n".join(base.code_without_docstrings())
    pairs = data.load_records(base.FOLDER / "validation.parquet")
    long = [pair.response for pair in pairs if len(pair.response) > 40]
    assert len(long) > 40
    assert sum(response in text for response in long) <= 0.05 * len(long)


def test_shipped_data() -> None:
    train = data.load_records(base.FOLDER / "train.parquet")
    validation = data.load_records(base.FOLDER / "validation.parquet")
    splits.check_leaks({"training": train, "validation": validation})
    assert len(validation) == base.N_VALIDATION and len(train) > 2000


@pytest.mark.long
def test_a_model_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HELD_OUT", 2)
    monkeypatch.setattr(base, "BATCH", 4)
    texts = [f"def add_{i}(x):\n    return x + {i}\n" * 8 for i in range(100)]
    monkeypatch.setattr(base, "VOCABULARY", 300)
    monkeypatch.setattr(base, "ARCHITECTURE", base.ARCHITECTURE | {"vocab_size": 300})
    tokenizer = base.make_tokenizer(texts)
    assert tokenizer.decode(tokenizer("été 4\n").input_ids) == "été 4\n"
    model, record = base.pretrain(texts, tokenizer, seed=0)
    again, other = base.pretrain(texts, tokenizer, seed=0)
    assert record["steps"] > 20
    assert record["held_out_loss"] < 3.0  # log(300) = 5.7 before
    assert {**record, "seconds": 0} == {**other, "seconds": 0}
    weights = model.state_dict()
    assert all(str(weight.dtype) == "torch.float16" for weight in weights.values())
