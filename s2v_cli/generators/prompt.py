"""Prompts into text embeddings; that of the empty prompt is kept on disk.

Pictures of sound alone need only the empty prompt. So its embedding is computed once, and later
runs neither load the text encoder nor need its files.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2v_cli._torchaudio import prepare_torchaudio
from s2v_cli.errors import OptionError, OutputError, WeightsError
from s2v_cli.picture import write_file
from s2v_cli.weights.component import (
    load_part,
    part_folder,
    quiet_libraries,
    read_settings,
    weight_files,
)

_KEY = "empty_prompt"
_SAMPLES = 64  # places at which a weight file is read for its fingerprint
_SAMPLE_BYTES = 4096


class PromptEncoder:
    """The text encoder of a diffusion model, loaded only for prompts that are not known yet.

    It computes in float32 whatever the rest computes in: it runs once for many steps, and a
    prompt stays the same on every device. It is let go at once; its embeddings are kept.
    """

    def __init__(self, folder: Path, *, device: torch.device, cache: Path | None = None) -> None:
        """Prepare for a model; nothing is read yet.

        Args:
            folder: of the model, in diffusers' layout.
            device: where the text encoder computes.
            cache: folder to keep the empty prompt's embedding in.
        """
        self.folder, self.device = folder, device
        self._known: dict[str, Tensor] = {}
        place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self.cache_file = cache / f"empty-prompt-{place}.safetensors" if cache else None

    def __call__(self, prompt: str) -> Tensor:
        """Embedding of a prompt, float32 [1, tokens, C], on the CPU.

        Raises:
            OptionError: the prompt is longer than the text encoder reads.
            WeightsError: text encoder or tokenizer are missing or damaged.
        """
        prompt = prompt.strip()
        if prompt not in self._known:
            kept = self._read_cache() if prompt == "" else None
            if kept is None:
                kept = self._encode(prompt)
                if prompt == "":
                    self._write_cache(kept)
            self._known[prompt] = kept
        return self._known[prompt]

    @torch.no_grad()
    def _encode(self, prompt: str) -> Tensor:
        prepare_torchaudio()
        with quiet_libraries():
            from transformers import CLIPTextModel
        tokens, mask = self._tokenize(prompt)
        encoder = load_part(CLIPTextModel, part_folder(self.folder, "text_encoder"), torch.float32)
        if not getattr(encoder.config, "use_attention_mask", False):  # only some encoders do
            mask = None
        encoder.to(self.device)
        embedding: Tensor = encoder(
            tokens.to(self.device),
            attention_mask=None if mask is None else mask.to(self.device),
        )[0]
        return embedding.float().cpu()

    def _tokenize(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        """Token numbers and mask, both int64 [1, tokens]."""
        with quiet_libraries():
            from transformers import CLIPTokenizer
        place = part_folder(self.folder, "tokenizer")
        try:
            with quiet_libraries():
                tokenizer: Any = CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
                needed = len(tokenizer(prompt).input_ids)
                length = tokenizer.model_max_length
                text = tokenizer(
                    prompt,
                    padding="max_length",
                    max_length=length,
                    truncation=True,
                    return_tensors="pt",
                )
        # The tokenizers library raises plain Exception for damaged files.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"Cannot read the tokenizer {place}: {reason}") from error
        if needed > length:
            raise OptionError(
                f"prompt has {needed - 2} tokens; allowed: at most {length - 2}. It begins "
                f"{prompt[:40]!r}: shorten it."
            )
        return text.input_ids, text.attention_mask

    def _read_cache(self) -> Tensor | None:
        """The kept embedding, unless the text encoder has changed or the file is damaged."""
        if self.cache_file is None or not self.cache_file.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        with contextlib.suppress(OSError, SafetensorError, KeyError):
            with safe_open(self.cache_file, framework="pt") as file:
                made_by = (file.metadata() or {}).get("text_encoder")
                embedding: Tensor = file.get_tensor(_KEY)
            if _fingerprint(self.folder / "text_encoder") in (made_by, None):
                return embedding
        return None

    def _write_cache(self, embedding: Tensor) -> None:
        """Keep an embedding; a folder that cannot be written is no reason to fail."""
        if self.cache_file is None:
            return
        from safetensors.torch import save

        made_by = _fingerprint(self.folder / "text_encoder") or ""
        content = save({_KEY: embedding.contiguous()}, {"text_encoder": made_by})
        with contextlib.suppress(OutputError):
            write_file(content, self.cache_file, overwrite=True)


def _fingerprint(place: Path) -> str | None:
    """Identity of a text encoder: its settings, file sizes and samples of the weights.

    Returns:
        64 hexadecimal digits, or None where its files are not there. Reading the whole file would
        take longer than the rest of a start.
    """
    try:
        files, _ = weight_files(place)
        digest = hashlib.sha256(repr(sorted(read_settings(place / "config.json").items())).encode())
        for path in files:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as stream:
                for index in range(_SAMPLES):
                    stream.seek(size * index // _SAMPLES)
                    digest.update(stream.read(_SAMPLE_BYTES))
    except (OSError, WeightsError):
        return None
    return digest.hexdigest()
