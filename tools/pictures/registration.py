"""The figure of a registered pair."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tools.pictures.style import FAINT, TEXT, colour_bar, header_line, image_axis, legend, new_figure, save_figure, text_axis
from tools.pictures.volumes import (
    PLANES,
    Plane,
    as_array,
    best_slices,
    check_shapes,
    draw_contours,
    extent_of,
    grey_limits,
    mean_dice,
    window,
)
from tools.registration.displacement import jacobian_determinant

__all__ = ["registration_picture"]

FIXED_COLOUR, MOVING_COLOUR, FOLD_COLOUR = "#ffb000", "#56b4e9", "#f0e442"


def registration_picture(
    path: str | os.PathLike,
    fixed: Any,
    moving: Any,
    warped: Any,
    ddf: Any,
    fixed_label: Any = None,
    moving_label: Any = None,
    warped_label: Any = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> None:
    """One figure for a registered pair: fixed, moving, warped, deformation grid and Jacobian determinant in three planes.

    The fixed image's contours lie over the moving image (before) and the warped one (after). The grid is the fixed image's, drawn
    where its voxels look in the moving image; the colour is the length of the displacement. The slices are those that show most of the
    fixed labels, or of the deformation where there are no labels.

    Args:
        path: the PNG to write.
        fixed, moving, warped: (D, H, W), all on the fixed grid, any intensity unit.
        ddf: displacement in voxels of the fixed grid, (3, D, H, W), pull-back (:mod:`tools.registration.displacement`).
        fixed_label, moving_label, warped_label: integer label maps (D, H, W), or None.
        spacing: mm along the three axes.
        title: the pair's name.

    Raises:
        ValueError: when a volume does not have the fixed image's shape.
    """
    fixed, moving, warped, ddf = (as_array(value) for value in (fixed, moving, warped, ddf))
    labels = {"fixed_label": fixed_label, "moving_label": moving_label, "warped_label": warped_label}
    labels = {name: None if value is None else as_array(value).astype(np.int64) for name, value in labels.items()}
    volumes = {"moving": moving, "warped": warped} | {name: value for name, value in labels.items() if value is not None}
    check_shapes(fixed, volumes)
    if ddf.shape != (3, *fixed.shape):
        raise ValueError(f"ddf has the shape {ddf.shape}, expected {(3, *fixed.shape)}")
    spacing = np.asarray(spacing, dtype=float)

    inner = jacobian_determinant(torch.from_numpy(np.ascontiguousarray(ddf, dtype=np.float32))[None])[0].numpy()
    jacobian = np.pad(inner, 1, mode="edge")
    length = np.sqrt(((ddf * spacing[:, None, None, None]) ** 2).sum(0))

    interest = labels["fixed_label"] if labels["fixed_label"] is not None else length > np.percentile(length, 90)
    box = window((fixed, warped), interest)
    extent = extent_of(box, spacing)
    centre = best_slices(interest, box)

    heights = [plane.aspect(extent) for plane in PLANES]
    figure, cells, bars, header = _sheet(columns=5, heights=heights)
    limits = {id(volume): grey_limits(volume[box]) for volume in (fixed, moving, warped)}
    speed = Normalize(0, max(float(np.percentile(length[box], 99.5)), 1e-3))
    # in octaves, so that halving and doubling weigh the same; the few strongest voxels, mostly at the edge, saturate
    octaves = np.log2(np.clip(jacobian, 2.0**-4, None))
    bound = float(np.clip(np.percentile(np.abs(octaves[box]), 98), 0.25, 3))
    scale = Normalize(-bound, bound)
    jacobian_map = colormaps["berlin"]
    speed_map = ListedColormap(colormaps["plasma"](np.linspace(0.2, 1, 256)))  # its darkest part cannot be seen here

    for row, plane in enumerate(PLANES):
        index = centre[plane.across]
        shown = {name: None if value is None else plane.cut(value, index) for name, value in labels.items()}

        def show(axis: Axes, volume: np.ndarray, plane: Plane = plane, index: int = index, **style: Any) -> None:
            low, high = limits[id(volume)]
            style = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "bicubic"} | style
            axis.imshow(plane.cut(volume, index), origin="lower", aspect="auto", **style)

        show(cells[row][0], fixed)
        draw_contours(cells[row][0], shown["fixed_label"], FIXED_COLOUR)
        show(cells[row][1], moving)
        draw_contours(cells[row][1], shown["fixed_label"], FIXED_COLOUR, width=1.0, style="dashed")
        draw_contours(cells[row][1], shown["moving_label"], MOVING_COLOUR)
        show(cells[row][2], warped)
        draw_contours(cells[row][2], shown["fixed_label"], FIXED_COLOUR)
        draw_contours(cells[row][2], shown["warped_label"], MOVING_COLOUR)
        show(cells[row][3], moving, alpha=0.35)
        _grid(cells[row][3], ddf, length, plane, index, box, spacing, speed_map, speed)
        cells[row][4].imshow(
            plane.cut(octaves, index), origin="lower", aspect="auto", cmap=jacobian_map, norm=scale, interpolation="bilinear"
        )
        folds = plane.cut(jacobian, index) <= 0
        if folds.any():
            cells[row][4].imshow(
                np.ma.masked_where(~folds, folds),
                origin="lower",
                aspect="auto",
                cmap=ListedColormap([FOLD_COLOUR]),
                interpolation="nearest",
            )
        draw_contours(cells[row][4], shown["fixed_label"], TEXT, width=0.8)
        for axis in cells[row]:
            axis.set_xlim(box[plane.right].start - 0.5, box[plane.right].stop - 0.5)
            axis.set_ylim(box[plane.up].start - 0.5, box[plane.up].stop - 0.5)
        cells[row][0].set_ylabel(plane.name, color=FAINT, fontsize=11, labelpad=5)

    for axis, name in zip(cells[0], ("fixed", "moving", "warped moving", "deformation", "Jacobian determinant")):
        axis.set_title(name, color=TEXT, fontsize=12, pad=6)
    colour_bar(bars[3], ScalarMappable(speed, speed_map), "displacement (mm)")
    colour_bar(bars[4], ScalarMappable(scale, jacobian_map), "local volume, moving over fixed")
    ticks = (-bound, -bound / 2, 0.0, bound / 2, bound)
    bars[4].xaxis.set_ticks(ticks, [f"{2**tick:.2f}" for tick in ticks])

    handles = []
    if labels["fixed_label"] is not None:
        handles.append(Line2D([], [], color=FIXED_COLOUR, label="contour of the fixed image"))
    if labels["moving_label"] is not None or labels["warped_label"] is not None:
        handles.append(Line2D([], [], color=MOVING_COLOUR, label="of the moving image"))
    if (jacobian <= 0).any():
        handles.append(Patch(color=FOLD_COLOUR, label="fold"))
    facts = []
    if labels["fixed_label"] is not None and labels["warped_label"] is not None:
        after = mean_dice(labels["warped_label"], labels["fixed_label"])
        before = (
            ""
            if labels["moving_label"] is None
            else f"{mean_dice(labels['moving_label'], labels['fixed_label']):.2f} \N{RIGHTWARDS ARROW} "
        )
        facts.append(f"Dice {before}{after:.2f}")
    facts.append(f"folds {100 * float((inner <= 0).mean()):.2g} %")
    facts.append(f"largest displacement {float(length.max()):.1f} mm")
    header_line(header, title, "     ".join(facts))
    if handles:
        legend(bars[0], handles)
    save_figure(figure, path)


def _grid(
    axis: Axes,
    ddf: np.ndarray,
    length: np.ndarray,
    plane: Plane,
    index: int,
    box: Sequence[slice],
    spacing: np.ndarray,
    colours: Colormap,
    norm: Normalize,
) -> None:
    """Lines of the fixed grid at the places p + u(p), coloured by the length of u in mm, in one plane."""
    right, up, colour = plane.cut(ddf[plane.right], index), plane.cut(ddf[plane.up], index), plane.cut(length, index)
    columns = np.arange(box[plane.right].start, box[plane.right].stop)
    rows = np.arange(box[plane.up].start, box[plane.up].stop)
    # about twenty meshes along the longer side, square in mm
    mesh = max(len(columns) * spacing[plane.right], len(rows) * spacing[plane.up]) / 20
    step = {name: max(1, round(mesh / spacing[getattr(plane, name)])) for name in ("right", "up")}
    grid_right, grid_up = np.meshgrid(np.arange(right.shape[1]), np.arange(right.shape[0]))
    x, y = grid_right + right, grid_up + up
    segments, shades = [], []
    for row in rows[:: step["up"]]:
        segments.append(np.stack([x[row, columns], y[row, columns]], axis=1))
        shades.append(colour[row, columns])
    for column in columns[:: step["right"]]:
        segments.append(np.stack([x[rows, column], y[rows, column]], axis=1))
        shades.append(colour[rows, column])
    pieces = np.concatenate([np.stack([line[:-1], line[1:]], axis=1) for line in segments])
    shade = np.concatenate([(line[:-1] + line[1:]) / 2 for line in shades])
    axis.add_collection(LineCollection(pieces, array=shade, cmap=colours, norm=norm, linewidths=1.1, capstyle="round"), autolim=False)


def _sheet(columns: int, heights: Sequence[float]) -> tuple[Figure, list[list[Axes]], list[Axes], Axes]:
    """Figure with a row a plane, all cells of one width, and below each column a thin axis for a colour bar."""
    cell, gap, left, top, bottom = 2.55, 0.07, 0.32, 0.78, 0.54
    # very long volumes would make a page of it: keep the sheet no taller than wide
    cell_heights = [cell * value for value in heights]
    shrink = min(1.0, (columns * cell) / sum(cell_heights))
    cell *= shrink
    cell_heights = [value * shrink for value in cell_heights]
    width = left + columns * cell + (columns - 1) * gap + gap
    height = top + sum(cell_heights) + (len(heights) - 1) * gap + bottom
    figure = new_figure(width, height)
    cells, y = [], height - top
    for cell_height in cell_heights:
        y -= cell_height
        places = [(left + k * (cell + gap)) / width for k in range(columns)]
        cells.append([image_axis(figure, place, y / height, cell / width, cell_height / height) for place in places])
        y -= gap
    y += gap
    bars = [
        figure.add_axes(((left + k * (cell + gap) + 0.12) / width, (y - 0.16) / height, (cell - 0.24) / width, 0.09 / height))
        for k in range(columns)
    ]
    for bar in bars:
        bar.set_axis_off()
    return figure, cells, bars, text_axis(figure, left / width, (height - 0.42) / height, (width - left - gap) / width, 0.36 / height)
