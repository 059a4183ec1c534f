"""Non-rigid registration of a template's mesh to surfaces by thin-plate smoothing splines, from stiff to soft.

Each step looks for every control point's place on the surface - the nearest surface vertex that also faces the same way, of which only the
offset along the surface's normal is taken, so that points slide over the surface instead of snapping to its vertices - and fits a
smoothing spline to these places (the plan of Chui & Rangarajan 2003 with the point-to-plane distance of Chen & Medioni 1992).
Smoothing splines are linear in the places, and the control points of one template are the same for every surface: each stiffness is one
matrix, computed once, and a step costs a nearest-neighbour search and a product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from tools.shape.distance import warp_weights
from tools.shape.icp import place
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface, vertex_normals

__all__ = ["SplineRegistration", "Target"]

STIFFNESS = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
STEPS = 7  # a stiffness
NORMAL_WEIGHT = 0.3  # what a normal turned by one radian counts in the search, in root-mean-square radii of the shape
SEEKERS = 1200  # points of the surface that look for the template in turn


class Target:
    """A surface made ready to be searched.

    Args:
        surface: the surface.
    """

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.normals = vertex_normals(surface.vertices, surface.faces)
        edges = surface.vertices[surface.faces] - surface.vertices[np.roll(surface.faces, 1, axis=1)]
        self.edge = float(np.linalg.norm(edges, axis=2).mean())
        self.weight = NORMAL_WEIGHT * float(np.sqrt(surface.vertices.var(0).sum()))
        self.tree = cKDTree(np.hstack((surface.vertices, self.weight * self.normals)))
        self.seekers = np.linspace(0, len(surface.vertices) - 1, min(SEEKERS, len(surface.vertices))).astype(np.int64)

    def offsets(self, points: np.ndarray, normals: np.ndarray, both_ways: bool = True) -> np.ndarray:
        """How far, and where to, points (N, 3) of a template with normals (N, 3) have to go, (N, 3) mm.

        Args:
            points: on the template, mm.
            normals: of the template there.
            both_ways: whether parts of the surface that no point found pull at the template point nearest to them.
        """
        features = np.hstack((points, self.weight * normals))
        _, found = self.tree.query(features)
        offset = self._slide(self.surface.vertices[found] - points, self.normals[found])
        if not both_ways:
            return offset
        seekers = self.seekers
        _, owner = cKDTree(features).query(self.tree.data[seekers])
        pull = self._slide(self.surface.vertices[seekers] - points[owner], self.normals[seekers])
        count = np.bincount(owner, minlength=len(points)).astype(np.float64)
        pulled = np.stack([np.bincount(owner, pull[:, axis], len(points)) for axis in range(3)], axis=1) / np.maximum(count, 1)[:, None]
        return np.where(count[:, None] > 0, (offset + pulled) / 2, offset)

    def _slide(self, offset: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Take the part along the surface away, up to what the distance between vertices explains."""
        along = (offset * normals).sum(1, keepdims=True) * normals
        tangential = offset - along
        length = np.linalg.norm(tangential, axis=1, keepdims=True)
        return along + tangential * np.clip(1 - 1.5 * self.edge / np.maximum(length, 1e-12), 0, None)


class SplineRegistration:
    """A template that can be fitted to surfaces.

    Args:
        template: its mesh.
        controls: number of control points: farthest-first vertices, at most all.
        stiffness: weights of the bending energy, from stiff to soft; 1 leaves little more than an affine map.
        steps: for each of them.
        first: numbers of vertices that are the first control points, at most ``controls``.
    """

    def __init__(
        self,
        template: Surface,
        controls: int = 768,
        stiffness: Sequence[float] = STIFFNESS,
        steps: int = STEPS,
        first: Sequence[int] | None = None,
    ) -> None:
        self.template, self.steps = template, steps
        self.order = farthest_point_order(template.vertices, min(controls, len(template.vertices)), first)
        points = template.vertices[self.order]
        # the kernel's sums grow with the number of points, and so must the smoothing
        self.smoothers = [warp_weights(points, template.vertices, "linear", len(points) * value).astype(np.float32) for value in stiffness]

    def fit(self, target: Target, turn: bool = True, start: np.ndarray | None = None) -> np.ndarray:
        """Fit the template to a surface.

        Args:
            target: the surface.
            turn: whether to try other orientations than the template's own, see :func:`tools.shape.icp.place`.
            start: vertices (V, 3) to start from instead, mm.

        Returns:
            the template's vertices on the surface, (V, 3) mm. They lie near it, not on it to the last hundredth.
        """
        vertices = place(self.template.vertices, target.surface, turn).apply(self.template.vertices) if start is None else start
        for smoother in self.smoothers:
            for _ in range(self.steps):
                vertices = self.step(vertices, target, smoother)
        return vertices

    def step(self, vertices: np.ndarray, target: Target, smoother: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
        """One search and one smoothing: of the whole map, or of what is added to ``base`` (V, 3)."""
        points = vertices[self.order]
        normals = vertex_normals(vertices, self.template.faces)[self.order]
        places = points + target.offsets(points, normals)
        if base is not None:
            return base + smoother @ (places - base[self.order])
        centre = places.mean(0)  # single precision is kept for what is small
        return smoother @ (places - centre).astype(np.float32) + centre
