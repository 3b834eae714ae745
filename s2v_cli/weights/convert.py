"""Published files turned into one safetensors file, once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Published file name -> path, to the tensors of a network's state dict.
Converter = Callable[[Mapping[str, Path]], "Mapping[str, Tensor]"]
Converters = Mapping[str, Converter]


def find_converter(name: str, converters: Converters) -> Converter:
    """The converter of an asset.

    Raises:
        WeightsError: there is none.
    """
    converter = converters.get(name)
    if converter is None:
        raise WeightsError(f"This version of s2v cannot convert the weights {name}.")
    return converter


def convert_files(
    files: Mapping[str, Path],
    target: Path,
    converter: Converter,
) -> None:
    """Convert published files and write `target` whole or not at all.

    Args:
        files: published file name -> path.
        target: a safetensors file; its folder is there.
        converter: knows the published layout, and refuses what it does not know.

    Raises:
        WeightsError: the files are not what the converter reads, or the disk is full.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = converter(files)
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{', '.join(map(str, files.values()))} holds no weights.")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        save_file({key: _owned(tensor) for key, tensor in tensors.items()}, temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise WeightsError(f"Cannot write {target}: {error.strerror or error}.") from error
    except SafetensorError as error:  # its writer reports a full disk so
        raise WeightsError(f"Cannot write {target}: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _owned(tensor: Tensor) -> Tensor:
    """A tensor that shares no storage with another one, as the format wants it."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
