"""Augmentation of whole batches of volumes or slices on the device: one resampling for all geometry, then intensities.

Every random number comes from a generator that the caller seeds, so that a step's augmentation depends on nothing but
the seed and the step: a resumed training repeats it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tools.registration.displacement import identity_grid, sample, warp

__all__ = ["Augmentation", "deform_points", "rotation_matrices"]


_LINEAR = {2: "bilinear", 3: "trilinear"}


def _average(image: torch.Tensor) -> torch.Tensor:
    """Mean over the 3 x 3 (x 3) neighbourhood of each voxel."""
    dims = image.ndim - 2
    pool = F.avg_pool3d if dims == 3 else F.avg_pool2d
    return pool(F.pad(image, (1,) * 2 * dims, mode="replicate"), 3, stride=1)


def rotation_matrices(angles: torch.Tensor) -> torch.Tensor:
    """Rotations about the three array axes in turn, (B, 3) radians to (B, 3, 3), or in the plane, (B, 1) to (B, 2, 2)."""
    cos, sin = angles.cos(), angles.sin()
    if angles.shape[1] == 1:
        return torch.stack((cos, -sin, sin, cos), dim=-1).view(-1, 2, 2)
    matrix = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(len(angles), 3, 3)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        step = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
        step[:, i, i], step[:, j, j] = cos[:, axis], cos[:, axis]
        step[:, i, j], step[:, j, i] = -sin[:, axis], sin[:, axis]
        matrix = matrix @ step
    return matrix


@torch.no_grad()
def deform_points(points: torch.Tensor, ddf: torch.Tensor, iterations: int = 8) -> torch.Tensor:
    """Where points of an image lie once it is warped: q with q + u(q) = p, by Newton's method with the field's differences as Jacobian.

    Args:
        points: (B, M, 3), voxels of the image.
        ddf: (B, 3, D, H, W), voxels; the field that :func:`tools.registration.displacement.warp` is given.
        iterations: of Newton's method. A fixed-point iteration would crawl where rotation, scaling and elastic part add up.

    Returns:
        (B, M, 3), voxels of the warped image.
    """
    unit = torch.eye(3, dtype=points.dtype, device=points.device)
    probes = torch.cat((torch.zeros_like(unit[:1]), 0.5 * unit, -0.5 * unit))
    moved = points
    for _ in range(iterations):
        positions = moved[:, None] + probes.view(1, 7, 1, 3)
        u = sample(ddf, positions.permute(0, 3, 1, 2)[..., None])[..., 0].permute(0, 2, 3, 1).to(points)
        jacobian = unit + torch.stack([u[:, 1 + axis] - u[:, 4 + axis] for axis in range(3)], dim=-1)
        moved = moved - torch.linalg.solve(jacobian, (moved + u[:, 0] - points)[..., None])[..., 0]
    return moved


@dataclass
class Augmentation:
    """Random affine and elastic deformation and intensity changes of a batch.

    Args:
        rotation: largest angle about each axis, degrees, of the anatomy as it is by ``spacing``.
        scaling: largest relative change of size per axis, a log-uniform factor in [1 / (1 + s), 1 + s].
        translation: largest shift per axis, voxels.
        elastic: standard deviation of the displacement of the control points, voxels; 0 switches it off.
        control_spacing: largest distance of the control points, voxels; a side of n voxels has round(n / control_spacing) + 3, at least
            4, from end to end.
        gamma: largest |log| of the exponent applied to intensities in [0, 1].
        contrast: largest relative change of the intensity range, and a fifth of it as shift.
        bias: standard deviation of the log of a smooth multiplicative field.
        noise: largest standard deviation of additive Gaussian noise.
        blur: largest weight of an average over 3 voxels an axis mixed into the image (negative values sharpen by as much).
        probability: share of the samples that each of gamma, contrast, bias, noise and blur changes.
        spacing: of the voxels along each axis, in any unit; by default alike. What is turned on an anisotropic grid would be sheared else.
    """

    rotation: float = 15.0
    scaling: float = 0.15
    translation: float = 2.0
    elastic: float = 1.5
    control_spacing: float = 10.0
    gamma: float = 0.4
    contrast: float = 0.3
    bias: float = 0.2
    noise: float = 0.06
    blur: float = 0.6
    probability: float = 0.6
    spacing: Sequence[float] | None = None

    def deform(self, image: torch.Tensor, label: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Geometry alone, the same for image and label of a sample.

        Args:
            image: (B, 1, D, H, W) or (B, 1, H, W).
            label: one-hot or probability map (B, C, ...) on the same grid; warped linearly.
            generator: source of all random numbers, on the CPU.

        Returns:
            image and label of the same shapes.
        """
        return self._warped(image, label, self.displacement(image, generator))

    def deform_with_points(
        self, image: torch.Tensor, label: torch.Tensor, points: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`deform` of volumes, with the points (B, M, 3) of each image, in voxels, moved along with it."""
        ddf = self.displacement(image, generator)
        return (*self._warped(image, label, ddf), deform_points(points, ddf))

    @staticmethod
    def _warped(image: torch.Tensor, label: torch.Tensor, ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moving = torch.cat((image, label.to(image.dtype)), dim=1)
        if image.ndim == 4:
            # A slice is a volume of one layer, whose displacement stays in the layer.
            warped = warp(moving.unsqueeze(2), torch.cat((torch.zeros_like(ddf[:, :1]), ddf), dim=1).unsqueeze(2)).squeeze(2)
        else:
            warped = warp(moving, ddf)
        return warped[:, : image.shape[1]], warped[:, image.shape[1] :]

    def displacement(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random displacement field (B, 3, D, H, W), or (B, 2, H, W) of slices, in voxels of the grid of ``image``."""
        batch, size, dims = image.shape[0], image.shape[2:], image.ndim - 2

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator) * 2 - 1

        rotation = rotation_matrices(uniform(batch, 3 if dims == 3 else 1) * math.radians(self.rotation))
        matrix = rotation * torch.exp(uniform(batch, 1, dims) * math.log1p(self.scaling))
        if self.spacing is not None:
            spacing = torch.tensor(self.spacing, dtype=matrix.dtype)
            matrix = matrix * (spacing[None, :] / spacing[:, None])
        shift = (uniform(batch, dims) * self.translation).to(image.device)
        centre = torch.tensor([(n - 1) / 2 for n in size], device=image.device).view(1, dims, *(1,) * dims)
        position = identity_grid(image) - centre
        linear = (matrix - torch.eye(dims)).to(image.device)
        ddf = torch.einsum("bij,xj...->bi...", linear, position) + shift.view(batch, dims, *(1,) * dims)
        if self.elastic > 0:
            control = [max(4, round(n / self.control_spacing) + 3) for n in size]
            points = torch.randn(batch, dims, *control, generator=generator).to(image.device) * self.elastic
            # a linear upsampling of twice-averaged control points is close to a cubic B-spline and much cheaper
            smooth = _average(F.interpolate(points, scale_factor=2.0, mode=_LINEAR[dims], align_corners=True))
            ddf = ddf + F.interpolate(smooth, size=size, mode=_LINEAR[dims], align_corners=True)
        return ddf

    def intensities(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random gamma, contrast, bias field, noise and blur of (B, 1, D, H, W) or (B, 1, H, W), result in the range of about [0, 1]."""
        batch, dims = image.shape[0], image.ndim - 2

        def amount(limit: float) -> torch.Tensor:
            chosen = torch.rand(batch, generator=generator) < self.probability
            value = (torch.rand(batch, generator=generator) * 2 - 1) * limit * chosen
            return value.to(image.device).view(batch, 1, *(1,) * dims)

        blur = amount(self.blur)
        image = image + blur * (_average(image) - image)
        image = image.clamp(0, None) ** amount(self.gamma).exp()
        image = image * (1 + amount(self.contrast)) + amount(self.contrast / 5)
        coarse = torch.randn(batch, 1, *(4,) * dims, generator=generator).to(image.device) * amount(self.bias)
        image = image * F.interpolate(coarse, size=image.shape[2:], mode=_LINEAR[dims], align_corners=True).exp()
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return image + noise * amount(self.noise).abs()
