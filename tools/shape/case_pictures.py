"""Pictures of predicted shapes beside the truth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from tools.pictures.style import FAINT, PALETTE, PANEL, TEXT, new_figure, save_figure
from tools.shape.pictures import draw_surface
from tools.shape.surfaces import Surface

__all__ = ["ScoredSurface", "best_median_worst", "errors_picture", "surfaces_picture"]

COLOURS = "viridis"


class ScoredSurface(NamedTuple):
    """A predicted surface.

    Attributes:
        name: of the case.
        error: the case's mean distance, mm.
        surface: the mesh, mm.
        distances: of its vertices from the true surface, (V,), mm.
    """

    name: str
    error: float
    surface: Surface
    distances: np.ndarray


def best_median_worst(cases: Sequence[ScoredSurface]) -> dict[str, ScoredSurface]:
    """The cases of least, median (the lower of two) and greatest error.

    Raises:
        ValueError: there is none.
    """
    if not cases:
        raise ValueError("no case to choose from")
    ranked = sorted(cases, key=lambda case: case.error)
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}


def surfaces_picture(path: str | os.PathLike, cases: Mapping[str, ScoredSurface]) -> None:
    """Surfaces coloured by their distance from the truth, all seen alike and from both sides.

    Args:
        path: the PNG to write.
        cases: title to surface, one column each.
    """
    limit = max(float(np.percentile(case.distances, 99)) for case in cases.values()) or 1.0
    figure = new_figure(3.6 * len(cases) + 0.9, 4.6, layout="constrained")
    axes = figure.subplots(2, len(cases), squeeze=False)
    # long axis of the first case to the right, its thin axis towards the eye
    view = np.linalg.eigh(np.cov(next(iter(cases.values())).surface.vertices.T))[1].T[::-1]
    view[2] *= np.sign(np.linalg.det(view))
    for column, (title, case) in enumerate(cases.items()):
        vertices = case.surface.vertices - case.surface.vertices.mean(0)
        for row, turn in enumerate((np.ones(3), np.array([-1.0, 1.0, -1.0]))):
            axis = axes[row, column]
            draw_surface(axis, Surface(vertices, case.surface.faces), case.distances, view * turn[:, None], COLOURS, (0.0, limit))
            axis.autoscale_view()
        axes[0, column].set_title(f"{title}: {case.name}, {case.error:.2f} mm", color=TEXT, fontsize=9)
    bar = figure.colorbar(ScalarMappable(Normalize(0, limit), COLOURS), ax=axes, shrink=0.7, pad=0.01)
    bar.set_label("distance from the true surface, mm", color=FAINT)
    bar.ax.tick_params(colors=FAINT)
    save_figure(figure, path)


def errors_picture(path: str | os.PathLike, errors: Mapping[str, Sequence[float]], label: str) -> None:
    """A box for each group of errors: median, quartiles, and whiskers of up to one and a half times their distance.

    Args:
        path: the PNG to write.
        errors: name of the group to its values.
        label: of the axis of values.
    """
    figure = new_figure(1.6 + 1.2 * len(errors), 3.6, layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor(PANEL)
    boxes = axis.boxplot(
        [list(values) for values in errors.values()], patch_artist=True, widths=0.55, flierprops={"markeredgecolor": FAINT}
    )
    for box in boxes["boxes"]:
        box.set_facecolor(PALETTE[0])
        box.set_edgecolor(TEXT)
    for line in (*boxes["whiskers"], *boxes["caps"], *boxes["medians"]):
        line.set_color(TEXT)
    axis.set_xticks(range(1, len(errors) + 1), list(errors))
    axis.set_ylim(bottom=0)
    axis.set_ylabel(label, color=TEXT)
    axis.tick_params(colors=FAINT)
    for spine in axis.spines.values():
        spine.set_color(FAINT)
    save_figure(figure, path)
