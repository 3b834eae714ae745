"""Mixing sound files into what an encoder hears (§5.1): gains, offsets, one window for a sweep."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from s2v_cli.audio.decode import Block, Decoder, cannot_read, open_decoder
from s2v_cli.audio.mix import Wave, apply_gain, sum_waves
from s2v_cli.audio.read import STDIN, Sound, local_file, read_sound, read_windows, sound_sha256
from s2v_cli.audio.tracks import MixOptions, Track, check_sweep, check_tracks
from s2v_cli.audio.window import RateChange
from s2v_cli.errors import SoundError
from s2v_cli.options import SoundOptions

_KEPT_S = 120  # a track up to that long is decoded once and kept
_CHUNK_S = 30  # of the mix, summed at once while the loudest window is searched


@dataclass(frozen=True)
class Mixdown:
    """Tracks as one sound, once for each step of a sweep.

    Attributes:
        sounds: what is heard at each step; one for a plain mix.
        tracks: that went in: those of gain 0 are left out.
        sha256: of the file of each of them.
        beyond: samples beyond full scale, in the step that has most; counted before clipping.
        turned_down_db: by how much the mix was turned down to fit, dB, >= 0.
    """

    sounds: tuple[Sound, ...]
    tracks: tuple[Track, ...]
    sha256: tuple[str, ...]
    beyond: int = 0
    turned_down_db: float = 0.0


def mix_sounds(
    tracks: Sequence[Track],
    *,
    sample_rate: int,
    window_s: float,
    options: SoundOptions = SoundOptions(),  # noqa: B008 (frozen)
    mixing: MixOptions = MixOptions(),  # noqa: B008 (frozen)
    sweep: Sequence[Sequence[float]] | None = None,
) -> Mixdown:
    """Sum the waveforms of tracks; constant memory however long the files.

    The mix lasts as long as the longest track with its offset. Tracks that end before repeat from
    their beginning (or, `pad`, are silent); before its offset a track is silent. Channels are
    averaged and rates brought to `sample_rate` before the sum, which is float arithmetic.

    The window is chosen on the mix of all tracks at gain 1, so that it does not depend on the
    weights: pictures of other weights, of a sweep above all, hear the same moment. A track of gain
    0 is left out altogether: a lone track of gain 1 is read as `read_sound` reads it.

    Args:
        tracks: at least one of a gain that is not 0.
        sample_rate: of the encoder, samples per second.
        window_s: how much the encoder hears at once, seconds.
        options: which part of the mix, which windows, and how loud the mix is.
        mixing: what becomes of short tracks and of samples beyond full scale.
        sweep: for each step, factors of the two tracks' gains.

    Raises:
        SoundError: a track cannot be read, or `clip` is `error` and samples are beyond full scale.
        OptionError: weights that sum to zero or that are not allowed, a sweep over other than two
            tracks, or a part beyond the end of the mix.
        DependencyError: a format that needs an optional package or program.
    """
    check_tracks(tracks, mixing)
    if sweep is not None:
        check_sweep(tracks)
    tracks = tuple(track for track in tracks if track.gain)
    digests: tuple[str, ...]
    if len(tracks) == 1 and not tracks[0].offset_s:
        (track,) = tracks
        plain = replace(options, gain_db=0.0)
        sound = read_sound(track.source, sample_rate=sample_rate, window_s=window_s, options=plain)
        heard, digests = sound.windows[None], (sound.sha256,)
    else:
        with ExitStack() as stack:
            voices = [_open_voice(track, sample_rate, mixing, stack) for track in tracks]
            mix = _Mix(voices, sample_rate)
            _, segments = read_windows(mix, sample_rate, window_s, options)
            starts = [round(start * sample_rate) for start, _ in segments]
            length = round(segments[0][1] * sample_rate)
            heard = np.stack([[voice.read(s, length) for s in starts] for voice in voices])
            digests = tuple(voice.sha256 for voice in voices)
        name = " + ".join(map(str, tracks))
        sound = Sound(heard[0], sample_rate, segments, name, "", silent=False)
    gains = [track.gain for track in tracks]
    steps = [[1.0] * len(tracks)] if sweep is None else sweep
    waves = []
    for step in steps:
        weights = [gain * factor for gain, factor in zip(gains, step, strict=True)]
        waves.append(apply_gain(sum_waves(heard, weights), options.gain_db))
    waves, beyond, turned_down_db = _clip(waves, mixing, sound.source)
    sounds = tuple(_as_sound(wave, sound, alone=len(tracks) == 1) for wave in waves)
    return Mixdown(sounds, tracks, digests, beyond, turned_down_db)


def _as_sound(windows: Wave, like: Sound, *, alone: bool) -> Sound:
    if not np.isfinite(windows).all():
        raise cannot_read(like.source, "its samples are too large", "Use lower weights.")
    digest = like.sha256 if alone and like.sha256 else hashlib.sha256(windows.tobytes()).hexdigest()
    return replace(like, windows=windows, sha256=digest, silent=not windows.any())


def _clip(waves: Sequence[Wave], mixing: MixOptions, name: str) -> tuple[list[Wave], int, float]:
    """Waves after the clipping policy, the most samples beyond full scale, and dB turned down."""
    beyond = max(int(np.count_nonzero(np.abs(wave) > 1)) for wave in waves)
    if not beyond or mixing.clip == "warn":
        return list(waves), beyond, 0.0
    peak = max(float(np.abs(wave).max()) for wave in waves)
    if mixing.clip == "error":
        raise SoundError(
            f"{name} has {beyond} samples beyond full scale, by up to "
            f"{20 * math.log10(peak):.1f} dB; use lower weights, or --clip scale."
        )
    if mixing.clip == "cut":
        return [np.clip(wave, -1, 1) for wave in waves], beyond, 0.0
    # One factor for all steps of a sweep: what is louder stays louder.
    return [wave / np.float32(peak) for wave in waves], beyond, 20 * math.log10(peak)


def _open_voice(track: Track, sample_rate: int, mixing: MixOptions, stack: ExitStack) -> _Voice:
    source = STDIN if track.source == STDIN else Path(track.source)
    path, _, shown = stack.enter_context(local_file(source))
    decoder = stack.enter_context(closing(open_decoder(path, shown)))
    if decoder.length < 2:
        raise cannot_read(
            shown,
            "it holds one sample" if decoder.length else "it holds no sound (zero samples)",
            "Record or export it again.",
        )
    begin = round(track.offset_s * sample_rate)
    return _Voice(decoder, sample_rate, begin, sound_sha256(path), repeats=not mixing.pad)


class _Voice:
    """One track in the time of the mix, at the encoder's sample rate.

    Attributes:
        begin: first sample of the mix at which it is heard.
        length: samples until it ends, or begins again.
        sha256: of its file.
    """

    def __init__(
        self, decoder: Decoder, sample_rate: int, begin: int, sha256: str, *, repeats: bool
    ) -> None:
        self.begin, self.sha256 = begin, sha256
        self._decoder, self._repeats = decoder, repeats
        self._change = RateChange.between(decoder.rate, sample_rate)
        self.length = self._change.resampled(decoder.length)
        self._whole: Wave | None = None
        if self.length <= _KEPT_S * sample_rate:
            self._whole = self._change.read(decoder, 0, self.length)

    def read(self, start: int, count: int) -> Wave:
        """Samples start to start + count of the mix: float32 [count], 0 where it is not heard."""
        wave = np.zeros(count, np.float32)
        position, stop = max(start, self.begin), start + count
        if not self._repeats:
            stop = min(stop, self.begin + self.length)
        while position < stop:
            first = (position - self.begin) % self.length
            part = min(stop - position, self.length - first)
            if self._whole is not None:
                samples = self._whole[first : first + part]
            else:
                samples = self._change.read(self._decoder, first, part)
            wave[position - start : position - start + part] = samples
            position += part
        return wave


class _Mix:
    """All tracks at gain 1, as a decoder at the encoder's sample rate."""

    name = "the mix"

    def __init__(self, voices: Sequence[_Voice], sample_rate: int) -> None:
        self.rate = sample_rate
        self.length = max(voice.begin + voice.length for voice in voices)
        self._voices = voices

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop: float32 [n] blocks."""
        for first in range(start, stop, _CHUNK_S * self.rate):
            count = min(_CHUNK_S * self.rate, stop - first)
            waves = np.stack([voice.read(first, count) for voice in self._voices])
            yield sum_waves(waves, [1.0] * len(self._voices))

    def channels(self, start: int, stop: int) -> Iterator[Block]:
        """Samples start to stop: float32 [n, 1] blocks."""
        return (block[:, None] for block in self.blocks(start, stop))

    def close(self) -> None:
        """The tracks are closed by whoever opened them."""


def encode_sound_file(sound: Sound, suffix: str) -> bytes:
    """What is heard of a sound, window after window, as the bytes of a file.

    Args:
        sound: of any level: a wav is of floats and keeps it, an mp3 is cut to full scale.
        suffix: `.wav` or `.mp3`.

    Raises:
        SoundError: the mp3 encoder is missing or refuses.
    """
    wave, stream = sound.windows.reshape(-1), io.BytesIO()
    kind, subtype = ("WAV", "FLOAT") if suffix.lower() == ".wav" else ("MP3", "MPEG_LAYER_III")
    if kind == "MP3":
        wave = np.clip(wave, -1, 1)
    try:
        soundfile.write(stream, wave, sound.sample_rate, format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise SoundError(f"Cannot write {suffix} here: {error}; use a .wav.") from error
    return stream.getvalue()
