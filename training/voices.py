"""Voices as they are trained on: groups of speakers, heard in many ways.

How loud a voice is depends on the microphone, so unlike that of a sound its level says nothing: it
is random. Speakers are few and each source sounds its own way, so voices are heard through random
filters and with other sounds behind them; other sounds alone are negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.audio.filterbank import SAMPLE_RATE, log_mel
from s2v_cli.training.dataset import Clip, find_clips, find_voices, members_of
from s2v_cli.training.sound_stage import (
    LOUDEST_DBFS,
    QUIETEST_DBFS,
    by_recording,
    draw,
    filter_bands,
    level_of,
    mask,
)

OTHERS = 6  # sounds without a voice in a batch
HEARD_S = 2.0  # of an utterance at once
SAMPLES = round(HEARD_S * SAMPLE_RATE)
RATE_OCTAVES = 0.06  # how much faster or slower a voice is played at most: pitch tells who speaks
BACKED = 0.5  # share of the voices that get a sound behind them
BACK_DB = (-35.0, -10.0)  # level of that one, relative
# Sounds that people make with their mouths: neither speech nor its opposite.
VOICE_LIKE = frozenset(
    {"baby", "breathing", "coughing", "crowd", "laughing", "sneezing", "snoring"}
)


def find_speech(root: Path, fold: int = 0) -> list[Clip]:
    """The utterances of a data set and, as negatives, its sounds without a voice, unpaired.

    Empty where the data set has no `speech/`.
    """
    voices = find_voices(root, fold)
    others = [c for c in find_clips(root) if c.sound_class not in VOICE_LIKE] if voices else []
    return voices + [replace(clip, photo_class=None) for clip in others]


def gender_of(group: str) -> str:
    """`male` of `male_adult`."""
    return group.partition("_")[0]


def age_of(group: str) -> str:
    """`adult` of `male_adult`; empty where a group has no second part."""
    return group.partition("_")[2]


class Voices:
    """Batches of training voices and of other sounds.

    Args:
        clips: utterances, paired with faces, and other sounds, paired with nothing.
        waves: of the clips, float32 [T] at 16 kHz.
        count: voices in a batch, the same number of each group.

    Attributes:
        groups: names of the groups, sorted.
        speakers: for each group, the training clips of each of its speakers, as indices.
    """

    def __init__(self, clips: Sequence[Clip], waves: Sequence[Tensor], count: int) -> None:
        self.clips, self.waves = clips, waves
        classes = [clip.sound_class for clip in clips]
        train = members_of(
            classes, lambda i: clips[i].split == "train" and clips[i].photo_class is not None
        )
        others = members_of(
            classes, lambda i: clips[i].split == "train" and clips[i].photo_class is None
        )
        self.groups = list(train)
        # Each speaker of a group counts the same, however many utterances there are.
        self.speakers = {name: by_recording(clips, rows) for name, rows in train.items()}
        self._recordings = [by_recording(clips, rows) for rows in others.values()]
        self._each = max(1, count // len(self.groups))

    def _window(self, members: Sequence[int], generator: torch.Generator) -> Tensor:
        """A window of a random one of these clips, [32000], at unit power."""
        wave = self.waves[members[draw(len(members), generator)]]
        octaves = RATE_OCTAVES * (2 * float(torch.rand((), generator=generator)) - 1)
        needed = round(SAMPLES * 2**octaves)
        if len(wave) < needed:
            wave = wave.repeat(-(-needed // len(wave)))
        start = draw(len(wave) - needed + 1, generator)
        window = wave[start : start + needed]
        window = F.interpolate(window[None, None], SAMPLES, mode="linear")[0, 0]
        return window / window.square().mean().sqrt().clamp_min(1e-5)

    def _of_group(self, name: str, generator: torch.Generator) -> list[Tensor]:
        """Windows of several speakers of a group, each of another one as far as they reach."""
        speakers = self.speakers[name]
        order = torch.randperm(len(speakers), generator=generator).tolist()
        chosen = [order[i % len(order)] for i in range(self._each)]
        return [self._window(speakers[i], generator) for i in chosen]

    def _other(self, generator: torch.Generator) -> Tensor:
        """A window of a random sound without a voice."""
        recordings = self._recordings[draw(len(self._recordings), generator)]
        return self._window(recordings[draw(len(recordings), generator)], generator)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Every group with several speakers, and behind them in the batch some other sounds.

        Returns:
            Log-mels of B voices and U other sounds, [B + U, 1, 64, frames], and the group of each
            voice, an index into `groups`, int64 [B].
        """
        voices = torch.stack(
            [window for name in self.groups for window in self._of_group(name, generator)]
        )
        sounds = voices
        if self._recordings:
            others = torch.stack([self._other(generator) for _ in range(OTHERS)])
            quietest, loudest = BACK_DB
            level = quietest + (loudest - quietest) * torch.rand(len(voices), generator=generator)
            gain = 10 ** (level / 20) * (torch.rand(len(voices), generator=generator) < BACKED)
            behind = others[torch.randint(len(others), (len(voices),), generator=generator)]
            sounds = torch.cat([voices + gain[:, None] * behind, others])
        share = torch.rand(len(sounds), generator=generator)
        level = QUIETEST_DBFS + share * (LOUDEST_DBFS - QUIETEST_DBFS)
        sounds = sounds * (10 ** ((level - level_of(sounds)) / 20))[:, None]
        spectrogram = mask(filter_bands(log_mel(sounds, SAMPLES), generator), generator)
        return spectrogram, torch.arange(len(self.groups)).repeat_interleave(self._each)
