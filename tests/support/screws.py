"""A closed surface that has sides."""

from __future__ import annotations

import numpy as np
import pyvista

from tools.shape.surfaces import Surface, from_polydata


def screw(twist: float = 1.0, width: float = 8.0) -> Surface:
    """An ellipsoid of unequal axes (20, ``width``, 3 mm), twisted along the longest: its mirror image is twisted the other way."""
    ball = from_polydata(pyvista.Icosphere(radius=1.0, nsub=4))
    x, y, z = ball.vertices.T * np.array([[20.0], [width], [3.0]])
    angle = twist * x / 20
    return Surface(np.column_stack((x, y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle))), ball.faces)
