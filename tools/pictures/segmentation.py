"""The figure of a segmented case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tools.metrics.structures import dice
from tools.pictures.style import FAINT, LEGEND_COLUMNS, PALETTE, header_line, image_axis, legend, new_figure, save_figure, text_axis
from tools.pictures.volumes import (
    PLANES,
    as_array,
    best_slices,
    check_shapes,
    draw_contours,
    extent_of,
    fill,
    grey_limits,
    mean_dice,
    quarters,
    window,
)

__all__ = ["segmentation_picture"]


def segmentation_picture(
    path: str | os.PathLike,
    image: Any,
    prediction: Any,
    truth: Any = None,
    names: Mapping[int, str] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
    across: int | None = None,
) -> None:
    """One figure for a segmented case: the image and, below it, the predicted structures in colour, in three planes or three slices.

    With ``truth`` its contours are drawn in white over the prediction, and the Dice of each structure stands in the legend.

    Args:
        path: the PNG to write.
        image: (D, H, W), any intensity unit.
        prediction, truth: integer label maps (D, H, W); 0 is the background.
        names: name of each label value; by default "label k".
        spacing: mm along the three axes.
        title: the case's name.
        across: axis across the slices of a volume that is looked at slice by slice; a quarter, half and three quarters through the
            slices that show a structure are then drawn. By default the three planes are.

    Raises:
        ValueError: when a label map does not have the image's shape, or there is no such axis.
    """
    if across not in (None, 0, 1, 2):
        raise ValueError(f"across must be None, 0, 1 or 2, not {across!r}")
    image, prediction = as_array(image), as_array(prediction).astype(np.int64)
    truth = None if truth is None else as_array(truth).astype(np.int64)
    check_shapes(image, {"prediction": prediction} | ({} if truth is None else {"truth": truth}))
    spacing = np.asarray(spacing, dtype=float)
    interest = prediction if truth is None else np.where(truth > 0, truth, prediction)
    box = window((image,), interest)
    extent = extent_of(box, spacing)
    if across is None:
        shown = [(plane, index, plane.name) for plane, index in zip(PLANES, (best_slices(interest, box)[p.across] for p in PLANES))]
    else:
        plane = next(plane for plane in PLANES if plane.across == across)
        shown = [(plane, index, f"slice {index + 1} of {image.shape[across]}") for index in quarters(interest, box[across], across)]
    found = set(np.unique(prediction)) | (set() if truth is None else set(np.unique(truth)))
    values = [int(value) for value in sorted(set(names or ()) | found) if value != 0]
    colours = {value: PALETTE[k % len(PALETTE)] for k, value in enumerate(values)}
    low, high = grey_limits(image[box])

    figure, cells, header, footer = _strip(
        [1 / plane.aspect(extent) for plane, _, _ in shown], rows=2, legend_rows=-(-(len(values) + 1) // LEGEND_COLUMNS)
    )
    for column, (plane, index, name) in enumerate(shown):
        for row in (0, 1):
            axis = cells[row][column]
            axis.imshow(plane.cut(image, index), origin="lower", aspect="auto", cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
            axis.set_xlim(box[plane.right].start - 0.5, box[plane.right].stop - 0.5)
            axis.set_ylim(box[plane.up].start - 0.5, box[plane.up].stop - 0.5)
        for value, colour in colours.items():
            mask = plane.cut(prediction, index) == value
            fill(cells[1][column], mask, colour)
        if truth is not None:
            draw_contours(cells[1][column], plane.cut(truth, index), "white", width=1.1)
        cells[0][column].set_title(name, color=FAINT, fontsize=11, pad=6)

    handles = []
    for value in values:
        name = (names or {}).get(value, f"label {value}")
        score = "" if truth is None else f"  {dice(prediction == value, truth == value):.2f}"
        handles.append(Patch(facecolor=colours[value], label=f"{name}{score}"))
    if truth is not None:
        handles.append(Line2D([], [], color="white", label="truth"))
    header_line(header, title, "" if truth is None else f"mean Dice {mean_dice(prediction, truth):.2f}")
    if handles:
        legend(footer, handles)
    save_figure(figure, path)


def _strip(widths: Sequence[float], rows: int, legend_rows: int) -> tuple[Figure, list[list[Axes]], Axes, Axes]:
    """Figure with a column a plane, all cells of one height."""
    total, gap, edge, top, bottom = 9.0, 0.07, 0.1, 0.78, 0.2 + 0.24 * legend_rows
    cell_height = min((total - 2 * edge - (len(widths) - 1) * gap) / sum(widths), 4.5)
    width = max(2 * edge + cell_height * sum(widths) + (len(widths) - 1) * gap, 6.0)
    height = top + rows * cell_height + (rows - 1) * gap + bottom
    figure = new_figure(width, height)
    cells = []
    for row in range(rows):
        x, y = edge, height - top - (row + 1) * cell_height - row * gap
        line = []
        for value in widths:
            line.append(image_axis(figure, x / width, y / height, cell_height * value / width, cell_height / height))
            x += cell_height * value + gap
        cells.append(line)
    header = text_axis(figure, edge / width, (height - 0.42) / height, (width - 2 * edge) / width, 0.36 / height)
    footer = text_axis(figure, edge / width, 0.02 / height, (width - 2 * edge) / width, (bottom - 0.06) / height)
    return figure, cells, header, footer
