"""What faces drawn from held-out voices show of gender and age group.

`benchmarks/speech.py` is its command. The judge of the sounds says what a face shows, too: it is
trained on real photos alone. A classifier on the voices themselves says what they allow, and the
judge on real faces what it can see at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.dataset import Clip, find_photos, load_photos, load_waves
from s2v_cli.training.judge import JUDGE_OPTIONS, Judge, Progress, look, train_judge
from s2v_cli.training.metrics import bootstrap, class_mean, class_means
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.voice_classifier import VOICE_OPTIONS, train_voice_classifier
from s2v_cli.training.voices import age_of, find_speech, gender_of

FACES_TOO = frozenset({"baby"})  # photo groups that show faces beside those of `faces/`
CHILD = "child"  # the age group whose gender a voice hardly tells


@dataclass(frozen=True)
class _Told:
    """What somebody says of some voices or faces.

    Attributes:
        groups: what is true, for each.
        speakers: whose they are; of a photo, itself.
        gender, age: share of what was said that is right, for each.
    """

    groups: Sequence[str]
    speakers: Sequence[str]
    gender: Sequence[float]
    age: Sequence[float]

    def figures(self) -> dict[str, Any]:
        """Class means with 95 % intervals over speakers, and each group's own."""
        adults = [i for i, group in enumerate(self.groups) if age_of(group) != CHILD]
        every = range(len(self.groups))
        return {
            "count": len(self.groups),
            "speakers": len(set(self.speakers)),
            "gender": self._mean(self.gender, gender_of, every),
            "gender_without_children": self._mean(self.gender, gender_of, adults),
            "age": self._mean(self.age, age_of, every),
            "gender_by_group": class_means(self.gender, self.groups),
            "age_by_group": class_means(self.age, self.groups),
        }

    def _mean(self, values: Sequence[float], part: Any, kept: Sequence[int]) -> list[float] | None:
        """Mean over genders or age groups, and its interval; None of nothing."""
        if not kept:
            return None
        chosen = [values[i] for i in kept]
        classes = [part(self.groups[i]) for i in kept]
        low, high = bootstrap(chosen, classes, [self.speakers[i] for i in kept])
        return [class_mean(chosen, classes), low, high]


