"""Options of `s2v study make`, and the format of the key that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from s2v_cli.errors import OptionError
from s2v_cli.training.manifest import SPLITS

Part = Literal["preference", "precision"]
PartsChoice = Literal["both", "preference", "precision"]

PARTS: tuple[Part, ...] = get_args(Part)
KEY_FORMAT, KEY_VERSION = "s2v-study-key", 1
LONGEST_TEXT = 2000  # characters


@dataclass(frozen=True)
class StudyOptions:
    """What is asked, and how the page looks (§4.3, Table 1 b).

    Attributes:
        parts: `preference` against another model, `precision` among pictures of other sounds, or
            `both`.
        questions: of each part, 1 to 100; 20 in the paper.
        pictures: of the sound by each method, in a question of preference, 1 to 4; 2 in the paper.
        distractors: pictures of other sounds, by either method, in a question of preference, 0 to
            6.
        choices: pictures in a question of precision, 2 to 8; 4 in the paper.
        split: train, validation or test.
        seed: of the choice of sounds, the order and the pictures.
        size: side of the pictures at most, px, 32 to 1024.
        title: of the page.
        note: for participants, such as whom to send the answers to.
    """

    parts: PartsChoice = "both"
    questions: int = 20
    pictures: int = 2
    distractors: int = 2
    choices: int = 4
    split: str = "test"
    seed: int = 0
    size: int = 256
    title: str = "Sounds and pictures"
    note: str = ""

    def __post_init__(self) -> None:
        kinds = get_args(PartsChoice)
        _check(self.parts in kinds, "parts", self.parts, ", ".join(kinds))
        _check(1 <= self.questions <= 100, "questions", self.questions, "1 to 100")
        _check(1 <= self.pictures <= 4, "pictures", self.pictures, "1 to 4")
        _check(0 <= self.distractors <= 6, "distractors", self.distractors, "0 to 6")
        _check(2 <= self.choices <= 8, "choices", self.choices, "2 to 8")
        _check(self.split in SPLITS, "split", self.split, ", ".join(SPLITS))
        _check(0 <= self.seed < 2**62, "seed", self.seed, "0 to 2^62 - 1")
        _check(32 <= self.size <= 1024, "size", self.size, "32 to 1024 px")
        title = self.title.strip()
        _check(0 < len(title) <= 100, "title", self.title, "1 to 100 characters")
        _check(
            len(self.note) <= LONGEST_TEXT,
            "note",
            f"{len(self.note)} characters",
            f"up to {LONGEST_TEXT} characters",
        )

    @property
    def asked(self) -> tuple[Part, ...]:
        """The parts, in their order."""
        return tuple(part for part in PARTS if self.parts in (part, "both"))


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")
