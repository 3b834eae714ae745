"""Options of each task: frozen, checked on construction, stored in PNGs and checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from s2v_cli.errors import OptionError

WindowChoice = Literal["loudest", "first", "average"]
DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]
ContrastChoice = Literal["plain", "stretch"]
SamplerChoice = Literal["default", "ddim", "dpm++", "euler", "heun", "pndm", "unipc"]

# Fields of GenerateOptions that only some models know; a preset lists those that its model takes.
MODEL_OPTIONS = (
    "prompt",
    "negative_prompt",
    "steps",
    "guidance",
    "sampler",
    "noise_level",
    "adapter_scale",
)

MAX_SEED = 2**63 - 1


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class SoundOptions:
    """Which part of a sound is heard, and how loud.

    Attributes:
        start_s: where to start reading, seconds, >= 0.
        duration_s: how much to read, seconds, > 0; None reads to the end.
        window: for more sound than the encoder hears at once: the `loudest` window, the
            `first`, or the `average` of the embeddings of all windows.
        gain_db: gain in dB applied before encoding, -120 to 60 (§5.1).
    """

    start_s: float = 0.0
    duration_s: float | None = None
    window: WindowChoice = "loudest"
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        _check(
            _number(self.start_s) and self.start_s >= 0, "start", self.start_s, "0 or more seconds"
        )
        _check(
            self.duration_s is None or (_number(self.duration_s) and self.duration_s > 0),
            "duration",
            self.duration_s,
            "more than 0 seconds",
        )
        choices = get_args(WindowChoice)
        _check(self.window in choices, "window", self.window, ", ".join(choices))
        _check(
            _number(self.gain_db) and -120 <= self.gain_db <= 60,
            "gain-db",
            self.gain_db,
            "-120 to 60 dB",
        )


@dataclass(frozen=True)
class GenerateOptions:
    """How pictures are made from an embedding.

    Attributes:
        seed: of the first picture, 0 to 2**63 - 1; picture i uses seed + i.
        count: number of pictures, 1 to 10000.
        truncation: standard deviation of the noise, > 0 to 2; 1 is the training distribution,
            less is more typical and less diverse. ICGAN's BigGAN cuts its noise off at twice the
            value instead, and 1 or more leaves it alone. None takes the preset's default.
        best_of: candidates for each picture, 1 to 256; the one whose image embedding lies
            nearest to the condition is kept.
        size: side of the picture in pixels, 16 to 4096, resampled; None keeps the generator's.
        contrast: `plain` maps -1 to black and 1 to white; `stretch` maps each picture's own
            minimum and maximum to them, as the published GAN code does. None takes `plain`.
        prompt: text that the picture should follow beside the sound, style above all.
        negative_prompt: text that it should keep away from.
        steps: of the diffusion, 1 to 1000; None takes the model's default, as below.
        guidance: scale of classifier-free guidance, 0 to 50; 1 or less is none.
        sampler: of the diffusion; all of them are deterministic, so that a seed is a picture.
        noise_level: of the embedding (unCLIP), 0 to 999: more is freer.
        adapter_scale: weight of the embedding beside the prompt (IP-Adapter), 0 to 2.
    """

    seed: int = 0
    count: int = 1
    truncation: float | None = None
    best_of: int = 1
    size: int | None = None
    contrast: ContrastChoice | None = None
    prompt: str = ""
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    sampler: SamplerChoice | None = None
    noise_level: int | None = None
    adapter_scale: float | None = None

    def __post_init__(self) -> None:
        _check(
            _integer(self.seed) and 0 <= self.seed <= MAX_SEED,
            "seed",
            self.seed,
            "an integer from 0 to 2**63 - 1",
        )
        _check(
            _integer(self.count) and 1 <= self.count <= 10_000, "count", self.count, "1 to 10000"
        )
        _check(
            self.seed + self.count - 1 <= MAX_SEED,
            "seed + count - 1",
            self.seed + self.count - 1,
            "at most 2**63 - 1",
        )
        _check(
            self.truncation is None or (_number(self.truncation) and 0 < self.truncation <= 2),
            "truncation",
            self.truncation,
            "more than 0, at most 2",
        )
        _check(
            _integer(self.best_of) and 1 <= self.best_of <= 256, "best-of", self.best_of, "1 to 256"
        )
        _check(
            self.size is None or (_integer(self.size) and 16 <= self.size <= 4096),
            "size",
            self.size,
            "16 to 4096 pixels",
        )
        self._check_model_options()

    def _check_model_options(self) -> None:
        contrasts, samplers = get_args(ContrastChoice), get_args(SamplerChoice)
        _check(
            self.contrast is None or self.contrast in contrasts,
            "contrast",
            self.contrast,
            ", ".join(contrasts),
        )
        for name in ("prompt", "negative_prompt"):
            _check(isinstance(getattr(self, name), str), name, getattr(self, name), "text")
        _check(
            self.steps is None or (_integer(self.steps) and 1 <= self.steps <= 1000),
            "steps",
            self.steps,
            "1 to 1000",
        )
        _check(
            self.guidance is None or (_number(self.guidance) and 0 <= self.guidance <= 50),
            "guidance",
            self.guidance,
            "0 to 50",
        )
        _check(
            self.sampler is None or self.sampler in samplers,
            "sampler",
            self.sampler,
            ", ".join(samplers),
        )
        _check(
            self.noise_level is None
            or (_integer(self.noise_level) and 0 <= self.noise_level <= 999),
            "noise-level",
            self.noise_level,
            "0 to 999",
        )
        _check(
            self.adapter_scale is None
            or (_number(self.adapter_scale) and 0 <= self.adapter_scale <= 2),
            "adapter-scale",
            self.adapter_scale,
            "0 to 2",
        )


def as_record(options: Any) -> dict[str, Any]:
    """Options as a dictionary that JSON can hold."""
    return {field.name: getattr(options, field.name) for field in fields(options)}
