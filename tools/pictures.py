"""Figures: a registered pair, a segmented case, scores by method, training curves, points in the plane.

Volumes are (D, H, W) arrays or tensors in RAS order (axis 0 towards the right, 1 anterior, 2 superior), as the plan's grid has them;
``spacing`` is in mm along these axes. Label contours and colours are safe for colour-blind readers (Okabe & Ito, 2008). Files are
written by matplotlib's Agg backend, without a display, and moved into place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from tools.data.files import atomic_path
from tools.metrics.structures import dice, mean_of
from tools.registration.displacement import jacobian_determinant

__all__ = ["curve_picture", "registration_picture", "save_figure", "scatter_picture", "segmentation_picture", "table_picture"]

BACKGROUND, PANEL, TEXT, FAINT = "#0e1116", "#161b22", "#e6edf3", "#8b949e"
# Okabe-Ito, without black, the first two most apart on grey images
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
FIXED_COLOUR, MOVING_COLOUR, FOLD_COLOUR = "#ffb000", "#56b4e9", "#f0e442"
DPI = 150
LEGEND_COLUMNS = 5


@dataclass(frozen=True)
class _Plane:
    """One of the three anatomical planes: ``across`` is the axis through it, ``right`` and ``up`` the axes seen."""

    name: str
    across: int
    right: int
    up: int

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Slice as (rows, columns) = (up, right) of a (D, H, W) volume."""
        image = np.take(volume, index, axis=self.across)
        return image.T  # the axes left over are in order, right before up

    def aspect(self, extent: Sequence[float]) -> float:
        """Height over width of the slice; ``extent`` is the volume's size in mm."""
        return extent[self.up] / extent[self.right]


