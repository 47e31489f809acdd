from __future__ import annotations

import os
import pickle
import threading

import pytest
import torch

from optuna_llmbo._util.torch_state import default_torch
from optuna_llmbo._util.torch_state import TorchThread


def in_a_new_thread() -> int:
    """How many threads torch uses in a thread that has just begun."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_has_its_own_number_of_threads_and_no_other_has_it() -> None:
    own, new = torch.get_num_threads(), in_a_new_thread()
    thread = TorchThread(n_threads=1)
    assert thread.run(torch.get_num_threads) == 1
    assert (torch.get_num_threads(), in_a_new_thread()) == (own, new)
    assert TorchThread().run(torch.get_num_threads) == new


def test_modes_of_the_caller_do_not_reach_it() -> None:
    thread = TorchThread()
    weight = torch.ones(2, requires_grad=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        made = thread.run(lambda: torch.zeros(2))
        grown = thread.run(lambda: (weight * 2).sum())
        product = thread.run(lambda: torch.ones(2, 2) @ torch.ones(2, 2))
    assert made.device.type == "cpu" and not made.is_inference()
    assert grown.requires_grad and product.dtype == torch.float32


def test_it_returns_raises_and_may_call_itself() -> None:
    thread = TorchThread()
    assert thread.run(lambda: thread.run(lambda: threading.get_ident())) != threading.get_ident()
    with pytest.raises(KeyError):
        thread.run(lambda: dict[str, int]()["x"])
    assert thread.run(lambda: 3) == 3


def test_it_works_after_pickling() -> None:
    thread = TorchThread(n_threads=1)
    thread.run(lambda: None)
    copy = pickle.loads(pickle.dumps(thread))
    assert copy.run(torch.get_num_threads) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_works_after_a_fork() -> None:
    thread = TorchThread()
    thread.run(lambda: None)
    child = os.fork()
    if child == 0:  # threads do not come along
        os._exit(thread.run(lambda: 7))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize("everywhere", [torch.float16, torch.bfloat16, torch.float64])
def test_new_tensors_have_the_dtype_in_this_thread_only(everywhere: torch.dtype) -> None:
    torch.set_default_dtype(everywhere)
    try:
        with torch.device("meta"), default_torch():
            made = [torch.tensor(0.1), torch.zeros(2), torch.full((2,), 0.1), torch.eye(2)]
            exact = [torch.tensor(3), torch.arange(3), torch.tensor([True])]
            like = torch.as_tensor(torch.zeros(1, dtype=torch.float64))
            given = torch.zeros(2, dtype=torch.float64)
            other = TorchThread().run(lambda: torch.zeros(2))
        assert torch.zeros(2).dtype == everywhere == torch.get_default_dtype()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in made} == {torch.float32}
    assert {tensor.device.type for tensor in made} == {"cpu"}
    assert made[0].item() == torch.tensor(0.1).item()  # not rounded on the way
    assert [tensor.dtype for tensor in exact] == [torch.int64, torch.int64, torch.bool]
    assert (like.dtype, given.dtype, other.dtype) == (torch.float64, torch.float64, everywhere)
