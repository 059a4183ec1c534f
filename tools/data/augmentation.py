"""Augmentation of whole batches on the device: one resampling for all geometry, then intensities.

Every random number comes from a generator that the caller seeds, so that a step's augmentation depends on nothing but
the seed and the step: a resumed training repeats it exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tools.registration.displacement import identity_grid, warp

__all__ = ["Augmentation", "rotation_matrices"]


def rotation_matrices(angles: torch.Tensor) -> torch.Tensor:
    """Rotations about the three array axes in turn, (B, 3) radians to (B, 3, 3)."""
    cos, sin = angles.cos(), angles.sin()
    matrix = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(len(angles), 3, 3)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        step = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
        step[:, i, i], step[:, j, j] = cos[:, axis], cos[:, axis]
        step[:, i, j], step[:, j, i] = -sin[:, axis], sin[:, axis]
        matrix = matrix @ step
    return matrix


@dataclass
class Augmentation:
    """Random affine and elastic deformation and intensity changes of a batch.

    Args:
        rotation: largest angle about each axis, degrees.
        scaling: largest relative change of size per axis, a log-uniform factor in [1 / (1 + s), 1 + s].
        translation: largest shift per axis, voxels.
        elastic: standard deviation of the displacement of the control points, voxels; 0 switches it off.
        control_spacing: distance of the control points, voxels.
        gamma: largest |log| of the exponent applied to intensities in [0, 1].
        contrast: largest relative change of the intensity range, and a fifth of it as shift.
        bias: standard deviation of the log of a smooth multiplicative field.
        noise: largest standard deviation of additive Gaussian noise.
        blur: largest weight of a 3x3x3 average mixed into the image (negative values sharpen by as much).
        probability: share of the samples that each of gamma, contrast, bias, noise and blur changes.
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

    def deform(self, image: torch.Tensor, label: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Geometry alone, the same for image and label of a sample.

        Args:
            image: (B, 1, D, H, W).
            label: one-hot or probability map (B, C, D, H, W); warped linearly.
            generator: source of all random numbers, on the CPU.

        Returns:
            image and label of the same shapes.
        """
        warped = warp(torch.cat((image, label.to(image.dtype)), dim=1), self.displacement(image, generator))
        return warped[:, : image.shape[1]], warped[:, image.shape[1] :]

    def displacement(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random displacement field (B, 3, D, H, W) in voxels of the grid of ``image``."""
        batch, size = image.shape[0], image.shape[2:]

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator) * 2 - 1

        rotation = rotation_matrices(uniform(batch, 3) * math.radians(self.rotation))
        matrix = rotation * torch.exp(uniform(batch, 1, 3) * math.log1p(self.scaling))
        shift = (uniform(batch, 3) * self.translation).to(image.device)
        centre = torch.tensor([(n - 1) / 2 for n in size], device=image.device).view(1, 3, 1, 1, 1)
        position = identity_grid(image) - centre
        linear = (matrix - torch.eye(3)).to(image.device)
        ddf = torch.einsum("bij,xjdhw->bidhw", linear, position) + shift.view(batch, 3, 1, 1, 1)
        if self.elastic > 0:
            control = [max(4, round(n / self.control_spacing) + 3) for n in size]
            points = torch.randn(batch, 3, *control, generator=generator).to(image.device) * self.elastic
            # a linear upsampling of twice-averaged control points is close to a cubic B-spline and much cheaper
            smooth = F.interpolate(points, scale_factor=2.0, mode="trilinear", align_corners=True)
            smooth = F.avg_pool3d(F.pad(smooth, (1,) * 6, mode="replicate"), 3, stride=1)
            ddf = ddf + F.interpolate(smooth, size=size, mode="trilinear", align_corners=True)
        return ddf

    def intensities(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random gamma, contrast, bias field, noise and blur of (B, 1, D, H, W), result in the range of about [0, 1]."""
        batch = image.shape[0]

        def amount(limit: float) -> torch.Tensor:
            chosen = torch.rand(batch, generator=generator) < self.probability
            value = (torch.rand(batch, generator=generator) * 2 - 1) * limit * chosen
            return value.to(image.device).view(batch, 1, 1, 1, 1)

        blur = amount(self.blur)
        image = image + blur * (F.avg_pool3d(F.pad(image, (1,) * 6, mode="replicate"), 3, stride=1) - image)
        image = image.clamp(0, None) ** amount(self.gamma).exp()
        image = image * (1 + amount(self.contrast)) + amount(self.contrast / 5)
        coarse = torch.randn(batch, 1, 4, 4, 4, generator=generator).to(image.device) * amount(self.bias)
        image = image * F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=True).exp()
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return image + noise * amount(self.noise).abs()
