"""Plots of the modality gap: distributions (Fig. 6) and t-SNE of both modalities (Fig. 7)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from s2v_cli.errors import DependencyError
from s2v_cli.strip import FONT, Theme
from s2v_cli.training.evaluation.gap import Geometry, random_spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
BINS = 32
NAMED = 30  # classes whose names fit into a map
_PANELS = (  # title and axis of each column of Fig. 6
    ("magnitude of the gap", "‖g‖"),
    ("orthogonality to the mean gap", "cos(z - E[z], E[g])"),
    ("centre orthogonal to the mean gap", "E[z - (z·g')g'], each dimension"),
)


@dataclass(frozen=True)
class _Colours:
    ground: str
    ink: str
    faint: str
    image: str
    sound: str
    gap: str
    saturation: float
    value: float


_THEMES: dict[str, _Colours] = {
    "light": _Colours("#ffffff", "#14161a", "#b9c0c8", "#2563a8", "#d2691e", "#5b6570", 0.9, 0.7),
    "dark": _Colours("#14161a", "#ecedf0", "#4a5058", "#6ba8e5", "#f0a05a", "#a3adb8", 0.6, 0.95),
}


@dataclass(frozen=True)
class Map:
    """A map of pairs.

    Attributes:
        label: of the preset.
        image: places of z^V, [N, 2].
        sound: places of z^A, [N, 2].
        names: class of each pair.
    """

    label: str
    image: np.ndarray
    sound: np.ndarray
    names: tuple[str, ...]


def require_packages() -> None:
    """Refuse to begin what could not be drawn in the end.

    Raises:
        DependencyError: matplotlib or scikit-learn is missing.
    """
    for name, package in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
        if find_spec(name) is None:
            raise DependencyError(
                f"Plots of the gap need {package}. Run: pip install 's2v-cli[eval]'"
            )


def flatten(features: Tensor, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton, 2008) of features [M, D], M >= 4: float32 [M, 2].

    The perplexity is lowered to a third of the others where there are few features.

    Raises:
        DependencyError: scikit-learn is missing.
    """
    require_packages()
    from sklearn.manifold import TSNE

    fitting = min(perplexity, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=fitting, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(tsne.fit_transform(features.numpy()), np.float32)


def plot_geometry(presets: Sequence[tuple[str, Geometry]], theme: Theme = "light") -> bytes:
    """A PNG in the manner of Fig. 6: a row a preset; magnitude, orthogonality and centre.

    Dashed lines at the orthogonality show the spread of random directions in so many dimensions.

    Raises:
        DependencyError: matplotlib is missing.
    """
    colours = _THEMES[theme]
    with _drawing(colours):
        figure = _figure((9.6, 0.3 + 2.4 * len(presets)))
        grid: Any = figure.subplots(len(presets), 3, squeeze=False)
        for row, (label, measured) in enumerate(presets):
            _draw_row(grid[row], measured, colours)
            grid[row][0].set_ylabel(f"{label}\n\npairs")
        for column, (title, unit) in enumerate(_PANELS):
            grid[0][column].set_title(title)
            grid[-1][column].set_xlabel(unit)
            edges = [edge for row in grid for edge in row[column].get_xlim()]
            for row in grid:  # one axis for all presets, with zero in it
                row[column].set_xlim(min(0.0, *edges), max(edges))
        return _png(figure)


def _draw_row(panels: Sequence[Axes], measured: Geometry, colours: _Colours) -> None:
    magnitude, orthogonality, centre = panels
    _histogram(magnitude, measured.magnitude, colours.gap)
    magnitude.axvline(float(measured.magnitude.mean()), color=colours.ink, linewidth=1)
    turned = [measured.orthogonality_image, measured.orthogonality_sound]
    edges = _edges(turned)
    _histogram(orthogonality, turned[0], colours.image, "pictures, zⱽ", edges)
    _histogram(orthogonality, turned[1], colours.sound, "sounds, zᴬ", edges)
    spread = random_spread(len(measured.mean_gap))
    for place in (-spread, spread):
        orthogonality.axvline(place, color=colours.ink, linewidth=0.8, linestyle="--")
    orthogonality.set_ylim(top=1.25 * orthogonality.get_ylim()[1])
    orthogonality.legend(loc="upper right")
    _histogram(centre, measured.centre, colours.gap)
    centre.set_ylabel("dimensions")
    for axes in panels:
        axes.locator_params(axis="x", nbins=6)
        axes.locator_params(axis="y", nbins=6, integer=True)
        side = max(abs(edge) for edge in axes.get_xlim())
        axes.set_xlim(0.0 if axes is magnitude else -side, side)


def plot_maps(maps: Sequence[Map], theme: Theme = "light") -> bytes:
    """A PNG in the manner of Fig. 7: a row a preset; modalities left, classes right.

    Left, a line joins each pair. Right, a class has a colour, and its name where it lies,
    where there is room.

    Raises:
        DependencyError: matplotlib is missing.
    """
    colours = _THEMES[theme]
    with _drawing(colours):
        figure = _figure((10.4, 0.3 + 4.9 * len(maps)))
        grid: Any = figure.subplots(len(maps), 2, squeeze=False)
        for row, entry in enumerate(maps):
            modalities, classes = grid[row]
            lines = np.stack([entry.image, entry.sound], axis=1)  # [N, 2 ends, 2]
            for line in lines:
                modalities.plot(*line.T, color=colours.faint, linewidth=0.5, zorder=1)
            size = 16.0 if len(entry.names) <= 500 else 6.0
            _scatter(modalities, entry.image, colours.image, "o", size, "pictures, zⱽ")
            _scatter(modalities, entry.sound, colours.sound, "^", size, "sounds, zᴬ")
            modalities.legend(loc="best")
            modalities.set_title(f"{entry.label}: pairs")
            _draw_classes(classes, entry, colours, size)
            classes.set_title(f"{entry.label}: classes")
            for axes in (modalities, classes):
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_aspect("equal", "datalim")
                axes.margins(0.06)
                axes.spines[:].set_visible(True)
                axes.spines[:].set_color(colours.faint)
        return _png(figure)


def _draw_classes(axes: Axes, entry: Map, colours: _Colours, size: float) -> None:
    from matplotlib.colors import hsv_to_rgb
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=colours.ground)]
    names = sorted(name for name, _ in Counter(entry.names).most_common(NAMED))
    others = np.array([own not in names for own in entry.names])
    if others.any():
        _scatter(axes, entry.image[others], colours.faint, "o", size)
        _scatter(axes, entry.sound[others], colours.faint, "^", size)
    side = float(np.ptp(np.concatenate([entry.image, entry.sound]), axis=0).max())
    taken: list[tuple[np.ndarray, int]] = []  # place and letters of each name
    for number, name in enumerate(names):
        # Hues a golden section apart: neighbours in the alphabet differ.
        colour = hsv_to_rgb((number * 0.618 % 1, colours.saturation, colours.value))
        members = np.array([own == name for own in entry.names])
        _scatter(axes, entry.image[members], colour, "o", size)
        _scatter(axes, entry.sound[members], colour, "^", size)
        # The name goes to the picture nearest to their median where it covers no other name; where
        # there is no room it is left out.
        places = entry.image[members]
        places = places[np.linalg.norm(places - np.median(places, axis=0), axis=1).argsort()]
        free = (p for p in places if all(_apart(p, len(name), other, side) for other in taken))
        if (place := next(free, None)) is None:
            continue
        taken.append((place, len(name)))
        text = axes.annotate(
            name.replace("_", " "),
            (place[0], place[1]),
            (0, 4),
            textcoords="offset points",
            ha="center",
        )
        text.set(color=colour, fontsize=8, path_effects=halo, zorder=4)


