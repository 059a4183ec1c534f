"""A trained network on image files: points, their uncertainty, surface and segmentation in the image's own space."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch

from progressive_deepssm.frame import to_frame, to_world
from tools.bundle.checkpoint import plain
from tools.bundle.precision import autocast, autocast_dtype
from tools.data.geometry import GridMapping, load_volume, to_plan
from tools.data.plan import Plan
from tools.networks.shape_networks import ShapeNetwork, ShapeOutput
from tools.registration.fields import lps_affine
from tools.shape.distance import warp_weights
from tools.shape.surfaces import Surface

__all__ = ["ShapeModeller", "ShapePrediction"]


class ShapePrediction(NamedTuple):
    """What a network says of one image.

    Attributes:
        scales: points (M_s, 3) of every scale, LPS mm; the last one is the answer.
        uncertainty: (M,), expected distance of each point of the last scale from the true one, mm.
        surface: the template's mesh warped to the points, LPS mm.
        vertex_uncertainty: (V,), mm.
        logits: of the segmentation on the network's grid, (C, D, H, W).
    """

    scales: tuple[np.ndarray, ...]
    uncertainty: np.ndarray
    surface: Surface
    vertex_uncertainty: np.ndarray
    logits: torch.Tensor

    @property
    def points(self) -> np.ndarray:
        """Points of the finest scale, (M, 3), LPS mm."""
        return self.scales[-1]


class ShapeModeller:
    """From images to shapes.

    Args:
        network: trained.
        template: mesh of the mean shape in the frame, mm.
        plan: the plan.
        device: where to compute.
        precision: "auto", "float32", "bf16" or "fp16".
    """

    def __init__(
        self, network: ShapeNetwork, template: Surface, plan: Plan, device: torch.device | str = "cpu", precision: str = "auto"
    ) -> None:
        self.device = torch.device(device)
        self.network, self.template, self.plan = plain(network).to(self.device).eval(), template, plan
        self.dtype = autocast_dtype(precision, self.device)
        self.mean = self.network.mean.double().cpu().numpy()
        self.weights = warp_weights(self.mean, template.vertices)
        # of what lies between points: splines would overshoot
        distance = ((template.vertices[:, None] - self.mean) ** 2).sum(-1)
        nearest = np.argpartition(distance, 3, axis=1)[:, :3]
        closeness = 1 / np.maximum(np.take_along_axis(distance, nearest, 1), 1e-9)
        self.neighbours, self.closeness = nearest, closeness / closeness.sum(1, keepdims=True)

    def __call__(self, image: str | os.PathLike) -> tuple[ShapePrediction, GridMapping]:
        """Model one image file; the mapping brings volumes of the network's grid to the image's voxels.

        Raises:
            DataError: the file cannot be read.
        """
        tensor, grid = to_plan(*load_volume(image), self.plan)
        return self.predict(tensor, grid.affine), grid

    @torch.no_grad()
    def predict(self, image: torch.Tensor, affine: np.ndarray) -> ShapePrediction:
        """Model one preprocessed image (1, D, H, W), whose grid has this affine to RAS mm."""
        with autocast(self.dtype, self.device):
            output: ShapeOutput = self.network.shape(image[None].to(self.device))
        scales = tuple(to_world(points[0].double().cpu().numpy(), affine, self.plan) for points in output.points)
        uncertainty = output.uncertainty[0].double().cpu().numpy()
        return ShapePrediction(
            scales,
            uncertainty,
            self.surface(scales[-1], affine),
            (uncertainty[self.neighbours] * self.closeness).sum(1),
            output.logits[0].float().cpu(),
        )

    def surface(self, points: np.ndarray, affine: np.ndarray) -> Surface:
        """The template's mesh warped to points (M, 3), LPS mm, of an image whose preprocessed grid has this affine."""
        # A frame that mirrors the world turns the faces inside out.
        faces = self.template.faces if np.linalg.det(lps_affine(affine)[:3, :3]) > 0 else self.template.faces[:, ::-1]
        return Surface(self.weights @ points, faces)

    def mean_shape(self, affine: np.ndarray) -> np.ndarray:
        """The mean of the training shapes where it lies in the network's frame, (M, 3), LPS mm of an image: what no image is needed for."""
        return to_world(self.mean, affine, self.plan)

    def reconstruction(self, points: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """What the network's shape model makes of true points (M, 3), LPS mm: the floor of what its scores alone can reach.

        Without a shape model (TL-DeepSSM) what its auto-encoder makes of them.
        """
        true = torch.from_numpy(to_frame(points, affine, self.plan)).float().to(self.device)
        with torch.no_grad():
            rebuilt = self.network.reconstruct(true[None])[0]
        return to_world(rebuilt.double().cpu().numpy(), affine, self.plan)
