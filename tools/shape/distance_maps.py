"""Non-rigid registration of a template's mesh to surfaces by the registration transformer's instance optimisation on distance maps.

The slower of the two ways to correspondences (see :mod:`tools.shape.splines`); its map is diffeomorphic, so that no face can fold.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from tools.registration.displacement import sample
from tools.registration.instance import optimise_pair
from tools.shape.icp import place
from tools.shape.sampling import farthest_point_order
from tools.shape.splines import Target
from tools.shape.surfaces import Surface, vertex_normals

__all__ = ["DistanceMapRegistration", "signed_distance_map"]

MARGIN = 6  # voxels around the template


def signed_distance_map(surface: Surface, points: np.ndarray, reach: float) -> np.ndarray:
    """Distance of points (N, 3) to a surface, mm, negative inside, cut at +-``reach``; from vertices and normals, which must be dense."""
    normals = vertex_normals(surface.vertices, surface.faces)
    distance, nearest = cKDTree(surface.vertices).query(points)
    height = ((points - surface.vertices[nearest]) * normals[nearest]).sum(1)
    # beside a vertex the plane through it is the better surface; far off only the distance counts
    near = distance < 0.25 * reach
    return np.clip(np.where(near, height, np.copysign(distance, height)), -reach, reach)


class DistanceMapRegistration:
    """A template that can be fitted to surfaces.

    Args:
        template: its mesh, with edges not much longer than a voxel of the maps.
        controls: number of vertices in :attr:`order`.
        resolution: voxels along the template's longest side.
        iterations: of the optimiser.
        regularity: weight of the velocity's smoothness.
    """

    def __init__(
        self, template: Surface, controls: int = 768, resolution: int = 40, iterations: int = 60, regularity: float = 0.05
    ) -> None:
        self.template, self.iterations, self.regularity = template, iterations, regularity
        self.order = farthest_point_order(template.vertices, min(controls, len(template.vertices)))
        low, high = template.vertices.min(0), template.vertices.max(0)
        self.spacing = float((high - low).max() / resolution)
        self.corner = low - MARGIN * self.spacing
        self.shape = tuple(int(n) for n in np.ceil((high - low) / self.spacing) + 2 * MARGIN)
        index = np.indices(self.shape).reshape(3, -1).T
        self.grid = self.corner + self.spacing * index
        self.map = self._map(template)

    def _map(self, surface: Surface) -> torch.Tensor:
        distance = signed_distance_map(surface, self.grid, 4 * self.spacing) / self.spacing
        return torch.from_numpy(distance.astype(np.float32)).reshape(1, 1, *self.shape)

    def fit(self, target: Target, turn: bool = True) -> np.ndarray:
        """Fit the template to a surface: the template's vertices there, (V, 3) mm, near the surface but not quite on it."""
        motion = place(self.template.vertices, target.surface, turn)
        moving = Surface(motion.inverse().apply(target.surface.vertices), target.surface.faces)
        result = optimise_pair(
            torch.zeros(1, 3, *self.shape),
            self.map,
            self._map(moving),
            iterations=self.iterations,
            similarity=torch.nn.functional.mse_loss,
            regularity_weight=self.regularity,
            control_spacing=2,
        )
        voxels = torch.from_numpy((self.template.vertices - self.corner) / self.spacing).T.reshape(1, 3, -1, 1, 1)
        moved = voxels + sample(result.ddf.double(), voxels)
        return motion.apply(self.corner + self.spacing * moved.reshape(3, -1).numpy().T)
