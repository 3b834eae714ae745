"""ImageBind (huge), audio branch only, as a sound encoder for generators that read CLIP ViT-H.

ImageBind's image and text towers are frozen OpenCLIP ViT-H/14, and its audio tower was trained
to meet them (Girdhar et al., "ImageBind: One Embedding Space To Bind Them All", CVPR 2023).
The network and its front end follow the published code's behaviour (facebookresearch/ImageBind).

Scale. The published audio output is a unit vector times a learned scale, which is 20, and the
mean of three of them over three clips of the sound. Generators were trained on un-normalised
image embeddings, whose norms are of that size too, and published uses of this pair feed the
audio output as it is. So that is the scale here: nothing is normalised again, and where the three
clips disagree the mean is shorter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio import kaldi
from s2v_cli.space import CLIP_H_SPACE
from s2v_cli.weights.checkpoint import read_checkpoint, require_keys

MEL_BANDS = 128
CLIPS = 3
CLIP_SAMPLES = 2 * kaldi.SAMPLE_RATE
CLIP_FRAMES = 204  # two seconds give 198; the rest stays zero, as published
MEAN, DEVIATION = -4.268, 9.138  # of log-mel values over AudioSet, from the published code
PATCH, STRIDE = 16, 10  # mel bands and frames alike
GRID = (1 + (MEL_BANDS - PATCH) // STRIDE, 1 + (CLIP_FRAMES - PATCH) // STRIDE)  # (12, 19)
LARGEST_SCALE = 100.0  # the published code clips the learned scale there
WIDTH, DEPTH, HEAD_WIDTH = 768, 12, 64  # of the published model

# Published key prefix -> key prefix here.
RENAMED = {
    "modality_preprocessors.audio.cls_token": "class_token",
    "modality_preprocessors.audio.pos_embedding_helper.pos_embed": "position",
    "modality_preprocessors.audio.rgbt_stem.": "stem.",
    "modality_trunks.audio.blocks.": "blocks.",
    "modality_heads.audio.0.": "norm.",
    "modality_heads.audio.2.": "projection.",
    "modality_postprocessors.audio.1.log_logit_scale": "log_scale",
}


class ImageBindAudio(nn.Module):
    """Wave [B, T] at 16 kHz -> z^A [B, 1024] on the scale of raw CLIP ViT-H embeddings.

    It hears three clips of 2 s, spread evenly over the wave. A transformer has no last
    convolution; what stands for its map is the grid of tokens that enters the last block
    (`tokens`, `embed`), 12 bands by 19 steps of 0.1 s for each clip.
    """

    space = CLIP_H_SPACE
    sample_rate = kaldi.SAMPLE_RATE
    # Three clips cover 6 s of 10; in a longer window sounds would fall between them.
    window_s = 10.0

    log_scale: Tensor

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.stem = _Stem(width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + GRID[0] * GRID[1], width))
        heads = max(1, width // HEAD_WIDTH)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.projection = nn.Linear(width, self.space.dimension, bias=False)
        # Not torch's log: on the meta device it imports the compiler, which takes seconds.
        self.register_buffer("log_scale", torch.tensor(math.log(20.0)))

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> ImageBindAudio:
        """A network without values, of the size that converted tensors have, on the meta device.

        Attention heads are 64 wide, as in the published model; below that width there is one.
        """
        width, depth = _size(tensors)
        with torch.device("meta"):
            return cls(width, depth)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> ImageBindAudio:
        """The network with converted tensors, which it shares, in eval mode."""
        network = cls.like(tensors)
        network.load_state_dict(dict(tensors), strict=True, assign=True)
        return network.eval().requires_grad_(False)

    def clips(self, wave: Tensor) -> Tensor:
        """Normalised log-mel of the clips of wave float [B, T] at 16 kHz: [B, clips, 1, 128, 204].

        As published, each clip loses its mean; a wave of less than 2 s is one clip, is not
        repeated, and the frames that it lacks are zero before the normalisation.

        Raises:
            SoundError: the wave is shorter than one frame of 25 ms.
        """
        kaldi.require_frame(wave)
        rows = []
        for start in clip_starts(wave.shape[1]):
            clip = wave[:, start : start + CLIP_SAMPLES].float()
            clip = clip - clip.mean(dim=1, keepdim=True)
            mel = kaldi.kaldi_log_mel(clip, MEL_BANDS, "hanning").mT
            rows.append(F.pad(mel, (0, CLIP_FRAMES - mel.shape[2])))
        return (torch.stack(rows, dim=1)[:, :, None] - MEAN) / DEVIATION

    def tokens(self, clips: Tensor) -> Tensor:
        """What enters the last block, from clips [N, 1, 128, 204]: [N, 1 + 12 * 19, width].

        The first token is the class token, the only one that is read at the end; the others are
        the grid, band by band.
        """
        patches = self.stem(clips.to(self.stem.proj.weight.dtype))
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = tokens + self.position
        for block in list(self.blocks)[:-1]:
            tokens = block(tokens)
        return tokens

    def embed(self, tokens: Tensor) -> Tensor:
        """The scaled unit vectors of clips [N, 1024], from their `tokens`."""
        heard: Tensor = self.projection(self.norm(self.blocks[-1](tokens)[:, 0]))
        scale = self.log_scale.float().exp().clamp(max=LARGEST_SCALE)
        return scale * F.normalize(heard.float(), dim=-1)

    def forward(self, wave: Tensor) -> Tensor:
        """Encode wave [B, T] at 16 kHz into z^A float32 [B, 1024], not normalised.

        Raises:
            SoundError: the wave is shorter than one frame of 25 ms.
        """
        clips = self.clips(wave)
        heard = self.embed(self.tokens(clips.flatten(0, 1)))
        return heard.reshape(*clips.shape[:2], -1).mean(dim=1)


class _Stem(nn.Module):
    """Overlapping patches of a spectrogram as tokens: [N, 1, 128, 204] -> [N, 228, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, STRIDE, bias=False)
        self.norm_layer = nn.LayerNorm(width)

    def forward(self, clips: Tensor) -> Tensor:
        return self.norm_layer(self.proj(clips).flatten(2).mT)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Self-attention on tokens [N, L, width], with one learned key and value beside the tokens'.

    It is torch's MultiheadAttention with `add_bias_kv`, whose random initialisation, useless here,
    takes seconds on the meta device.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = nn.Parameter(torch.zeros(1, 1, width))
        self.bias_v = nn.Parameter(torch.zeros(1, 1, width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = F.linear(tokens, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        key = torch.cat([key, self.bias_k.expand(len(key), -1, -1)], dim=1)
        value = torch.cat([value, self.bias_v.expand(len(value), -1, -1)], dim=1)
        heard = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value)
        )
        return self.out_proj(heard.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, tokens: Tensor) -> Tensor:
        """[N, L, width] -> [N, heads, L, width / heads]."""
        split: Tensor = tokens.unflatten(2, (self.heads, -1))
        return split.transpose(1, 2)


class _Block(nn.Module):
    """Pre-norm transformer block on tokens [N, L, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm_1(tokens))
        inner = F.gelu(self.mlp["fc1"](self.norm_2(tokens)))
        return tokens + self.mlp["fc2"](inner)  # type: ignore[no-any-return]


def clip_starts(samples: int) -> list[int]:
    """First samples of the clips of a wave: three, from 0 to its length less 2 s.

    A wave of at most 2 s has one; the published code hears it three times, which is the same.
    Rounding follows the published code, which reckons in seconds.
    """
    if samples <= CLIP_SAMPLES:
        return [0]
    spare = Fraction(samples / kaldi.SAMPLE_RATE - CLIP_SAMPLES / kaldi.SAMPLE_RATE)
    return [int(spare * step / (CLIPS - 1) * kaldi.SAMPLE_RATE) for step in range(CLIPS)]


def published_name(key: str) -> str:
    """The key that a tensor of the network has in ImageBind's full checkpoint."""
    for published, here in RENAMED.items():
        if key == here or (here.endswith(".") and key.startswith(here)):
            return published + key.removeprefix(here)
    raise KeyError(key)


def _name_here(published: str) -> str:
    """The key that a tensor of ImageBind's full checkpoint has here; others keep theirs."""
    for prefix, here in RENAMED.items():
        if published.startswith(prefix):
            return here + published.removeprefix(prefix)
    return published


def _size(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width and depth of the network that tensors are of; the published ones in doubt."""
    token = tensors.get("class_token")
    width = token.shape[-1] if isinstance(token, Tensor) and token.ndim == 3 else WIDTH
    if width == WIDTH:  # a lost block must not pass for a smaller model
        return WIDTH, DEPTH
    numbers = [key.split(".")[1] for key in tensors if key.startswith("blocks.")]
    return width, 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def convert(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The audio branch of ImageBind's full checkpoint; the other five modalities are left out.

    The published `imagebind_huge.pth` is a raw state dict, and the `model.safetensors` of its
    Hugging Face copies that were pushed from the published class has the same keys. Either is
    mapped, not read: only the audio branch, 345 of 4800 MB, comes into memory.

    Raises:
        WeightsError: the file is damaged, of another network, or without an audio branch.
    """
    (file,) = files.values()
    state = read_checkpoint(file)
    entries = state.items() if isinstance(state, Mapping) else ()
    audio = {key: value for key, value in entries if str(key).split(".")[1:2] == ["audio"]}
    width, depth = _size({_name_here(key): value for key, value in audio.items()})
    with torch.device("meta"):
        network = ImageBindAudio(width, depth)
    names = {key: published_name(key) for key in network.state_dict()}
    shapes = {names[key]: tuple(value.shape) for key, value in network.state_dict().items()}
    require_keys(audio, shapes, f"{file} (audio branch of ImageBind)")
    return {key: audio[name].float().contiguous().clone() for key, name in names.items()}
