"""Sound2Vision: a sound encoder, an image encoder and a generator that meet in one space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from s2v_cli.errors import DeviceError, OptionError
from s2v_cli.latent import mean_embedding, similarity
from s2v_cli.networks import Setting, build_network
from s2v_cli.options import DeviceChoice, DtypeChoice, GenerateOptions, SoundOptions, WindowChoice
from s2v_cli.presets import Preset, load_preset
from s2v_cli.space import EmbeddingSpace, require_same_space

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.encoders import ImageEncoder, SoundEncoder
    from s2v_cli.generators import Generator

BATCH = 8  # pictures that go through the generator at once
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SoundEmbedding:
    """What a sound encoder makes of a sound.

    Attributes:
        embedding: z^A, float32 [D], on the CPU.
        space: that it lies in.
        familiarity: how surely the sound is of a kind that the model was taught, 0 to 1; None
            for models that cannot tell.
        familiar: whether that is enough to expect a fitting picture; None likewise.
    """

    embedding: Tensor
    space: EmbeddingSpace
    familiarity: float | None = None
    familiar: bool | None = None


@dataclass(frozen=True)
class Picture:
    """One generated picture.

    Attributes:
        image: the picture, RGB.
        seed: that made it.
        similarity: cosine of its image embedding and the condition, where candidates were
            compared; else None.
    """

    image: Image
    seed: int
    similarity: float | None = None


@runtime_checkable
class _KnowsKinds(Protocol):
    """An encoder that can tell how familiar a sound is."""

    @property
    def familiarity_threshold(self) -> float: ...

    def recognise(self, wave: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class _Truncates(Protocol):
    """A generator with its own way to make noise more typical."""

    def truncate(self, noise: Tensor, truncation: float | None) -> Tensor: ...


@runtime_checkable
class _DrawsWithOptions(Protocol):
    """A generator that reads options of its own, such as steps."""

    def draw(self, noise: Tensor, embedding: Tensor, options: GenerateOptions) -> Tensor: ...


@runtime_checkable
class _PreparesPictures(Protocol):
    """An image encoder with its own way to cut a user's picture."""

    def prepare(self, image: Image) -> Tensor: ...


