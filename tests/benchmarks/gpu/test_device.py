"""The calls to CUDA, on a stand-in for it where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import device as devices


CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is asked of a CUDA device of 1000 bytes, of which 600 are free."""
    made: list[tuple[str, Any]] = []
    properties = SimpleNamespace(
        name="NVIDIA Test", total_memory=1000, multi_processor_count=4, major=9, minor=0
    )
    stubs = {
        "get_device_properties": properties,
        "get_device_name": "NVIDIA Test",
        "mem_get_info": (600, 1000),
        "memory_allocated": 7,
        "max_memory_allocated": 9,
        "set_per_process_memory_fraction": None,
        "synchronize": None,
        "empty_cache": None,
    }
    for name, result in stubs.items():

        def stub(*args: Any, name: str = name, result: Any = result) -> Any:
            made.append((name, args[0] if args else None))
            return result

        monkeypatch.setattr(torch.cuda, name, stub)
    return made


def test_facts(calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = SimpleNamespace(stdout="580.1\n580.1\n")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ran)
    found = devices.about(CUDA)
    assert (found["name"], found["driver"], found["capability"]) == ("NVIDIA Test", "580.1", "9.0")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert devices.about(CUDA)["driver"] is None
    assert devices.about(CPU) == {"name": devices.name(CPU)}


def test_time_waits_for_the_device(calls: list[tuple[str, Any]]) -> None:
    def work() -> int:
        calls.append(("work", None))
        return 5

    seconds, result = devices.timed(work, CUDA)
    assert [name for name, _ in calls] == ["synchronize", "work", "synchronize"]
    assert seconds > 0 and result == 5


def test_memory(calls: list[tuple[str, Any]]) -> None:
    assert [devices.allocated_bytes(CUDA), devices.peak_bytes(CUDA)] == [7, 9]
    assert devices.peak_bytes(CPU) == devices.allocated_bytes(CPU) == 0


def test_a_limit_ends_with_its_block(calls: list[tuple[str, Any]]) -> None:
    def limit() -> list[Any]:
        return [value for name, value in calls if name == "set_per_process_memory_fraction"]

    with pytest.raises(KeyError), devices.limited_to(CUDA, 250):
        assert limit() == [0.25]
        raise KeyError
    assert limit() == [0.25, 1.0]


def test_a_device_is_filled(calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch, "empty", lambda size, **_: taken.append(size))
    with devices.filled_but(CUDA, 200):
        assert taken == [400]


def test_limits_of_the_cpu() -> None:
    assert devices.matrix_rate(CPU, torch.float32, n=32, repeats=2) > 0
    assert devices.copy_rate(CPU, 2**12, repeats=2) > 0


@pytest.mark.long
def test_loading_the_parts_leaves_cuda_alone() -> None:
    """They are loaded before the process of a part is forked, which could not use it then."""
    code = """
import torch
def fail(*_, **__): raise SystemExit("CUDA was called")
for name in ("is_available", "device_count", "current_device", "init", "_lazy_init"):
    setattr(torch.cuda, name, fail)
import benchmarks.gpu.parts
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
