"""Sound2Vision: a sound encoder, an image encoder and a generator that meet in one space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from s2v_cli.candidates import keep_best
from s2v_cli.device import find_device, find_dtype
from s2v_cli.encoders import KnowsKinds, PreparesPictures
from s2v_cli.errors import OptionError
from s2v_cli.generators import DrawsWithOptions, Truncates
from s2v_cli.latent import mean_embedding, similarity
from s2v_cli.networks import Setting, build_network
from s2v_cli.options import DeviceChoice, DtypeChoice, GenerateOptions, SoundOptions, WindowChoice
from s2v_cli.presets import Preset, load_preset
from s2v_cli.results import Picture, SoundEmbedding
from s2v_cli.space import require_same_space
from s2v_cli.weights.store import asset_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.audio.tracks import MixOptions, Track
    from s2v_cli.encoders import ImageEncoder, SoundEncoder
    from s2v_cli.generators import Generator
    from s2v_cli.photo import Draw, PhotoOptions

BATCH = 8  # pictures that go through the generator at once
Progress = Callable[[float, float], None]


class Sound2Vision:
    """A loaded preset; makes pictures from sounds.

    Attributes:
        preset: what was loaded.
        device, dtype: where and how precisely it computes.
        space: embedding space of its encoders and generator.
        sound_encoder: f_A.
        weights_sha256: of the preset's own files by role, and of the published weights that are
            loaded by name.
    """

    def __init__(
        self,
        preset: Preset,
        device: torch.device,
        dtype: torch.dtype,
        weights_dir: Path | None = None,
        low_vram: bool = False,
    ) -> None:
        """Load the sound encoder; the other networks wait until they are needed."""
        self.preset, self.device, self.dtype = preset, device, dtype
        self.low_vram = low_vram
        self.space = preset.space
        self._weights_dir = weights_dir
        self.weights_sha256: dict[str, str] = {
            weight.role: weight.sha256 for weight in preset.weights if weight.file
        }
        self.sound_encoder: SoundEncoder = self._build("sound_encoder")
        self._image_encoder: ImageEncoder | None = None
        self._speech_encoder: SoundEncoder | None = None

    @classmethod
    def load(
        cls,
        preset: str | os.PathLike[str] = "mini",
        *,
        device: DeviceChoice = "auto",
        dtype: DtypeChoice = "auto",
        weights_dir: Path | None = None,
        low_vram: bool = False,
    ) -> Sound2Vision:
        """Load a preset by name, or from a folder or TOML file.

        Args:
            preset: name or path.
            device: `auto` takes CUDA, then Apple's MPS, then the CPU.
            dtype: `auto` is float16 for diffusion models on CUDA, else float32; float16 holds for
                the generator, encoders stay in float32.
            weights_dir: where the weights lie, if not where the preset says.
            low_vram: save graphics memory with diffusion presets, at the price of time.

        Raises:
            PresetError: unknown or malformed preset.
            WeightsError: weights missing or damaged.
            DeviceError: a device or dtype that this machine does not have.
        """
        chosen = find_device(device)
        found = load_preset(preset)
        return cls(found, chosen, find_dtype(dtype, chosen, found), weights_dir, low_vram)

    @cached_property
    def generator(self) -> Generator:
        """G, loaded on first use."""
        generator: Generator = self._build("generator")
        require_same_space(self.sound_encoder.space, generator.space, "generate from sound")
        return generator

    @property
    def image_encoder(self) -> ImageEncoder:
        """f_V, loaded on first use."""
        if self._image_encoder is None:
            self._image_encoder = self._build("image_encoder")
            require_same_space(self._image_encoder.space, self.space, "compare with pictures")
        return self._image_encoder

    @property
    def speech_encoder(self) -> SoundEncoder:
        """The sound encoder that was taught voices (§6.2), loaded on first use.

        Raises:
            PresetError: the preset has none.
        """
        if self._speech_encoder is None:
            self._speech_encoder = self._build("speech_encoder")
            require_same_space(self._speech_encoder.space, self.space, "generate from speech")
        return self._speech_encoder

    def read(self, source: str | os.PathLike[str], options: SoundOptions | None = None) -> Sound:
        """Read a sound at this model's sample rate, in windows of its length.

        Raises:
            SoundError: the sound cannot be read.
            OptionError: the start lies beyond its end.
        """
        return self._read(self.sound_encoder, source, options)

    @torch.inference_mode()
    def encode_sound(
        self, sound: str | os.PathLike[str] | Sound, options: SoundOptions | None = None
    ) -> SoundEmbedding:
        """Encode a sound, the mean over its windows if it has several.

        Args:
            sound: a file, or what `read` returned.
            options: for a file: which part of it, and how loud.

        Raises:
            SoundError: the sound cannot be read, or is at another sample rate.
            OptionError: options together with a sound that is already read.
        """
        if isinstance(sound, str | os.PathLike):
            sound = self.read(sound, options)
        elif options is not None:
            raise OptionError("options belong to reading; this sound is already read.")
        return self._encode(self.sound_encoder, sound)

    def read_speech(
        self, source: str | os.PathLike[str], options: SoundOptions | None = None
    ) -> Sound:
        """Read speech as the speech encoder hears it; else as `read`."""
        return self._read(self.speech_encoder, source, options)

    @torch.inference_mode()
    def encode_speech(
        self, speech: str | os.PathLike[str] | Sound, options: SoundOptions | None = None
    ) -> SoundEmbedding:
        """Encode speech, from which a face is generated (§6.2); else as `encode_sound`.

        Args:
            speech: a file, or what `read_speech` returned.
            options: for a file: which part of it, and how loud.

        Raises:
            PresetError: the preset has no speech encoder.
            SoundError: the speech cannot be read.
            OptionError: options together with speech that is already read, or another sample rate.
        """
        if isinstance(speech, str | os.PathLike):
            speech = self.read_speech(speech, options)
        elif options is not None:
            raise OptionError("options belong to reading; this speech is already read.")
        return self._encode(self.speech_encoder, speech)

    def _read(
        self,
        encoder: SoundEncoder,
        source: str | os.PathLike[str],
        options: SoundOptions | None,
    ) -> Sound:
        from s2v_cli.audio.read import read_sound

        return read_sound(
            source if source == "-" else Path(source),
            sample_rate=encoder.sample_rate,
            window_s=encoder.window_s,
            options=options or SoundOptions(),
        )

    def _encode(self, encoder: SoundEncoder, sound: Sound) -> SoundEmbedding:
        if sound.sample_rate != encoder.sample_rate:
            raise OptionError(
                f"sample_rate is {sound.sample_rate}; {self.preset.name} hears "
                f"{encoder.sample_rate} Hz. Read the sound with Sound2Vision.read."
            )
        windows = torch.from_numpy(sound.windows).to(self.device)
        familiarity, familiar = None, None
        if isinstance(encoder, KnowsKinds):
            recognised = [encoder.recognise(window[None]) for window in windows]
            rows = [embedding for embedding, _ in recognised]
            familiarity = float(torch.cat([share for _, share in recognised]).mean())
            familiar = familiarity >= encoder.familiarity_threshold
        else:
            rows = [encoder(window[None]) for window in windows]
        unit = self.space.scale == "unit"
        embedding = mean_embedding(torch.cat(rows).float(), unit=unit)
        return SoundEmbedding(embedding.cpu(), self.space, familiarity, familiar)

    @torch.inference_mode()
    def encode_image(self, image: str | os.PathLike[str] | Image) -> Tensor:
        """z^V of a picture, float32 [D], on the CPU; cut as the encoder was trained.

        `mini` sees the centre square.

        Raises:
            PictureError: the picture cannot be read.
        """
        from s2v_cli.picture import read_picture

        if isinstance(image, str | os.PathLike):
            image = read_picture(Path(image))
        return self.image_encoder(self.prepare_picture(image)[None])[0].float().cpu()

    def prepare_picture(self, image: Image) -> Tensor:
        """A picture as the image encoder takes it, [3, H, W], on its device."""
        from s2v_cli.picture import to_tensor

        encoder = self.image_encoder
        prepare = encoder.prepare if isinstance(encoder, PreparesPictures) else to_tensor
        return prepare(image.convert("RGB")).to(self.device, self._encoder_dtype)

    def noise(self, seed: int, count: int = 1) -> Tensor:
        """z^N: the first `count` noise vectors of a seed, float32 [count, N], drawn on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.generator.noise_size, generator=generator)

    def generate_from_embedding(
        self,
        embedding: Tensor,
        options: GenerateOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Picture]:
        """Make pictures from one embedding [D] of this model's space.

        Args:
            embedding: z^A, z^V or a blend of them.
            options: seeds, count and the like.
            progress: called with the pictures drawn so far and in all, candidates included.

        Raises:
            OptionError: the embedding has another size, or is not finite.
        """
        options = options or self.preset.generate_options()
        self._check_embeddings(embedding, (self.space.dimension,))
        seeds = range(options.seed, options.seed + options.count)
        return self._draw([(seed, embedding) for seed in seeds], options, progress)

    def generate_strip(
        self,
        embeddings: Tensor,
        options: GenerateOptions | None = None,
        *,
        progress: Progress | None = None,
        draw: Draw | None = None,
    ) -> list[Picture]:
        """Make one picture of each embedding [F, D], all with the noise of one seed.

        Args:
            embeddings: of this model's space, for example a walk between two sounds.
            options: its seed is that of every picture; count is not used.
            progress: called with the pictures drawn so far and in all, candidates included.
            draw: how, if not as the method `draw` does it; its noise is truncated already.

        Raises:
            OptionError: the embeddings have another size, or are not finite.
        """
        options = options or self.preset.generate_options()
        self._check_embeddings(embeddings, (len(embeddings), self.space.dimension))
        return self._draw([(options.seed, row) for row in embeddings], options, progress, draw)

    def _check_embeddings(self, embedding: Tensor, shape: tuple[int, ...]) -> None:
        if embedding.shape != shape or not bool(embedding.isfinite().all()):
            raise OptionError(
                f"embedding has shape {tuple(embedding.shape)}; needed: finite numbers of shape "
                f"{shape} in the space {self.space}."
            )

    @torch.inference_mode()
    def _draw(
        self,
        plan: Sequence[tuple[int, Tensor]],
        options: GenerateOptions,
        progress: Progress | None,
        draw: Draw | None = None,
    ) -> list[Picture]:
        """A picture for each seed and embedding [D] of a plan, in batches."""
        at_once = getattr(self.generator, "pictures_at_once", BATCH)
        rows = max(1, at_once // options.best_of)
        total, drawn = len(plan) * options.best_of, 0
        pictures: list[Picture] = []
        for first in range(0, len(plan), rows):
            part = plan[first : first + rows]
            seeds = [seed for seed, _ in part]
            noise = torch.cat([self.noise(seed, options.best_of) for seed in seeds])
            conditions = torch.stack([row for _, row in part]).to(self.device, self.dtype)
            repeated = conditions.repeat_interleave(options.best_of, dim=0)
            images = []
            for some, some_conditions in zip(
                noise.split(at_once), repeated.split(at_once), strict=True
            ):
                if draw:
                    image = draw(self._ready(some, options), some_conditions, options)
                else:
                    steps = _within(progress, drawn, len(some), total)
                    image = self.draw(some, some_conditions, options, steps)
                images.append(image.float())
                drawn += len(some)
                if progress:
                    progress(drawn, total)
            kept = keep_best(torch.cat(images), conditions, options, self._compare)
            pictures += [Picture(i, s, score) for s, (i, score) in zip(seeds, kept, strict=True)]
        return pictures

    def draw(
        self,
        noise: Tensor,
        conditions: Tensor,
        options: GenerateOptions,
        progress: Progress | None = None,
    ) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1] from noise [B, N] and conditions [B, D].

        The noise is as `noise` drew it; truncation and the model's own options are applied here.
        A generator that takes many steps tells `progress` how many of them are done.
        """
        generator, noise = self.generator, self._ready(noise, options)
        if isinstance(generator, DrawsWithOptions):
            return generator.draw(noise, conditions, options, progress)
        return generator(noise, conditions)

    def _compare(self, images: Tensor, condition: Tensor) -> Tensor:
        """Cosines [C] of the image embeddings of candidates and their condition [D]."""
        return similarity(self.image_encoder(images.to(self._encoder_dtype)), condition)

    def _ready(self, noise: Tensor, options: GenerateOptions) -> Tensor:
        """Noise as the generator takes it: truncated, on its device."""
        generator, spread = self.generator, options.truncation
        if isinstance(generator, Truncates):
            noise = generator.truncate(noise, spread)
        elif spread is not None:
            noise = noise * spread
        return noise.to(self.device, self.dtype)

    def generate(
        self,
        sound: str | os.PathLike[str] | Sound,
        *,
        seed: int = 0,
        count: int = 1,
        gain_db: float = 0.0,
        start_s: float = 0.0,
        duration_s: float | None = None,
        window: WindowChoice = "loudest",
        truncation: float | None = None,
        best_of: int | None = None,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> list[Image]:
        """Make `count` pictures of a sound; see `SoundOptions` and `GenerateOptions`.

        Raises:
            SoundError: the sound cannot be read.
            OptionError: an option is outside its range.
        """
        hear = SoundOptions(start_s, duration_s, window, gain_db)
        if not isinstance(sound, str | os.PathLike):
            if hear != SoundOptions():
                raise OptionError("gain, start, duration and window belong to reading a sound.")
            heard = self.encode_sound(sound)
        else:
            heard = self.encode_sound(sound, hear)
        options = self.preset.generate_options(
            seed=seed, count=count, truncation=truncation, best_of=best_of, size=size
        )
        pictures = self.generate_from_embedding(heard.embedding, options, progress=progress)
        return [picture.image for picture in pictures]

    def mix(
        self,
        tracks: Sequence[str | Track],
        *,
        sweep: int | None = None,
        mixing: MixOptions | None = None,
        hear: SoundOptions | None = None,
        options: GenerateOptions | None = None,
    ) -> list[Picture]:
        """Make pictures of several sounds at once (§5.1, Fig. 9-10); see `mix_sounds`.

        Args:
            tracks: such as `rain.wav:0.7`, `sea.ogg:-6dB` or `dog.flac:0.5@2.5s`.
            sweep: steps of a walk from the first of two sounds to the second, a picture each,
                all of one seed; None makes `options.count` pictures of one mix.
            mixing: what becomes of short tracks and of samples beyond full scale.
            hear: which part of the mix is heard, and how loud it is.
            options: how the pictures are made.

        Raises:
            SoundError: a sound cannot be read.
            OptionError: weights that are none, not allowed, or sum to zero.
        """
        from s2v_cli.audio.mixdown import mix_sounds
        from s2v_cli.audio.tracks import MixOptions, as_tracks, sweep_weights

        mixed = mix_sounds(
            as_tracks(tracks),
            sample_rate=self.sound_encoder.sample_rate,
            window_s=self.sound_encoder.window_s,
            options=hear or SoundOptions(),
            mixing=mixing or MixOptions(),
            sweep=None if sweep is None else sweep_weights(sweep),
        )
        heard = [self.encode_sound(sound).embedding for sound in mixed.sounds]
        if sweep is None:
            return self.generate_from_embedding(heard[0], options)
        return self.generate_strip(torch.stack(heard), options)

    def interpolate(
        self,
        image: Tensor | str | os.PathLike[str] | Image,
        sound: Tensor | str | os.PathLike[str] | Sound,
        weights: Sequence[float] = (0.5,),
        *,
        photo: PhotoOptions | None = None,
        options: GenerateOptions | None = None,
    ) -> list[Picture]:
        """Make a picture for each weight of a photo, 1, against a sound, 0 (§5.2, Fig. 11).

        Args:
            image: z^V [D], or a photo, which other modes than `latent` need.
            sound: z^A [D], or a sound.
            weights: the photo's shares.
            photo: how the two become one picture.
            options: their seed is that of every picture; count is not used.

        Raises:
            PictureError, SoundError: the photo or the sound cannot be read.
            OptionError: a weight outside 0 to 1, or a mode that the generator does not have.
        """
        from s2v_cli.photo import PhotoOptions, draw_with_photo

        return draw_with_photo(self, image, sound, weights, photo or PhotoOptions(), options)

    @property
    def _encoder_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def _build(self, role: str) -> Any:
        """One network of the preset with its weights, in eval mode."""
        weight = self.preset.weight(role)
        # Encoding loads on first use; weights loaded in its inference mode would take no gradient.
        with torch.inference_mode(False):
            network = build_network(
                Setting(
                    self.preset, weight, self.device, self.dtype, self.low_vram, self._weights_dir
                )
            )
        for name in weight.assets:
            self.weights_sha256[name] = asset_sha256(name, self._weights_dir)
        return network


def _within(progress: Progress | None, done: int, count: int, total: int) -> Progress | None:
    """Steps of a batch as shares of all pictures."""
    if progress is None:
        return None
    return lambda step, steps: progress(done + count * step / steps, total)