class Sound2Vision:
    """A loaded preset; makes pictures from sounds.

    Attributes:
        preset: what was loaded.
        device, dtype: where and how precisely it computes.
        space: embedding space of its encoders and generator.
        sound_encoder: f_A.
        generator: G.
        weights_sha256: of the preset's weight files, by role.
    """

    def __init__(
        self,
        preset: Preset,
        device: torch.device,
        dtype: torch.dtype,
        weights_dir: Path | None = None,
        low_vram: bool = False,
    ) -> None:
        """Load the sound encoder and the generator; other encoders wait until they are needed."""
        self.preset, self.device, self.dtype = preset, device, dtype
        self.low_vram = low_vram
        self.space = preset.space
        self._weights_dir = weights_dir
        self.weights_sha256 = {weight.role: weight.sha256 for weight in preset.weights}
        self.sound_encoder: SoundEncoder = self._build("sound_encoder")
        self.generator: Generator = self._build("generator")
        self._image_encoder: ImageEncoder | None = None
        require_same_space(self.sound_encoder.space, self.generator.space, "generate from sound")

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
            dtype: `auto` is float16 for published models on CUDA, else float32; float16 holds for
                the generator, encoders stay in float32.
            weights_dir: where the weights lie, if not where the preset says.
            low_vram: save graphics memory with diffusion presets, at the price of time.

        Raises:
            PresetError: unknown or malformed preset.
            WeightsError: weights missing or damaged.
            DeviceError: a device or dtype that this machine does not have.
        """
        chosen = _find_device(device)
        found = load_preset(preset)
        return cls(found, chosen, _find_dtype(dtype, chosen, found), weights_dir, low_vram)

    @property
    def image_encoder(self) -> ImageEncoder:
        """f_V, loaded on first use."""
        if self._image_encoder is None:
            self._image_encoder = self._build("image_encoder")
            require_same_space(self._image_encoder.space, self.space, "compare with pictures")
        return self._image_encoder

    def read(self, source: str | os.PathLike[str], options: SoundOptions | None = None) -> Sound:
        """Read a sound at this model's sample rate, in windows of its length.

        Raises:
            SoundError: the sound cannot be read.
            OptionError: the start lies beyond its end.
        """
        from s2v_cli.audio.read import read_sound

        return read_sound(
            source if source == "-" else Path(source),
            sample_rate=self.sound_encoder.sample_rate,
            window_s=self.sound_encoder.window_s,
            options=options or SoundOptions(),
        )

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
        if sound.sample_rate != self.sound_encoder.sample_rate:
            raise OptionError(
                f"sample_rate is {sound.sample_rate}; {self.preset.name} hears "
                f"{self.sound_encoder.sample_rate} Hz. Read the sound with Sound2Vision.read."
            )
        windows = torch.from_numpy(sound.windows).to(self.device)
        encoder, familiarity, familiar = self.sound_encoder, None, None
        if isinstance(encoder, _KnowsKinds):
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
        encoder = self.image_encoder
        prepare = encoder.prepare if isinstance(encoder, _PreparesPictures) else _to_tensor
        pixels = prepare(image.convert("RGB"))
        return encoder(pixels.to(self.device, self._encoder_dtype)[None])[0].float().cpu()

    def noise(self, seed: int, count: int = 1) -> Tensor:
        """z^N: the first `count` noise vectors of a seed, float32 [count, N], drawn on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.generator.noise_size, generator=generator)

    def generate_from_embedding(
        self,
        embedding: Tensor,
        options: GenerateOptions | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
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
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Picture]:
        """Make one picture of each embedding [F, D], all with the noise of one seed.

        Args:
            embeddings: of this model's space, for example a walk between two sounds.
            options: its seed is that of every picture; count is not used.
            progress: called with the pictures drawn so far and in all, candidates included.

        Raises:
            OptionError: the embeddings have another size, or are not finite.
        """
        options = options or self.preset.generate_options()
        self._check_embeddings(embeddings, (len(embeddings), self.space.dimension))
        return self._draw([(options.seed, row) for row in embeddings], options, progress)

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
        progress: Callable[[int, int], None] | None,
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
                images.append(self.draw(some, some_conditions, options).float())
                drawn += len(some)
                if progress:
                    progress(drawn, total)
            pictures += self._keep_best(torch.cat(images), conditions, seeds, options)
        return pictures

    def draw(self, noise: Tensor, conditions: Tensor, options: GenerateOptions) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1] from noise [B, N] and conditions [B, D].

        The noise is as `noise` drew it; truncation and the model's own options are applied here.
        """
        generator, spread = self.generator, options.truncation
        if isinstance(generator, _Truncates):
            noise = generator.truncate(noise, spread)
        elif spread is not None:
            noise = noise * spread
        noise = noise.to(self.device, self.dtype)
        if isinstance(generator, _DrawsWithOptions):
            return generator.draw(noise, conditions, options)
        return generator(noise, conditions)

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
        progress: Callable[[int, int], None] | None = None,
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

    def _keep_best(
        self, images: Tensor, conditions: Tensor, seeds: list[int], options: GenerateOptions
    ) -> list[Picture]:
        """One picture for each seed and condition of images [seeds * best_of, 3, R, R]."""
        from s2v_cli.picture import resize, stretch_contrast, to_image

        kept: list[tuple[Tensor, float | None]] = []
        for condition, candidates in zip(conditions, images.split(options.best_of), strict=True):
            if options.best_of == 1:
                kept.append((candidates[0], None))
                continue
            scores = similarity(self.image_encoder(candidates.to(self._encoder_dtype)), condition)
            best = int(scores.argmax())
            kept.append((candidates[best], float(scores[best])))
        pictures = []
        for seed, (image, score) in zip(seeds, kept, strict=True):
            if options.contrast == "stretch":
                image = stretch_contrast(image)
            picture = Picture(to_image(image.cpu()), seed, score)
            if options.size is not None:
                picture = replace(picture, image=resize(picture.image, options.size))
            pictures.append(picture)
        return pictures

    @property
    def _encoder_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def _build(self, role: str) -> Any:
        """One network of the preset with its weights, in eval mode."""
        weight = self.preset.weight(role)
        return build_network(
            Setting(self.preset, weight, self.device, self.dtype, self.low_vram, self._weights_dir)
        )


def _find_device(choice: str) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if choice == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(choice, False):
        names = ", ".join(name for name, there in available.items() if there)
        raise DeviceError(f"device is {choice!r}; this machine has: {names} (or auto).")
    return torch.device(choice)


def _find_dtype(choice: str, device: torch.device, preset: Preset) -> torch.dtype:
    if choice == "auto":  # small models gain nothing from half precision
        return torch.float16 if device.type == "cuda" and preset.assets else torch.float32
    if choice not in _DTYPES:
        raise DeviceError(f"dtype is {choice!r}; allowed: auto, {', '.join(_DTYPES)}.")
    if choice == "float16" and device.type == "cpu":
        raise DeviceError("dtype is 'float16'; on the CPU allowed: auto, float32, bfloat16.")
    return _DTYPES[choice]


def _to_tensor(image: Image) -> Tensor:
    """The centre square of a picture as float32 [3, S, S] in [-1, 1]."""
    import numpy as np

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()
