"""Isolate a computation from torch's state, and everybody else's state from the computation.

Torch keeps some state for each thread (gradients, inference mode, autocast, the default device,
how many threads an operation uses) and some for the whole process (the default dtype, random
numbers). Nothing here changes what another thread sees, not even for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import os
import threading
from typing import Any
from typing import TypeVar

import torch
from torch.overrides import TorchFunctionMode


T = TypeVar("T")

_FACTORIES = frozenset(
    {
        torch.arange,
        torch.as_tensor,
        torch.empty,
        torch.eye,
        torch.full,
        torch.linspace,
        torch.logspace,
        torch.ones,
        torch.rand,
        torch.randn,
        torch.scalar_tensor,
        torch.tensor,
        torch.zeros,
    }
)


class TorchThread:
    """A thread of its own for computations with torch.

    Modes of the caller do not reach it. With `n_threads=1` small matrices are computed on one
    thread: several mostly wait for each other, and far longer if another process uses a core.

    Args:
        n_threads: how many threads an operation may use. Default None: as many as in other new
            threads.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self._n_threads = n_threads
        self._lock = threading.Lock()
        self._forget()

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread and wait for what it returns or raises.

        Calls from several threads are made one after the other; a function may call `run` again.
        """
        if threading.get_ident() == self._ident:
            return function()
        with self._lock:
            if self._executor is None or self._process != os.getpid():  # a fork has no threads
                self._start()
            assert self._executor is not None
            future = self._executor.submit(function)
        return future.result()

    def __getstate__(self) -> dict[str, Any]:
        """How many threads: the thread itself stays where it is."""
        return {"n_threads": self._n_threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _forget(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._ident = -1

    def _start(self) -> None:
        self._forget()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="optuna-llmbo")
        self._ident = self._executor.submit(threading.get_ident).result()
        if self._n_threads is not None:
            # `set_num_threads` sets the thread's own number and that of threads to come. The
            # latter is what a new thread starts with, and is set back at once by another one.
            before = self._executor.submit(torch.get_num_threads).result()
            self._executor.submit(torch.set_num_threads, self._n_threads).result()
            restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
            restoring.start()
            restoring.join()


@contextmanager
def default_torch(dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Make new tensors on the CPU with a dtype inside, unless told otherwise, in this thread.

    Args:
        dtype: of new tensors that are neither of integers nor of booleans.
    """
    with torch.device("cpu"), _DefaultDtype(dtype):
        yield


class _DefaultDtype(TorchFunctionMode):
    """What `torch.set_default_dtype` sets, for one thread."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, a second time if it made a tensor of the process's default dtype."""
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        if function not in _FACTORIES or kwargs.get("dtype") is not None:
            return made
        if made.dtype in (self._dtype, *_EXACT) or any(isinstance(a, torch.Tensor) for a in args):
            return made
        return function(*args, **{**kwargs, "dtype": self._dtype})


_EXACT = (torch.bool, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
