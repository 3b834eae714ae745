"""Stage `sound_encoder`: f_A towards the frozen image encoder by the paper's loss (Eq. 1-2).

There are no videos here, so a sound and photos of its class are a pair, drawn anew each time: the
mean of a few photos' embeddings stands for z^V, which says the same with less noise. A batch
holds each paired class at several levels; the level of the sound goes with the zoom of the
photos, so pairs of one class at other levels are negatives, and loudness has to be heard.

There are few recordings, so they are heard in many ways: played faster or slower, through random
filters, with other sounds behind them, and mixed, a mixture belonging to the photos of both. A
linear classifier of all sound classes, those without photos too, learns along on the encoder's
pooled features and is thrown away: what tells sounds apart is learned sooner from their names
than from photos.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio.filterbank import SAMPLE_RATE, SPREAD_DB, log_mel
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.training.dataset import OWN, Clip, members_of
from s2v_cli.training.latents import CropTable, blended_embedding
from s2v_cli.training.loop import channels_last
from s2v_cli.training.losses import audio_visual_loss
from s2v_cli.training.precision import CPU, device_of, mixed_precision
from s2v_cli.training.recipe import StageOptions

QUIETEST_DBFS, LOUDEST_DBFS = -45.0, -5.0  # root mean square of a window; zoom 1 and zoom 2
LEVELS = 2  # pairs of one class in a batch, each in its own part of the range
UNPAIRED = 16  # sounds without photos in a batch
BLEND = 4  # photos of like zoom whose mean embedding a sound is paired with
HEARD_S = 2.5  # of a clip at once: half of what is heard in use, at half the cost
SAMPLES = round(HEARD_S * SAMPLE_RATE)
RATE_OCTAVES = 0.25  # how much faster or slower a sound is played at most
MIXED = 0.5  # share of the paired sounds that another paired one is mixed into, up to equal power
BACKED = 0.5  # share of all sounds that get another one behind them
BACK_DB = (-26.0, -8.0)  # level of that one, relative
DROPPED = 0.1  # share of the last map's channels that a training step does without
FILTER_DB = 5.0  # standard deviation of the random filters at each of their control points
MOST = 6000  # clips that are encoded to fit or measure something
FILTER_POINTS = 6  # of them, evenly spaced over the mel bands


def zoom_of_level(level_dbfs: Tensor) -> Tensor:
    """Zoom [N], 1 to 2, that goes with a level in dBFS [N]: 40 dB onto one octave of size."""
    share = (level_dbfs - QUIETEST_DBFS) / (LOUDEST_DBFS - QUIETEST_DBFS)
    return 2.0 ** share.clamp(0, 1)


def level_of(wave: Tensor) -> Tensor:
    """Root mean square of waves [B, T], dBFS, [B]; silence is -120."""
    return 10 * wave.square().mean(dim=1).clamp_min(1e-12).log10()


class SoundBatch(NamedTuple):
    """Sounds and the photos that they are paired with.

    Attributes:
        spectrogram: log-mels of B paired and U other sounds, [B + U, 1, 64, frames].
        image: z^V of the photos, [B, 256].
        shares: how much of sound j belongs to photo k, [B, B], rows sum to 1.
        classes: how much of each sound belongs to each sound class, [B + U, C], rows sum to 1;
            None where no classifier learns along.
    """

    spectrogram: Tensor
    image: Tensor
    shares: Tensor
    classes: Tensor | None = None


class SoundStage:
    """Trains a `MiniSoundEncoder` on clips and the encoded crops of the photos.

    Args:
        clips: to train on; those whose photo class is not in the table are left out.
        waves: of the clips, float32 [T] at 16 kHz.
        table: encoded crops of the training photos.
        options: of the training.
        hear_level: whether the level stays in the spectrogram.
        held: encoded crops of the validation photos; only needed where photos have no classes.
        device: where it computes.

    Raises:
        TrainingError: fewer than two classes of sounds have photos.
    """

    name = "sound_encoder"
    averaged: tuple[str, ...]

    def __init__(
        self,
        clips: Sequence[Clip],
        waves: Sequence[Tensor],
        table: CropTable,
        options: StageOptions,
        hear_level: bool = True,
        held: CropTable | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.options, self.table, self.waves, self.held = options, table, waves, held
        self.device = device
        self.hear_level = hear_level
        self.clips = clips
        classes = [clip.sound_class for clip in clips]
        groups = {name: place for place, name in enumerate(table.names)}
        self.train = paired_classes(clips, groups)
        self.unpaired = members_of(
            classes, lambda i: clips[i].split == "train" and clips[i].photo_class is None
        )
        photo_of = {c.sound_class: c.photo_class for c in clips if c.photo_class in groups}
        self.pairs = list(self.train)
        self.alone = any(name.startswith(OWN) for name in self.pairs)
        self.photo_group = torch.tensor([groups[photo_of[name] or ""] for name in self.pairs])
        # Each recording of a class counts the same, however many clips were cut from it.
        self.recordings = {
            name: by_recording(clips, members)
            for name, members in [*self.train.items(), *self.unpaired.items()]
        }
        encoder = MiniSoundEncoder()
        self.modules: dict[str, nn.Module] = {"encoder": encoder}
        self.places: dict[str, int] = {}
        if options.weight("classes") > 0 and not self.alone:
            self.places = {name: i for i, name in enumerate([*self.pairs, *self.unpaired])}
            self.modules["classifier"] = nn.Linear(encoder.head.in_features, len(self.places))
        self.averaged = tuple(self.modules)
        for module in self.modules.values():
            module.to(device)
        channels_last(*self.modules.values())
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "encoder": torch.optim.AdamW(parameters, weight_decay=options.weight_decay)
        }

    def _window(self, name: str, generator: torch.Generator) -> Tensor:
        """A window of a random recording of a sound class, [40000], at unit power.

        The louder of two random ones, since many clips are mostly pauses; played up to
        `RATE_OCTAVES` faster or slower.
        """
        recordings = self.recordings[name]
        members = recordings[draw(len(recordings), generator)]
        wave = self.waves[members[draw(len(members), generator)]]
        octaves = RATE_OCTAVES * (2 * float(torch.rand((), generator=generator)) - 1)
        needed = round(SAMPLES * 2**octaves)
        if len(wave) < needed:
            wave = wave.repeat(-(-needed // len(wave)))
        starts = [draw(len(wave) - needed + 1, generator) for _ in range(2)]
        windows = torch.stack([wave[start : start + needed] for start in starts])
        loudest = windows[int(windows.square().sum(dim=1).argmax())]
        window = F.interpolate(loudest[None, None], SAMPLES, mode="linear")[0, 0]
        return window / window.square().mean().sqrt().clamp_min(1e-5)

    def _sounds(
        self, pairs: Sequence[str], others: Sequence[str], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Windows of paired and of other classes, [B + U, 40000], and the shares [B, B].

        Mixtures are of two sounds of the same level part, so that the zooms of both photos fit.
        """
        sounds = torch.stack([self._window(name, generator) for name in [*pairs, *others]])
        part = len(pairs) // LEVELS
        partner = torch.cat(
            [level * part + torch.randperm(part, generator=generator) for level in range(LEVELS)]
        )
        share = torch.rand(len(pairs), generator=generator) / 2  # of the partner's power
        share = share * (torch.rand(len(pairs), generator=generator) < MIXED)
        shares = torch.diag(1 - share)
        shares[torch.arange(len(pairs)), partner] += share
        mixed = (1 - share).sqrt()[:, None] * sounds[: len(pairs)]
        mixed = mixed + share.sqrt()[:, None] * sounds[partner]
        sounds = torch.cat([mixed, sounds[len(pairs) :]])
        behind = sounds[torch.randperm(len(sounds), generator=generator)]
        quietest, loudest = BACK_DB
        level = quietest + (loudest - quietest) * torch.rand(len(sounds), generator=generator)
        gain = 10 ** (level / 20) * (torch.rand(len(sounds), generator=generator) < BACKED)
        return sounds + gain[:, None] * behind, shares

    def batch(self, generator: torch.Generator) -> SoundBatch:
        """Every paired class at each of the levels, and some unpaired sounds.

        Of more classes than the batch holds, some are drawn.
        """
        others = list(self.unpaired)
        picks = torch.randperm(len(others), generator=generator)[:UNPAIRED].tolist()
        pairs, photo_group = self.pairs, self.photo_group
        count = max(2, (self.options.batch - len(picks)) // LEVELS)
        if count < len(pairs):
            drawn = torch.randperm(len(pairs), generator=generator)[:count]
            pairs, photo_group = [pairs[i] for i in drawn.tolist()], photo_group[drawn]
        count = len(pairs)
        sounds, shares = self._sounds(pairs * LEVELS, [others[i] for i in picks], generator)
        part = torch.arange(LEVELS).repeat_interleave(count)
        share = (part + torch.rand(len(part), generator=generator)) / LEVELS
        share = torch.cat([share, torch.rand(len(picks), generator=generator)])
        level = QUIETEST_DBFS - 5 + share * (LOUDEST_DBFS - QUIETEST_DBFS + 10)
        gain = 10 ** ((level - level_of(sounds)) / 20)
        spectrogram = log_mel(sounds * gain[:, None], SAMPLES)
        spectrogram = mask(filter_bands(spectrogram, generator), generator)
        if not self.hear_level:
            spectrogram = hide_level(spectrogram)
        crop = self.table.at_zoom(
            photo_group.repeat(LEVELS), zoom_of_level(level[: len(part)]), generator
        )
        image = blended_embedding(self.table, crop, BLEND, generator)
        if not self.places:
            return SoundBatch(spectrogram, image, shares)
        names = [*pairs * LEVELS, *(others[i] for i in picks)]
        classes = F.one_hot(torch.tensor([self.places[n] for n in names]), len(self.places)).float()
        classes[: len(shares)] = shares @ classes[: len(shares)]
        return SoundBatch(spectrogram, image, shares, classes)

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch."""
        encoder = cast(MiniSoundEncoder, self.modules["encoder"]).train()
        batch = self.batch(generator)
        with mixed_precision(self.device):
            feature_map = encoder.feature_map(batch.spectrogram.to(self.device))
        feature_map = drop_channels(feature_map, DROPPED, generator)
        embedding = encoder.embed(feature_map)
        pairs = len(batch.image)
        loss = audio_visual_loss(
            embedding[:pairs],
            batch.image.to(self.device),
            self.options.temperature,
            embedding[pairs:],
            batch.shares.to(self.device),
        )
        figures = {}
        if batch.classes is not None:
            guess = self.modules["classifier"](encoder.pooled(feature_map))
            named = F.cross_entropy(guess, batch.classes.to(self.device))
            loss = loss + self.options.weight("classes") * named
            figures["classes"] = named.detach()
        optimiser = self.optimisers["encoder"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach(), **figures}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Class mean of the share of validation clips nearest to their photo class's mean.

        Without classes: nearest to the mean of their own validation photos. Nothing where there
        are no such clips.
        """
        encoder = cast(MiniSoundEncoder, averages["encoder"])
        if self.alone:
            names = self.held.names if self.held else []
            means = photo_means(self.held) if self.held else torch.zeros(0)
        else:
            names, means = self.pairs, photo_means(self.table)[self.photo_group]
        scored = set(names)
        right: dict[str, list[float]] = {}
        embedding, kept = embed_clips(encoder, self.clips, self.waves, "validation", self)
        for row, index in zip(embedding, kept, strict=True):
            clip = self.clips[index]
            if clip.photo_class and clip.sound_class in scored:
                guess = names[int((means @ row).argmax())]
                right.setdefault(clip.sound_class, []).append(float(guess == clip.sound_class))
        scores = [sum(values) / len(values) for values in right.values()]
        return {"validation_accuracy": sum(scores) / len(scores)} if scores else {}


def paired_classes(clips: Sequence[Clip], groups: Container[str]) -> dict[str, Tensor]:
    """Indices of the training clips of each sound class whose photo class is among the groups.

    Raises:
        TrainingError: of fewer than two classes.
    """
    found = members_of(
        [clip.sound_class for clip in clips],
        lambda i: clips[i].split == "train" and (clips[i].photo_class or "") in groups,
    )
    if len(found) < 2:
        raise TrainingError(
            f"Of the classes of training sounds {len(found)} have training photos; the sound "
            "encoder needs 2 or more, to tell them apart. Add classes."
        )
    return found


def hide_level(spectrogram: Tensor) -> Tensor:
    """Take the mean off log-mels [B, 1, 64, frames]: what remains does not tell the level."""
    return spectrogram - spectrogram.mean(dim=(1, 2, 3), keepdim=True)


def photo_means(table: CropTable) -> Tensor:
    """Unit mean z^V of each photo group, [G, 256]."""
    sums = torch.zeros(len(table.names), table.embedding.shape[1])
    return F.normalize(sums.index_add_(0, table.group, table.embedding), dim=1)


@torch.no_grad()
def embed_clips(
    encoder: MiniSoundEncoder,
    clips: Sequence[Clip],
    waves: Sequence[Tensor],
    split: str,
    stage: SoundStage | None = None,
) -> tuple[Tensor, list[int]]:
    """z^A [N, 256], on the CPU, of the loudest window of a split's clips, and their indices.

    Of many clips an even choice of `MOST` is taken.
    """
    device = device_of(encoder)
    rows, kept = [], thinned([i for i, clip in enumerate(clips) if clip.split == split], MOST)
    for index in kept:
        spectrogram = log_mel(loudest_window(waves[index], encoder.samples)[None], encoder.samples)
        if stage is not None and not stage.hear_level:
            spectrogram = hide_level(spectrogram)
        rows.append(encoder.embed(encoder.feature_map(spectrogram.to(device)))[0].cpu())
    return torch.stack(rows) if rows else torch.zeros(0, encoder.space.dimension), kept


def drop_channels(feature_map: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Blank a random share of the channels of a map [B, C, H, W]; the rest makes up for it."""
    kept = torch.rand(feature_map.shape[:2], generator=generator) >= share
    return feature_map * kept.to(feature_map.device)[:, :, None, None] / (1 - share)


def thinned(indices: list[int], most: int) -> list[int]:
    """At most so many of the indices, evenly chosen."""
    if len(indices) <= most:
        return indices
    return [indices[i * len(indices) // most] for i in range(most)]


def loudest_window(wave: Tensor, samples: int) -> Tensor:
    """The window [samples] of wave [T] with the most energy, on a 0.1 s grid; all if shorter."""
    if len(wave) <= samples:
        return wave
    energy = torch.cat([torch.zeros(1), wave.double().square().cumsum(0)])
    starts = torch.arange(0, len(wave) - samples + 1, 1600)
    best = int(starts[(energy[starts + samples] - energy[starts]).argmax()])
    return wave[best : best + samples]


def draw(count: int, generator: torch.Generator) -> int:
    """A random index below `count`."""
    return int(torch.randint(count, (), generator=generator))


def by_recording(clips: Sequence[Clip], members: Tensor) -> list[list[int]]:
    """The clips of each recording among `members`."""
    groups: dict[str, list[int]] = {}
    for index in members.tolist():
        groups.setdefault(clips[index].recording, []).append(index)
    return list(groups.values())


def filter_bands(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """Add a smooth random curve over the mel bands to log-mels [B, 1, 64, frames]."""
    count, _, rows, _ = spectrogram.shape
    points = torch.randn(count, 1, FILTER_POINTS, generator=generator) * FILTER_DB / SPREAD_DB
    curve = F.interpolate(points, rows, mode="linear", align_corners=True)
    return spectrogram + (curve - curve.mean(dim=2, keepdim=True))[..., None]


def mask(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """SpecAugment (Park et al., 2019): blank two bands of up to 12 rows and 30 frames each."""
    count, _, rows, frames = spectrogram.shape
    fill = spectrogram.mean(dim=(1, 2, 3))[:, None, None, None]
    for size, reach, dim in ((rows, 12, 2), (frames, 30, 3)) * 2:
        width = torch.rand(count, generator=generator) * reach
        start = torch.rand(count, generator=generator) * (size - width)
        position = torch.arange(size)[None]
        inside = (position >= start[:, None]) & (position < (start + width)[:, None])
        shape = [count, 1, 1, 1]
        shape[dim] = size
        spectrogram = torch.where(inside.view(shape), fill, spectrogram)
    return spectrogram
