"""Figures of numbers: scores by method, points in the plane."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from tools.pictures.style import FAINT, LEGEND_COLUMNS, PALETTE, PANEL, TEXT, figure_title, new_figure, plain_axes, save_figure

__all__ = ["scatter_picture", "table_picture"]


def table_picture(
    path: str | os.PathLike,
    rows: Iterable[Mapping[str, Any]],
    value: str = "dice",
    method: str = "method",
    title: str = "",
    label: str = "Dice, one point a case",
    reference: Mapping[str, float] | None = None,
) -> None:
    """Scores of all cases by method: a box (median and quartiles), its whiskers (5 and 95 %), and a point for each case.

    Args:
        path: the PNG to write.
        rows: one mapping a case and method; order of first appearance is the order of the methods from top to bottom.
        value, method: the columns read; rows whose value is missing, empty or not finite are left out.
        title, label: figure title and name of the value axis.
        reference: values to draw as dashed vertical lines, by name.

    Raises:
        ValueError: when no row holds a value.
    """
    scores: dict[str, list[float]] = {}
    for row in rows:
        number = row.get(value)
        number = float("nan") if number in (None, "") else float(number)
        if np.isfinite(number):
            scores.setdefault(str(row[method]), []).append(number)
    if not scores:
        raise ValueError(f"no row has a finite {value!r}")

    figure = new_figure(9.0, 1.5 + 0.55 * len(scores), layout="constrained")
    axis = figure.add_subplot(facecolor=PANEL)
    generator = np.random.default_rng(0)
    for place, numbers in enumerate(scores.values()):
        colour = PALETTE[place % len(PALETTE)]
        axis.boxplot(
            [numbers],
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour + "44", "edgecolor": colour, "linewidth": 1.2},
            medianprops={"color": TEXT, "linewidth": 2.2},
            whiskerprops={"color": colour, "linewidth": 1.2},
            capprops={"color": colour, "linewidth": 1.2},
        )
        heights = place + generator.uniform(-0.19, 0.19, len(numbers))
        axis.scatter(numbers, heights, s=11, color=colour, alpha=0.75, linewidths=0, zorder=3)
        mean = f"{np.mean(numbers):.3f}"
        axis.annotate(mean, (1.01, place), xycoords=("axes fraction", "data"), va="center", color=TEXT, fontsize=10, annotation_clip=False)
    axis.annotate("mean", (1.01, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", color=FAINT, fontsize=9)
    for name, number in (reference or {}).items():
        axis.axvline(number, color=FAINT, linestyle="--", linewidth=1)
        axis.annotate(
            name,
            (number, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=FAINT,
            fontsize=9,
        )
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_ylim(len(scores) - 0.5, -0.5)
    axis.set_xlabel(label)
    plain_axes(axis)
    axis.grid(axis="x", color=FAINT, alpha=0.2)
    axis.tick_params(axis="y", length=0)
    figure_title(figure, title)
    save_figure(figure, path)


def scatter_picture(path: str | os.PathLike, rows: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str = "") -> None:
    """Points in the plane, coloured by group: rows of square panels. The axes have no unit and are left out.

    Args:
        path: the PNG to write.
        rows: name of a row (may be empty) to its panels: title to groups, name to points (n, 2). A group has one colour throughout.
        title: of the figure.

    Raises:
        ValueError: when there is no panel.
    """
    panels = [panel for row in rows.values() for panel in row.values()]
    if not panels:
        raise ValueError("no panels to draw")
    groups = list(dict.fromkeys(name for panel in panels for name in panel))
    columns = max(len(row) for row in rows.values())
    figure = new_figure(max(2.9 * columns, 6.0), 3.1 * len(rows) + 0.9, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(axes, rows.items()):
        for axis in line[len(row) :]:
            axis.set_axis_off()
        for axis, (panel, points) in zip(line, row.items()):
            axis.set(facecolor=PANEL, xticks=[], yticks=[])
            axis.set_box_aspect(1)
            axis.set_title(panel, color=TEXT, fontsize=11)
            plain_axes(axis)
            for place, group in enumerate(groups):
                x, y = np.asarray(points.get(group, np.empty((0, 2))), dtype=float).T
                # beyond the palette's length the shape tells groups apart
                marker = "os^D"[place // len(PALETTE) % 4]
                axis.scatter(x, y, s=12, marker=marker, color=PALETTE[place % len(PALETTE)], alpha=0.75, linewidths=0)
        line[0].set_ylabel(name, color=TEXT, fontsize=11)
    handles = [
        Line2D([], [], linestyle="", marker="os^D"[k // len(PALETTE) % 4], color=PALETTE[k % len(PALETTE)], label=group)
        for k, group in enumerate(groups)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), LEGEND_COLUMNS), frameon=False, labelcolor=TEXT)
    figure_title(figure, title)
    save_figure(figure, path)
