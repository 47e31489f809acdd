from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.embedding.plain_reader import PlainReader
from optuna_llmbo.embedding.trie import TokenIds
from optuna_llmbo.embedding.trie_reader import TrieReader
from optuna_llmbo.embedding.truncated import Pooling
from optuna_llmbo.embedding.truncated import POOLINGS
from tests.tiny import make_tiny_family


SERVED = ("llama", "llama-3", "qwen2", "qwen3", "mistral", "gemma3", "phi", "gpt2")
PASSAGE = "What is known: rank matters, the rate matters more.\n"
SHAPES: dict[str, list[str]] = {
    "one": ["\nrank: low 8"],
    "one token": ["8"],
    "a shared line": ["\nrank: low 8\nrate: 0.1", "\nrank: low 8\nrate: 0.2"],
    "a prefix of another": ["\nrank: 8", "\nrank: 8\nrate: 0.2", "\nrank: 8\nrate: 0.23"],
    "nothing shared": ["rank", "alpha", "dropout"],
    "unicode": ["größe = ∞ 🤖", "größe = 中", "größe = ∞ 🤗"],
    "a long choice": ["c: " + "x" * 900, "c: " + "x" * 899 + "y", "c: z"],
    "a grid": [
        f"\na: {a}\nb: {b}\nc: {c}" for a, b, c in itertools.product(range(3), range(5), range(12))
    ],
}
AMPLE = 2**30


def ids(llm: LanguageModel, texts: list[str]) -> list[TokenIds]:
    return [tuple(llm.tokenizer(text).input_ids) for text in texts]


def token_for(llm: LanguageModel, seed: int = 0) -> Tensor:
    return torch.randn(llm.d_model, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=SERVED)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = make_tiny_family(tmp_path_factory.mktemp(request.param), request.param)
    return load_model(resolve_source(folder))


@pytest.fixture(scope="module")
def tiny(tiny_llm: Path) -> LanguageModel:
    return load_model(resolve_source(tiny_llm))


@pytest.mark.parametrize("texts", SHAPES.values(), ids=SHAPES.keys())
def test_equal_to_the_plain_forward(family: LanguageModel, texts: list[str]) -> None:
    (passage,) = ids(family, [PASSAGE])
    sequences, token = ids(family, texts), token_for(family)
    with torch.no_grad():
        exact = PlainReader(family, passage, (), "both", None).embed(sequences, token)
        ours = TrieReader(family, passage, "both", None, AMPLE).embed(sequences, token)
    torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)
    if len(texts) > 1:  # a model in which the text makes no difference would prove nothing
        assert float((exact[0] - exact[1]).abs().max()) > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("layer", [1, 2, 3, None])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_and_layer(family: LanguageModel, pooling: Pooling, layer: int | None) -> None:
    (passage,) = ids(family, [PASSAGE])
    sequences, token = ids(family, SHAPES["a prefix of another"]), token_for(family)
    with torch.no_grad():
        ours = TrieReader(family, passage, pooling, layer, AMPLE).embed(sequences, token)
        for row, sequence in zip(ours, sequences, strict=True):
            embed = family.body.get_input_embeddings()
            inputs = torch.cat([embed(torch.tensor([*passage, *sequence])), token[None]])[None]
            output = family.body(inputs_embeds=inputs, output_hidden_states=True)
            states = output.hidden_states[layer or 3][0]
            mean = states[len(passage) : -1].mean(dim=0)
            expected = {"last": states[-1], "mean": mean, "both": torch.cat([states[-1], mean])}
            torch.testing.assert_close(row, expected[pooling], atol=1e-4, rtol=0)


def test_without_a_passage(family: LanguageModel) -> None:
    sequences, token = ids(family, SHAPES["a grid"]), token_for(family)
    with torch.no_grad():
        exact = PlainReader(family, (), (), "last", None).embed(sequences, token)
        ours = TrieReader(family, (), "last", None, AMPLE).embed(sequences, token)
    torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize("memory_bytes", [0, 30_000, 1_000_000])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_memory_bound_changes_nothing(
    tiny: LanguageModel, pooling: Pooling, memory_bytes: int
) -> None:
    (passage,) = ids(tiny, [PASSAGE])
    sequences, token = ids(tiny, SHAPES["a grid"]), token_for(tiny)
    small = TrieReader(tiny, passage, pooling, None, memory_bytes)
    with torch.no_grad():
        exact = PlainReader(tiny, passage, (), pooling, None).embed(sequences, token)
        for _ in range(2):
            ours = small.embed(sequences, token)
            torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)
    held = sum(read.kv.numel() * 4 for read in small._memory.values())
    assert held <= memory_bytes
    assert set(small._where.values()) == set(small._memory)


