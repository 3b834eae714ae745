"""Prompts: as the stock text encoder reads them; the empty one is read once and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from s2v_cli.errors import OptionError, WeightsError
from s2v_cli.generators.prompt import PromptEncoder
from tests import tiny_diffusion

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture
def model(unclip_folder: Path, tmp_path: Path) -> Path:
    """The parts of a model that read prompts."""
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(unclip_folder / part, tmp_path / "model" / part)
    shutil.copy(unclip_folder / "model_index.json", tmp_path / "model")
    return tmp_path / "model"


def without_text_encoder(model: Path) -> None:
    shutil.rmtree(model / "text_encoder")
    shutil.rmtree(model / "tokenizer")


@pytest.mark.parametrize("prompt", ["", "a photo of a cat", "The  RAIN in oil "])
def test_embeddings_are_those_of_the_stock_pipeline(model: Path, prompt: str) -> None:
    transformers = tiny_diffusion.transformers()
    with tiny_diffusion.quiet_libraries():
        tokenizer = transformers.CLIPTokenizer.from_pretrained(model / "tokenizer")
        encoder = transformers.CLIPTextModel.from_pretrained(model / "text_encoder")
    tokens = tokenizer(
        prompt, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    found = PromptEncoder(model, device=CPU)(prompt)
    assert found.shape == (1, 16, tiny_diffusion.CONTEXT)
    assert torch.equal(found, encoder(tokens.input_ids)[0])


def test_prompts_differ_and_are_encoded_once(model: Path) -> None:
    prompts = PromptEncoder(model, device=CPU)
    first, second = prompts("a cat"), prompts("a dog")
    assert (first - second).abs().max() > 0.01
    without_text_encoder(model)
    assert prompts("a cat") is first
    with pytest.raises(WeightsError, match="'tokenizer' is missing"):
        prompts("")


def test_the_empty_prompt_is_kept_for_later_runs(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep/cache"
    first = PromptEncoder(model, device=CPU, cache=cache)("")
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]
    without_text_encoder(model)
    assert torch.equal(PromptEncoder(model, device=CPU, cache=cache)("  "), first)
    with pytest.raises(WeightsError):
        PromptEncoder(model, device=CPU, cache=tmp_path / "other")("")


def test_another_text_encoder_makes_its_own(model: Path, tmp_path: Path) -> None:
    first = PromptEncoder(model, device=CPU, cache=tmp_path / "cache")("")
    other = tiny_diffusion.write_unclip(tmp_path / "other", image_encoder=False, seed=70)
    file = "text_encoder/model.safetensors"
    assert (model / file).stat().st_size == (other / file).stat().st_size
    shutil.copy(other / file, model / file)
    second = PromptEncoder(model, device=CPU, cache=tmp_path / "cache")("")
    assert (first - second).abs().max() > 0.01
    without_text_encoder(model)
    assert torch.equal(PromptEncoder(model, device=CPU, cache=tmp_path / "cache")(""), second)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_cache_is_made_again(model: Path, tmp_path: Path, content: bytes | None) -> None:
    prompts = PromptEncoder(model, device=CPU, cache=tmp_path / "cache")
    first = prompts("")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-8] if content is None else content)
    assert torch.equal(PromptEncoder(model, device=CPU, cache=tmp_path / "cache")(""), first)
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(model: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    prompts = PromptEncoder(model, device=CPU, cache=tmp_path / "taken")
    assert torch.equal(prompts(""), PromptEncoder(model, device=CPU)(""))


def test_a_prompt_that_is_too_long_is_refused(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = PromptEncoder(model, device=CPU)
    assert prompts("a cat in rain a dog in oil the cat a dog").shape[1] == 16
    with pytest.raises(OptionError, match=r"prompt has 15 tokens; allowed: at most 14\."):
        prompts(" ".join(["cat"] * 15))
    assert capfd.readouterr() == ("", "")
