from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from optuna_llmbo.embedding.language_model import LanguageModel
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from optuna_llmbo.lora import tokens
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.evaluate import autocast
from optuna_llmbo.lora.generate import check_decoding
from optuna_llmbo.lora.generate import Decoding
from optuna_llmbo.lora.generate import generate
from optuna_llmbo.lora.recipe import DEFAULT
from optuna_llmbo.lora.records import Pair
from optuna_llmbo.lora.tokens import Example
from tests.tiny import make_tiny_family
from tests.tiny import make_tiny_llm
from tests.tiny import MAX_POSITIONS


def naive(model: Any, tokenizer: Any, example: Example, n: int) -> str:
    """Greedy decoding of one prompt: no cache, no padding, no `generate`."""
    ids = example.ids[: example.n_prompt].tolist()
    for _ in range(n):
        with torch.no_grad():
            token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    text: str = tokenizer.decode(ids[example.n_prompt :], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_greedy_is_what_a_naive_loop_decodes(
    tiny: LanguageModel, examples: list[Example], batch_size: int
) -> None:
    prompts = examples[::3]
    texts = generate(tiny.model, tiny.tokenizer, prompts, Decoding(20, batch_size))
    assert texts == [naive(tiny.model, tiny.tokenizer, example, 20) for example in prompts]
    assert len(set(texts)) > len(texts) // 2


@pytest.mark.parametrize("family", ["llama-3", "qwen3", "mistral", "gemma3", "gpt2", "bloom"])
def test_greedy_in_other_families(family: str, tmp_path: Path) -> None:
    loaded = load_model(
        resolve_source(make_tiny_family(tmp_path, family)),
        device="cpu",
        dtype=torch.float32,
    )
    pairs = [Pair("a" * n + "bcd", "x") for n in (1, 30, 7)]  # beyond the windows of 12 tokens
    prompts = tokens.encode(pairs, loaded.tokenizer, 64)
    texts = generate(loaded.model, loaded.tokenizer, prompts, Decoding(16, 3))
    assert texts == [naive(loaded.model, loaded.tokenizer, example, 16) for example in prompts]


def test_an_adapter_in_the_model_takes_part(tiny: LanguageModel, examples: list[Example]) -> None:
    decoding = Decoding(12)
    before = generate(tiny.model, tiny.tokenizer, examples[:4], decoding)
    with adapter(tiny.model, DEFAULT, seed=0):
        with torch.no_grad():
            for name, weight in tiny.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(generator=torch.Generator().manual_seed(1))
        inside = generate(tiny.model, tiny.tokenizer, examples[:4], decoding)
        expected = [naive(tiny.model, tiny.tokenizer, example, 12) for example in examples[:4]]
        assert inside == expected and not tiny.model.training
    assert inside != before
    assert generate(tiny.model, tiny.tokenizer, examples[:4], decoding) == before


def test_keys_and_values_are_cached(tiny: LanguageModel, examples: list[Example]) -> None:
    widths = []
    hook = tiny.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    generate(tiny.model, tiny.tokenizer, examples[:3], Decoding(5))
    hook.remove()
    assert widths == [max(example.n_prompt for example in examples[:3]), 1, 1, 1, 1]


def test_bfloat16_with_an_adapter(tiny_llm: Path, examples: list[Example]) -> None:
    """As the loss is computed: adapters are float32, products are bfloat16."""
    half = load_model(resolve_source(tiny_llm), device="cpu", dtype=torch.bfloat16)
    inside = []
    half.model.register_forward_pre_hook(
        lambda *_: inside.append(torch.is_autocast_enabled("cpu"))
    )
    with adapter(half.model, DEFAULT, seed=0):
        texts = generate(half.model, half.tokenizer, examples[:4], Decoding(2, 1))
        assert inside and all(inside)
        with autocast(half.model):
            assert texts == [naive(half.model, half.tokenizer, e, 2) for e in examples[:4]]


def ends_at(model: Any, token: int) -> Any:
    """A hook that makes the model predict this token from the third position of its answer on."""

    def favor(_: Any, inputs: Any, output: Any) -> Any:
        output.logits[:, -1, token] += 1000.0 * (model.calls >= 3)
        model.calls += 1
        return output

    model.calls = 0
    return model.register_forward_hook(favor)


def test_answers_end_where_the_model_ends_them(
    tiny: LanguageModel, examples: list[Example]
) -> None:
    longer = generate(tiny.model, tiny.tokenizer, examples[:1], Decoding(20))
    hook = ends_at(tiny.model, tiny.tokenizer.eos_token_id)
    try:
        (text,) = generate(tiny.model, tiny.tokenizer, examples[:1], Decoding(20))
        assert tiny.model.calls == 4  # three tokens and the end
    finally:
        hook.remove()
        del tiny.model.calls
    assert longer[0].startswith(text.rstrip("\ufffd")) and "<" not in text


def test_a_turn_ends_an_answer_too(tmp_path: Path) -> None:
    """Where a template ends a turn with another token than the end of sequence."""
    loaded = load_model(
        resolve_source(make_tiny_llm(tmp_path, chat=True)),
        device="cpu",
        dtype=torch.float32,
    )
    loaded.tokenizer.eos_token = "<pad>"
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<eos>"]})
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace("eos_token", "'<eos>'")
    prompts = tokens.encode([Pair("count", "1 2")], loaded.tokenizer, 64)
    turn = int(prompts[0].ids[-1])
    assert turn != loaded.tokenizer.eos_token_id
    hook = ends_at(loaded.model, turn)
    (text,) = generate(loaded.model, loaded.tokenizer, prompts, Decoding(20))
    hook.remove()
    assert loaded.model.calls == 4 and "eos" not in text


def test_a_models_own_generation_settings_do_not_count(
    tiny: LanguageModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate(tiny.model, tiny.tokenizer, examples[:4], Decoding(20))
    own = transformers.GenerationConfig(
        repetition_penalty=3.0, do_sample=True, temperature=5.0, max_length=3
    )
    monkeypatch.setattr(tiny.model, "generation_config", own)
    assert generate(tiny.model, tiny.tokenizer, examples[:4], Decoding(20)) == expected
    assert tiny.model.generation_config is own


def test_sampling_depends_on_the_seed_alone(tiny: LanguageModel, examples: list[Example]) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def sample(**changes: Any) -> list[str]:
        decoding = Decoding(**{"max_new_tokens": 10, "temperature": 1.5, "seed": 3, **changes})
        return generate(tiny.model, tiny.tokenizer, examples[:6], decoding)

    first = sample()
    assert sample(batch_size=4) == sample(batch_size=1) == first
    assert sample(seed=4) != first
    assert sample(temperature=0.0) != first
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_samples_have_the_models_probabilities(
    tiny: LanguageModel, examples: list[Example], top_p: float
) -> None:
    n, temperature = 3000, 0.3
    prompt = examples[0].ids[: examples[0].n_prompt]
    with torch.no_grad():
        logits = tiny.model(torch.from_numpy(prompt).long()[None]).logits[0, -1].double()
    chance = (logits / temperature).softmax(-1).sort(descending=True)
    kept = (chance.values.cumsum(0) - chance.values) < top_p
    expected = torch.zeros_like(logits)
    expected[chance.indices[kept]] = chance.values[kept] / chance.values[kept].sum()
    decoding = Decoding(1, 500, temperature=temperature, top_p=top_p, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny.tokenizer, "batch_decode", lambda ids, **_: ids[:, 0].tolist())
        drawn = Counter(generate(tiny.model, tiny.tokenizer, [examples[0]] * n, decoding))
    for token, probability in enumerate(expected.tolist()):
        error = 5 * (probability * (1 - probability) / n) ** 0.5
        assert abs(drawn[token] / n - probability) <= error + 1 / n, token  # type: ignore[index]
    assert (expected > 0.02).sum() >= 3


def test_too_long_for_the_model(tiny: LanguageModel, examples: list[Example]) -> None:
    longest = max(example.n_prompt for example in examples)
    check_decoding(tiny.model, examples, Decoding(MAX_POSITIONS - longest))
    with pytest.raises(InputError, match=f"prompt has {longest} tokens .* {MAX_POSITIONS}"):
        generate(tiny.model, tiny.tokenizer, examples, Decoding(MAX_POSITIONS - longest + 1))


def test_no_examples_no_answers(tiny: LanguageModel) -> None:
    assert generate(tiny.model, tiny.tokenizer, []) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1; got 2.5"),
        ({"temperature": -1.0}, "temperature must be a number at least 0; got -1.0"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be a number above 0 and at most 1"),
        ({"top_p": 0.9}, "top_p=0.9 has no effect without a temperature"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_impossible_decodings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Decoding(**changes)


@pytest.mark.slow
def test_the_embedded_model_in_batches_and_one_by_one() -> None:
    try:
        source = resolve_source("embedded")
    except InputError:
        pytest.skip("the embedded model is not installed")
    loaded = load_model(source, device="cpu", dtype=torch.float32)
    questions = ["What is the capital of France?", "Name a colour.", "Count from one to five."]
    prompts = tokens.encode([Pair(question, "?") for question in questions], loaded.tokenizer, 256)
    assert len({example.n_prompt for example in prompts}) == 3
    together = generate(loaded.model, loaded.tokenizer, prompts, Decoding(24, 3))
    assert together == generate(loaded.model, loaded.tokenizer, prompts, Decoding(24, 1))
    assert together[0] == naive(loaded.model, loaded.tokenizer, prompts[0], 24)
    assert "Paris" in together[0]
