"""A recipe from data to a preset folder: its stages in order, then the export.

A recipe lists all stages of `mini`, or some. What it does not train comes from its teacher, a
preset whose image encoder then stays as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from s2v_cli.device import find_device
from s2v_cli.encoders import ImageEncoder
from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators.biggan import BigGan
from s2v_cli.generators.mini import SHIFT, STEPS, MiniGenerator
from s2v_cli.generators.mini_codec import LatentDecoder, LatentEncoder
from s2v_cli.generators.mini_flow import LatentFlow
from s2v_cli.options import DeviceChoice
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.space import EmbeddingSpace
from s2v_cli.training.bridge import fit_bridge, fit_prior, fit_speech_prior
from s2v_cli.training.codec_stage import CodecStage, DrawLatents
from s2v_cli.training.dataset import (
    Clip,
    digest_of,
    find_clips,
    find_photos,
    is_readable,
    load_photos,
    load_waves,
)
from s2v_cli.training.export import TRUNCATION, Network, taken, trained, write_preset
from s2v_cli.training.familiarity import fit_familiarity
from s2v_cli.training.flow_stage import DistilStage, FlowStage, draw_latents
from s2v_cli.training.gan_networks import TrainedGenerator
from s2v_cli.training.gan_stage import (
    Conditions,
    GanStage,
    find_conditions,
    inference_generator,
    stored_size,
)
from s2v_cli.training.image_stage import ImageStage
from s2v_cli.training.latents import CropTable, encode_crops
from s2v_cli.training.loop import Stage, run_stage
from s2v_cli.training.precision import CPU
from s2v_cli.training.recipe import GanOptions, Recipe, StageOptions
from s2v_cli.training.sound_stage import SoundStage, paired_classes
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
    "gan",
    "refine",
)
ROLES = ("sound_encoder", "image_encoder", "generator", "speech_encoder")
# What a stage goes on from; without a teacher, an encoder that is needed has to be trained.
AFTER = {
    "refine": ("image_encoder",),
    "sharpen": ("codec",),
    "flow": ("codec", "distil"),
    "distil": ("flow",),
    "polish": ("codec", "flow"),
    "codec": ("flow",),
}
# Stages whose networks a recipe's `start` has.
STARTED = frozenset({"image_encoder", "codec"})
# That need an image encoder as mini's.
OF_MINI = frozenset(STAGES) - {"image_encoder", "refine", "gan"}


class Run:
    """One training run in a folder; every stage goes on from its checkpoint.

    Args:
        data: a prepared dataset, or a folder with `images/`, `faces/` and `sounds/` as in
            `training.tables`; where it has no voices, no speech encoder is trained.
        folder: where checkpoints, logs and the finished preset go.
        recipe: of the stages.
        progress: called with stage, step, steps and figures.
        device: where it computes. Chance comes from the CPU, so it is the same everywhere.

    Raises:
        TrainingError: data of another kind, or without training photos.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        recipe: Recipe,
        progress: Progress | None = None,
        device: DeviceChoice = "cpu",
    ) -> None:
        if not data.is_dir():
            raise TrainingError(f"No folder at {str(data)!r}; give the folder of the data set.")
        if not is_readable(data):
            raise TrainingError(
                f"{data} is no prepared dataset. Run: s2v prepare {data} FOLDER, then train on "
                "FOLDER."
            )
        self.data, self.folder, self.recipe, self.progress = data, folder, recipe, progress
        self.device = find_device(device)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"Cannot make the folder {folder}: {error.strerror}.") from None
        self.photos = find_photos(data)
        count = len(self._photos_of("train"))
        if count < 2:
            raise TrainingError(
                f"{data} has {count} training photos; needed: 2 or more, and far more to learn "
                "what is in them."
            )
        self.speech = find_speech(data)

    def _check_recipe(self) -> None:
        """Whether the stages lead to a preset; found before hours of work."""
        names, teacher = self.recipe.names, self.recipe.teacher
        given = names | STARTED if self.recipe.start else names

        def refuse(reason: str) -> None:
            raise TrainingError(f"Recipe {self.recipe.name!r} {reason}")

        if teacher and self.recipe.start:
            refuse("names a teacher and a start; allowed: one of them.")
        if self.recipe.start and not names & {"image_encoder", "refine"}:
            refuse(
                f"starts from {self.recipe.start!r} and does not go on with its image encoder. Add "
                "[stages.refine], or name it as teacher."
            )
        for role in ("image_encoder", "generator"):
            self._started(role)
        for name in STAGES:
            for other in AFTER.get(name, ()):
                if name in names and other not in given:
                    refuse(f"has the stage {name!r}, which needs {other!r}. Add [stages.{other}].")
        if "gan" in names and "flow" in names:
            refuse("has two generators, 'flow' and 'gan'; allowed: one.")
        if teacher is None:
            for name in ("image_encoder", "sound_encoder"):
                if name not in given:
                    refuse(f"trains no {name}. Add [stages.{name}], or a teacher that has one.")
            if not names & {"gan", "flow"}:
                refuse("trains no generator. Add 'codec', 'flow' and 'distil', or 'gan'.")
        elif "image_encoder" in names:
            refuse(
                f"has the stage 'image_encoder' and the teacher {teacher!r}, whose image encoder "
                "would be another space; allowed: one of them."
            )
        elif names & OF_MINI:
            from s2v_cli.presets import load_preset

            stage = next(name for name in STAGES if name in names & OF_MINI)
            kind = load_preset(teacher).weight("image_encoder").network
            if kind != "mini-image-encoder":
                refuse(
                    f"has the stage {stage!r}, which needs an image encoder as mini's; that of "
                    f"{teacher!r} is {kind!r}. Allowed with it: 'gan'."
                )

    def _photos_of(self, split: str) -> list[int]:
        return [i for i, photo in enumerate(self.photos) if photo.split == split]

    @cached_property
    def pixels(self) -> Tensor:
        """All photos, uint8 [N, 3, 160, 160]."""
        return load_photos(self.photos, self.folder / "cache")

    @cached_property
    def clips(self) -> list[Clip]:
        """All sounds but the voices."""
        return find_clips(self.data)

    @cached_property
    def teacher(self) -> Sound2Vision | None:
        """The preset that the recipe builds on, if it names one."""
        if self.recipe.teacher is None:
            return None
        device: DeviceChoice = "cuda" if self.device.type == "cuda" else "cpu"
        return Sound2Vision.load(self.recipe.teacher, device=device, dtype="float32")

    def train(self) -> Path:
        """Run the recipe's stages and export; returns the preset's folder.

        Raises:
            TrainingError: a recipe that leads to no preset, or data with fewer than two classes.
            PresetError, WeightsError: a teacher that is not there.
        """
        names = self.recipe.names
        self._check_recipe()
        if "sound_encoder" in names:
            paired_classes(self.clips, {self.photos[i].group for i in self._photos_of("train")})
        new: dict[str, Network] = {}
        image_encoder: ImageEncoder
        if self.teacher is None:
            own = image_encoder = self.image_encoder()
            new["image_encoder"] = trained("mini-image-encoder", own)
        else:
            image_encoder = self.teacher.image_encoder
        if names & OF_MINI or self.teacher is None:
            new |= self._train_mini(cast(MiniImageEncoder, image_encoder))
        generator: BigGan | None = None
        if "gan" in names:
            generator = self.gan(image_encoder)
            new["generator"] = trained("icgan-generator", generator, half=False)
        return self._export(new, generator)

    def _train_mini(self, image_encoder: MiniImageEncoder) -> dict[str, Network]:
        """The stages that read the table of encoded crops."""
        names = self.recipe.names
        new: dict[str, Network] = {}
        codec = self.codec(image_encoder) if "flow" in names else None
        latent_encoder = cast(LatentEncoder, codec["encoder"]) if codec else None
        train, validation = self.tables(image_encoder, latent_encoder)
        flow = self.flow(train, validation) if codec else None
        sound_encoder = None
        if "sound_encoder" in names:
            sound_encoder = self.sound_encoder(train, held=validation)
            new["sound_encoder"] = trained("mini-sound-encoder", sound_encoder)
        if "speech_encoder" in names and self.speech:
            start = sound_encoder or self._taught_start()
            speech_encoder = self.speech_encoder(train, start)
            new["speech_encoder"] = trained("mini-speech-encoder", speech_encoder)
        if codec and flow:
            decoder = codec["decoder"]
            if "polish" in names:
                decoder = self.polish(image_encoder, codec, flow, train)
            generator = MiniGenerator()
            generator.flow.load_state_dict(flow.state_dict())
            generator.decoder.load_state_dict(decoder.state_dict())
            generator.encoder.load_state_dict(codec["encoder"].state_dict())
            new["generator"] = trained("mini-generator", generator)
        return new

    def _taught_start(self) -> MiniSoundEncoder | None:
        """The teacher's sound encoder, if a speech encoder can begin as its copy."""
        encoder = self.teacher.sound_encoder if self.teacher else None
        return encoder.cpu() if isinstance(encoder, MiniSoundEncoder) else None

    def _export(self, new: Mapping[str, Network], gan: BigGan | None) -> Path:
        """The preset of what was trained and what the teacher has besides."""
        networks = dict(new)
        resolution = MiniGenerator.resolution
        sample_rate, window_s = MiniSoundEncoder.sample_rate, MiniSoundEncoder.window_s
        space, model = self._space(new), "mini"
        options: tuple[str, ...] = ()
        generate: dict[str, object] = {"truncation": TRUNCATION}
        if self.teacher is not None:
            preset = self.teacher.preset
            space, model = preset.space, preset.model
            for weight in preset.weights:
                if weight.role not in networks:
                    networks[weight.role] = taken(preset, weight.role)
            if "sound_encoder" not in new:
                sample_rate, window_s = preset.sample_rate, preset.window_s
            if "generator" not in new:
                resolution, options = preset.resolution, preset.options
                generate = dict(preset.generate)
        if gan is not None:
            resolution = gan.resolution
        return write_preset(
            self.folder / "preset",
            {role: networks[role] for role in ROLES if role in networks},
            model=model,
            space=space,
            resolution=resolution,
            sample_rate=sample_rate,
            window_s=window_s,
            generate=generate,
            options=options,
        )

    def _space(self, new: Mapping[str, Network]) -> EmbeddingSpace:
        """The space of the image encoder trained here: a name of its own, as no other is in it."""
        content = new["image_encoder"].content if "image_encoder" in new else None
        if content is None:
            return MiniImageEncoder.space
        name = f"{MiniImageEncoder.space.family}-{hashlib.sha256(content).hexdigest()[:8]}"
        return dataclasses.replace(MiniImageEncoder.space, name=name)

    def _started(self, role: str) -> nn.Module | None:
        """A network of the preset that the recipe starts from, in float32; None without one.

        Raises:
            TrainingError: it is not of mini's architecture.
        """
        if self.recipe.start is None:
            return None
        from s2v_cli.networks import Setting, build_network
        from s2v_cli.presets import load_preset

        preset = load_preset(self.recipe.start)
        weight, kind = preset.weight(role), f"mini-{role.replace('_', '-')}"
        if weight.network != kind:
            raise TrainingError(
                f"Recipe {self.recipe.name!r} starts from {preset.name!r}, whose {role} is "
                f"{weight.network!r}; needed: {kind!r}. Name a preset that was trained as mini."
            )
        network = build_network(Setting(preset, weight, CPU, torch.float32))
        return cast(nn.Module, network).requires_grad_(True)

    def _stage_seed(self, name: str) -> int:
        return self.recipe.seed + STAGES.index(name)

    def image_encoder(self) -> MiniImageEncoder:
        """Stages `image_encoder` and `refine`, those that are listed."""
        encoder = self._started("image_encoder")
        parts: Mapping[str, nn.Module] | None = {"encoder": encoder} if encoder else None
        for name in ("image_encoder", "refine"):
            if name in self.recipe.names:
                parts = self._image_stage(name, parts)
        return cast(MiniImageEncoder, (parts or {})["encoder"])

    def _image_stage(
        self, name: str, start: Mapping[str, nn.Module] | None
    ) -> Mapping[str, nn.Module]:
        """The stage's networks, averaged where averages are kept."""
        options, seed = self.recipe.stage(name), self._stage_seed(name)
        with _seeded(seed):
            stage = ImageStage(name, self.photos, self.pixels, options, start, self.device)
        averages = self._run(stage, options, seed)
        return {**stage.modules, **averages}

    def _run(self, stage: Stage, options: StageOptions, seed: int) -> dict[str, nn.Module]:
        """Run a stage; returns its averaged networks, on the CPU."""
        averages = run_stage(stage, options, self.folder, seed, self.progress)
        return {name: average.cpu() for name, average in averages.items()}

    def codec(self, image_encoder: MiniImageEncoder) -> Mapping[str, nn.Module]:
        """Stages `codec` and `sharpen`, those that are listed; returns encoder and decoder."""
        generator = cast("MiniGenerator | None", self._started("generator"))
        parts: Mapping[str, nn.Module] = {}
        if generator is not None:
            parts = {"encoder": generator.encoder, "decoder": generator.decoder}
        if "codec" in self.recipe.names:
            parts = self._codec_stage("codec", None, parts)
        if "sharpen" in self.recipe.names:
            parts = self._codec_stage("sharpen", image_encoder, parts)
        return parts

    def polish(
        self,
        image_encoder: MiniImageEncoder,
        codec: Mapping[str, nn.Module],
        flow: LatentFlow,
        table: CropTable,
    ) -> LatentDecoder:
        """Stage `polish`; returns the decoder."""
        draw = partial(draw_latents, flow.to(self.device), table)
        polished = self._codec_stage("polish", image_encoder, codec, draw)
        flow.cpu()
        return cast(LatentDecoder, polished["decoder"])

    def _codec_stage(
        self,
        name: str,
        teacher: MiniImageEncoder | None,
        start: Mapping[str, nn.Module] | None,
        draw: DrawLatents | None = None,
    ) -> Mapping[str, nn.Module]:
        options, seed = self.recipe.stage(name), self._stage_seed(name)
        with _seeded(seed):
            stage = CodecStage(
                name, self.photos, self.pixels, teacher, start, options, draw, self.device
            )
        averages = self._run(stage, options, seed)
        if teacher is not None:
            teacher.cpu()
        return averages

    def tables(
        self, image_encoder: MiniImageEncoder, latent_encoder: LatentEncoder | None
    ) -> tuple[CropTable, CropTable | None]:
        """Encoded crops of the training and, where there are any, of the validation photos."""
        tables = []
        what = "crops" if latent_encoder else "embeddings"
        encoders = [image_encoder, *([latent_encoder] if latent_encoder else [])]
        for encoder in encoders:
            encoder.to(self.device)
        for split in ("train", "validation"):
            index = self._photos_of(split)
            if not index:
                continue
            tables.append(
                encode_crops(
                    [self.photos[i] for i in index],
                    self.pixels,
                    torch.tensor(index),
                    image_encoder,
                    latent_encoder,
                    self.recipe.seed,
                    self.folder / f"{what}-{split}.pt",
                    self.progress,
                )
            )
        for encoder in encoders:
            encoder.cpu()
        return tables[0], tables[1] if len(tables) > 1 else None

    def flow(self, train: CropTable, validation: CropTable | None) -> LatentFlow:
        """Stages `flow` and `distil`; returns the few-step student."""
        options = self.recipe.stage("flow")
        with _seeded(self._stage_seed("flow")):
            generator = cast("MiniGenerator | None", self._started("generator"))
            start = generator.flow if generator else None
            stage = FlowStage(train, validation, options, self.device, start)
        teacher = cast(LatentFlow, self._run(stage, options, self._stage_seed("flow"))["flow"])
        options = self.recipe.stage("distil")
        distil = DistilStage(teacher, train, options, STEPS, SHIFT, self.device)
        return cast(LatentFlow, self._run(distil, options, self._stage_seed("distil"))["flow"])

    def sound_encoder(
        self, table: CropTable, hear_level: bool = True, held: CropTable | None = None
    ) -> MiniSoundEncoder:
        """Stage `sound_encoder`, with its bridge, prior and familiarity fitted.

        `held` are the validation photos.
        """
        clips = self.clips
        waves = load_waves(clips, self.folder / "cache")
        options = self.recipe.stage("sound_encoder")
        with _seeded(self._stage_seed("sound_encoder")):
            stage = SoundStage(clips, waves, table, options, hear_level, held, self.device)
        if not hear_level:
            stage.name = "sound_encoder_without_level"
        averages = self._run(stage, options, self._stage_seed("sound_encoder"))
        encoder = cast(MiniSoundEncoder, averages["encoder"])
        fit_bridge(encoder, stage)
        fit_familiarity(encoder, clips, waves)
        fit_prior(encoder, stage, cast("nn.Linear | None", averages.get("classifier")))
        return encoder

    def speech_encoder(self, table: CropTable, start: MiniSoundEncoder | None) -> MiniSpeechEncoder:
        """Stage `speech_encoder`, with its prior and familiarity fitted."""
        waves = load_waves(self.speech, self.folder / "cache")
        options = self.recipe.stage("speech_encoder")
        with _seeded(self._stage_seed("speech_encoder")):
            stage = SpeechStage(self.speech, waves, table, options, start, self.device)
        averages = self._run(stage, options, self._stage_seed("speech_encoder"))
        encoder = cast(MiniSpeechEncoder, averages["encoder"])
        fit_familiarity(encoder, self.speech, waves, CALLED_SPEECH)
        fit_speech_prior(encoder, stage)
        return encoder

    def gan(self, encoder: ImageEncoder) -> BigGan:
        """Stage `gan`; returns the averaged generator, folded for inference."""
        options, seed = cast(GanOptions, self.recipe.stage("gan")), self._stage_seed("gan")
        pixels = load_photos(self.photos, self.folder / "cache", stored_size(options.resolution))
        cast(nn.Module, encoder).to(self.device)
        train, validation = (
            self._conditions(split, pixels, encoder, options, seed)
            for split in ("train", "validation")
        )
        if train is None:
            raise TrainingError(f"{self.data} has no training photos.")
        with _seeded(seed):
            stage = GanStage(pixels, train, validation, encoder, options, self.device)
        averages = run_stage(stage, options, self.folder, seed, self.progress)
        stage.settle(averages["generator"])
        space = self.teacher.space if self.teacher else MiniImageEncoder.space
        return inference_generator(cast(TrainedGenerator, averages["generator"]), space)

    def _conditions(
        self, split: str, pixels: Tensor, encoder: ImageEncoder, options: GanOptions, seed: int
    ) -> Conditions | None:
        """Conditions from the photos of a split; kept in a file that is named after all inputs."""
        index = self._photos_of(split)
        if not index:
            return None
        encoded_by = self.teacher.weights_sha256 if self.teacher else "image_encoder"
        inputs = (digest_of(self.photos), pixels.shape[-1], encoded_by, options.views)
        key = repr((*inputs, options.neighbours, seed))
        name = f"conditions-{split}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.pt"
        return find_conditions(
            pixels,
            torch.tensor(index),
            encoder,
            options,
            seed,
            self.folder / name,
            self.progress,
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which fresh networks are drawn from, and restore it."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
