"""The report of an ablation: tables with intervals over seeds, and which orders hold.

An order of two rows is told by the difference of runs of equal seeds: it holds where the 95%
interval of the mean difference (Student's t) lies on the paper's side of zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from s2v_cli.training.ablation.plan import Plan, Row

# Two-sided 95% quantiles of Student's t for 1 to 10 degrees of freedom, and above.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_STUDENT_MORE = 2.201  # 11 degrees of freedom; a little wide for more

Verdict = Literal["holds", "reversed", "not told apart", "one seed"]
Results = Mapping[str, Mapping[str, Any]]  # figures of each run, by its key

FIGURES = {
    "r1": "R@1",
    "r5": "R@5",
    "encoder": "nearest class",
    "gap": "modality gap",
}
_OF_CLASSES = ("r5_of_taught", "chance_r5", "r1_of_first")  # told of the study `classes` alone
MEANINGS = {
    "R@1, R@5": "share of pictures whose class the judge, which took no part in making them, puts "
    "first, or among its first five; mean over classes",
    "nearest class": "share of sounds whose embedding is nearest to the mean image embedding of "
    "their class; mean over classes",
    "R@1 of the first": "the same of the classes alone that the fewest classes of the study are, "
    "and among them: the only figure of that study whose chance does not change from row to row",
    "modality gap": "distance of the mean sound embedding from the mean image embedding, both "
    "means over classes (§4.4)",
}


@dataclass(frozen=True)
class Expectation:
    """What the paper finds of two rows, one after the other in a study.

    Attributes:
        study: its name.
        figure: that is compared.
        rises: whether the later row has more of it.
        source: where the paper says so.
    """

    study: str
    figure: str
    rises: bool
    source: str


EXPECTATIONS = (
    Expectation("loss", "r1", True, "Table 2 (A), (B), (F)"),
    Expectation("loss", "r5", True, "Table 2 (A), (B), (F)"),
    Expectation("duration", "r1", True, "Table 2 (D), (E), (F)"),
    Expectation("duration", "r5", True, "Table 2 (D), (E), (F)"),
    Expectation("selection", "r1", True, "Table 2 (C), (F)"),
    Expectation("selection", "r5", True, "Table 2 (C), (F)"),
    Expectation("classes", "r5_of_taught", False, "Fig. 16"),
    Expectation("classes", "r1_of_first", False, "Fig. 16"),
)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval over seeds; the half-width is nan for one seed."""

    mean: float
    half: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Student's t over at least one value."""
        count = len(values)
        if count < 2:
            return cls(mean(values), math.nan, count)
        quantile = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else _STUDENT_MORE
        return cls(mean(values), quantile * stdev(values) / math.sqrt(count), count)

    def __str__(self) -> str:
        half = "" if math.isnan(self.half) else f" ± {self.half:.3f}"
        return f"{self.mean:.3f}{half}"


@dataclass(frozen=True)
class Comparison:
    """Two rows of a study, and whether the paper's order of them holds."""

    expectation: Expectation
    first: str
    second: str
    difference: Estimate
    verdict: Verdict


def figures_of(plan: Plan, results: Results, study: str, row: Row) -> dict[int, Mapping[str, Any]]:
    """What the finished runs of a row measured, by seed."""
    found = {}
    for seed in plan.seeds:
        key = plan.setting(study, row, seed).key
        if key in results:
            found[seed] = results[key]
    return found


def compare(plan: Plan, results: Results) -> list[Comparison]:
    """Each order of the paper that finished runs say something about."""
    found = []
    for expectation in EXPECTATIONS:
        rows = dict(plan.studies).get(expectation.study, ())
        pairs = list(itertools.pairwise(rows))
        if len(rows) > 2:
            pairs.append((rows[0], rows[-1]))
        for first, second in pairs:
            before = figures_of(plan, results, expectation.study, first)
            after = figures_of(plan, results, expectation.study, second)
            name = expectation.figure
            differences = [
                after[seed][name] - before[seed][name]
                for seed in sorted(set(before) & set(after))
                if before[seed].get(name) is not None and after[seed].get(name) is not None
            ]
            if differences:
                estimate = Estimate.of(differences)
                verdict = judge_order(estimate, rises=expectation.rises)
                found.append(Comparison(expectation, first.label, second.label, estimate, verdict))
    return found