PLANES = (_Plane("axial", 2, 0, 1), _Plane("coronal", 1, 0, 2), _Plane("sagittal", 0, 1, 2))


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
    fixed, moving, warped, ddf = (_array(value) for value in (fixed, moving, warped, ddf))
    labels = {"fixed_label": fixed_label, "moving_label": moving_label, "warped_label": warped_label}
    labels = {name: None if value is None else _array(value).astype(np.int64) for name, value in labels.items()}
    volumes = {"moving": moving, "warped": warped} | {name: value for name, value in labels.items() if value is not None}
    _same_shape(fixed, volumes)
    if ddf.shape != (3, *fixed.shape):
        raise ValueError(f"ddf has the shape {ddf.shape}, expected {(3, *fixed.shape)}")
    spacing = np.asarray(spacing, dtype=float)

    inner = jacobian_determinant(torch.from_numpy(np.ascontiguousarray(ddf, dtype=np.float32))[None])[0].numpy()
    jacobian = np.pad(inner, 1, mode="edge")
    length = np.sqrt(((ddf * spacing[:, None, None, None]) ** 2).sum(0))

    interest = labels["fixed_label"] if labels["fixed_label"] is not None else length > np.percentile(length, 90)
    box = _window((fixed, warped), interest)
    extent = _extent(box, spacing)
    centre = _best_slices(interest, box)

    heights = [plane.aspect(extent) for plane in PLANES]
    figure, cells, bars, header = _sheet(columns=5, heights=heights)
    limits = {id(volume): _grey_limits(volume[box]) for volume in (fixed, moving, warped)}
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

        def show(axis: Axes, volume: np.ndarray, plane: _Plane = plane, index: int = index, **style: Any) -> None:
            low, high = limits[id(volume)]
            style = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "bicubic"} | style
            axis.imshow(plane.cut(volume, index), origin="lower", aspect="auto", **style)

        show(cells[row][0], fixed)
        _contours(cells[row][0], shown["fixed_label"], FIXED_COLOUR)
        show(cells[row][1], moving)
        _contours(cells[row][1], shown["fixed_label"], FIXED_COLOUR, width=1.0, style="dashed")
        _contours(cells[row][1], shown["moving_label"], MOVING_COLOUR)
        show(cells[row][2], warped)
        _contours(cells[row][2], shown["fixed_label"], FIXED_COLOUR)
        _contours(cells[row][2], shown["warped_label"], MOVING_COLOUR)
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
        _contours(cells[row][4], shown["fixed_label"], TEXT, width=0.8)
        for axis in cells[row]:
            axis.set_xlim(box[plane.right].start - 0.5, box[plane.right].stop - 0.5)
            axis.set_ylim(box[plane.up].start - 0.5, box[plane.up].stop - 0.5)
        cells[row][0].set_ylabel(plane.name, color=FAINT, fontsize=11, labelpad=5)

    for axis, name in zip(cells[0], ("fixed", "moving", "warped moving", "deformation", "Jacobian determinant")):
        axis.set_title(name, color=TEXT, fontsize=12, pad=6)
    _colour_bar(bars[3], ScalarMappable(speed, speed_map), "displacement (mm)")
    _colour_bar(bars[4], ScalarMappable(scale, jacobian_map), "local volume, moving over fixed")
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
        after = _mean_dice(labels["warped_label"], labels["fixed_label"])
        before = (
            ""
            if labels["moving_label"] is None
            else f"{_mean_dice(labels['moving_label'], labels['fixed_label']):.2f} \N{RIGHTWARDS ARROW} "
        )
        facts.append(f"Dice {before}{after:.2f}")
    facts.append(f"folds {100 * float((inner <= 0).mean()):.2g} %")
    facts.append(f"largest displacement {float(length.max()):.1f} mm")
    _header(header, title, "     ".join(facts))
    if handles:
        _legend(bars[0], handles)
    save_figure(figure, path)


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
    image, prediction = _array(image), _array(prediction).astype(np.int64)
    truth = None if truth is None else _array(truth).astype(np.int64)
    _same_shape(image, {"prediction": prediction} | ({} if truth is None else {"truth": truth}))
    spacing = np.asarray(spacing, dtype=float)
    interest = prediction if truth is None else np.where(truth > 0, truth, prediction)
    box = _window((image,), interest)
    extent = _extent(box, spacing)
    if across is None:
        shown = [(plane, index, plane.name) for plane, index in zip(PLANES, (_best_slices(interest, box)[p.across] for p in PLANES))]
    else:
        plane = next(plane for plane in PLANES if plane.across == across)
        shown = [(plane, index, f"slice {index + 1} of {image.shape[across]}") for index in _quarters(interest, box[across], across)]
    found = set(np.unique(prediction)) | (set() if truth is None else set(np.unique(truth)))
    values = [int(value) for value in sorted(set(names or ()) | found) if value != 0]
    colours = {value: PALETTE[k % len(PALETTE)] for k, value in enumerate(values)}
    low, high = _grey_limits(image[box])

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
            _fill(cells[1][column], mask, colour)
        if truth is not None:
            _contours(cells[1][column], plane.cut(truth, index), "white", width=1.1)
        cells[0][column].set_title(name, color=FAINT, fontsize=11, pad=6)

    handles = []
    for value in values:
        name = (names or {}).get(value, f"label {value}")
        score = "" if truth is None else f"  {dice(prediction == value, truth == value):.2f}"
        handles.append(Patch(facecolor=colours[value], label=f"{name}{score}"))
    if truth is not None:
        handles.append(Line2D([], [], color="white", label="truth"))
    _header(header, title, "" if truth is None else f"mean Dice {_mean_dice(prediction, truth):.2f}")
    if handles:
        _legend(footer, handles)
    save_figure(figure, path)


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

    figure = Figure(figsize=(9.0, 1.5 + 0.55 * len(scores)), dpi=DPI, facecolor=BACKGROUND, layout="constrained")
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
    _plain_axes(axis)
    axis.grid(axis="x", color=FAINT, alpha=0.2)
    axis.tick_params(axis="y", length=0)
    _figure_title(figure, title)
    save_figure(figure, path)


