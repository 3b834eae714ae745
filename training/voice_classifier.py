"""What a voice allows: a classifier of gender and age group on the voices themselves.

It bounds what faces drawn from voices can show. It is trained like the speech encoder, on the same
voices heard in the same ways and from the same start, but by cross-entropy on the groups, and takes
no part in the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio.filterbank import log_mel
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import GROUPS, MiniSpeechEncoder
from s2v_cli.training.dataset import Clip
from s2v_cli.training.judge import Progress
from s2v_cli.training.loop import channels_last, run_stage
from s2v_cli.training.metrics import class_mean
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import loudest_window
from s2v_cli.training.voices import Voices, age_of

SMOOTHING = 0.1  # of the labels
SEED = 1003

VOICE_OPTIONS = StageOptions(
    steps=500, batch=36, learning_rate=1e-3, weight_decay=0.05, ema=0.98, validate_every=100
)


class VoiceClassifier(nn.Module):
    """Log-mel [B, 1, 64, frames] -> logits [B, 7]: the six groups, sorted, and no voice."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MiniSpeechEncoder()
        self.head = nn.Linear(self.trunk.head.in_features, GROUPS + 1)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Logits from the last map's mean and maximum over time."""
        rows = self.trunk.feature_map(spectrogram).float().mean(dim=2)
        return self.head(torch.cat([rows.mean(dim=2), rows.amax(dim=2)], dim=1)).float()  # type: ignore[no-any-return]

    def hear(self, wave: Tensor) -> Tensor:
        """Shares [6] of the groups, which sum to 1, of a wave [T] heard as in use."""
        window = loudest_window(wave, self.trunk.samples)[None]
        shares: Tensor = self(log_mel(window, self.trunk.samples))[0, :GROUPS].softmax(dim=0)
        return shares


class VoiceClassifierStage:
    """Trains a `VoiceClassifier` on batches of voices and other sounds."""

    name = "voice_classifier"
    averaged: tuple[str, ...] = ("classifier",)

    def __init__(
        self, voices: Voices, options: StageOptions, start: MiniSoundEncoder | None = None
    ) -> None:
        self.voices = voices
        classifier = VoiceClassifier()
        if start is not None:
            classifier.trunk.start_from(start)
        self.modules: dict[str, nn.Module] = {"classifier": classifier}
        channels_last(*self.modules.values())
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.AdamW(
                classifier.parameters(), weight_decay=options.weight_decay
            )
        }

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch."""
        classifier = self.modules["classifier"].train()
        spectrogram, group = self.voices.batch(generator)
        others = torch.full((len(spectrogram) - len(group),), GROUPS)
        with mixed_precision():
            logits = classifier(spectrogram)
        target = torch.cat([group, others])
        loss = F.cross_entropy(logits, target, label_smoothing=SMOOTHING)
        optimiser = self.optimisers["classifier"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Group mean of the share of validation voices of which the age group is heard right."""
        classifier = cast(VoiceClassifier, averages["classifier"])
        right, groups = [], []
        for clip, wave in zip(self.voices.clips, self.voices.waves, strict=True):
            if clip.split == "validation" and clip.photo_class:
                guess = self.voices.groups[int(classifier.hear(wave).argmax())]
                right.append(float(age_of(guess) == age_of(clip.sound_class)))
                groups.append(clip.sound_class)
        return {"validation_age": class_mean(right, groups)}


def train_voice_classifier(
    clips: Sequence[Clip],
    waves: Sequence[Tensor],
    folder: Path,
    options: StageOptions = VOICE_OPTIONS,
    start: MiniSoundEncoder | None = None,
    progress: Progress | None = None,
) -> VoiceClassifier:
    """Train the classifier in `folder`, or go on from its checkpoint there.

    Args:
        clips: utterances and other sounds; only the training split is learned.
        waves: of the clips, float32 [T] at 16 kHz.
        folder: of the checkpoint `voice_classifier.pt` and its log.
        options: of the training.
        start: whose convolutions the classifier starts with; None starts anew.
        progress: called with stage, step, steps and figures.

    Returns:
        The classifier, in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        stage = VoiceClassifierStage(Voices(clips, waves, options.batch), options, start)
    averages = run_stage(stage, options, folder, SEED, progress)
    return cast(VoiceClassifier, averages["classifier"].requires_grad_(False))
