"""Speech as an input (§6.2): read for the speech encoder, and refused where there is no voice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from s2v_cli.errors import SoundError
from s2v_cli.job import Listener
from s2v_cli.options import SoundOptions

if TYPE_CHECKING:
    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import SoundEmbedding


def read_speech(
    model: Sound2Vision,
    source: str | os.PathLike[str],
    options: SoundOptions | None = None,
    *,
    any_sound: bool = False,
) -> Sound:
    """Read speech as the model's speech encoder hears it.

    Args:
        model: with a speech encoder.
        source: a file, or `-` for standard input.
        options: which part of it, and how loud.
        any_sound: whether to take what holds no voice, as long as it is not silent.

    Raises:
        SoundError: it cannot be read, is silent, or holds no voice.
        PresetError: the model's preset has no speech encoder.
    """
    sound = model.read_speech(source, options)
    require_voice(sound, any_sound=any_sound)
    return sound


def require_voice(sound: Sound, *, any_sound: bool = False) -> None:
    """Refuse silence and, unless `any_sound`, what holds no voice.

    Of several windows one with a voice is enough.

    Raises:
        SoundError: says how much of it is voiced, and what to do.
    """
    from s2v_cli.audio.voice import VOICED_ENOUGH, voiced_share

    if sound.silent:
        raise SoundError(
            f"{sound.source} is silent: it holds no voice. Give a recording of speech."
        )
    if any_sound:
        return
    voiced = max(voiced_share(window, sound.sample_rate) for window in sound.windows)
    if voiced < VOICED_ENOUGH:
        raise SoundError(
            f"{sound.source} holds no voice ({voiced:.0%} of it is voiced; speech has "
            f"{VOICED_ENOUGH:.0%} or more). Give a recording of speech, or --any-sound."
        )


def note_strange_voice(
    sound: Sound, embedding: SoundEmbedding, preset_name: str, listener: Listener
) -> None:
    """Tell of a sound that is voiced, but unlike the speech that the model was taught."""
    if embedding.familiar is False:
        listener.note(
            f"{sound.source} is unlike the speech that {preset_name} was taught (familiarity "
            f"{embedding.familiarity:.2f}): the face means little."
        )
