"""Stage `speech_encoder`: voices towards faces, by the recipe of the sounds (§6.2, Eq. 1-2).

A voice and photos of faces of its gender and age group are a pair, drawn anew each time. Who
speaks is no pair: nothing here could learn a person's face. In a batch every group stands with
several speakers, and a voice belongs to all faces of its group alike.

Speakers are few, so the network starts as the sound encoder, which has learned to hear, with a new
head. The level of a voice says nothing (see `training.voices`), so the faces are shown whole. The
image encoder tells some groups apart poorly, so they are those that it places most clearly in
their group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import GROUPS, MiniSpeechEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.training.dataset import Clip
from s2v_cli.training.latents import CropTable
from s2v_cli.training.loop import channels_last
from s2v_cli.training.losses import audio_visual_loss
from s2v_cli.training.metrics import class_mean
from s2v_cli.training.precision import CPU, mixed_precision
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import drop_channels, embed_clips
from s2v_cli.training.voices import Voices, age_of, gender_of

FACES = 12  # whose mean embedding a voice is paired with: one face says little of its group
DROPPED = 0.1  # share of the last map's channels that a training step does without
WHOLE = 1.3  # largest zoom at which a face is whole
CLEAR = 1 / 3  # share of a group's faces that show it most clearly
RIDGE = 1e-3  # of the regression that tells how clearly a face shows its group
CALLED_SPEECH = 0.97  # share of the validation voices that get no warning


class SpeechStage:
    """Trains a `MiniSpeechEncoder` on voices and the encoded crops of faces.

    Args:
        clips: utterances, paired with faces, and other sounds, paired with nothing.
        waves: of the clips, float32 [T] at 16 kHz.
        table: encoded crops of the training photos.
        options: of the training.
        start: whose convolutions the network starts with; None starts anew.
        device: where it computes.

    Attributes:
        voices: that it is trained on.

    Raises:
        TrainingError: a group of voices has no faces, or there are too many groups.
    """

    name = "speech_encoder"
    averaged: tuple[str, ...] = ("encoder",)

    def __init__(
        self,
        clips: Sequence[Clip],
        waves: Sequence[Tensor],
        table: CropTable,
        options: StageOptions,
        start: MiniSoundEncoder | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.options, self.table, self.device = options, table, device
        self.voices = Voices(clips, waves, options.batch)
        for name in self.voices.groups:
            if f"face_{name}" not in table.names:
                raise TrainingError(
                    f"speech/ has the class {name!r}, but faces/ has none of it to train on."
                )
        if len(self.voices.groups) > GROUPS:
            raise TrainingError(
                f"speech/ has {len(self.voices.groups)} classes; allowed: at most {GROUPS}."
            )
        self._clear = clear_crops(table, self._face_groups, CLEAR)
        encoder = MiniSpeechEncoder()
        if start is not None:
            encoder.start_from(start)
        self.modules: dict[str, nn.Module] = {"encoder": encoder.to(device)}
        channels_last(*self.modules.values())
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "encoder": torch.optim.AdamW(encoder.parameters(), weight_decay=options.weight_decay)
        }

    @property
    def _face_groups(self) -> list[int]:
        return [self.table.names.index(f"face_{name}") for name in self.voices.groups]

    def faces(self, group: Tensor, generator: torch.Generator) -> Tensor:
        """z^V [B, 256] of clear faces of groups [B], each the mean of `FACES` of them."""
        rows = []
        for index in group.tolist():
            crops = self._clear[index]
            chosen = crops[torch.randint(len(crops), (FACES,), generator=generator)]
            rows.append(self.table.embedding[chosen].mean(dim=0))
        return F.normalize(torch.stack(rows), dim=1)

    def mean_faces(self, share: float = CLEAR) -> Tensor:
        """Unit mean z^V of each group's clearest faces, a share of them all, [G, 256]."""
        clear = clear_crops(self.table, self._face_groups, share)
        means = [self.table.embedding[crops].mean(dim=0) for crops in clear]
        return F.normalize(torch.stack(means), dim=1)

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch: voice j belongs to all faces of its group in equal shares."""
        encoder = cast(MiniSpeechEncoder, self.modules["encoder"]).train()
        spectrogram, group = self.voices.batch(generator)
        image = self.faces(group, generator)
        same = (group[:, None] == group[None]).float()
        with mixed_precision(self.device):
            feature_map = encoder.feature_map(spectrogram.to(self.device))
        embedding = encoder.embed(drop_channels(feature_map, DROPPED, generator))
        loss = audio_visual_loss(
            embedding[: len(group)],
            image.to(self.device),
            self.options.temperature,
            embedding[len(group) :],
            (same / same.sum(dim=1, keepdim=True)).to(self.device),
        )
        optimiser = self.optimisers["encoder"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Group means of the shares of validation voices of which gender and age are heard right.

        What is heard is the group with the nearest mean face. Of groups that are no gender and
        age, only whether the group is. Nothing where there are no validation voices.
        """
        encoder = cast(MiniSpeechEncoder, averages["encoder"])
        clips, groups = self.voices.clips, self.voices.groups
        embedding, kept = embed_clips(encoder, clips, self.voices.waves, "validation")
        nearest = (embedding @ self.mean_faces().T).argmax(dim=1).tolist()
        gender, age, own = [], [], []
        for clip, guess in zip([clips[i] for i in kept], nearest, strict=True):
            if clip.photo_class:
                gender.append(float(gender_of(groups[guess]) == gender_of(clip.sound_class)))
                age.append(float(age_of(groups[guess]) == age_of(clip.sound_class)))
                own.append(clip.sound_class)
        if not own:
            return {}
        if not all(age_of(name) for name in groups):
            return {"validation_group": class_mean(gender, own)}
        return {
            "validation_gender": class_mean(gender, own),
            "validation_age": class_mean(age, own),
        }


def clear_crops(table: CropTable, groups: Sequence[int], share: float) -> list[Tensor]:
    """Indices of the crops of each face group that show it whole and most clearly: a share of them.

    How clearly is told by a ridge regression from z^V to the groups: by how much a crop's own group
    comes out above the next.
    """
    whole = [
        torch.nonzero((table.group == group) & (table.zoom <= WHOLE))[:, 0] for group in groups
    ]
    rows = torch.cat([table.embedding[crops] for crops in whole]).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    own = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(c) for c in whole]))
    target = F.one_hot(own, len(groups)).double()
    weight = (1 / torch.bincount(own))[own].double()[:, None]
    penalty = RIDGE * torch.ones(rows.shape[1]).double().diag()
    score = rows @ torch.linalg.solve(
        (weight * rows).T @ rows + penalty, rows.T @ (weight * target)
    )
    rest = score.masked_fill(target.bool(), float("-inf")).amax(dim=1)
    margin = score.gather(1, own[:, None])[:, 0] - rest
    clear = []
    for group, crops in enumerate(whole):
        order = margin[own == group].argsort(descending=True)
        clear.append(crops[order[: max(1, round(share * len(crops)))]])
    return clear
