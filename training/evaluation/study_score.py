"""`s2v study score`: what the answers of a user study say (§4.3, Table 1 b).

Preference is the recall probability of each method: how often a picture of the sound by that
method was chosen. Precision is how often the picture of the sound was.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2v_cli.errors import TrainingError
from s2v_cli.training.evaluation.study_options import KEY_FORMAT, KEY_VERSION, Part

ANSWERS_FORMAT, ANSWERS_VERSION = "s2v-study-answers", 1
RESAMPLES = 2000  # of the bootstrap
LARGEST_FILE = 10_000_000  # bytes


@dataclass(frozen=True)
class KeyPicture:
    """A picture of the key: the method that drew it, what of, and whether it is of the sound."""

    token: str
    method: str
    name: str | None
    right: bool


@dataclass(frozen=True)
class KeyQuestion:
    """A question of the key.

    Attributes:
        token: what the answers call it.
        part: that it belongs to.
        sound: key of its sound in the dataset.
        name: class of its sound.
        pictures: that it offers, by token.
    """

    token: str
    part: Part
    sound: str
    name: str | None
    pictures: dict[str, KeyPicture]


@dataclass(frozen=True)
class Key:
    """The key of a study: its number, what the methods are, and its questions."""

    study: str
    methods: dict[str, Any]
    questions: tuple[KeyQuestion, ...]

    def of(self, part: Part) -> list[KeyQuestion]:
        """The questions of a part."""
        return [question for question in self.questions if question.part == part]

    def told(self, method: str) -> str:
        """A method in words."""
        described = self.methods[method]
        return f"{described['preset']}, from the {described['from']}"


@dataclass(frozen=True)
class Answers:
    """What one participant answered: chosen pictures by question, and the minutes that it took."""

    participant: str
    finished: str
    chosen: dict[str, frozenset[str]]
    minutes: float


@dataclass(frozen=True)
class Reading:
    """What became of one file.

    Attributes:
        file: its path.
        participant: whose answers they are, where that can be told.
        reason: why it is left out; empty where it is scored.
        answers: of a file that is scored.
    """

    file: str
    participant: str
    reason: str = ""
    answers: Answers | None = field(default=None, repr=False)


class _Unusable(Exception):
    """A file that cannot be scored; the message says why."""


def read_key(path: Path) -> Key:
    """Read `study.key.json`.

    Raises:
        TrainingError: it is missing, or not a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != KEY_FORMAT or content.get("version") != KEY_VERSION:
            raise TrainingError(
                f"{path} is of format {content.get('format')!r}, version "
                f"{content.get('version')!r}; allowed: {KEY_FORMAT!r}, version {KEY_VERSION}."
            )
        questions = []
        for row in content["questions"]:
            pictures = {
                p["picture"]: KeyPicture(p["picture"], p["method"], p["name"], p["right"])
                for p in row["pictures"]
            }
            questions.append(
                KeyQuestion(row["question"], row["part"], row["sound"], row["name"], pictures)
            )
        return Key(content["study"], content["methods"], tuple(questions))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise TrainingError(
            f"Cannot read the key {path}: {reason}. It lies beside the page that "
            "'s2v study make' wrote."
        ) from None


def find_answers(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and the .json files of folders, sorted, each once.

    Raises:
        TrainingError: a path that is neither, or nothing at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.glob("*.json") if not p.name.endswith(".key.json"))
        elif path.is_file():
            found.append(path)
        else:
            raise TrainingError(f"No answers at {str(path)!r}. Check the path.")
    if not found:
        raise TrainingError(
            f"No .json file in {', '.join(map(str, paths))}. Give the files that participants sent."
        )
    return list(dict.fromkeys(found))


def read_answers(key: Key, files: Sequence[Path]) -> list[Reading]:
    """Read answers, a row a file; of several by one participant, what was finished last counts.

    (The page lets participants change an answer after they have saved them.)

    Incomplete answers, answers to another study and files that are none are left out, and say so.
    """
    read = [_read(key, path) for path in files]
    last: dict[str, tuple[str, int]] = {}
    for number, reading in enumerate(read):
        if reading.answers is not None:
            own = (reading.answers.finished, -number)
            last[reading.participant] = max(last.get(reading.participant, own), own)
    for number, reading in enumerate(read):
        if reading.answers is not None and last[reading.participant][1] != -number:
            kept = read[-last[reading.participant][1]].file
            reason = f"the same participant as {kept}, which counts"
            read[number] = Reading(reading.file, reading.participant, reason)
    return read


