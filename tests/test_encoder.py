from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optuna_llmbo import encoder as encoders
from optuna_llmbo import llm as llms
from optuna_llmbo.encoder import Assignment
from optuna_llmbo.encoder import build_trie
from optuna_llmbo.encoder import Encoder
from optuna_llmbo.errors import InputError


PASSAGE = "What is known: rank matters, the rate matters more.\n"
SHAPES: dict[str, list[Assignment]] = {
    "one": [("rank = 8\n",)],
    "two that share a line": [("rank = 8\n", "rate = 0.1\n"), ("rank = 8\n", "rate = 0.2\n")],
    "a prefix of another": [("rank = 8\n",), ("rank = 8\n", "rate = 0.2\n")],
    "twice the same": [("rank = 8\n",), ("rank = 8\n",)],
    "unicode": [("größe = ∞ 🤖\n",), ("größe = 中\n",)],
    "a long choice": [("c = " + "x" * 700 + "\n",), ("c = y\n",)],
}


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(llms.load(llms.resolve(tiny_llm)), PASSAGE)


def token_of(encoder: Encoder, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(encoder.d_model, generator=generator)


@pytest.mark.parametrize("assignments", SHAPES.values(), ids=SHAPES.keys())
def test_equal_to_the_plain_forward(encoder: Encoder, assignments: list[Assignment]) -> None:
    token = token_of(encoder)
    exact = encoder.embed_naively(assignments, token)
    with torch.no_grad():
        ours = encoder.read(assignments).embed(token)
    torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)


def test_blocks_and_chunks_change_nothing(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assignments: list[Assignment] = [
        (f"rank = {r}\n", f"rate = {rate}\n") for r in (1, 2, 4) for rate in (0.1, 0.2, 0.3)
    ]
    monkeypatch.setattr(encoders, "_BLOCK_POSITIONS", 40)
    monkeypatch.setattr(encoders, "_TOKENS_AT_ONCE", 2)
    small = Encoder(llms.load(llms.resolve(tiny_llm)), PASSAGE)
    token = token_of(small)
    exact = small.embed_naively(assignments, token)
    with torch.no_grad():
        ours = small.read(assignments).embed(token)
    torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)


def test_gradient_in_the_token(encoder: Encoder) -> None:
    reading = encoder.read([("rank = 8\n",), ("rank = 9\n", "rate = 1\n")])
    weights = token_of(encoder, seed=2)  # a norm after the last layer fixes the squares' sum
    token = token_of(encoder).requires_grad_()
    (reading.embed(token) @ weights).sum().backward()
    assert token.grad is not None
    direction = token_of(encoder, seed=1)
    step = 1e-2
    with torch.no_grad():
        up, down = (reading.embed(token + s * step * direction) @ weights for s in (1, -1))
        slope = (up.sum() - down.sum()) / (2 * step)
    assert float(token.grad @ direction) == pytest.approx(float(slope), rel=1e-2)


def test_what_was_read_is_remembered_and_bounded(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(llms.load(llms.resolve(tiny_llm)), PASSAGE)
    token = token_of(encoder)
    first, second = [("rank = 8\n",)], [("rank = 9\n",)]
    with torch.no_grad():
        expected = encoder.read(first).embed(token)
        monkeypatch.setattr(encoder, "_read_block", lambda _: pytest.fail("read twice"))
        torch.testing.assert_close(encoder.read(first).embed(token), expected)
    monkeypatch.undo()
    monkeypatch.setattr(encoders, "_CACHE_BYTES", 0)
    with torch.no_grad():  # nothing fits, and yet it is read
        again = encoder.read([*first, *second]).embed(token)
    torch.testing.assert_close(again[:1], expected)
    assert not encoder._memory


def test_trie_shares_beginnings() -> None:
    trie = build_trie([[1, 2, 3], [1, 2, 4], [1], [5]])
    assert trie.token_ids == [1, 2, 3, 4, 5]
    assert trie.depths == [0, 1, 2, 2, 0]
    assert trie.paths == [[0, 1, 2], [0, 1, 3], [0], [4]]
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert trie.ancestor_mask().int().tolist() == expected


def test_frozen_weights_stay_bit_identical(tiny_llm: Path) -> None:
    llm = llms.load(llms.resolve(tiny_llm))
    before = {name: value.clone() for name, value in llm.model.state_dict().items()}
    encoder = Encoder(llm, PASSAGE)
    token = token_of(encoder).requires_grad_()
    encoder.read([("rank = 8\n",)]).embed(token).sum().backward()
    for name, value in llm.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_model_that_cannot_be_read_exactly_is_refused(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naive = Encoder.embed_naively
    monkeypatch.setattr(Encoder, "embed_naively", lambda *args: naive(*args) + 1.0)
    with pytest.raises(InputError, match="cannot be read exactly"):
        Encoder(llms.load(llms.resolve(tiny_llm)), PASSAGE)


@pytest.mark.slow
def test_embedded_model_equals_its_plain_forward() -> None:
    encoder = Encoder(llms.load_shared(llms.resolve("embedded")), PASSAGE * 5)
    assignments: list[Assignment] = [
        (f"rank = {r} (low)\n", f"learning_rate = {rate} (high)\n")
        for r in (1, 16)
        for rate in (0.0001, 0.002)
    ]
    token = encoder.neutral_token()
    exact = encoder.embed_naively(assignments, token)
    with torch.no_grad():
        ours = encoder.read(assignments).embed(token)
    torch.testing.assert_close(ours, exact, atol=5e-4, rtol=0)
    assert float((ours - exact).abs().mean()) < 1e-4
