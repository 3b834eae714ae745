"""Parts of published diffusion models: a folder each, read without noise and without network."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import WeightsError

if TYPE_CHECKING:
    import torch

WEIGHT_NAMES = ("diffusion_pytorch_model", "model")  # as diffusers and transformers name them
_SHOWN = 300  # characters of a library's own error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log lines, warnings and progress bars of diffusers and transformers off stderr.

    What was set before is set again at the end. Bars of a library that is imported only inside
    stay as they are: import it in one block and load in the next.
    """
    before = logging.root.manager.disable
    modules = [sys.modules.get(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    loud = [module for module in modules if module and module.is_progress_bar_enabled()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)  # importing the libraries sets their own levels again
        for module in loud:
            module.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(before)
            for module in loud:
                module.enable_progress_bar()


def part_folder(folder: Path, name: str) -> Path:
    """The folder of one part of a diffusion model.

    Raises:
        WeightsError: `folder` is no diffusion model in diffusers' layout, or lacks the part.
    """
    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"{folder} is not a diffusers folder: it has no model_index.json.")
    if not (folder / name).is_dir():
        raise WeightsError(f"{folder} is incomplete: its part {name!r} is missing. Pull it again.")
    return folder / name


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON file with settings.

    Raises:
        WeightsError: missing, unreadable, or not a JSON object.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file.parent} is incomplete: {file.name} is missing.") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"Cannot read {file}: {_one_line(error)}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{file} holds no settings: it is {type(settings).__name__}.")
    return settings


def weight_files(place: Path, *, half: bool = False) -> tuple[list[Path], str | None]:
    """Files of weights in a part's folder, and the name of the variant that they are.

    Args:
        place: folder of the part.
        half: prefer the `fp16` variant, half the size; else it is taken only where nothing else
            is there.

    Raises:
        WeightsError: no safetensors file is there.
    """
    for variant in ("fp16", None) if half else (None, "fp16"):
        for name in WEIGHT_NAMES:
            middle = f".{variant}" if variant else ""
            whole = place / f"{name}{middle}.safetensors"
            if whole.is_file():
                return [whole], variant
            for index in (
                place / f"{name}.safetensors.index{middle}.json",
                place / f"{name}{middle}.safetensors.index.json",
            ):
                if index.is_file():
                    shards = read_settings(index).get("weight_map", {})
                    return [place / shard for shard in sorted(set(shards.values()))], variant
    raise WeightsError(f"{place} has no weights: no {' or '.join(WEIGHT_NAMES)}.safetensors.")


def load_part(kind: Any, place: Path, dtype: torch.dtype, **settings: Any) -> Any:
    """One network of a diffusion model, on the CPU, in eval mode, without gradients.

    Args:
        kind: its class, of diffusers or transformers.
        place: its folder.
        dtype: to compute in.
        settings: entries of its configuration to set otherwise.

    Raises:
        WeightsError: the folder holds another network, or its files are missing or damaged.
    """
    from safetensors import SafetensorError

    _, variant = weight_files(place, half=dtype.itemsize == 2)
    _check_kind(kind, read_settings(place / "config.json"), place)
    precision = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
    try:
        with quiet_libraries():
            module, report = kind.from_pretrained(
                str(place),
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **{precision: dtype},
                **settings,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"Cannot load {place}: {_one_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # Published CLIP files still hold this buffer, which the network now makes itself.
        names = [name for name in report[problem] if not str(name).endswith("position_ids")]
        if names:
            raise WeightsError(
                f"The weights in {place} are of another network: {problem.split('_')[0]} "
                f"{sorted(map(str, names))[0]} and {len(names) - 1} more."
            )
    return module.eval().requires_grad_(False)


def _check_kind(kind: Any, settings: dict[str, Any], place: Path) -> None:
    """Refuse a part of another class; settings that name none pass."""
    names = settings.get("architectures") or [settings.get("_class_name", kind.__name__)]
    if kind.__name__ not in names:
        raise WeightsError(f"{place} holds {names[0]}; needed: {kind.__name__}.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__
