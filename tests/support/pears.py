"""Closed surfaces without symmetry whose vertices correspond."""

from __future__ import annotations

import numpy as np
import pyvista
from scipy.spatial.transform import Rotation

from tools.shape.surfaces import Surface, from_polydata


def pear(length: float = 18.0, width: float = 9.0, height: float = 7.0, bend: float = 0.25, subdivisions: int = 3) -> Surface:
    """A bent pear without symmetry; the same vertex is the same place whatever the sizes."""
    ball = from_polydata(pyvista.Icosphere(radius=1.0, nsub=subdivisions))
    x, y, z = ball.vertices.T
    taper = 1 + 0.4 * x + 0.15 * np.sin(3 * y)
    return Surface(np.column_stack((length * x, width * y * taper + length * bend * x**2, height * z * taper + 2 * x * y)), ball.faces)


def moved(surface: Surface, degrees: float, seed: int) -> Surface:
    generator = np.random.default_rng(seed)
    axis = generator.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    return Surface(surface.vertices @ turn.T + generator.normal(size=3) * 80, surface.faces)
