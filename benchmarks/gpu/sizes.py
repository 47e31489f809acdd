"""How much of everything is measured: on a GPU, and where the command is only tried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


SHORT, DROPOUT, LONG = "short", "dropout", "long"
"""Names of the loads."""


@dataclass(frozen=True)
class Load:
    """The data of a trial: examples of random tokens, whose values change no time."""

    batch_size: int
    shortest: int
    """Tokens; the lengths are evenly distributed up to the longest."""
    longest: int
    response: float
    """Fraction of the tokens that the loss is on."""
    steps: int
    """Optimizer steps of a trial."""
    packs: tuple[int, ...] = ()
    """Trials at a time."""
    dropout: float = 0.0

    def __str__(self) -> str:
        """Say it in words."""
        some = f"{self.shortest} to {self.longest}"
        length = some if self.shortest < self.longest else str(self.longest)
        said = f"{self.steps} steps of {self.batch_size} examples of {length} tokens"
        return f"{said}, dropout {self.dropout:g}" if self.dropout else said


@dataclass(frozen=True)
class Sizes:
    """All sizes of a run."""

    shapes: dict[str, dict[str, Any]]
    """What differs from the real shapes, by name; the first one is measured in every way."""
    dtype: torch.dtype
    """Of the real shapes."""
    loads: dict[str, Load]
    one: int
    """Trials that are run one at a time."""
    matrix: int | None
    """Rows of the matrices whose product is the device's limit; None: as many as it needs."""
    copied: int
    """Bytes of the copy that is the other limit."""
    configurations: int
    """Of the paper's grid that are read."""
    naive: int
    """Of these, read in the slow ways."""
    trials: tuple[int, ...]
    """Complete trials before a suggestion."""
    suggestions: int
    """Suggestions that are timed."""
    rates: tuple[float, ...]
    """Learning rates that are tried in both types."""
    proxy: int
    """Docstrings that a real trial trains on."""
    validation: int
    longest: int
    """Tokens of a docstring with its prompt."""
    compiler: str
    """What `torch.compile` makes of the graphs."""
    out_of_memory_batch: int
    """Examples of a step that does not fit."""
    tests: tuple[str, ...]
    """Files whose tests marked `gpu` are run; empty: all that have some."""


FULL = Sizes(
    shapes={"Llama 1B": {}, "Qwen 0.5B": {}, "Llama 3B": {}, "Llama 8B": {}},
    dtype=torch.bfloat16,
    loads={
        SHORT: Load(4, 32, 256, 0.5, steps=8, packs=(2, 4, 8, 16)),
        DROPOUT: Load(4, 32, 256, 0.5, steps=8, packs=(8,), dropout=0.05),
        LONG: Load(4, 1024, 1024, 0.25, steps=8, packs=(2, 4, 8)),
    },
    one=2,
    matrix=None,
    copied=2**31,
    configurations=45_360,
    naive=256,
    trials=(30, 200),
    suggestions=3,
    rates=(2e-4, 6e-4, 2e-3),
    proxy=64,
    validation=32,
    longest=96,
    compiler="inductor",
    out_of_memory_batch=32,
    tests=(),
)
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
}
TINY = Sizes(
    shapes={"Llama 1B": _SMALL, "Qwen 0.5B": _SMALL},
    dtype=torch.float32,
    loads={
        SHORT: Load(2, 4, 16, 0.5, steps=2, packs=(2, 4)),
        DROPOUT: Load(2, 4, 16, 0.5, steps=2, packs=(2,), dropout=0.05),
        LONG: Load(2, 24, 24, 0.25, steps=2, packs=(2,)),
    },
    one=2,
    matrix=64,
    copied=2**16,
    configurations=24,
    naive=2,
    trials=(5,),
    suggestions=1,
    rates=(2e-3,),
    proxy=16,
    validation=4,
    longest=256,
    compiler="eager",
    out_of_memory_batch=4,
    tests=("tests/embedding/test_trie_reader.py",),
)
SIZES = {"full": FULL, "tiny": TINY}
