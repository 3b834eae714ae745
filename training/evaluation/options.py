"""Options of `s2v eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from s2v_cli.errors import OptionError
from s2v_cli.training.manifest import SPLITS

RecallKind = Literal["clip", "classifier"]
InceptionKind = Literal["vggsound", "imagenet", "classifier"]
RecallChoice = Literal["auto", "clip", "classifier"]
InceptionChoice = Literal["auto", "vggsound", "imagenet", "classifier"]
RowName = Literal["A", "B", "C", "D"]

ROWS: tuple[RowName, ...] = get_args(RowName)
NAME = "{}"  # where a template has the class name
MOST_SEEDS = 64


@dataclass(frozen=True)
class EvalOptions:
    """What is measured, and by what.

    Attributes:
        split: train, validation or test.
        seeds: pictures of each sound, 1 to 64.
        limit: sounds at most, of all classes in turn, >= 1; None takes all.
        rows: of the table: letters of A (from the image), B (from the sound), C (retrieval) and D
            (real pictures).
        recall: what ranks the classes: `clip`, `classifier`, or `auto`: CLIP if it was pulled.
        template: text that CLIP reads, with `{}` where the class name goes.
        classifier: a checkpoint `judge.pt`; None trains one where it is needed.
        inception: whose features FID, KID and IS are of: `vggsound`, `imagenet`, `classifier`, or
            `auto`: the first of them that is at hand.
        force_fid: compute FID of fewer pictures than there are features.
        seed: of the first picture.
    """

    split: str = "test"
    seeds: int = 4
    limit: int | None = None
    rows: str = "".join(ROWS)
    recall: RecallChoice = "auto"
    template: str = NAME
    classifier: Path | None = None
    inception: InceptionChoice = "auto"
    force_fid: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.split in SPLITS, "split", self.split, ", ".join(SPLITS))
        _check(1 <= self.seeds <= MOST_SEEDS, "seeds", self.seeds, f"1 to {MOST_SEEDS}")
        _check(self.limit is None or self.limit >= 1, "limit", self.limit, "1 or more")
        rows = [*self.rows]
        known = rows and set(rows) <= set(ROWS) and len(set(rows)) == len(rows)
        _check(bool(known), "rows", self.rows, f"letters of {''.join(ROWS)}, each once")
        kinds = get_args(RecallChoice)
        _check(self.recall in kinds, "recall", self.recall, ", ".join(kinds))
        _check(NAME in self.template, "template", self.template, f"a text with {NAME} in it")
        networks = get_args(InceptionChoice)
        _check(self.inception in networks, "inception", self.inception, ", ".join(networks))
        _check(0 <= self.seed < 2**62, "seed", self.seed, "0 to 2^62")


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")
