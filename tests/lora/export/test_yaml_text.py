from __future__ import annotations

import pytest
import yaml

from optuna_llmbo.lora.export.yaml_text import document
from optuna_llmbo.lora.export.yaml_text import Scalar
from optuna_llmbo.lora.export.yaml_text import scalar


VALUES: list[Scalar] = [
    *(1e-6, 1e-5, 1.5e-7, 2e-4, 0.0, 1e16, 0.1 + 0.2, -3.0, 5, 0, True, False, None),
    *("plain", "org/model-1.5B", "no", "true", "Null", "", "1e-5", "12", "~", "- a", "a: b", "#x"),
    *('quote " and \\', "späße 😀", "(?:.*\\.)?q_proj", " space ", "C:\\data"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_reads_back_as_it_was(value: Scalar) -> None:
    read = yaml.safe_load(f"key: {scalar(value)}")["key"]
    assert read == value and type(read) is type(value)


def test_document() -> None:
    values = {"a": 1, "names": ["x", "no"], "data": [{"path": "p", "n": 2}, {"path": "q"}]}
    text = document(["said", "", "more: of it"], values)  # type: ignore[arg-type]
    assert text.startswith("# said\n#\n# more: of it\n\na: 1\n")
    assert yaml.safe_load(text) == values