def told_by(
    shares: Tensor, names: Sequence[str], groups: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Whether gender and age group are right, for each row of shares [N, 6] of the named groups.

    The gender is the one whose groups have the larger sum; the age group likewise.
    """
    genders, ages = sorted({gender_of(n) for n in names}), sorted({age_of(n) for n in names})
    of_gender = torch.tensor([[float(gender_of(n) == g) for g in genders] for n in names])
    of_age = torch.tensor([[float(age_of(n) == a) for a in ages] for n in names])
    gender = [genders[i] for i in (shares @ of_gender).argmax(dim=1).tolist()]
    age = [ages[i] for i in (shares @ of_age).argmax(dim=1).tolist()]
    return (
        [float(found == gender_of(group)) for found, group in zip(gender, groups, strict=True)],
        [float(found == age_of(group)) for found, group in zip(age, groups, strict=True)],
    )


def evaluate_faces(
    model: Sound2Vision,
    data: Path,
    folder: Path,
    *,
    split: str = "validation",
    seeds: int = 8,
    judge_options: StageOptions = JUDGE_OPTIONS,
    voice_options: StageOptions = VOICE_OPTIONS,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the faces of held-out speakers.

    Each utterance is read, encoded and drawn as by `s2v face`, with `seeds` seeds of its own. Judge
    and voice classifier are trained in `folder` where they are not there yet.

    Args:
        model: on the CPU, with a speech encoder.
        data: the data set.
        folder: gets `faces-SPLIT.json`, the contact sheet `faces-SPLIT.png` and the checkpoints.
        split: `validation` or `test`; of voices and of real faces alike.
        seeds: pictures of each utterance.
        judge_options: of the judge's training.
        voice_options: of the voice classifier's.
        cache: of decoded photos and sounds; None takes `folder/cache`.
        progress: called with stage, step, steps and figures.

    Returns:
        All figures, as JSON can hold them: shares as [value, low, high].

    Raises:
        TrainingError: unknown split, no voices in it, or data that are incomplete.
        OutputError: the folder cannot be written.
    """
    from s2v_cli.picture import write_file

    if split not in ("validation", "test"):
        raise TrainingError(f"split is {split!r}; allowed: validation, test.")
    clips = find_speech(data)
    held = [clip for clip in clips if clip.split == split and clip.photo_class is not None]
    if not held:
        raise TrainingError(f"{data} has no speech in the split {split!r}.")
    cache = cache or folder / "cache"
    waves = load_waves(clips, cache)
    start = model.sound_encoder
    if not isinstance(start, MiniSoundEncoder):
        start = Sound2Vision.load("mini", device="cpu").sound_encoder
    assert isinstance(start, MiniSoundEncoder)
    classifier = train_voice_classifier(clips, waves, folder, voice_options, start, progress)
    photos = find_photos(data)
    pixels = load_photos(photos, cache)
    judge = train_judge(photos, pixels, folder, judge_options, progress)

    groups, speakers = [clip.sound_class for clip in held], [clip.recording for clip in held]
    trained = sorted({c.sound_class for c in clips if c.split == "train" and c.photo_class})
    own = [wave for clip, wave in zip(clips, waves, strict=True) if clip in set(held)]
    with torch.no_grad():
        shares = torch.stack([classifier.hear(wave) for wave in own])[:, : len(trained)]
    heard = _Told(groups, speakers, *told_by(shares, trained, groups))

    pictures = _draw(model, held, seeds, progress)  # uint8 [N, seeds, 3, R, R]
    shares, names, is_face = _shown(judge, pictures.flatten(0, 1))
    gender, age = told_by(shares, names, [group for group in groups for _ in range(seeds)])
    drawn = _Told(groups, speakers, _means(gender, seeds), _means(age, seeds))

    real = [i for i, p in enumerate(photos) if p.split == split and p.group.startswith("face_")]
    real_groups = [photos[i].group.removeprefix("face_") for i in real]
    shares, names, _ = _shown(judge, pixels[torch.tensor(real)])
    seen = _Told(real_groups, [photos[i].key for i in real], *told_by(shares, names, real_groups))

    results: dict[str, Any] = {
        "preset": model.preset.name,
        "weights_sha256": dict(model.weights_sha256),
        "split": split,
        "seeds": seeds,
        "faces": drawn.figures(),
        "called_a_face": float(is_face.double().mean()),
        "voices": heard.figures(),
        "real_faces": seen.figures(),
    }
    text = json.dumps(results, indent=2, sort_keys=True) + "\n"
    write_file(text.encode(), folder / f"faces-{split}.json", overwrite=True)
    _save_sheet(folder / f"faces-{split}.png", groups, speakers, pictures)
    return results


def _draw(
    model: Sound2Vision, clips: Sequence[Clip], seeds: int, progress: Progress | None
) -> Tensor:
    """Pictures of utterances as `s2v face` makes them; number i has the seeds from i * seeds on."""
    rows = []
    for number, clip in enumerate(clips):
        embedding = model.encode_speech(clip.path).embedding
        options = model.preset.generate_options(seed=number * seeds, count=seeds)
        pictures = model.generate_from_embedding(embedding, options)
        arrays = [np.asarray(picture.image).transpose(2, 0, 1) for picture in pictures]
        rows.append(torch.from_numpy(np.stack(arrays)))
        if progress:
            progress("draw", number + 1, len(clips), {})
    return torch.stack(rows)


def _shown(judge: Judge, pictures: Tensor) -> tuple[Tensor, list[str], Tensor]:
    """The judge's shares [N, 6] of the face groups, their names, and whether a face comes first."""
    faces = [i for i, name in enumerate(judge.names) if name.startswith("face_")]
    _, logits = look(judge, pictures)
    shown = faces + [i for i, name in enumerate(judge.names) if name in FACES_TOO]
    is_face = torch.isin(logits.argmax(dim=1), torch.tensor(shown))
    names = [judge.names[i].removeprefix("face_") for i in faces]
    return logits.softmax(dim=1)[:, faces], names, is_face


def _means(values: Sequence[float], each: int) -> list[float]:
    return [sum(values[i : i + each]) / each for i in range(0, len(values), each)]


def _save_sheet(
    path: Path, groups: Sequence[str], speakers: Sequence[str], pictures: Tensor
) -> None:
    """A row of pictures for one utterance of up to two speakers of each group."""
    from s2v_cli.picture import make_grid, save_picture, to_image

    rows: list[int] = []
    for group in sorted(set(groups)):
        first = {s: i for i, s in reversed(list(enumerate(speakers))) if groups[i] == group}
        rows += sorted(first.values())[:2]
    cells = [to_image(pixels.float() / 127.5 - 1) for row in rows for pixels in pictures[row]]
    save_picture(make_grid(cells, pictures.shape[1]), path, overwrite=True)


def face_report(results: dict[str, Any]) -> str:
    """The figures of `evaluate_faces` as a table to read."""
    faces = results["faces"]
    lines = [
        f"{results['preset']}, split {results['split']}: {faces['count']} utterances of "
        f"{faces['speakers']} speakers, {results['seeds']} faces each; "
        f"{results['called_a_face']:.1%} called a face (or baby) by the judge",
        "",
        f"{'means with 95 %':<18}{'gender':^22}{'without children':^22}{'age group':^22}",
    ]
    labels = {"faces": "drawn faces", "voices": "voices", "real_faces": "real faces"}
    for part, label in labels.items():
        cells = [_cell(results[part][f]) for f in ("gender", "gender_without_children", "age")]
        lines.append(f"{label:<18}" + "".join(f"{cell:^22}" for cell in cells))
    lines += ["", f"{'group':<18}" + "".join(f"{label:^22}" for label in labels.values())]
    for group in sorted(faces["age_by_group"]):
        cells = []
        for part in labels:
            gender, age = (results[part][f"{f}_by_group"].get(group) for f in ("gender", "age"))
            cells.append("-" if gender is None else f"{gender:.2f}, {age:.2f}")
        lines.append(f"{group:<18}" + "".join(f"{cell:^22}" for cell in cells))
    return "\n".join(lines)


def _cell(value: Sequence[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} ({value[1]:.3f}-{value[2]:.3f})"
