"""Pictures of shape models, drawn by matplotlib without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize

from tools.pictures.style import FAINT, PALETTE, PANEL, TEXT, new_figure, save_figure
from tools.shape.distance import warp_weights
from tools.shape.pdm import PointDistributionModel
from tools.shape.surfaces import Surface, vertex_normals

__all__ = ["draw_surface", "modes_picture", "statistics_picture"]


def draw_surface(axis: Axes, surface: Surface, values: np.ndarray, view: np.ndarray, colours: str, limits: tuple[float, float]) -> None:
    """Draw a mesh, shaded and coloured by a value a vertex, far faces first.

    Args:
        axis: where to.
        surface: the mesh, mm.
        values: (V,).
        view: rotation (3, 3) whose rows are the directions to the right, up and towards the eye.
        colours: a colour map of matplotlib.
        limits: the values of its two ends.
    """
    seen = surface.vertices @ view.T
    corners = seen[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    front = np.flatnonzero(normals[:, 2] > 0)
    front = front[np.argsort(corners[front, :, 2].mean(1))]
    light = np.array([-0.35, 0.5, 0.8]) / np.linalg.norm([-0.35, 0.5, 0.8])
    shade = 0.35 + 0.65 * np.clip(normals[front] @ light, 0, None)
    colour = colormaps[colours](Normalize(*limits)(values[surface.faces[front]].mean(1)))
    colour[:, :3] *= shade[:, None]
    axis.add_collection(PolyCollection(corners[front, :, :2], facecolors=colour, edgecolors=colour, linewidths=0.3))
    axis.set_aspect("equal")
    axis.set_axis_off()


def modes_picture(
    path: str | os.PathLike,
    model: PointDistributionModel,
    template: Surface,
    template_points: np.ndarray,
    modes: int = 4,
    reach: float = 2.0,
) -> None:
    """The first modes: mean minus, mean, mean plus ``reach`` standard deviations, coloured by how far the surface moves in or out.

    Args:
        path: the PNG to write.
        model: the model.
        template: mesh of the template, mm.
        template_points: (M, 3), its points, in the frame of the mesh.
        modes: at most so many rows.
        reach: standard deviations.
    """
    weights = warp_weights(template_points, template.vertices)
    mean = weights @ model.mean
    normals = vertex_normals(mean, template.faces)
    view = np.linalg.eigh(np.cov(mean.T))[1].T[::-1]  # long axis to the right, thin axis towards the eye
    view[2] *= np.sign(np.linalg.det(view))
    count, share = min(modes, len(model.deviations)), np.diff(model.explained(), prepend=0)
    shapes = {
        (row, side): weights @ (model.mean + (side - 1) * reach * model.deviations[row] * model.modes[row])
        for row in range(count)
        for side in range(3)
    }
    limit = max(float(np.abs(((shape - mean) * normals).sum(1)).max()) for shape in shapes.values()) or 1.0
    everything = np.concatenate(list(shapes.values())) @ view.T
    low, high = everything.min(0), everything.max(0)
    width, height = (high - low)[:2] * 1.05
    figure = new_figure(10.5, 1.0 + count * 3.2 * max(height / width, 0.3), layout="constrained")
    axes = figure.subplots(count, 3, squeeze=False)
    for (row, side), shape in shapes.items():
        axis = axes[row, side]
        draw_surface(axis, Surface(shape, template.faces), ((shape - mean) * normals).sum(1), view, "RdBu_r", (-limit, limit))
        axis.set_xlim(low[0], high[0])
        axis.set_ylim(low[1], high[1])
        title = ("mean - {:g} sd", "mean", "mean + {:g} sd")[side].format(reach)
        axis.set_title(f"mode {row + 1} ({100 * share[row]:.0f} %)   {title}" if side == 0 else title, color=TEXT, fontsize=10)
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), "RdBu_r"), ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("outward displacement, mm", color=FAINT)
    bar.ax.tick_params(colors=FAINT)
    save_figure(figure, path)


def statistics_picture(path: str | os.PathLike, curves: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Compactness, generalisation, specificity and, where known, surface distance over the number of modes, one line a model.

    Args:
        path: the PNG to write.
        curves: name of the model to ``{"compactness": rows, "generalisation": rows, "specificity": rows, "surface": rows}`` of
            :mod:`tools.shape.statistics`; tables may be missing.
    """
    panels = {
        "compactness": ("share", "share of the variance"),
        "generalisation": ("error", "error, mm"),
        "specificity": ("error", "error, mm"),
    }
    if any("surface" in tables for tables in curves.values()):
        panels["surface"] = ("error", "surface distance of shapes left out, mm")
    figure = new_figure(4.0 * len(panels), 3.8, layout="constrained")
    for axis, (table, (column, label)) in zip(figure.subplots(1, len(panels)), panels.items()):
        axis.set_facecolor(PANEL)
        for place, (name, tables) in enumerate(curves.items()):
            rows = tables.get(table, ())
            axis.plot(
                [row["modes"] for row in rows],
                [row[column] for row in rows],
                color=PALETTE[place % len(PALETTE)],
                linewidth=1.8,
                label=name,
            )
        axis.set_title(table, color=TEXT, fontsize=11)
        axis.set_xlabel("modes", color=FAINT)
        axis.set_ylabel(label, color=FAINT)
        axis.set_ylim(bottom=0)
        axis.tick_params(colors=FAINT)
        axis.grid(color=FAINT, alpha=0.2)
        axis.spines[:].set_color(FAINT)
        if len(curves) > 1:
            axis.legend(frameon=False, labelcolor=TEXT, fontsize=9)
    save_figure(figure, path)