def curve_picture(
    path: str | os.PathLike,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "Dice",
) -> None:
    """Curves of a training, one line a name, named at its end.

    Args:
        path: the PNG to write.
        curves: name to (steps, values) of equal length.
        title, xlabel, ylabel: texts.

    Raises:
        ValueError: when there is no curve, or steps and values differ in number.
    """
    if not curves:
        raise ValueError("no curves to draw")
    figure = Figure(figsize=(9.0, 4.5), dpi=DPI, facecolor=BACKGROUND, layout="constrained")
    axis = figure.add_subplot(facecolor=PANEL)
    for place, (name, (steps, values)) in enumerate(curves.items()):
        if len(steps) != len(values):
            raise ValueError(f"{name}: {len(steps)} steps but {len(values)} values")
        axis.plot(steps, values, color=PALETTE[place % len(PALETTE)], linewidth=1.8, label=name)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    _plain_axes(axis)
    axis.grid(color=FAINT, alpha=0.2)
    axis.margins(x=0.01)
    axis.legend(frameon=False, labelcolor=TEXT, fontsize=10)
    _figure_title(figure, title)
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
    figure = Figure(figsize=(max(2.9 * columns, 6.0), 3.1 * len(rows) + 0.9), dpi=DPI, facecolor=BACKGROUND, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(axes, rows.items()):
        for axis in line[len(row) :]:
            axis.set_axis_off()
        for axis, (panel, points) in zip(line, row.items()):
            axis.set(facecolor=PANEL, xticks=[], yticks=[])
            axis.set_box_aspect(1)
            axis.set_title(panel, color=TEXT, fontsize=11)
            _plain_axes(axis)
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
    _figure_title(figure, title)
    save_figure(figure, path)


def _array(volume: Any) -> np.ndarray:
    if isinstance(volume, torch.Tensor):
        volume = volume.detach().cpu().float().numpy()
    return np.asarray(volume)


def _same_shape(reference: np.ndarray, volumes: Mapping[str, np.ndarray]) -> None:
    if reference.ndim != 3:
        raise ValueError(f"expected a volume (D, H, W), got the shape {reference.shape}")
    for name, volume in volumes.items():
        if volume.shape != reference.shape:
            raise ValueError(f"{name} has the shape {volume.shape}, expected {reference.shape}")


def _bounds(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last-plus-one index of the mask along each axis; the whole volume for an empty one."""
    result = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        result.append((int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, size))
    return result


def _window(images: Sequence[np.ndarray], interest: np.ndarray) -> tuple[slice, slice, slice]:
    """What to show: the images without their padding, closed in on the structures where these are small."""
    content = np.logical_or.reduce([image > image.min() for image in images])
    result = []
    for (low, high), (first, last), size in zip(_bounds(content), _bounds(interest > 0), interest.shape):
        margin = max(6, int(0.4 * (last - first)))
        low, high = max(low, first - margin, 0), min(high, last + margin, size)
        result.append(slice(low, high) if high - low >= 3 else slice(0, size))
    return tuple(result)


def _extent(box: Sequence[slice], spacing: np.ndarray) -> list[float]:
    return [(part.stop - part.start) * step for part, step in zip(box, spacing)]


def _best_slices(interest: np.ndarray, box: Sequence[slice]) -> list[int]:
    """Along each axis the slice with the most different structures and, among these, the most voxels of them."""
    values = [value for value in np.unique(interest) if value != 0]
    if not values:
        return [(part.start + part.stop) // 2 for part in box]
    result = []
    for axis in range(3):
        rest = tuple(k for k in range(3) if k != axis)
        areas = np.array([(interest == value).sum(axis=rest) for value in values], dtype=float)
        # the geometric mean favours a slice that shows every structure well
        score = np.log(areas + 1).sum(axis=0)
        result.append(int(score.argmax()))
    return result


def _quarters(interest: np.ndarray, box: slice, axis: int) -> list[int]:
    """Slices a quarter, half and three quarters through those that show a structure, or, where none does, through the window."""
    hit = np.flatnonzero(interest.any(axis=tuple(k for k in range(3) if k != axis)))
    hit = hit if len(hit) else np.arange(box.start, box.stop)
    return [int(hit[round(share * (len(hit) - 1))]) for share in (0.25, 0.5, 0.75)]


def _grey_limits(volume: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(volume, (0.5, 99.7)))
    return low, high if high > low else low + 1


def _mean_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the labels of ``truth``."""
    return mean_of([dice(prediction == value, truth == value) for value in np.unique(truth) if value != 0])


def _outline(mask: np.ndarray) -> np.ndarray:
    """The mask as a smooth function whose half level is its border: contours without stairs, moved by less than half a voxel."""
    return ndimage.gaussian_filter(mask.astype(np.float32), 0.6)


def _contours(axis: Axes, label: np.ndarray | None, colour: str, width: float = 1.5, style: str = "solid") -> None:
    if label is None:
        return
    for value in np.unique(label):
        if value != 0:
            axis.contour(_outline(label == value), levels=[0.5], colors=[colour], linewidths=width, linestyles=style)


def _fill(axis: Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any():
        smooth = _outline(mask)
        axis.contourf(smooth, levels=[0.5, 2], colors=[colour], alpha=0.45)
        axis.contour(smooth, levels=[0.5], colors=[colour], linewidths=1.3)


def _grid(
    axis: Axes,
    ddf: np.ndarray,
    length: np.ndarray,
    plane: _Plane,
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
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
    cells, y = [], height - top
    for cell_height in cell_heights:
        y -= cell_height
        row = [_cell(figure, (left + k * (cell + gap)) / width, y / height, cell / width, cell_height / height) for k in range(columns)]
        cells.append(row)
        y -= gap
    y += gap
    bars = [
        figure.add_axes(((left + k * (cell + gap) + 0.12) / width, (y - 0.16) / height, (cell - 0.24) / width, 0.09 / height))
        for k in range(columns)
    ]
    for bar in bars:
        bar.set_axis_off()
    return figure, cells, bars, _text_axis(figure, left / width, (height - 0.42) / height, (width - left - gap) / width, 0.36 / height)


def _strip(widths: Sequence[float], rows: int, legend_rows: int) -> tuple[Figure, list[list[Axes]], Axes, Axes]:
    """Figure with a column a plane, all cells of one height."""
    total, gap, edge, top, bottom = 9.0, 0.07, 0.1, 0.78, 0.2 + 0.24 * legend_rows
    cell_height = min((total - 2 * edge - (len(widths) - 1) * gap) / sum(widths), 4.5)
    width = max(2 * edge + cell_height * sum(widths) + (len(widths) - 1) * gap, 6.0)
    height = top + rows * cell_height + (rows - 1) * gap + bottom
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
    cells = []
    for row in range(rows):
        x, y = edge, height - top - (row + 1) * cell_height - row * gap
        line = []
        for value in widths:
            line.append(_cell(figure, x / width, y / height, cell_height * value / width, cell_height / height))
            x += cell_height * value + gap
        cells.append(line)
    header = _text_axis(figure, edge / width, (height - 0.42) / height, (width - 2 * edge) / width, 0.36 / height)
    footer = _text_axis(figure, edge / width, 0.02 / height, (width - 2 * edge) / width, (bottom - 0.06) / height)
    return figure, cells, header, footer


def _cell(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    axis = figure.add_axes((x, y, width, height), facecolor="black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def _text_axis(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    axis = figure.add_axes((x, y, width, height))
    axis.set_axis_off()
    return axis


def _header(axis: Axes, title: str, facts: str) -> None:
    axis.text(0, 0.5, title, color=TEXT, fontsize=14, fontweight="bold", va="center", ha="left", transform=axis.transAxes)
    axis.text(1, 0.5, facts, color=TEXT, fontsize=11.5, va="center", ha="right", transform=axis.transAxes)


def _legend(axis: Axes, handles: Sequence[Any]) -> None:
    axis.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        ncols=min(len(handles), LEGEND_COLUMNS),
        frameon=False,
        labelcolor=TEXT,
        fontsize=10.5,
        handlelength=1.4,
        columnspacing=1.8,
    )


def _colour_bar(axis: Axes, mappable: ScalarMappable, label: str) -> None:
    axis.set_axis_on()
    bar = axis.figure.colorbar(mappable, cax=axis, orientation="horizontal")
    bar.outline.set_visible(False)
    axis.tick_params(colors=FAINT, labelsize=8.5, length=2, pad=1.5)
    axis.xaxis.set_label_text(label, color=FAINT, fontsize=8.5)


def _plain_axes(axis: Axes) -> None:
    axis.tick_params(colors=TEXT, labelsize=10)
    axis.xaxis.label.set_color(TEXT)
    axis.yaxis.label.set_color(TEXT)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _figure_title(figure: Figure, title: str) -> None:
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    if title:
        figure.suptitle(title, color=TEXT, fontsize=13, fontweight="bold", x=0.02, ha="left")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all, without a display."""
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, facecolor=figure.get_facecolor(), format="png")