def judge_order(difference: Estimate, *, rises: bool) -> Verdict:
    """Whether a mean difference with its interval says what the paper says."""
    if math.isnan(difference.half):
        return "one seed"
    towards = difference.mean if rises else -difference.mean
    if towards > difference.half:
        return "holds"
    return "reversed" if towards < -difference.half else "not told apart"


def report(plan: Plan, results: Results, facts: Mapping[str, str]) -> str:
    """The report as Markdown.

    Args:
        plan: what was to be run.
        results: of the runs that are done.
        facts: lines about how it was run (command, data, time, machine), by name.
    """
    wanted = {setting.key for setting in plan.runs()}
    done = len(wanted & set(results))
    lines = ["# Ablation", ""]
    lines += ["The paper's Table 2 and Fig. 16, run again at small scale.", ""]
    if done < len(wanted):
        lines += [f"**{done} of {len(wanted)} runs are done; the rest is missing here.**", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    options = ", ".join(f"{name} {value}" for name, value in plan.shared)
    lines += [
        f"- runs: {done}, seeds {', '.join(map(str, plan.seeds))}; all with {options}",
        f"- measured on the split `{plan.split}`, {plan.pictures} "
        f"picture{'s' if plan.pictures > 1 else ''} of each sound",
        "- intervals: 95% over seeds (Student's t); they do not cover the choice of sounds",
    ]
    lines += [f"- {name}: {told}" for name, told in MEANINGS.items()]
    comparisons = compare(plan, results)
    lines += ["", "## Which orders of the paper hold here", "", *_in_words(comparisons), ""]
    for study, rows in plan.studies:
        lines += [f"## {study.capitalize()}", "", *_table(plan, results, study, rows), ""]
        lines += _differences([c for c in comparisons if c.expectation.study == study])
    return "\n".join(lines).rstrip() + "\n"


def _in_words(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return ["No two rows have runs to compare yet."]
    lines = []
    words: dict[Verdict, str] = {
        "holds": "Holds",
        "reversed": "Does not hold; it is the other way round",
        "not told apart": "Not told apart",
        "one seed": "One seed only, which says nothing about chance",
    }
    for comparison in comparisons:
        expected = comparison.expectation
        name = _heading(expected.figure)
        more = "higher" if expected.rises else "lower"
        lines.append(
            f"- {expected.study}: {name} of *{comparison.second}* {more} than of "
            f"*{comparison.first}* ({expected.source}). **{words[comparison.verdict]}** "
            f"({_signed(comparison.difference)})."
        )
    return lines


def _table(plan: Plan, results: Results, study: str, rows: Sequence[Row]) -> list[str]:
    measured = [(row, figures_of(plan, results, study, row)) for row in rows]
    names = [
        name
        for name in (*FIGURES, *(_OF_CLASSES if study == "classes" else ()), "sounds")
        if any(run.get(name) is not None for _, runs in measured for run in runs.values())
    ]
    if not names:
        return ["No run is done yet."]
    lines = [
        f"| | {' | '.join(_heading(name) for name in names)} | seeds |",
        f"| --- |{' ---: |' * (len(names) + 1)}",
    ]
    for row, runs in measured:
        cells = []
        for name in names:
            values = [run[name] for run in runs.values() if run.get(name) is not None]
            if not values:
                cells.append("")
            elif name == "sounds":
                cells.append(f"{mean(values):.0f}")
            else:
                cells.append(str(Estimate.of(values)))
        lines.append(f"| {row.label} | {' | '.join(cells)} | {len(runs)} |")
    return lines


def _differences(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return []
    lines = ["| difference | of | mean, 95% | paper | here |", "| --- | --- | ---: | --- | --- |"]
    for comparison in comparisons:
        expected = comparison.expectation
        lines.append(
            f"| {comparison.second} minus {comparison.first} | {_heading(expected.figure)} | "
            f"{_signed(comparison.difference)} | {'above 0' if expected.rises else 'below 0'} | "
            f"{comparison.verdict} |"
        )
    return [*lines, ""]


def _heading(name: str) -> str:
    more = {
        "r5_of_taught": "R@5 among the taught classes",
        "r1_of_first": "R@1 of the first",
        "chance_r5": "chance of that",
        "sounds": "sounds measured",
    }
    return FIGURES.get(name) or more[name]


def _signed(estimate: Estimate) -> str:
    text = str(estimate)
    return text if text.startswith("-") else f"+{text}"
