"""`s2v explain`: which part of a sound its picture comes from (§4.2, Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.errors import OptionError
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities, sound_record
from s2v_cli.options import SoundOptions, as_record
from s2v_cli.outputs import plan_outputs, sound_stem
from s2v_cli.presets import Preset, load_preset
from s2v_cli.strip import Theme

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.gradcam import Heat
    from s2v_cli.heatmap import Panel
    from s2v_cli.pipeline import Sound2Vision

    Map = npt.NDArray[np.float32]

CURVE_RATE = 50  # points a second of the heat over time
IMPORTANT = 0.5  # share of the largest heat over time from which a moment counts
MOST_MOMENTS = 5


@dataclass(frozen=True)
class Explanation:
    """What `s2v explain` is asked to make.

    Attributes:
        sound: a sound file, or `-` for standard input.
        job: everything but the sound.
        sound_options: which part of it is heard, and how loud.
        picture_of: another sound, whose picture is explained instead of the sound's own.
        theme: of the figure.
    """

    sound: str
    job: Job = field(default_factory=lambda: Job("explain"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    picture_of: str | None = None
    theme: Theme = "light"


@dataclass(frozen=True)
class Moment:
    """A stretch of time that mattered.

    Attributes:
        start_s, end_s: in the file.
        peak_s: where it mattered most.
        importance: there, 0 to 1; the most important moment of a sound has 1.
        frequency_hz: that mattered most there.
    """

    start_s: float
    end_s: float
    peak_s: float
    importance: float
    frequency_hz: float

    def as_json(self) -> dict[str, float]:
        """Rounded to what the feature map can tell."""
        times = {n: round(getattr(self, n), 2) for n in ("start_s", "end_s", "peak_s")}
        return {
            **times,
            "importance": round(self.importance, 3),
            "frequency_hz": round(self.frequency_hz),
        }


def draw_explanation(explanation: Explanation, listener: Listener) -> Iterator[Made]:
    """Draw and write the figure, and yield it once it is written.

    Raises:
        OptionError: an option is outside its range, or the preset cannot do it.
        OutputError: the file exists or cannot be written.
        SoundError: a sound cannot be read.
    """
    from s2v_cli.gradcam import explain

    job, preset = explanation.job, load_preset(explanation.job.preset)
    require_ability(preset, "explain")
    path = _plan(explanation, preset)
    sound, other = _read(explanation, preset, listener)
    listener.progress(f"Loading {preset.name}")  # the first import of torch
    model = job.load()
    note_oddities(sound, model.encode_sound(sound), preset.name, listener)
    listener.progress("Looking for what mattered")
    heat = explain(model, sound, job.options, other=other)
    if not heat.heat.any():
        listener.note("Nothing in the sound speaks for this picture: no heat is drawn.")
    panels, curve, moments = lay_out(model, sound, heat)
    figure = _draw(explanation, model, heat, panels, curve)
    record = _record(explanation, model, path, figure, (sound, other), moments)
    yield job.write(path, figure, record)


def lay_out(model: Sound2Vision, sound: Sound, heat: Heat) -> tuple[list[Panel], Map, list[Moment]]:
    """Heat on the sound's own axes.

    A sound that is shorter than the model hears at once is repeated by the encoder: its heat is
    the mean over the repeats. Of windows that overlap the later one is shown where they do.

    Returns:
        The windows, the course of the heat over time from 0 to 1, and the most important moments,
        the most important first.
    """
    import numpy as np

    from s2v_cli.heatmap import Panel

    encoder: Any = model.sound_encoder
    frequencies = encoder.frequencies_hz.cpu().numpy()
    panels = []
    for segment, spectrogram, cells in zip(
        sound.segments, heat.spectrogram.numpy(), heat.heat.numpy(), strict=True
    ):
        start_s, duration_s = segment
        whole = spread(cells, spectrogram.shape)  # [F, T]
        frames = max(2, round(duration_s / encoder.frame_s))
        panels.append(Panel(start_s, duration_s, spectrogram[:, :frames], folded(whole, frames)))
    start_s = panels[0].start_s
    end_s = panels[-1].start_s + panels[-1].duration_s
    times = np.arange(max(2, round((end_s - start_s) * CURVE_RATE))) / CURVE_RATE + start_s
    curve, rows = np.zeros(len(times), np.float32), np.zeros(len(times), int)
    for panel in panels:
        inside = (times >= panel.start_s) & (times < panel.start_s + panel.duration_s)
        shown = panel.heat.shape[1]
        columns = ((times[inside] - panel.start_s) / panel.duration_s * shown).astype(int)
        columns = columns.clip(0, shown - 1)
        curve[inside] = panel.heat.mean(axis=0)[columns]
        rows[inside] = panel.heat.argmax(axis=0)[columns]
    if curve.max() > 0:
        curve /= curve.max()
    return panels, curve, _moments(curve, times, frequencies[rows])


def spread(cells: Map, shape: tuple[int, int]) -> Map:
    """Heat [f, t] of a feature map on its spectrogram's rows and frames [F, T], linearly.

    The encoders stride by powers of two and pad so that a cell sits on the first frame and row of
    its stride.
    """
    import numpy as np

    rows = cells
    for axis, length in ((0, shape[0]), (1, shape[1])):
        count = rows.shape[axis]
        stride = 2 ** int(np.ceil(np.log2(length / count))) if count < length else 1
        places = np.arange(length) / stride
        before = np.floor(places).astype(int).clip(0, count - 1)
        after = (before + 1).clip(0, count - 1)
        share = (places - before).clip(0, 1).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None]
        rows = rows.take(before, axis) * (1 - share) + rows.take(after, axis) * share
    return rows.astype(np.float32)


def folded(heat: Map, frames: int) -> Map:
    """The mean [F, frames] over the repeats of a sound of so many frames in heat [F, T]."""
    import numpy as np

    total = heat.shape[1]
    if frames >= total - 1:  # a last frame is half outside the window
        return heat[:, :frames]
    sums, counts = np.zeros((heat.shape[0], frames)), np.zeros(frames)
    for first in range(0, total, frames):
        part = heat[:, first : first + frames]
        sums[:, : part.shape[1]] += part
        counts[: part.shape[1]] += 1
    return np.asarray(sums / counts, np.float32)


def _moments(curve: Map, times: npt.NDArray[np.float64], frequencies_hz: Map) -> list[Moment]:
    import numpy as np

    step = 1 / CURVE_RATE
    hot = np.concatenate([[False], curve >= IMPORTANT, [False]])
    edges = np.flatnonzero(hot[1:] != hot[:-1]).reshape(-1, 2)
    moments = []
    for first, last in edges:
        peak = first + int(curve[first:last].argmax())
        moments.append(
            Moment(
                start_s=float(times[first]),
                end_s=float(times[last - 1] + step),
                peak_s=float(times[peak]),
                importance=float(curve[peak]),
                frequency_hz=float(frequencies_hz[peak]),
            )
        )
    return sorted(moments, key=lambda moment: -moment.importance)[:MOST_MOMENTS]


def _plan(explanation: Explanation, preset: Preset) -> Path:
    job = explanation.job
    if job.target == "-":
        return Path("-")
    return plan_outputs(
        job.target,
        [f"{sound_stem(explanation.sound)}-heat.png"],
        [job.options.seed],
        preset=preset.name,
        window=explanation.sound_options.window,
        overwrite=job.overwrite,
    )[0][0]


def _read(
    explanation: Explanation, preset: Preset, listener: Listener
) -> tuple[Sound, Sound | None]:
    from s2v_cli.audio.read import read_sound

    if explanation.sound == "-" == explanation.picture_of:
        raise OptionError("SOUND and --picture-of are both '-'; standard input is read once.")
    hear = explanation.sound_options
    sounds: list[Sound | None] = []
    for source, options in (
        (explanation.sound, hear),
        (explanation.picture_of, SoundOptions(gain_db=hear.gain_db)),
    ):
        if source is None:
            sounds.append(None)
            continue
        listener.progress(f"Reading {source}")
        sounds.append(
            read_sound(
                source,
                sample_rate=preset.sample_rate,
                window_s=preset.window_s,
                options=options,
            )
        )
    assert sounds[0] is not None
    return sounds[0], sounds[1]


def _draw(
    explanation: Explanation, model: Sound2Vision, heat: Heat, panels: list[Panel], curve: Map
) -> Image:
    from s2v_cli.heatmap import LARGEST_SIDE, SMALLEST_SIDE, draw_figure
    from s2v_cli.picture import resize, stretch_contrast, to_image

    options, encoder = explanation.job.options, model.sound_encoder
    shown = stretch_contrast(heat.image) if options.contrast == "stretch" else heat.image
    side = options.size or max(SMALLEST_SIDE, min(LARGEST_SIDE, model.preset.resolution))
    names = [sound_stem(n) for n in (explanation.sound, explanation.picture_of) if n is not None]
    return draw_figure(
        panels,
        encoder.frequencies_hz.cpu().numpy(),  # type: ignore[attr-defined]
        curve,
        resize(to_image(shown), side),
        titles=(f"{names[0]}: what mattered", f"picture of {names[-1]}, seed {options.seed}"),
        theme=explanation.theme,
    )


def _record(
    explanation: Explanation,
    model: Sound2Vision,
    path: Path,
    figure: Image,
    sounds: tuple[Sound, Sound | None],
    moments: list[Moment],
) -> dict[str, Any]:
    job, (sound, other) = explanation.job, sounds
    flags = {
        **hearing_flags(explanation.sound_options),
        "--picture-of": explanation.picture_of,
        "--theme": explanation.theme if explanation.theme != "light" else None,
    }
    options = replace(job.options, count=1)
    line = job.command_line([sound.source], str(path), flags=flags, options=options)
    record = job.record(
        model,
        line,
        figure,
        options,
        sounds=[sound_record(sound)],
        picture_of=None if other is None else sound_record(other),
        sound_options=as_record(explanation.sound_options),
        moments=[moment.as_json() for moment in moments],
    )
    record["resampled_from"] = None
    return record
