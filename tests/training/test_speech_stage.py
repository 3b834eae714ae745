"""Speakers stay in one split; voices and faces of one group become neighbours."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.errors import PresetError, TrainingError
from s2v_cli.generators.mini import MiniGenerator
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.bridge import fit_speech_prior
from s2v_cli.training.dataset import Clip, find_voices
from s2v_cli.training.export import export_preset
from s2v_cli.training.familiarity import fit_familiarity
from s2v_cli.training.latents import CropTable
from s2v_cli.training.recipe import Recipe, StageOptions
from s2v_cli.training.run import Run
from s2v_cli.training.speech_stage import CALLED_SPEECH, WHOLE, SpeechStage, clear_crops
from s2v_cli.training.voices import OTHERS, Voices, find_speech

GROUPS = {"female_adult": 220.0, "male_adult": 110.0}  # pitch of the drawn voices, Hz
OPTIONS = StageOptions(steps=3, batch=8, learning_rate=2e-3, validate_every=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def voice(pitch: float, number: int) -> np.ndarray:
    """Two seconds of a buzz [32000]: harmonics of a pitch that every speaker has a little other."""
    time = np.arange(32_000) / 16_000
    pitch *= 1 + 0.02 * (number % 5)
    harmonics = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    return (0.1 * harmonics).astype(np.float32)


@pytest.fixture(scope="module")
def spoken(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature data set with two groups of voices and of faces."""
    root = tmp_path_factory.mktemp("spoken") / "data"
    shutil.copytree(miniature, root)
    rng = np.random.default_rng(5)
    with (root / "faces/SOURCES.csv").open("a", newline="", encoding="utf-8") as file:
        for i in range(6):
            path = root / "faces/female_adult" / f"{i}.jpg"
            path.parent.mkdir(exist_ok=True)
            pixels = rng.integers(0, 60, (160, 160, 3)) + np.array((190, 90, 150))
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=80)
            csv.writer(file).writerow(["female_adult", f"female_adult/{i}.jpg", "", "", "CC0"])
    rows = []
    for group, pitch in GROUPS.items():
        (root / "speech" / group).mkdir(parents=True)
        for number in range(12):
            source, speaker = ("one", f"{group}-{number // 2}")
            if number == 11:
                source, speaker = "other", f"{group}-alone"
            file_name = f"{group}/{number}.wav"
            soundfile.write(root / "speech" / file_name, voice(pitch, number), 16_000)
            rows.append([group, file_name, source, speaker])
    with (root / "speech/SOURCES.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["class", "file", "source_repo", "speaker"], *rows])
    return root


@pytest.fixture(scope="module")
def table() -> CropTable:
    """Ten crops of each face group, around a direction of its own, and of a photo group."""
    generator = torch.Generator().manual_seed(0)
    rows = 0.05 * torch.randn(30, 256, generator=generator)
    rows += torch.eye(256)[:3].repeat_interleave(10, dim=0)
    group = torch.arange(3).repeat_interleave(10)
    return CropTable(
        latent=torch.zeros(30, 16, 8, 8, dtype=torch.float16),
        embedding=F.normalize(rows, dim=1),
        zoom=torch.linspace(1, 2, 10).repeat(3),
        group=group,
        first=torch.tensor([0, 10, 20]),
        count=torch.full((3,), 10),
        names=["face_female_adult", "face_male_adult", "rain"],
    )


def made_up() -> tuple[list[Clip], list[Tensor]]:
    """Voices of both groups in both splits, and noise as another sound."""
    clips, waves = [], []
    for group, pitch in GROUPS.items():
        for number in range(6):
            split = "validation" if number == 5 else "train"
            clips.append(Clip(group, f"face_{group}", Path(), f"{group}-{number}", split))
            waves.append(torch.from_numpy(voice(pitch, number)))
    noise = torch.randn(40_000, generator=torch.Generator().manual_seed(1))
    clips.append(Clip("rain", None, Path(), "rain-1", "train"))
    clips.append(Clip("rain", None, Path(), "rain-2", "validation"))
    return clips, [*waves, 0.1 * noise[:20_000], 0.1 * noise[20_000:]]


def test_no_speaker_is_in_two_splits_and_every_fold_holds_out_others(spoken: Path) -> None:
    tested: list[str] = []
    for fold in range(5):
        voices = find_voices(spoken, fold)
        assert len(voices) == 24
        splits: dict[str, set[str]] = {}
        for clip in voices:
            splits.setdefault(clip.recording, set()).add(clip.split)
        assert all(len(found) == 1 for found in splits.values())
        assert {"train", "validation", "test"} == {clip.split for clip in voices}
        tested += {clip.recording for clip in voices if clip.split == "test"}
        alone = [clip for clip in voices if clip.recording.endswith("alone")]
        assert [clip.split for clip in alone] == ["train", "train"]  # a source's only speaker
    assert sorted(tested) == sorted(f"{group}-{i}" for group in GROUPS for i in range(6))


def test_data_without_speech_have_no_voices(miniature: Path) -> None:
    assert find_voices(miniature) == [] and find_speech(miniature) == []


def test_other_sounds_are_unpaired_and_nothing_from_a_mouth(spoken: Path) -> None:
    clips = find_speech(spoken)
    assert {c.photo_class for c in clips if c.sound_class in GROUPS} == {
        "face_female_adult",
        "face_male_adult",
    }
    others = [c for c in clips if c.sound_class not in GROUPS]
    assert others and all(c.photo_class is None for c in others)


def test_a_batch_holds_every_group_alike_at_any_level() -> None:
    clips, waves = made_up()
    voices = Voices(clips, waves, 8)
    spectrogram, group = voices.batch(torch.Generator().manual_seed(3))
    assert group.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert spectrogram.shape[:3] == (8 + OTHERS, 1, 64)
    assert torch.equal(spectrogram, voices.batch(torch.Generator().manual_seed(3))[0])
    assert spectrogram.mean(dim=(1, 2, 3)).std() > 0.2  # tens of dB apart


def test_clear_faces_are_whole_and_the_most_typical(table: CropTable) -> None:
    clear = clear_crops(table, [0, 1], 1 / 3)
    for group, crops in enumerate(clear):
        whole = [10 * group + i for i in range(10) if table.zoom[10 * group + i] <= WHOLE]
        assert len(crops) == max(1, round(len(whole) / 3)) and set(crops.tolist()) <= set(whole)
        own = table.embedding[:, group] - table.embedding[:, 1 - group]
        assert own[crops].mean() >= own[whole].mean()


def test_a_group_of_voices_without_faces_is_refused(table: CropTable) -> None:
    clips, waves = made_up()
    clips = [
        replace(clip, sound_class="male_child") if clip.sound_class == "male_adult" else clip
        for clip in clips
    ]
    with pytest.raises(TrainingError, match="'male_child', but faces/ has none"):
        SpeechStage(clips, waves, table, OPTIONS)


def test_more_groups_than_the_encoder_has_are_refused(table: CropTable) -> None:
    clips, waves = made_up()
    many = replace(table, names=[f"face_g{i}_adult" for i in range(7)])
    clips = [
        replace(clip, sound_class=f"g{i % 7}_adult", split="train")
        for i, clip in enumerate(clips[:12])
    ]
    with pytest.raises(TrainingError, match="7 classes; allowed: at most 6"):
        SpeechStage(clips, waves[:12], many, OPTIONS)


@pytest.mark.slow
def test_voices_find_the_faces_of_their_group(table: CropTable) -> None:
    clips, waves = made_up()
    torch.manual_seed(0)
    stage = SpeechStage(clips, waves, table, OPTIONS)
    for group in stage.optimisers["encoder"].param_groups:
        group["lr"] = 2e-3
    for step in range(25):
        stage.step(step, torch.Generator().manual_seed(step))
    encoder = stage.modules["encoder"].eval()
    assert isinstance(encoder, MiniSpeechEncoder)
    before = stage.validate({"encoder": encoder})
    assert before == {"validation_gender": 1.0, "validation_age": 1.0}
    held = torch.stack([waves[5], waves[11]])
    apart = torch.linalg.vector_norm(encoder(held) - stage.mean_faces(), dim=1)
    fit_familiarity(encoder, clips, waves, CALLED_SPEECH)
    fit_speech_prior(encoder, stage)
    drawn = torch.linalg.vector_norm(encoder(held) - stage.mean_faces(), dim=1)
    assert (drawn < apart / 2).all()
    shares = encoder.recognise(torch.stack([waves[5], waves[11], F.pad(waves[-1], (0, 12_000))]))[1]
    assert shares[:2].min() > shares[2]  # noise is no speech


@pytest.mark.slow
def test_the_stage_of_a_recipe_resumes_to_the_same_weights(
    spoken: Path, table: CropTable, tmp_path: Path
) -> None:
    recipe = Recipe("tiny", 3, (("speech_encoder", OPTIONS),))
    torch.manual_seed(1)
    start = MiniSoundEncoder()
    first = Run(spoken, tmp_path, recipe).speech_encoder(table, start)
    again = Run(spoken, tmp_path, recipe).speech_encoder(table, start)  # has nothing left to do
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert first.prior_share > 0 and first.centres.norm(dim=1).max() > 0.99


def test_a_preset_has_a_speech_encoder_only_if_one_was_trained(
    spoken: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    networks = MiniSoundEncoder(), MiniImageEncoder(), MiniGenerator()
    with_speech = export_preset(tmp_path / "with", *networks, MiniSpeechEncoder())
    model = Sound2Vision.load(with_speech)
    heard = model.encode_speech(spoken / "speech/male_adult/0.wav")
    assert heard.space == model.space and heard.embedding.shape == (256,)
    assert isinstance(model.speech_encoder, MiniSpeechEncoder)
    without = Sound2Vision.load(export_preset(tmp_path / "without", *networks))
    with pytest.raises(PresetError, match="has no 'speech_encoder'"):
        without.encode_speech(spoken / "speech/male_adult/0.wav")
