from __future__ import annotations

import pytest
import torch

from optuna_llmbo._util.device import resolve_device
from optuna_llmbo.errors import InputError


def test_devices_that_are_there() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device(None).type == default


@pytest.mark.parametrize(
    "named",
    ["gpu", "", "0", "cpu:", "cuda:99", "meta", "mps:7", "xpu:9", "privateuseone", "cuda:-1"],
)
def test_devices_that_are_not(named: str) -> None:
    with pytest.raises(InputError, match="there is no such device here. Expected one of cpu"):
        resolve_device(named)