def test_what_is_computed(tiny: LanguageModel) -> None:
    (passage,) = ids(tiny, [PASSAGE])
    sequences = ids(tiny, ["ab", "ac", "acd", "b"])
    reader = TrieReader(tiny, passage, "last", None, AMPLE)
    assert reader.n_positions == len(passage)
    with torch.no_grad():
        reader.embed(sequences, token_for(tiny))
        assert reader.n_positions == len(passage) + 5 + 4  # nodes a, b, c, d, b and four tokens
        reader.embed(sequences, token_for(tiny, seed=1))
        assert reader.n_positions == len(passage) + 5 + 4 + 4
        prepared = reader.prepare(sequences[:2])
        prepared(token_for(tiny))
        prepared(token_for(tiny))
    assert reader.n_positions == len(passage) + 5 + 4 + 4 + 2 + 2


@pytest.mark.parametrize("memory_bytes", [0, AMPLE])
def test_gradient_in_the_token(family: LanguageModel, memory_bytes: int) -> None:
    (passage,) = ids(family, [PASSAGE])
    sequences = ids(family, SHAPES["a grid"])[:40]
    weights = torch.randn(40, family.d_model, generator=torch.Generator().manual_seed(3))
    gradients = []
    plain = PlainReader(family, passage, (), "last", None)
    trie = TrieReader(family, passage, "last", None, memory_bytes)
    for embed in (plain.prepare(sequences), trie.prepare(sequences)):
        token = token_for(family).requires_grad_()
        (embed(token) * weights).sum().backward()
        assert token.grad is not None
        gradients.append(token.grad)
    scale = float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4 * scale, rtol=0)


def test_some_known_and_some_new_in_any_order(tiny: LanguageModel) -> None:
    (passage,) = ids(tiny, [PASSAGE])
    sequences, token = ids(tiny, SHAPES["a grid"]), token_for(tiny)
    reader = TrieReader(tiny, passage, "last", None, AMPLE)
    with torch.no_grad():
        exact = PlainReader(tiny, passage, (), "last", None).embed(sequences, token)
        for some in ([100, 3, 50], [3, 7, 100, 99], list(range(len(sequences)))[::-1]):
            ours = reader.embed([sequences[i] for i in some], token)
            torch.testing.assert_close(ours, exact[some], atol=1e-4, rtol=0)


def test_frozen_weights_stay_bit_identical(tiny: LanguageModel) -> None:
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    attention = tiny.model.config._attn_implementation
    token = token_for(tiny).requires_grad_()
    reader = TrieReader(tiny, (1, 2), "last", 1, AMPLE)
    reader.embed([(1, 2), (3,)], token).sum().backward()
    assert tiny.model.config._attn_implementation == attention
    assert len(tiny.body.layers) == 2
    for name, value in tiny.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    twin = dict(reader._body._twin.named_parameters())
    name = "layers.0.mlp.up_proj.weight"
    assert twin[name].data_ptr() == tiny.body.get_parameter(name).data_ptr()  # shared, not copied


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_on_cuda(tiny_llm: Path, dtype: torch.dtype, allowed: float) -> None:
    llm = load_model(resolve_source(tiny_llm), device="cuda", dtype=dtype)
    (passage,) = ids(llm, [PASSAGE])
    sequences, token = ids(llm, SHAPES["a grid"]), token_for(llm).requires_grad_()
    exact = PlainReader(llm, passage, (), "both", None).embed(sequences, token)
    ours = TrieReader(llm, passage, "both", None, AMPLE).embed(sequences, token)
    assert ours.dtype == torch.float32 and ours.device.type == "cpu"
    torch.testing.assert_close(ours, exact, atol=allowed, rtol=0)
    ours.sum().backward()
    assert token.grad is not None and token.grad.dtype == torch.float32


@pytest.mark.parametrize("memory_bytes", [AMPLE, 0])
def test_what_sequences_begin_with_is_read_once(family: LanguageModel, memory_bytes: int) -> None:
    """Later requests with the same long choices and other numbers read the numbers only."""
    (passage,) = ids(family, [PASSAGE])
    token = token_for(family)
    reader = TrieReader(family, passage, "both", None, memory_bytes)
    choices = [letter * 150 for letter in "abc"]
    for rates in ((1, 5), (2, 3, 6), (4,)):
        texts = [f"\nchoice: {choice}\nrate: {rate}" for choice in choices for rate in rates]
        sequences = ids(family, texts)
        before = reader.n_positions
        with torch.no_grad():
            ours = reader.embed(sequences, token)
            exact = PlainReader(family, passage, (), "both", None).embed(sequences, token)
        torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)
        computed = reader.n_positions - before
        longest = max(map(len, sequences))
        assert longest > 100
        if memory_bytes and rates != (1, 5):
            assert computed < longest  # less than one of the choices
