"""Stages `codec`, `sharpen` and `polish`: the latent codec, by three kinds of loss.

`codec` learns from pixels alone, `sharpen` goes on with a perceptual loss, and `polish` trains
the decoder alone, with an adversarial loss on top, while the latents stay as they are. The
perceptual distance is taken in the features of the project's own image encoder; noise on the
latents makes the decoder forgive the small errors of the latent flow, and in `polish` it decodes
latents that the flow drew as well, which only have to look real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.generators.mini_codec import LatentDecoder, LatentEncoder
from s2v_cli.training import crops
from s2v_cli.training.dataset import Photo
from s2v_cli.training.loop import channels_last
from s2v_cli.training.precision import CPU, mixed_precision
from s2v_cli.training.recipe import StageOptions

DrawLatents = Callable[[int, torch.Generator], Tensor]  # how many, and where chance comes from
LATENT_NOISE = 0.15  # standard deviation, in units of the latents' root mean square


class PatchDiscriminator(nn.Module):
    """Image [B, 3, 128, 128] -> real-or-not scores of its patches, [B, 1, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        inputs = 12
        for width, stride in ((48, 1), (96, 2), (192, 2)):
            layers.append(spectral_norm(nn.Conv2d(inputs, width, 3, stride, 1)))
            layers.append(nn.LeakyReLU(0.2))
            inputs = width
        layers.append(spectral_norm(nn.Conv2d(inputs, inputs, 3, 1, 1)))
        layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(inputs, 1, 3, 1, 1))]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Score patches; high is real."""
        return self.layers(image)  # type: ignore[no-any-return]


def feature_distance(encoder: MiniImageEncoder, first: Tensor, second: Tensor) -> Tensor:
    """Mean distance of channel-normalised feature maps of two images [B, 3, 128, 128], 0-d.

    After Zhang et al., 2018 (LPIPS, Eq. 1), without its learned channel weights.
    """
    with torch.no_grad():
        targets = encoder.features(first)
    total = torch.zeros((), device=first.device)
    for target, got in zip(targets, encoder.features(second), strict=True):
        difference = F.normalize(target.float(), dim=1) - F.normalize(got.float(), dim=1)
        total = total + difference.square().sum(1).mean()
    return total


class CodecStage:
    """Trains `LatentEncoder` and `LatentDecoder` on photos uint8 [N, 3, 160, 160].

    Args:
        name: of the stage.
        photos, pixels: the photos, uint8 [N, 3, 160, 160].
        image_encoder: whose features the perceptual loss compares; None leaves that loss out.
        start: encoder and decoder to go on from.
        options: loss weights `pixel`, `feature`, `adversarial`, 0 leaves a loss out; with
            `freeze_encoder` above 0 only the decoder learns.
        draw: makes latents [B, 16, 8, 8] of no photo, for the adversarial loss; None leaves them
            out.
        device: where it computes.
    """

    averaged: tuple[str, ...] = ("encoder", "decoder")

    def __init__(
        self,
        name: str,
        photos: Sequence[Photo],
        pixels: Tensor,
        image_encoder: MiniImageEncoder | None,
        start: Mapping[str, nn.Module] | None,
        options: StageOptions,
        draw: DrawLatents | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.name, self.options, self.draw, self.device = name, options, draw, device
        self.pixels = pixels
        held = [i for i, photo in enumerate(photos) if photo.split == "validation"]
        self.train = torch.tensor([i for i, p in enumerate(photos) if p.split == "train"])
        self.validation = torch.tensor(held).long()
        self.image_encoder = image_encoder
        if image_encoder is not None:
            channels_last(image_encoder.eval().requires_grad_(False).to(device))
        self.modules: dict[str, nn.Module] = {
            "encoder": LatentEncoder(),
            "decoder": LatentDecoder(),
            "discriminator": PatchDiscriminator(),
        }
        for part, module in (start or {}).items():
            self.modules[part].load_state_dict(module.state_dict())
        for module in self.modules.values():
            module.to(device)
        channels_last(*self.modules.values())
        self.frozen_encoder = options.weight("freeze_encoder") > 0
        self.modules["encoder"].requires_grad_(not self.frozen_encoder)
        codec = [*self.modules["decoder"].parameters()]
        if not self.frozen_encoder:
            codec = [*self.modules["encoder"].parameters(), *codec]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "codec": torch.optim.AdamW(codec, betas=(0.9, 0.99), weight_decay=options.weight_decay),
            "discriminator": torch.optim.AdamW(
                self.modules["discriminator"].parameters(), betas=(0.5, 0.99), weight_decay=0.0
            ),
        }

    def _batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        zoom = crops.random_zoom(len(index), generator)
        photos = self.pixels[index].to(self.device)
        images = crops.crop(photos, zoom, 128, generator, wander=0.9)
        return images.contiguous(memory_format=torch.channels_last)

    def _feature_distance(self, first: Tensor, second: Tensor) -> Tensor:
        if self.image_encoder is None:
            return torch.zeros((), device=self.device)
        return feature_distance(self.image_encoder, first, second)

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch for the codec and, with an adversarial loss, one for the discriminator."""
        options = self.options
        chosen = torch.randint(len(self.train), (options.batch,), generator=generator)
        images = self._batch(self.train[chosen], generator)
        adversarial = options.weight("adversarial") > 0
        discriminator = self.modules["discriminator"].train()
        with mixed_precision(self.device):
            latent = self.modules["encoder"](images)
            noise = torch.randn(latent.shape, generator=generator) * LATENT_NOISE
            output = self.modules["decoder"](latent + noise.to(self.device)).float()
            pixel = F.l1_loss(output, images)
            feature = self._feature_distance(images, output)
            loss = options.weight("pixel") * pixel + options.weight("feature") * feature
            fooled = torch.zeros((), device=self.device)
            fakes = output
            if adversarial:
                if self.draw is not None:
                    drawn = self.draw(max(1, options.batch // 2), generator)
                    fakes = torch.cat([output, self.modules["decoder"](drawn).float()])
                discriminator.requires_grad_(False)
                fooled = -discriminator(fakes).float().mean()
                loss = loss + options.weight("adversarial") * fooled
                discriminator.requires_grad_(True)
        self.optimisers["codec"].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(
            [p for g in self.optimisers["codec"].param_groups for p in g["params"]], 1.0
        )
        self.optimisers["codec"].step()
        figures = {"loss": loss.detach(), "pixel": pixel.detach(), "feature": feature.detach()}
        if adversarial:
            with mixed_precision(self.device):
                real, fake = discriminator(images), discriminator(fakes.detach())
                hinge = F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
            self.optimisers["discriminator"].zero_grad()
            hinge.backward()
            self.optimisers["discriminator"].step()
            figures |= {"fooled": fooled.detach(), "hinge": hinge.detach()}
        return figures

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """PSNR in dB and feature distance of reconstructed validation photos, if there are any."""
        if not len(self.validation):
            return {}
        generator = torch.Generator().manual_seed(0)
        images = self._batch(self.validation[:256], generator)
        with mixed_precision(self.device):
            output = averages["decoder"](averages["encoder"](images)).float().clamp(-1, 1)
            feature = self._feature_distance(images, output)
        error = ((images - output) / 2).square().mean(dim=(1, 2, 3))
        return {"psnr_db": float(-10 * error.log10().mean()), "validation_feature": float(feature)}
