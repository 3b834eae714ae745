"""A recipe from data to a preset folder: all stages in order, then the export."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators.mini import SHIFT, STEPS, MiniGenerator
from s2v_cli.generators.mini_codec import LatentDecoder, LatentEncoder
from s2v_cli.generators.mini_flow import LatentFlow
from s2v_cli.training.bridge import fit_bridge, fit_prior, fit_speech_prior
from s2v_cli.training.codec_stage import CodecStage, DrawLatents
from s2v_cli.training.dataset import Photo, find_clips, find_photos, load_photos, load_waves
from s2v_cli.training.export import export_preset
from s2v_cli.training.familiarity import fit_familiarity
from s2v_cli.training.flow_stage import DistilStage, FlowStage, draw_latents
from s2v_cli.training.image_stage import ImageStage
from s2v_cli.training.latents import CropTable, encode_crops
from s2v_cli.training.loop import run_stage
from s2v_cli.training.recipe import Recipe
from s2v_cli.training.sound_stage import SoundStage
from s2v_cli.training.speech_stage import CALLED_SPEECH, SpeechStage
from s2v_cli.training.voices import find_speech

Progress = Callable[[str, int, int, dict[str, float]], None]
STAGES = (
    "image_encoder",
    "codec",
    "sharpen",
    "flow",
    "distil",
    "sound_encoder",
    "polish",
    "speech_encoder",
)


class Run:
    """One training run in a folder; every stage goes on from its checkpoint.

    Args:
        data: folder with `images/`, `faces/` and `sounds/` as in `training.dataset`; where it has
            no `speech/`, the preset gets no speech encoder.
        folder: where checkpoints, logs and the finished preset go.
        recipe: of the stages.
        progress: called with stage, step, steps and figures.
    """

    def __init__(
        self, data: Path, folder: Path, recipe: Recipe, progress: Progress | None = None
    ) -> None:
        if not data.is_dir():
            raise TrainingError(f"No folder at {str(data)!r}; give the folder of the data set.")
        self.data, self.folder, self.recipe, self.progress = data, folder, recipe, progress
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"Cannot make the folder {folder}: {error.strerror}.") from None
        self.photos = find_photos(data)
        self.pixels = load_photos(self.photos, folder / "cache")
        self.speech = find_speech(data)

    def train(self) -> Path:
        """Run all stages and export; returns the preset's folder."""
        for name in STAGES:  # a missing table is found before hours of work
            if self.speech or name != "speech_encoder":
                self.recipe.stage(name)
        image_encoder = self.image_encoder()
        codec = self.codec(image_encoder)
        train, validation = self.tables(image_encoder, cast(LatentEncoder, codec["encoder"]))
        flow = self.flow(train, validation)
        sound_encoder = self.sound_encoder(train)
        speech_encoder = self.speech_encoder(train, sound_encoder) if self.speech else None
        decoder = self.polish(image_encoder, codec, flow, train)
        generator = MiniGenerator()
        generator.flow.load_state_dict(flow.state_dict())
        generator.decoder.load_state_dict(decoder.state_dict())
        generator.encoder.load_state_dict(codec["encoder"].state_dict())
        return export_preset(
            self.folder / "preset", sound_encoder, image_encoder, generator, speech_encoder
        )

    def _stage_seed(self, name: str) -> int:
        return self.recipe.seed + STAGES.index(name)

    def image_encoder(self) -> MiniImageEncoder:
        """Stage `image_encoder`."""
        options = self.recipe.stage("image_encoder")
        with _seeded(self._stage_seed("image_encoder")):
            stage = ImageStage(self.photos, self.pixels, options)
        seed = self._stage_seed(stage.name)
        averages = run_stage(stage, options, self.folder, seed, self.progress)
        return cast(MiniImageEncoder, averages["encoder"])

    def codec(self, image_encoder: MiniImageEncoder) -> Mapping[str, nn.Module]:
        """Stages `codec` and `sharpen`; returns encoder and decoder."""
        parts = self._codec_stage("codec", None, None)
        return self._codec_stage("sharpen", image_encoder, parts)

    def polish(
        self,
        image_encoder: MiniImageEncoder,
        codec: Mapping[str, nn.Module],
        flow: LatentFlow,
        table: CropTable,
    ) -> LatentDecoder:
        """Stage `polish`; returns the decoder."""
        draw = partial(draw_latents, flow, table)
        return cast(
            LatentDecoder, self._codec_stage("polish", image_encoder, codec, draw)["decoder"]
        )

    def _codec_stage(
        self,
        name: str,
        teacher: MiniImageEncoder | None,
        start: Mapping[str, nn.Module] | None,
        draw: DrawLatents | None = None,
    ) -> Mapping[str, nn.Module]:
        options, seed = self.recipe.stage(name), self._stage_seed(name)
        with _seeded(seed):
            stage = CodecStage(name, self.photos, self.pixels, teacher, start, options, draw)
        return run_stage(stage, options, self.folder, seed, self.progress)

    def tables(
        self, image_encoder: MiniImageEncoder, latent_encoder: LatentEncoder
    ) -> tuple[CropTable, CropTable]:
        """Encoded crops of the training and of the validation photos."""
        tables = []
        for split in ("train", "validation"):
            index = [i for i, photo in enumerate(self.photos) if photo.split == split]
            chosen: list[Photo] = [self.photos[i] for i in index]
            tables.append(
                encode_crops(
                    chosen,
                    self.pixels[torch.tensor(index)],
                    image_encoder,
                    latent_encoder,
                    self.recipe.seed,
                    self.folder / f"crops-{split}.pt",
                    self.progress,
                )
            )
        return tables[0], tables[1]

    def flow(self, train: CropTable, validation: CropTable) -> LatentFlow:
        """Stages `flow` and `distil`; returns the few-step student."""
        options = self.recipe.stage("flow")
        with _seeded(self._stage_seed("flow")):
            stage = FlowStage(train, validation, options)
        seed = self._stage_seed("flow")
        teacher = run_stage(stage, options, self.folder, seed, self.progress)["flow"]
        options = self.recipe.stage("distil")
        distil = DistilStage(cast(LatentFlow, teacher), train, options, STEPS, SHIFT)
        seed = self._stage_seed("distil")
        averages = run_stage(distil, options, self.folder, seed, self.progress)
        return cast(LatentFlow, averages["flow"])

    def sound_encoder(self, table: CropTable, hear_level: bool = True) -> MiniSoundEncoder:
        """Stage `sound_encoder`, with its bridge, prior and familiarity fitted."""
        clips = find_clips(self.data)
        waves = load_waves(clips, self.folder / "cache")
        options = self.recipe.stage("sound_encoder")
        with _seeded(self._stage_seed("sound_encoder")):
            stage = SoundStage(clips, waves, table, options, hear_level)
        if not hear_level:
            stage.name = "sound_encoder_without_level"
        seed = self._stage_seed("sound_encoder")
        averages = run_stage(stage, options, self.folder, seed, self.progress)
        encoder = cast(MiniSoundEncoder, averages["encoder"])
        fit_bridge(encoder, stage)
        fit_familiarity(encoder, clips, waves)
        fit_prior(encoder, stage)
        return encoder

    def speech_encoder(self, table: CropTable, start: MiniSoundEncoder) -> MiniSpeechEncoder:
        """Stage `speech_encoder`, with its prior and familiarity fitted."""
        waves = load_waves(self.speech, self.folder / "cache")
        options = self.recipe.stage("speech_encoder")
        with _seeded(self._stage_seed("speech_encoder")):
            stage = SpeechStage(self.speech, waves, table, options, start)
        seed = self._stage_seed("speech_encoder")
        averages = run_stage(stage, options, self.folder, seed, self.progress)
        encoder = cast(MiniSpeechEncoder, averages["encoder"])
        fit_familiarity(encoder, self.speech, waves, CALLED_SPEECH)
        fit_speech_prior(encoder, stage)
        return encoder


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which fresh networks are drawn from, and restore it."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
