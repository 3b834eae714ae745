"""Plans of ablations: TOML files that say which runs are compared (Table 2, Fig. 16)."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from s2v_cli.errors import TrainingError

EvaluationSplit = Literal["validation", "test"]
Selection = Literal["mid", "top1"]

KIND = "ablation"
DEFAULT = "ablation"
_KEYS = {"kind", "name", "seeds", "split", "pictures", "shared", "studies"}
_FIXED = {"seed"}  # of a run, which the plan itself gives


@dataclass(frozen=True)
class Setting:
    """What one run trains on and how; runs of equal settings are one run.

    Attributes:
        options: fields of `AlignOptions`, sorted by name, without the seed.
        seed: of the run: network, batches, and which classes are taken.
        select: moments of the videos, where it trains on videos; None trains on the sounds.
        classes: how many classes it trains on; None is all.
    """

    options: tuple[tuple[str, Any], ...]
    seed: int
    select: Selection | None = None
    classes: int | None = None

    @property
    def key(self) -> str:
        """Name of its folder: what is easily read, and a hash of the rest."""
        options = dict(self.options)
        told = [str(options.get("loss", "run")), f"{float(options.get('duration_s', 0)):g}s"]
        told += [self.select] if self.select else []
        told += [f"{self.classes}classes"] if self.classes else []
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return "-".join([*told, f"seed{self.seed}", hashlib.sha256(content).hexdigest()[:8]])


@dataclass(frozen=True)
class Row:
    """One line of a study: its label, and what it changes."""

    label: str
    changes: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Plan:
    """Which runs are made, and how they are measured.

    Attributes:
        name: of the plan.
        seeds: one run of each row for each of them.
        split: whose sounds the runs are measured on.
        pictures: drawn of each sound, >= 1.
        shared: fields of `AlignOptions` that all runs share.
        studies: rows of each study, by name.
    """

    name: str
    seeds: tuple[int, ...]
    split: EvaluationSplit
    pictures: int
    shared: tuple[tuple[str, Any], ...]
    studies: tuple[tuple[str, tuple[Row, ...]], ...]

    def setting(self, study: str, row: Row, seed: int) -> Setting:
        """The run of a row with a seed."""
        changes = dict(row.changes)
        select, classes = changes.pop("select", None), changes.pop("classes", None)
        options = {**dict(self.shared), **changes}
        return Setting(tuple(sorted(options.items())), seed, select, classes)

    def runs(self) -> Iterator[Setting]:
        """Each run once, in an order that makes the report of what is done so far a fair one.

        All rows with the first seed come first, then all with the next.
        """
        seen = set()
        for seed in self.seeds:
            for study, rows in self.studies:
                for row in rows:
                    setting = self.setting(study, row, seed)
                    if setting not in seen:
                        seen.add(setting)
                        yield setting

    @property
    def fewest_classes(self) -> int | None:
        """Of those that a row is trained on; None where all are trained on all."""
        return min((s.classes for s in self.runs() if s.classes is not None), default=None)

    def without(self, study: str) -> Plan:
        """The same without one study."""
        kept = tuple((name, rows) for name, rows in self.studies if name != study)
        return Plan(self.name, self.seeds, self.split, self.pictures, self.shared, kept)


def load_plan(name_or_file: str = DEFAULT) -> Plan:
    """Read a plan by its name, or from a TOML file.

    Raises:
        TrainingError: no such plan, or an unknown or malformed entry.
    """
    path = Path(name_or_file)
    known = resources.files("s2v_cli.training") / "recipes" / f"{name_or_file}.toml"
    try:
        if "/" not in name_or_file and known.is_file():
            text = known.read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(
            f"Cannot read the plan {name_or_file!r}: {reason}. Known: {DEFAULT}, or a TOML file."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"Plan {name_or_file!r} is not valid TOML: {error}.") from None
    return make_plan(table, name_or_file)


def make_plan(table: Mapping[str, Any], name: str) -> Plan:
    """Check a plan's table.

    Raises:
        TrainingError: an unknown or malformed entry, by its name.
    """

    def refuse(entry: str, value: object, allowed: str) -> TrainingError:
        return TrainingError(f"Plan {name!r}: {entry} is {value!r}; allowed: {allowed}.")

    if table.get("kind") != KIND:
        raise refuse("kind", table.get("kind"), repr(KIND))
    if unknown := sorted(set(table) - _KEYS):
        raise refuse("a key", unknown[0], ", ".join(sorted(_KEYS)))
    seeds = table.get("seeds", [0])
    if not (
        isinstance(seeds, list)
        and seeds
        and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
        and len(set(seeds)) == len(seeds)
    ):
        raise refuse("seeds", seeds, "different whole numbers from 0, at least one")
    split, pictures = table.get("split", "validation"), table.get("pictures", 2)
    if split not in get_args(EvaluationSplit):
        raise refuse("split", split, ", ".join(get_args(EvaluationSplit)))
    if type(pictures) is not int or pictures < 1:
        raise refuse("pictures", pictures, "a whole number of 1 or more")
    shared, studies = table.get("shared", {}), table.get("studies", {})
    if not isinstance(shared, dict) or _FIXED & set(shared):
        raise refuse("shared", shared, "a table without seed")
    if not isinstance(studies, dict) or not studies:
        raise refuse("studies", studies, "tables [studies.NAME] of rows")
    checked = []
    for study, rows in studies.items():
        if not isinstance(rows, dict) or len(rows) < 2:
            raise refuse(f"studies.{study}", rows, "two rows or more")
        checked.append(
            (study, tuple(_row(f"studies.{study}.{k}", k, v, refuse) for k, v in rows.items()))
        )
    options = tuple(sorted(shared.items()))
    return Plan(
        str(table.get("name", name)), tuple(seeds), split, pictures, options, tuple(checked)
    )


def _row(entry: str, label: str, changes: Any, refuse: Any) -> Row:
    if not isinstance(changes, dict) or _FIXED & set(changes):
        raise refuse(entry, changes, "a table of options without seed")
    if changes.get("select", "mid") not in get_args(Selection):
        raise refuse(f"{entry}.select", changes["select"], ", ".join(get_args(Selection)))
    classes = changes.get("classes", 2)
    if type(classes) is not int or classes < 2:
        raise refuse(f"{entry}.classes", classes, "a whole number of 2 or more")
    for key, value in changes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(f"{entry}.{key}", value, "a finite number")
    return Row(label, tuple(sorted(changes.items())))
