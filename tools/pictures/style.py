"""What all figures share: colours, texts, legends, and how a figure is begun and written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from tools.data.files import atomic_path

__all__ = [
    "BACKGROUND",
    "DPI",
    "FAINT",
    "LEGEND_COLUMNS",
    "PALETTE",
    "PANEL",
    "TEXT",
    "colour_bar",
    "figure_title",
    "header_line",
    "image_axis",
    "legend",
    "new_figure",
    "plain_axes",
    "save_figure",
    "text_axis",
]

BACKGROUND, PANEL, TEXT, FAINT = "#0e1116", "#161b22", "#e6edf3", "#8b949e"
# Okabe-Ito, without black, the first two most apart on grey images
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
DPI = 150
LEGEND_COLUMNS = 5


def new_figure(width: float, height: float, layout: str | None = None) -> Figure:
    """An empty figure, its size in inches; ``layout`` is matplotlib's."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND, layout=layout)


def image_axis(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Black axes without ticks or frame; place and size in shares of the figure."""
    axis = figure.add_axes((x, y, width, height), facecolor="black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def text_axis(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Invisible axes for texts; place and size in shares of the figure."""
    axis = figure.add_axes((x, y, width, height))
    axis.set_axis_off()
    return axis


def header_line(axis: Axes, title: str, facts: str) -> None:
    """Title on the left, facts on the right."""
    axis.text(0, 0.5, title, color=TEXT, fontsize=14, fontweight="bold", va="center", ha="left", transform=axis.transAxes)
    axis.text(1, 0.5, facts, color=TEXT, fontsize=11.5, va="center", ha="right", transform=axis.transAxes)


def legend(axis: Axes, handles: Sequence[Any]) -> None:
    """Legend that fills the axes from the upper left, without a frame."""
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


def colour_bar(axis: Axes, mappable: ScalarMappable, label: str) -> None:
    """Horizontal colour bar that fills the axes, its name below."""
    axis.set_axis_on()
    bar = axis.figure.colorbar(mappable, cax=axis, orientation="horizontal")
    bar.outline.set_visible(False)
    axis.tick_params(colors=FAINT, labelsize=8.5, length=2, pad=1.5)
    axis.xaxis.set_label_text(label, color=FAINT, fontsize=8.5)


def plain_axes(axis: Axes) -> None:
    """Light texts, no frame."""
    axis.tick_params(colors=TEXT, labelsize=10)
    axis.xaxis.label.set_color(TEXT)
    axis.yaxis.label.set_color(TEXT)
    for spine in axis.spines.values():
        spine.set_visible(False)


def figure_title(figure: Figure, title: str) -> None:
    """Title in the upper left of a figure with a constrained layout."""
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    if title:
        figure.suptitle(title, color=TEXT, fontsize=13, fontweight="bold", x=0.02, ha="left")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all, without a display."""
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, facecolor=figure.get_facecolor(), format="png")
