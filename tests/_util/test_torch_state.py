from __future__ import annotations

import pytest
import torch

from optuna_llmbo._util.torch_state import isolated_torch
from optuna_llmbo._util.torch_state import one_thread


def test_inside_is_known_and_outside_is_untouched() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        state = torch.get_rng_state()
        with torch.no_grad(), pytest.raises(KeyError), isolated_torch(3):
            assert torch.is_grad_enabled()
            drawn = torch.rand(2)
            assert drawn.dtype == torch.float32 and drawn.device.type == "cpu"
            raise KeyError
        with isolated_torch(3):
            assert torch.equal(torch.rand(2), drawn)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
