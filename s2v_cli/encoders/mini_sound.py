"""The bundled sound encoder f_A: a small residual network over log-mel into the `mini` space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio import filterbank
from s2v_cli.encoders.mini_image import MINI_SPACE, ResidualBlock

STEM = 24  # channels at 32 mel rows
WIDTHS = (48, 96, 192)  # channels at 16, 8 and 4 mel rows
DEPTHS = (1, 2, 1)  # residual blocks at each of them
FAMILIES = 29  # photo classes that sounds were paired with
PROTOTYPES = 2 * FAMILIES  # means of their photos, seen from far and from near
PRIOR_TEMPERATURE = 0.03  # of the cosines between a sound and the prototypes


class MiniSoundEncoder(nn.Module):
    """Wave [B, T] at 16 kHz -> z^A [B, 256], unit norm."""

    space = MINI_SPACE
    sample_rate = filterbank.SAMPLE_RATE
    window_s = 5.0
    frame_s = filterbank.HOP / filterbank.SAMPLE_RATE

    # What a network for other sounds than these has in another size.
    families = FAMILIES
    prototype_count = PROTOTYPES

    bridge: Tensor
    bridge_offset: Tensor
    prototypes: Tensor
    prior_share: Tensor
    reader: Tensor
    reader_offset: Tensor
    centres: Tensor
    calibration: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, STEM, 5, 2, 2, bias=False), nn.BatchNorm2d(STEM), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        inputs = STEM
        for width, depth in zip(WIDTHS, DEPTHS, strict=True):
            for block in range(depth):
                blocks.append(ResidualBlock(inputs, width, 1 if block else 2))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2 * inputs, self.space.dimension)
        # Closes the modality gap (§4.4): contrast places sounds beside the photos that they
        # belong to, and this map among them; filled in by training.
        self.register_buffer("bridge", torch.zeros(self.space.dimension, self.space.dimension))
        self.register_buffer("bridge_offset", torch.zeros(self.space.dimension))
        # A small prior: most sounds could be several things, and the mean of several kinds of
        # photos is no photo. So an embedding is drawn towards the kinds that are likely: that it
        # lies near to, and that a linear read-out of the sound's features names.
        self.register_buffer("prototypes", torch.zeros(self.prototype_count, self.space.dimension))
        self.register_buffer("prior_share", torch.zeros(()))
        self.register_buffer("reader", torch.zeros(self.prototype_count, 2 * inputs))
        self.register_buffer("reader_offset", torch.zeros(self.prototype_count))
        # Mean sound embeddings of the taught kinds, and what turns the distance to the nearest
        # of them into a familiarity (scale, offset, threshold); filled in by training.
        self.register_buffer("centres", torch.zeros(self.families, self.space.dimension))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0, 0.0]))

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A network, without weights, of as many prototypes and centres as `tensors` have.

        Raises:
            KeyError: the tensors are not of such a network.
        """
        network = cls()
        for name in ("prototypes", "reader", "reader_offset", "centres"):
            network.register_buffer(name, torch.empty_like(tensors[name], device="meta"))
        return network

    def set_prior(
        self,
        prototypes: Tensor,
        share: float,
        reader: Tensor | None = None,
        reader_offset: Tensor | None = None,
    ) -> None:
        """Fill in the prior.

        Args:
            prototypes: unit z^V [P, 256], or fewer where some are left at zero.
            share: how far embeddings are drawn to them, 0 to 1.
            reader: of features [384] to how likely each prototype is, [P, 384], logits; None
                leaves that to the cosines.
            reader_offset: [P].
        """
        device = self.prototypes.device
        count = max(self.prototype_count, len(prototypes))
        for name, rows in (
            ("prototypes", prototypes),
            ("reader", reader),
            ("reader_offset", reader_offset),
        ):
            filled = torch.zeros(count, *self.get_buffer(name).shape[1:], device=device)
            if rows is not None:
                filled[: len(rows)] = rows
            self.register_buffer(name, filled)
        self.prior_share = torch.tensor(share, device=device)

    @property
    def samples(self) -> int:
        """How many samples it hears at once."""
        return round(self.window_s * self.sample_rate)

    @property
    def frequencies_hz(self) -> Tensor:
        """Of the spectrogram's rows, the peaks of their filters: float32 [64], 80 to 7700 Hz."""
        bands = filterbank.MEL_BANDS
        edges = filterbank.mel_edges(bands, filterbank.LOWEST_HZ, filterbank.HIGHEST_HZ)
        return edges[1:-1].float()

    def spectrogram(self, wave: Tensor) -> Tensor:
        """Log-mel [B, 1, 64, frames] of wave [B, T] at 16 kHz; five seconds are heard."""
        return filterbank.log_mel(wave, self.samples).to(self.head.weight.dtype)

    def feature_map(self, spectrogram: Tensor) -> Tensor:
        """Last convolution's map [B, 192, 4, frames / 16] of a log-mel [B, 1, 64, frames]."""
        return self.blocks(self.stem(spectrogram))  # type: ignore[no-any-return]

    def pooled(self, feature_map: Tensor) -> Tensor:
        """Mean and largest value over time of the map's mean over the bands: [B, 384]."""
        rows = feature_map.float().mean(dim=2)
        return torch.cat([rows.mean(dim=2), rows.amax(dim=2)], dim=1)

    def heard(self, pooled: Tensor) -> Tensor:
        """What the sound itself says: [B, 256], unit norm; z^A before the prior."""
        with torch.autocast(pooled.device.type, enabled=False):
            weight, bias = self.head.weight.float(), self.head.bias.float()
            contrasted = F.normalize(F.linear(pooled, weight, bias), dim=-1)
            shift = contrasted @ self.bridge.float() + self.bridge_offset.float()
            return F.normalize(contrasted + shift, dim=-1)

    def embed(self, feature_map: Tensor) -> Tensor:
        """z^A [B, 256], unit norm, from the map of `feature_map`."""
        pooled = self.pooled(feature_map)
        return self._draw_to_prototypes(self.heard(pooled), pooled)

    def _draw_to_prototypes(self, embedding: Tensor, pooled: Tensor) -> Tensor:
        """Move unit embeddings [B, 256] by `prior_share` towards likely photo embeddings."""
        prototypes = self.prototypes.float()
        with torch.autocast(pooled.device.type, enabled=False):
            named = F.linear(pooled, self.reader.float(), self.reader_offset.float())
        nearness = embedding @ prototypes.T / PRIOR_TEMPERATURE
        likely = (nearness + named).softmax(dim=-1) @ prototypes
        share = self.prior_share.float()
        return F.normalize(torch.lerp(embedding, F.normalize(likely, dim=-1), share), dim=-1)

    def forward(self, wave: Tensor) -> Tensor:
        """Encode wave [B, T] at 16 kHz into z^A [B, 256], unit norm."""
        return self.recognise(wave)[0]

    def recognise(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Encode wave [B, T] at 16 kHz and tell how surely it is of a kind that was taught.

        Returns:
            z^A [B, 256], unit norm, and familiarity [B] in 0 to 1: a logistic curve over the
            cosine to the nearest kind's mean (before the prior, which would hide what is strange),
            fitted on validation sounds with and without photos.
        """
        pooled = self.pooled(self.feature_map(self.spectrogram(wave)))
        heard = self.heard(pooled)
        nearest = (heard @ self.centres.float().T).amax(dim=1)
        scale, offset, _ = self.calibration.float()
        return self._draw_to_prototypes(heard, pooled), torch.sigmoid(scale * nearest + offset)

    @property
    def familiarity_threshold(self) -> float:
        """Familiarity below which a sound counts as unfamiliar."""
        return float(self.calibration[2])
