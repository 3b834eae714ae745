"""`s2v study make`: the questions of the paper's user study (§4.3, Table 1 b), their page and key.

Two parts. Preference: a sound, pictures of it by our model and by another, and pictures of other
sounds by either; participants choose those that best represent the sound. (The paper speaks of
"remaining images, randomly chosen from either method", and does not say of which sounds; here they
are of sounds of other classes, which shows besides whether somebody listens.) Precision: a sound
and pictures all by our model, one of them of this sound.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from s2v_cli.errors import OptionError, OutputError, TrainingError
from s2v_cli.options import DeviceChoice
from s2v_cli.picture import encode_picture, resize, write_file
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation.baselines import has_image_encoder
from s2v_cli.training.evaluation.held_out import HeldOut, centre_square, open_held_out
from s2v_cli.training.evaluation.study_options import (
    KEY_FORMAT,
    KEY_VERSION,
    Part,
    StudyOptions,
)
from s2v_cli.training.evaluation.study_page import PagePart, PageQuestion, render_page, study_id
from s2v_cli.training.judge import Progress
from s2v_cli.training.manifest import MANIFEST_FILE
from s2v_cli.training.metrics import spread
from s2v_cli.training.prepare.work import ensure_prepared

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.audio.read import Sound

Method = Literal["ours", "other"]

PAGE_FILE = "study.html"
KEY_FILE = "study.key.json"
PEAK = 0.7  # of every sound, for listening


@dataclass(frozen=True)
class Choice:
    """A picture that a question offers.

    Attributes:
        method: that drew it.
        place: of the sound that it is of, among `HeldOut.sounds`.
        seed: that it was drawn with.
    """

    method: Method
    place: int
    seed: int


@dataclass(frozen=True)
class Planned:
    """A question: its part, the place of its sound, and its pictures in the order of the page."""

    part: Part
    place: int
    choices: tuple[Choice, ...]


def plan_questions(groups: Sequence[str], options: StudyOptions) -> list[Planned]:
    """Choose sounds and pictures, by seed.

    The sounds are spread over the groups, and the two parts have different ones as far as there
    are enough. Pictures of other sounds are of other groups, each of a group of its own as far as
    there are enough.

    Args:
        groups: of each sound that may be asked about: its class, or its source where there are no
            classes.
        options: what is asked.

    Raises:
        TrainingError: too few sounds, or all of one group where others are needed.
    """
    needs_others = "precision" in options.asked or options.distractors > 0
    if len(groups) < options.questions or (needs_others and len(set(groups)) < 2):
        raise TrainingError(
            f"The split {options.split!r} has {len(groups)} sounds of {len(set(groups))} classes "
            f"with a picture; a study of {options.questions} questions needs as many sounds, of "
            "two classes or more. Choose another --split, or fewer --questions."
        )
    random = Random(options.seed)
    order = random.sample(range(len(groups)), len(groups))
    planned, used = [], set[int]()
    seeds = iter(range(options.seed, 2**63))
    for part in options.asked:
        waiting = sorted(order, key=lambda place: place in used)
        fresh = [place for place in waiting if place not in used]
        if len(fresh) >= options.questions:
            waiting = fresh
        chosen = spread([groups[place] for place in waiting], options.questions)
        for place in random.sample([waiting[i] for i in chosen], len(chosen)):
            used.add(place)
            choices = _choices(part, place, groups, options, random)
            drawn = [Choice(method, of, next(seeds)) for method, of in choices]
            planned.append(Planned(part, place, tuple(random.sample(drawn, len(drawn)))))
    return planned


def _choices(
    part: Part, place: int, groups: Sequence[str], options: StudyOptions, random: Random
) -> list[tuple[Method, int]]:
    """Method and sound of each picture of a question."""
    if part == "precision":
        others = _others(place, groups, options.choices - 1, random)
        return [("ours", place), *(("ours", other) for other in others)]
    own: list[tuple[Method, int]] = [("ours", place), ("other", place)]
    methods: list[Method] = ["ours", "other"]
    others = _others(place, groups, options.distractors, random)
    return own * options.pictures + [(random.choice(methods), other) for other in others]


def _others(place: int, groups: Sequence[str], count: int, random: Random) -> list[int]:
    """Sounds of other groups: of each group one, before any has two."""
    members: dict[str, list[int]] = {}
    for other in random.sample(range(len(groups)), len(groups)):
        if groups[other] != groups[place]:
            members.setdefault(groups[other], []).append(other)
    turns = [(turn, i) for found in members.values() for turn, i in enumerate(found)]
    random.shuffle(turns)
    chosen = [i for _, i in sorted(turns, key=lambda entry: entry[0])]
    return [chosen[i % len(chosen)] for i in range(count)]


def make_study(
    preset: str | os.PathLike[str],
    data: Path,
    folder: Path,
    options: StudyOptions = StudyOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    against: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    note: Callable[[str], None] | None = None,
    device: DeviceChoice = "auto",
    weights_dir: Path | None = None,
) -> tuple[Path, Path]:
    """Write a page for participants, and the key that stays with the researcher.

    The same arguments give the same files.

    Args:
        preset: our model: name, folder or TOML file.
        data: a prepared dataset, or what `s2v prepare` takes, which is then prepared in
            `folder/data`.
        folder: gets `study.html` and `study.key.json`.
        options: what is asked.
        progress: called with stage, step, steps and figures.
        against: a preset that draws the same sounds; None is our own generator, conditioned by
            the image encoder on each sound's real picture, as the paper's ICGAN is.
        overwrite: whether files that are there are replaced.
        note: told at once, in one line, what a person should know.
        device: where to compute.
        weights_dir: where the presets' weights lie, if not where they say.

    Returns:
        The page and the key.

    Raises:
        OptionError: preference is asked for and the preset has no image encoder.
        TrainingError: too few sounds.
        OutputError: a file is there, or the folder cannot be written.
    """
    targets = folder / PAGE_FILE, folder / KEY_FILE
    if not overwrite:
        for target in targets:
            if target.exists():
                raise OutputError(f"{target} exists; use --force to replace it.")
    prepared = ensure_prepared(data, folder / "data", progress)
    held_out = open_held_out(prepared, options.split)
    ours = Sound2Vision.load(preset, device=device, weights_dir=weights_dir)
    check_methods(ours, against, options)
    other = (
        None
        if against is None
        else Sound2Vision.load(against, device=device, weights_dir=weights_dir)
    )
    painter = _Painter(ours, other, held_out, options, progress)
    askable = painter.askable()
    left_out = len(held_out.sounds) - len(askable)
    if note and left_out:
        note(f"{left_out} sounds are left out: they are silent, or no picture is of their class.")
    groups = [held_out.sounds[place].name or held_out.sounds[place].source for place in askable]
    planned = [
        Planned(
            entry.part,
            askable[entry.place],
            tuple(Choice(c.method, askable[c.place], c.seed) for c in entry.choices),
        )
        for entry in plan_questions(groups, options)
    ]
    parts, questions = painter.paint(planned)
    key = {
        "format": KEY_FORMAT,
        "version": KEY_VERSION,
        "study": study_id(parts),
        "methods": painter.described(),
        "data": {
            "folder": str(prepared),
            "manifest_sha256": hashlib.sha256((prepared / MANIFEST_FILE).read_bytes()).hexdigest(),
        },
        "options": asdict(options),
        "questions": questions,
    }
    page = render_page(parts, options.title, options.note)
    write_file(page.encode(), targets[0], overwrite=overwrite)
    text = json.dumps(key, indent=1, sort_keys=True) + "\n"
    write_file(text.encode(), targets[1], overwrite=overwrite)
    return targets


def check_methods(ours: Sound2Vision, against: object, options: StudyOptions) -> None:
    """Refuse a comparison that a preset cannot make.

    Raises:
        OptionError: preference is asked for, against pictures of a missing image encoder.
    """
    if "preference" in options.asked and against is None and not has_image_encoder(ours.preset):
        raise OptionError(
            f"preset is {ours.preset.name!r}, which has no image encoder to compare with. Name "
            "another preset with --against, or ask for --parts precision."
        )


class _Painter:
    """Draws the pictures of a study, and cuts its sounds."""

    def __init__(
        self,
        ours: Sound2Vision,
        other: Sound2Vision | None,
        data: HeldOut,
        options: StudyOptions,
        progress: Progress | None,
    ) -> None:
        self.ours, self.other, self.data = ours, other, data
        self.options, self.progress = options, progress
        sides = [model.preset.resolution for model in (ours, other) if model]
        self.side = min(*sides, options.size) if len(sides) > 1 else min(sides[0], options.size)
        # What the longer-eared of two presets hears is what participants hear.
        self.listener = max(
            (model for model in (ours, other) if model),
            key=lambda model: model.sound_encoder.window_s,
        )
        self._sounds: dict[int, Sound] = {}
        self._conditions: dict[tuple[Method, int], Tensor] = {}

    def askable(self) -> list[int]:
        """Places of the sounds that can be asked about: not silent, and with a picture."""
        found = []
        for place, partner in enumerate(self.data.partners):
            if self.other is None and partner is None:
                continue
            self._sounds[place] = self.data.sound(self.data.sounds[place], self.listener)
            if not self._sounds[place].silent:
                found.append(place)
            if self.progress:
                self.progress("listen", place + 1, len(self.data.sounds), {})
        return found

    def paint(self, planned: Sequence[Planned]) -> tuple[list[PagePart], list[dict[str, Any]]]:
        """The parts of the page, and the questions of the key."""
        tokens = _tokens(self.options.seed, sum(1 + len(entry.choices) for entry in planned))
        questions: dict[Part, list[PageQuestion]] = {}
        key = []
        for number, entry in enumerate(planned):
            token = next(tokens)
            shown = [(next(tokens), choice) for choice in entry.choices]
            pictures = tuple((name, self._picture(choice)) for name, choice in shown)
            sound = self.data.sounds[entry.place]
            questions.setdefault(entry.part, []).append(
                PageQuestion(token, _encode_sound(self._sounds[entry.place]), pictures)
            )
            key.append(
                {
                    "question": token,
                    "part": entry.part,
                    "sound": sound.key,
                    "name": sound.name,
                    "source": sound.source,
                    "pictures": [
                        {
                            "picture": name,
                            "method": choice.method,
                            "of": self.data.sounds[choice.place].key,
                            "name": self.data.sounds[choice.place].name,
                            "seed": choice.seed,
                            "right": choice.place == entry.place,
                        }
                        for name, choice in shown
                    ],
                }
            )
            if self.progress:
                self.progress("draw", number + 1, len(planned), {})
        parts = [
            PagePart(part == "preference", tuple(questions[part])) for part in self.options.asked
        ]
        return parts, key

    def described(self) -> dict[str, Any]:
        """What the methods are, for the key."""
        other = self.other or self.ours
        return {
            "ours": {
                "preset": self.ours.preset.name,
                "from": "sound",
                "weights_sha256": dict(self.ours.weights_sha256),
            },
            "other": None
            if "preference" not in self.options.asked
            else {
                "preset": other.preset.name,
                "from": "sound" if self.other else "image",
                "weights_sha256": dict(other.weights_sha256),
            },
        }

    def _picture(self, choice: Choice) -> bytes:
        model = self.other if choice.method == "other" and self.other else self.ours
        condition = self._condition(model, choice)
        options = model.preset.generate_options(seed=choice.seed, count=1)
        (picture,) = model.generate_from_embedding(condition, options)
        return encode_picture(resize(centre_square(picture.image), self.side), ".jpg")

    def _condition(self, model: Sound2Vision, choice: Choice) -> Tensor:
        known = (choice.method, choice.place)
        if known not in self._conditions:
            partner = self.data.partners[choice.place]
            if choice.method == "other" and self.other is None:
                assert partner is not None
                self._conditions[known] = model.encode_image(self.data.picture(partner))
            else:
                sound = self.data.sound(self.data.sounds[choice.place], model)
                self._conditions[known] = model.encode_sound(sound).embedding
        return self._conditions[known]


def _encode_sound(sound: Sound) -> bytes:
    """The first window as FLAC, brought to one peak so that nobody turns the volume up and down."""
    import soundfile

    wave = sound.windows[0]
    buffer = io.BytesIO()
    scaled = np.asarray(wave * (PEAK / np.abs(wave).max()), np.float32)
    soundfile.write(buffer, scaled, sound.sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _tokens(seed: int, count: int) -> Iterator[str]:
    """Names that tell nothing, all different."""
    random = Random(f"tokens {seed}")
    return iter([f"{value:08x}" for value in random.sample(range(2**32), count)])
