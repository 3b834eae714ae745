"""A finished run becomes a preset: its own sound encoder, all else as the teacher has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.training.align.closing import close_gap
from s2v_cli.training.align.encoder import network_of
from s2v_cli.training.export import taken, trained, write_preset

if TYPE_CHECKING:
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.training.align.batches import Batches
    from s2v_cli.training.align.options import AlignOptions


def export_run(
    run: Path, encoder: nn.Module, teacher: Sound2Vision, batches: Batches, options: AlignOptions
) -> Path:
    """Write the preset into the run's folder; returns it.

    The space keeps the teacher's name, since the embeddings are of that space. Files of a teacher
    that is bundled or was trained here are copied; published weights are named.

    Args:
        run: the folder.
        encoder: that was trained, in eval mode.
        teacher: that it was trained towards.
        batches: of the training split, with the whole of each batch.
        options: of the training.

    Raises:
        TrainingError: the folder cannot be written.
        WeightsError: the teacher's files are missing or damaged.
    """
    if options.close_gap and isinstance(encoder, MiniSoundEncoder):
        close_gap(encoder, batches)
    preset = teacher.preset
    assert options.duration_s is not None
    networks = {"sound_encoder": trained(network_of(teacher), encoder)}
    for weight in preset.weights:
        if weight.role != "sound_encoder":
            networks[weight.role] = taken(preset, weight.role)
    return write_preset(
        run,
        networks,
        model=preset.model,
        space=preset.space,
        resolution=preset.resolution,
        sample_rate=preset.sample_rate,
        window_s=options.duration_s,
        generate=preset.generate,
        options=preset.options,
    )
