"""s2v: turn sound into pictures.

    from s2v_cli import Sound2Vision
    Sound2Vision.load("mini").generate("rain.wav", seed=7)[0].save("rain.png")

Names are loaded on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

if TYPE_CHECKING:
    from s2v_cli.audio.mix import apply_gain
    from s2v_cli.audio.mixdown import mix_sounds
    from s2v_cli.audio.read import Sound, read_sound
    from s2v_cli.audio.tracks import MixOptions, Track
    from s2v_cli.editor import Editor
    from s2v_cli.errors import S2VError
    from s2v_cli.inversion import Inversion, InversionOptions
    from s2v_cli.options import GenerateOptions, SoundOptions
    from s2v_cli.photo import PhotoOptions
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.presets import Preset, list_presets, load_preset
    from s2v_cli.results import Picture, SoundEmbedding
    from s2v_cli.space import EmbeddingSpace
    from s2v_cli.strip import film_strip

_HOMES = {
    "Editor": "editor",
    "EmbeddingSpace": "space",
    "GenerateOptions": "options",
    "Inversion": "inversion",
    "InversionOptions": "inversion",
    "MixOptions": "audio.tracks",
    "PhotoOptions": "photo",
    "Picture": "results",
    "Preset": "presets",
    "S2VError": "errors",
    "Sound": "audio.read",
    "Sound2Vision": "pipeline",
    "SoundEmbedding": "results",
    "SoundOptions": "options",
    "Track": "audio.tracks",
    "apply_gain": "audio.mix",
    "film_strip": "strip",
    "list_presets": "presets",
    "load_preset": "presets",
    "mix_sounds": "audio.mixdown",
    "read_sound": "audio.read",
}

__all__ = [
    "Editor",
    "EmbeddingSpace",
    "GenerateOptions",
    "Inversion",
    "InversionOptions",
    "MixOptions",
    "PhotoOptions",
    "Picture",
    "Preset",
    "S2VError",
    "Sound",
    "Sound2Vision",
    "SoundEmbedding",
    "SoundOptions",
    "Track",
    "__version__",
    "apply_gain",
    "film_strip",
    "list_presets",
    "load_preset",
    "mix_sounds",
    "read_sound",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 's2v_cli' has no attribute {name!r}")
    return getattr(import_module(f"s2v_cli.{home}"), name)


def __dir__() -> list[str]:
    return __all__