def _apart(place: np.ndarray, letters: int, taken: tuple[np.ndarray, int], side: float) -> bool:
    """Whether a name there leaves another one free, in a map of such a side."""
    across, up = np.abs(place - taken[0])
    return bool(across > 0.0135 * side * (letters + taken[1]) / 2 or up > 0.035 * side)


def _scatter(
    axes: Axes, places: np.ndarray, colour: Any, marker: str, size: float, label: str = ""
) -> None:
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=size,
        color=colour,
        marker=marker,
        linewidths=0,
        zorder=2,
        label=label or None,
    )


def _histogram(
    axes: Axes, values: Tensor, colour: str, label: str = "", edges: list[float] | None = None
) -> None:
    places = _edges([values]) if edges is None else edges
    axes.hist(values.numpy(), places, color=colour, alpha=0.55, label=label or None)
    axes.hist(values.numpy(), places, color=colour, histtype="step", linewidth=1)


def _edges(groups: Sequence[Tensor]) -> list[float]:
    """Edges of the bins of several groups; equal values have a bin of some width too."""
    low, high = min(float(g.min()) for g in groups), max(float(g.max()) for g in groups)
    margin = max(0.0, 0.02 - (high - low)) / 2
    return [float(edge) for edge in np.linspace(low - margin, high + margin, BINS + 1)]


@contextmanager
def _drawing(colours: _Colours) -> Iterator[None]:
    """Matplotlib's own settings, not the user's, with the font that comes along and a theme."""
    require_packages()
    import matplotlib
    from matplotlib import font_manager, style

    font_manager.fontManager.addfont(FONT)
    chosen: Any = {
        "font.family": "DejaVu Sans",
        "figure.facecolor": colours.ground,
        "axes.facecolor": colours.ground,
        "savefig.facecolor": colours.ground,
        "axes.edgecolor": colours.ink,
        "axes.labelcolor": colours.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": colours.ink,
        "xtick.color": colours.ink,
        "ytick.color": colours.ink,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.labelsize": 8,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "text.parse_math": False,  # class names may hold dollars
    }
    with style.context("default"), matplotlib.rc_context(chosen):
        yield


def _figure(inches: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Blank

    figure = Blank(inches, DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
