"""Networks as presets ask for them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s2v_cli.encoders.sound2vision_sound import Sound2SceneEncoder, Sound2VisionEncoder
from s2v_cli.errors import WeightsError
from s2v_cli.networks import Setting, build_network
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset


def hearing(seconds: float, folder: Path) -> Path:
    """A copy of mini's preset whose sound encoder hears that much at once."""
    mini = load_preset("mini").folder
    shutil.copytree(mini / "mini", folder / "mini")
    text = (mini / "mini.toml").read_text().replace("window_s = 5.0", f"window_s = {seconds}")
    (folder / "preset.toml").write_text(text)
    return folder


def test_mini_hears_as_much_as_its_preset_says(tmp_path: Path) -> None:
    wave = torch.randn(1, 80_000, generator=torch.Generator().manual_seed(0))
    five = Sound2Vision.load("mini", device="cpu").sound_encoder
    two = Sound2Vision.load(hearing(2.0, tmp_path), device="cpu").sound_encoder
    assert (five.window_s, two.window_s) == (5.0, 2.0)
    short = two.spectrogram(wave)  # type: ignore[attr-defined]
    assert short.shape[-1] < five.spectrogram(wave).shape[-1] / 2  # type: ignore[attr-defined]
    later = torch.cat([wave[:, :32_000], torch.ones(1, 48_000)], dim=1)
    assert torch.equal(two(wave), two(later))
    assert not torch.equal(five(wave), five(later))


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        (Sound2SceneEncoder, "sound2scene-sound-encoder"),
        (Sound2VisionEncoder, "sound2vision-sound-encoder"),
    ],
)
def test_published_networks_hear_as_much_as_their_preset_says(
    kind: type[Sound2SceneEncoder | Sound2VisionEncoder], network: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    file = tmp_path / "x.safetensors"
    save_file(kind(4, (4, 4, 8, 8)).state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "preset.toml").write_text(
        'name = "short"\ntitle = "t"\ndescription = "d"\nmodel = "sound2scene"\n'
        'bundled = false\nresolution = 128\nlicence = "CC0"\ncommercial = true\n'
        f'[space]\nname = "{kind.space.name}"\ndimension = {kind.space.dimension}\n'
        f'scale = "{kind.space.scale}"\n'
        "[sound]\nsample_rate = 16000\nwindow_s = 1.0\n[generate]\n"
        f'[[weights]]\nrole = "sound_encoder"\nnetwork = "{network}"\n'
        f'file = "x.safetensors"\nbytes = {file.stat().st_size}\nsha256 = "{digest}"\n'
    )
    preset = load_preset(tmp_path)
    weight = preset.weight("sound_encoder")
    encoder = build_network(Setting(preset, weight, torch.device("cpu"), torch.float32))
    wave = torch.randn(2, 20_000)
    assert encoder.window_s == 1.0
    assert kind.window_s == 10.0  # of others, nothing changes
    assert encoder.spectrogram(wave).shape == (2, 1, 257, (16_000 - 353) // 159)
    assert torch.equal(encoder(wave), encoder(wave[:, :16_000]))
    assert encoder(wave[:, :500]).isfinite().all()


def test_a_preset_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    mini = load_preset("mini")
    folder = tmp_path / "older"
    shutil.copytree(mini.folder / "mini", folder / "mini")
    file = folder / "mini/sound_encoder.safetensors"
    save_file({n: t for n, t in load_file(file).items() if n != "reader"}, file)
    weight = mini.weight("sound_encoder")
    text = (mini.folder / "mini.toml").read_text()
    for old, new in (
        ('name = "mini"\ntitle', 'name = "older"\ntitle'),
        (weight.sha256, hashlib.sha256(file.read_bytes()).hexdigest()),
        (f"bytes = {weight.bytes}", f"bytes = {file.stat().st_size}"),
        (f'[space]\nname = "{mini.space.name}"', '[space]\nname = "mini-1"'),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "preset.toml").write_text(text)
    with pytest.raises(WeightsError) as refusal:
        Sound2Vision.load(folder, device="cpu")
    for part in ("older", "mini-1-256 (unit)", str(mini.space), "'reader'", "Train"):
        assert part in str(refusal.value)
