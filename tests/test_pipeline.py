"""The loaded model: seeds, batches, candidates, embeddings, volume, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s2v_cli import GenerateOptions, Sound2Vision, SoundOptions, pipeline
from s2v_cli.errors import DeviceError, OptionError, SoundError, SpaceError, WeightsError
from s2v_cli.presets import load_preset
from s2v_cli.space import EmbeddingSpace

EXAMPLES = Path(__file__).parents[1] / "examples"
RAIN = EXAMPLES / "rain.wav"
ROUNDING = 2  # of 255: how far pixels may move between batch sizes and thread counts


@pytest.fixture(scope="module")
def mini() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def difference(first: Image.Image, second: Image.Image) -> int:
    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    return int(np.abs(a - b).max())


def test_a_sound_becomes_a_picture(mini: Sound2Vision) -> None:
    (picture,) = mini.generate(RAIN, seed=3)
    assert picture.mode == "RGB" and picture.size == (128, 128)
    assert np.asarray(picture).std() > 10  # not one flat colour


def test_one_seed_one_picture_whatever_the_batch_and_the_threads(mini: Sound2Vision) -> None:
    many = mini.generate(RAIN, seed=5, count=pipeline.BATCH + 2)
    assert difference(many[1], many[2]) > 20
    (alone,) = mini.generate(RAIN, seed=6)
    assert difference(many[1], alone) <= ROUNDING
    assert difference(alone, mini.generate(RAIN, seed=6)[0]) == 0
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert difference(alone, mini.generate(RAIN, seed=6)[0]) <= ROUNDING
    finally:
        torch.set_num_threads(threads)


def test_best_of_keeps_the_candidate_nearest_to_the_sound(mini: Sound2Vision) -> None:
    heard = mini.encode_sound(RAIN).embedding
    (best,) = mini.generate_from_embedding(heard, GenerateOptions(seed=1, best_of=6))
    (first,) = mini.generate_from_embedding(heard, GenerateOptions(seed=1))
    assert first.similarity is None and best.similarity is not None
    with torch.inference_mode():
        images = mini.generator(mini.noise(1, 6), heard.expand(6, -1))
        scores = mini.image_encoder(images) @ heard
    assert best.similarity == pytest.approx(float(scores.max()), abs=1e-3)
    assert best.similarity >= float(mini.encode_image(first.image) @ heard) - 1e-2


def test_embeddings_of_sounds_and_pictures_share_the_unit_sphere(mini: Sound2Vision) -> None:
    sound = mini.encode_sound(RAIN)
    image = mini.encode_image(EXAMPLES / "boat.jpg")
    for embedding in (sound.embedding, image):
        assert embedding.shape == (256,) and embedding.dtype == torch.float32
        assert float(embedding.norm()) == pytest.approx(1, abs=1e-4)
    assert sound.space == mini.space
    assert sound.familiarity is not None and 0 <= sound.familiarity <= 1


def test_average_is_the_mean_of_the_windows(mini: Sound2Vision, tmp_path: Path) -> None:
    import soundfile

    wave, rate = soundfile.read(RAIN, dtype="int16")
    other, other_rate = soundfile.read(EXAMPLES / "fire.flac", dtype="int16")
    assert rate == other_rate == 16000
    length = 5 * rate
    path = tmp_path / "two.wav"
    soundfile.write(path, np.concatenate([np.resize(wave, length), np.resize(other, length)]), rate)
    sound = mini.read(path, SoundOptions(window="average"))
    assert sound.windows.shape == (2, length)
    parts = [mini.encode_sound(replace(sound, windows=w[None])).embedding for w in sound.windows]
    mean = torch.stack(parts).mean(0)
    assert torch.allclose(mini.encode_sound(sound).embedding, mean / mean.norm(), atol=1e-5)


def test_volume_reaches_the_picture(mini: Sound2Vision) -> None:
    soft, loud = (mini.encode_sound(RAIN, SoundOptions(gain_db=g)).embedding for g in (-20, 15))
    assert float(soft @ loud) < 0.995
    assert difference(mini.generate(RAIN, gain_db=-20)[0], mini.generate(RAIN, gain_db=15)[0]) > 15


def test_the_generator_is_differentiable_in_both_inputs(mini: Sound2Vision) -> None:
    noise = mini.noise(0).requires_grad_()
    embedding = mini.encode_sound(RAIN).embedding[None].clone().requires_grad_()
    mini.generator(noise, embedding).mean().backward()
    for gradient in (noise.grad, embedding.grad):
        assert gradient is not None and bool(gradient.isfinite().all()) and gradient.any()


def test_truncation_and_size(mini: Sound2Vision) -> None:
    heard = mini.encode_sound(RAIN).embedding
    wide = mini.generate_from_embedding(heard, GenerateOptions(count=8))
    narrow = mini.generate_from_embedding(heard, GenerateOptions(count=8, truncation=0.3))

    def spread(pictures: list[pipeline.Picture]) -> float:
        return float(np.stack([np.asarray(p.image, float) for p in pictures]).std(axis=0).mean())

    assert spread(narrow) < 0.8 * spread(wide)
    (large,) = mini.generate_from_embedding(heard, GenerateOptions(size=200))
    assert large.image.size == (200, 200)


def test_progress_counts_candidates(mini: Sound2Vision) -> None:
    heard, calls = mini.encode_sound(RAIN).embedding, []
    options = GenerateOptions(count=3, best_of=5)
    mini.generate_from_embedding(heard, options, progress=lambda *call: calls.append(call))
    assert calls[-1] == (15, 15)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize(
    "bad", [torch.zeros(255), torch.zeros(1, 256), torch.full((256,), torch.inf)]
)
def test_a_foreign_embedding_is_refused(mini: Sound2Vision, bad: torch.Tensor) -> None:
    with pytest.raises(OptionError, match="256"):
        mini.generate_from_embedding(bad)


def test_options_belong_to_reading(mini: Sound2Vision) -> None:
    sound = mini.read(RAIN)
    with pytest.raises(OptionError, match="already read"):
        mini.encode_sound(sound, SoundOptions(gain_db=3))
    with pytest.raises(OptionError, match="reading"):
        mini.generate(sound, gain_db=3)
    with pytest.raises(OptionError, match="16000"):
        mini.encode_sound(replace(sound, sample_rate=8000))
    with pytest.raises(SoundError):
        mini.encode_sound(EXAMPLES / "nothing.wav")


def test_devices_that_are_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cpu"):
            Sound2Vision.load("mini", device="cuda")
    with pytest.raises(DeviceError, match="float32"):
        Sound2Vision.load("mini", device="cpu", dtype="float16")


def test_bfloat16_draws_nearly_the_same(mini: Sound2Vision) -> None:
    half = Sound2Vision.load("mini", device="cpu", dtype="bfloat16")
    a, b = (np.asarray(m.generate(RAIN, seed=2)[0], float) for m in (mini, half))
    assert np.abs(a - b).mean() < 12


def test_two_spaces_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    from s2v_cli.generators.mini import MiniGenerator

    monkeypatch.setattr(MiniGenerator, "space", EmbeddingSpace("other", 256, "unit"))
    with pytest.raises(SpaceError, match="other-256"):
        Sound2Vision.load("mini", device="cpu").generator  # noqa: B018


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    import shutil

    preset = load_preset("mini")
    folder = tmp_path / "swapped"
    shutil.copytree(preset.folder / "mini", folder / "mini")
    text = (preset.folder / "mini.toml").read_text()
    text = text.replace("mini/sound_encoder.s", "mini/X.s").replace(
        "mini/image_encoder.s", "mini/Y.s"
    )
    text = text.replace('"sound_encoder"', '"Z"').replace('"image_encoder"', '"sound_encoder"')
    text = text.replace('"Z"', '"image_encoder"').replace("X.s", "sound_encoder.s")
    (folder / "preset.toml").write_text(text.replace("Y.s", "image_encoder.s"))
    with pytest.raises(WeightsError, match="another network"):
        Sound2Vision.load(folder, device="cpu")
