"""An ablation as a picture: R@5 of each row with its interval, a panel a study."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from s2v_cli.errors import DependencyError
from s2v_cli.training.ablation.plan import Plan
from s2v_cli.training.ablation.report import Estimate, Results, figures_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = (3.2, 2.6)  # inches
DPI = 100
INK, ACCENT, FAINT = "#14161a", "#2563a8", "#9aa3ad"


def plot(plan: Plan, results: Results) -> bytes:
    """A PNG of R@5 by row, with 95% intervals over seeds and each seed as a dot.

    Of the study `classes`, R@5 is among the taught classes, and chance is drawn beside it.

    Raises:
        DependencyError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "Drawing an ablation needs matplotlib. Run: pip install 's2v-cli[eval]'"
        ) from None
    count = len(plan.studies)
    figure = Figure((PANEL[0] * count, PANEL[1]), DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (study, _) in enumerate(plan.studies):
        _panel(figure.add_subplot(1, count, place + 1), plan, results, study)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, plan: Plan, results: Results, study: str) -> None:
    name = "r5_of_taught" if study == "classes" else "r5"
    rows = dict(plan.studies)[study]
    for place, row in enumerate(rows):
        runs = figures_of(plan, results, study, row).values()
        values = [float(run[name]) for run in runs if run.get(name) is not None]
        if not values:
            continue
        estimate = Estimate.of(values)
        half = 0.0 if math.isnan(estimate.half) else estimate.half
        axes.errorbar(place, estimate.mean, half, fmt="o", color=ACCENT, capsize=4)
        axes.plot([place + 0.18] * len(values), values, ".", color=FAINT)
        chances = [float(run["chance_r5"]) for run in runs if name == "r5_of_taught"]
        if chances:
            axes.plot([place - 0.3, place + 0.3], [chances[0]] * 2, ":", color=INK)
    axes.set_xticks(range(len(rows)), [row.label.replace(" (", "\n(") for row in rows], fontsize=7)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(0, 1.02)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{study}: R@5{' among the taught' if study == 'classes' else ''}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