def _read(key: Key, path: Path) -> Reading:
    participant = ""
    try:
        content = _load(path)
        participant = str(content.get("participant", ""))
        return Reading(str(path), participant, answers=_checked(key, content))
    except _Unusable as error:
        return Reading(str(path), participant, str(error))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return Reading(str(path), participant, "it is damaged")


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _Unusable("it is too large for answers")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _Unusable(f"it cannot be read ({error.strerror})") from None
    except ValueError:
        raise _Unusable("it is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != ANSWERS_FORMAT:
        raise _Unusable("it holds no answers of a study")
    if content.get("version") != ANSWERS_VERSION:
        raise _Unusable(f"its version is {content.get('version')!r}, not {ANSWERS_VERSION}")
    return content


def _checked(key: Key, content: dict[str, Any]) -> Answers:
    if content["study"] != key.study:
        raise _Unusable("it answers another study")
    participant, finished = content["participant"], content.get("finished")
    if not isinstance(participant, str) or not participant:
        raise _Unusable("it names no participant")
    rows = {row["question"]: row for row in content["answers"]}
    if len(rows) != len(content["answers"]):
        raise _Unusable("it answers a question twice")
    missing = sum(not rows.get(question.token, {}).get("chosen") for question in key.questions)
    if missing or not isinstance(finished, str) or not finished:
        raise _Unusable(f"incomplete: {missing} of {len(key.questions)} questions are open")
    if len(rows) != len(key.questions):
        raise _Unusable("it answers questions that the study does not ask")
    chosen = {}
    for question in key.questions:
        picked = frozenset(rows[question.token]["chosen"])
        if not picked <= question.pictures.keys():
            raise _Unusable("it chooses pictures that the study does not show")
        if question.part == "precision" and len(picked) > 1:
            raise _Unusable("it chooses several pictures where one is allowed")
        chosen[question.token] = picked
    minutes = sum(float(row.get("seconds") or 0) for row in rows.values()) / 60
    if not math.isfinite(minutes):
        raise ValueError
    return Answers(participant, finished, chosen, minutes)


@dataclass(frozen=True)
class Interval:
    """A share with its 95% interval."""

    value: float
    low: float
    high: float


def interval(table: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of a table [participants, questions] with its 95% interval.

    Participants and questions are drawn again, both: other people, asked about other sounds. Of
    one participant, or of one question, nothing is known about how others differ.
    """
    random = np.random.default_rng(seed)
    people, questions = table.shape
    first = random.multinomial(people, np.full(people, 1 / people), resamples) / people
    second = random.multinomial(questions, np.full(questions, 1 / questions), resamples)
    means = ((first @ table) * (second / questions)).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(table.mean()), float(low), float(high))


def binomial_test(hits: int, trials: int, chance: float) -> float:
    """Two-sided exact p-value of so many hits: the probability of all outcomes not more likely.

    Args:
        hits: 0 to `trials`.
        trials: 0 or more; of none p is 1.
        chance: of a hit, more than 0 and less than 1.
    """
    count = np.arange(trials + 1)
    gamma = np.array([math.lgamma(i + 1) for i in range(trials + 1)])
    log = gamma[-1] - gamma - gamma[::-1]
    log = log + count * math.log(chance) + (trials - count) * math.log1p(-chance)
    likely = np.exp(log)
    return float(min(1.0, likely[likely <= likely[hits] * (1 + 1e-7)].sum()))


def score_study(key: Key, readings: Sequence[Reading], seed: int = 0) -> dict[str, Any]:
    """All figures of a study, as JSON can hold them.

    Raises:
        TrainingError: no file can be scored.
    """
    answers = [reading.answers for reading in readings if reading.answers is not None]
    if not answers:
        first = readings[0]
        raise TrainingError(
            f"None of {len(readings)} files can be scored; of {first.file}: {first.reason}."
        )
    results: dict[str, Any] = {
        "study": key.study,
        "methods": key.methods,
        "participants": len(answers),
        "minutes": float(np.median([one.minutes for one in answers])),
        "files": [
            {
                "file": reading.file,
                "participant": reading.participant,
                "scored": reading.answers is not None,
                "reason": reading.reason,
            }
            for reading in readings
        ],
        "preference": None,
        "precision": None,
        "questions": [],
    }
    if questions := key.of("preference"):
        results["preference"] = _preference(questions, answers, seed)
    if questions := key.of("precision"):
        results["precision"] = _precision(questions, answers, seed)
    results["questions"] = [_row(question, answers) for question in key.questions]
    return results


def _shares(
    questions: Sequence[KeyQuestion], answers: Sequence[Answers], method: str | None, right: bool
) -> np.ndarray:
    """Of the pictures of a kind, the share that was chosen, [participants, questions]."""
    table = np.full((len(answers), len(questions)), np.nan)
    for column, question in enumerate(questions):
        kind = {
            picture.token
            for picture in question.pictures.values()
            if picture.right == right and method in (None, picture.method)
        }
        for row, one in enumerate(answers):
            if kind:
                table[row, column] = len(one.chosen[question.token] & kind) / len(kind)
    return table


def _preference(
    questions: Sequence[KeyQuestion], answers: Sequence[Answers], seed: int
) -> dict[str, Any]:
    ours, other = (_shares(questions, answers, method, True) for method in ("ours", "other"))
    distractors = _shares(questions, answers, None, False)
    more, less = int((ours > other).sum()), int((ours < other).sum())
    return {
        "questions": len(questions),
        "answers": ours.size,
        "ours": asdict(interval(ours, seed=seed)),
        "other": asdict(interval(other, seed=seed)),
        "difference": asdict(interval(ours - other, seed=seed)),
        "distractors": None
        if np.isnan(distractors).any()
        else asdict(interval(distractors, seed=seed)),
        "more_of_ours": more,
        "more_of_other": less,
        "equal": ours.size - more - less,
        "p_value": binomial_test(more, more + less, 0.5),
    }


def _precision(
    questions: Sequence[KeyQuestion], answers: Sequence[Answers], seed: int
) -> dict[str, Any]:
    right = _shares(questions, answers, None, True)
    offered = {len(question.pictures) for question in questions}
    chance = 1 / max(offered)
    return {
        "questions": len(questions),
        "answers": right.size,
        "right": int(right.sum()),
        "precision": asdict(interval(right, seed=seed)),
        "chance": chance,
        "p_value": binomial_test(int(right.sum()), right.size, chance),
    }


def _row(question: KeyQuestion, answers: Sequence[Answers]) -> dict[str, Any]:
    """A question of the table: shares, and what was chosen in place of the sound's picture."""
    row: dict[str, Any] = {
        "question": question.token,
        "part": question.part,
        "sound": question.sound,
        "name": question.name,
    }
    if question.part == "preference":
        for method in ("ours", "other"):
            row[method] = float(_shares([question], answers, method, True).mean())
        distractors = _shares([question], answers, None, False)
        row["distractors"] = None if np.isnan(distractors).any() else float(distractors.mean())
        return row
    row["precision"] = float(_shares([question], answers, None, True).mean())
    wrong = Counter(
        question.pictures[token].name or token
        for one in answers
        for token in one.chosen[question.token]
        if not question.pictures[token].right
    )
    row["taken_for"] = dict(wrong.most_common())
    return row


def report(key: Key, results: dict[str, Any]) -> list[str]:
    """The figures for people."""
    left_out = [row for row in results["files"] if not row["scored"]]
    lines = [
        f"{len(results['files'])} files: {results['participants']} participants scored, "
        f"{len(left_out)} left out; median {results['minutes']:.1f} minutes"
    ]
    lines += [f"  left out: {row['file']}: {row['reason']}" for row in left_out]
    if (found := results["preference"]) is not None:
        rows = [
            (f"ours ({key.told('ours')})", found["ours"]),
            (f"other ({key.told('other')})", found["other"]),
            ("difference", found["difference"]),
            ("pictures of other sounds", found["distractors"]),
        ]
        width = max(len(name) for name, entry in rows if entry)
        lines.append(f"Preference: recall in {found['questions']} questions")
        lines += [f"  {name.ljust(width)}  {_percent(entry)}" for name, entry in rows if entry]
        lines.append(
            f"  more of ours in {found['more_of_ours']} answers, of the other in "
            f"{found['more_of_other']}, equal in {found['equal']}; {_p(found['p_value'])} "
            "against 1/2"
        )
    if (found := results["precision"]) is not None:
        lines.append(f"Precision in {found['questions']} questions: {_percent(found['precision'])}")
        lines.append(
            f"  {found['right']} of {found['answers']} answers; {_p(found['p_value'])} against "
            f"chance ({found['chance']:.1%})"
        )
    lines += _table(results["questions"])
    return lines


def _table(questions: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for row in questions:
        name = row["name"] or row["sound"]
        if row["part"] == "preference":
            shares = f"ours {row['ours']:4.0%}  other {row['other']:4.0%}"
            if row["distractors"] is not None:
                shares += f"  other sounds {row['distractors']:4.0%}"
        else:
            shares = f"right {row['precision']:4.0%}"
            if row["taken_for"]:
                wrong, count = next(iter(row["taken_for"].items()))
                shares += f"  most often taken for {wrong} ({count})"
        lines.append(f"  {row['part']:10}  {name:20}  {shares}")
    return lines


def _percent(entry: dict[str, float]) -> str:
    value, low, high = (100 * entry[name] for name in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
