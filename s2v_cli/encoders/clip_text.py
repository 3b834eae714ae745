"""CLIP, pictures and texts in one space: which class name fits a picture best (§4.1, R@k).

The published evaluation takes ViT-B/32. It is no part of a preset: nothing is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli._torchaudio import prepare_torchaudio
from s2v_cli.encoders.clip_image import ClipImageEncoder
from s2v_cli.errors import WeightsError
from s2v_cli.space import EmbeddingSpace
from s2v_cli.weights.checkpoint import read_checkpoint, require_keys
from s2v_cli.weights.component import quiet_libraries, read_settings

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_B_SPACE = EmbeddingSpace(name="clip-vit-b-32", dimension=512, scale="raw")
FILES = ("model.safetensors", "pytorch_model.bin")  # the hub has the second, perhaps both
TEXTS_AT_ONCE = 64


class _ClipB(ClipImageEncoder):
    """The image side: the same network as that of ViT-H, smaller."""

    space = CLIP_B_SPACE


class ClipTextImage:
    """A CLIP with both of its sides; embeddings are unit vectors.

    Attributes:
        size: side of the square that it sees, px; 224 as published.
        dimension: numbers of an embedding; 512 as published.
    """

    def __init__(self, image: ClipImageEncoder, text: Any, tokenizer: Any) -> None:
        self._image, self._text, self._tokenizer = image, text, tokenizer
        self.size = image.size
        self.dimension = int(text.config.projection_dim)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> ClipTextImage:
        """Load from a local folder, in float32.

        Args:
            folder: with `config.json`, the tokenizer's files and `model.safetensors` or
                `pytorch_model.bin`.
            device: where it computes.

        Raises:
            WeightsError: missing, damaged, or of another network.
        """
        settings = read_settings(folder / "config.json")
        if settings.get("model_type") != "clip":
            raise WeightsError(f"{folder} holds {settings.get('model_type')!r}; needed: 'clip'.")
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise WeightsError(f"{folder} has no weights: no {' or '.join(FILES)}.")
        state = read_checkpoint(path)
        prepare_torchaudio()
        with quiet_libraries():
            from transformers import (
                CLIPConfig,
                CLIPTextModelWithProjection,
                CLIPVisionModelWithProjection,
            )
        try:
            config: Any = CLIPConfig.from_dict(settings)
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"Cannot read {folder / 'config.json'}: {error}") from None
        for side in (config.text_config, config.vision_config):
            side.projection_dim = config.projection_dim
        text = _side(CLIPTextModelWithProjection, config.text_config, state, path, "text")
        image = _side(CLIPVisionModelWithProjection, config.vision_config, state, path, "vis")
        return cls(_ClipB(image.to(device)), text.to(device), _tokenizer(folder))

    def prepare(self, image: Image) -> Tensor:
        """CLIP's own view of a picture: float32 [3, S, S] in [-1, 1]."""
        return self._image.prepare(image)

    @torch.inference_mode()
    def embed_images(self, image: Tensor) -> Tensor:
        """Unit embeddings [B, D], on the CPU, of image [B, 3, S, S] in [-1, 1]."""
        return F.normalize(self._image(image), dim=1).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [N, D], on the CPU; what is too long for the network is cut."""
        rows = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = self._tokenizer(
                list(texts[first : first + TEXTS_AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=self._text.config.max_position_embeddings,
                return_tensors="pt",
            ).to(self._text.device)
            found = self._text(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
            rows.append(F.normalize(found.text_embeds.float(), dim=1).cpu())
        return torch.cat(rows)


def _side(kind: Any, config: Any, state: Mapping[str, Any], path: Path, prefix: str) -> Any:
    """One side of a CLIP, of the tensors whose names begin with `prefix`."""
    with torch.device("meta"), quiet_libraries():
        expected = {name: tuple(t.shape) for name, t in kind(config).state_dict().items()}
    part = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and not name.endswith("position_ids")
    }
    require_keys(part, expected, f"CLIP's {kind.__name__} ({path})")
    with quiet_libraries():
        network = kind.from_pretrained(None, config=config, state_dict=part, dtype=torch.float32)
    return network.eval().requires_grad_(False)


def _tokenizer(folder: Path) -> Any:
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise WeightsError(f"{folder} is incomplete: tokenizer.json is missing.")
    with quiet_libraries():
        from transformers import CLIPTokenizer
    try:
        with quiet_libraries():
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    # The tokenizers library raises plain Exception for damaged files.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"Cannot read the tokenizer in {folder}: {reason}") from error
