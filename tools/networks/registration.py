"""The registration network F_R: Siamese feature pyramid, coarse-to-fine velocity decoder, transformer.

Network and transform are separate things: the decoder predicts a field, :class:`RegistrationNetwork` says what the
field means (velocity or displacement) and hands out a displacement in voxels of the fixed image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tools.networks.encoders import Conv3d, conv_block
from tools.registration.affine import affine_ddf, fit_affine
from tools.registration.displacement import compose, integrate_velocity, resize_ddf, warp

__all__ = ["FeaturePyramid", "RegistrationNetwork", "RegistrationOutput", "VelocityDecoder"]


class RegistrationOutput(NamedTuple):
    """What a registration network answers; all fields in voxels of the grid they live on.

    ddf: displacement on the full grid, (B, 3, D, H, W).
    field: the predicted velocity (diffeomorphic) or displacement at half resolution, (B, 3, D/2, H/2, W/2).
    fixed_logits, moving_logits: segmentation logits at half resolution from each image's features, or None.
    affine: displacement of the affine pre-alignment on the full grid, already part of ``ddf``, or None.
    swapped: the answer to the swapped pair, where a symmetric network is training, or None.
    """

    ddf: torch.Tensor
    field: torch.Tensor
    fixed_logits: torch.Tensor | None
    moving_logits: torch.Tensor | None
    affine: torch.Tensor | None = None
    swapped: RegistrationOutput | None = None


class FeaturePyramid(nn.Module):
    """Top-down pathway over an encoder: every level sees the whole context (Lin et al., CVPR 2017).

    Args:
        encoder: maps an image to feature maps, finest first, with ``channels`` saying how many each has.
        channels: output channels of every level, finest first, as many as the encoder has levels.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        if len(channels) != len(encoder.channels):
            raise ValueError(f"channels has {len(channels)} entries, the encoder {len(encoder.channels)} levels")
        self.encoder = encoder
        self.channels = tuple(channels)
        self.top = conv_block(encoder.channels[-1], channels[-1])
        self.reduce = nn.ModuleList(nn.Conv3d(above, out, 1) for above, out in zip(channels[1:], channels[:-1]))
        self.lateral = nn.ModuleList(nn.Conv3d(skip, out, 1) for skip, out in zip(encoder.channels[:-1], channels[:-1]))
        self.fuse = nn.ModuleList(conv_block(out, out) for out in channels[:-1])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        skips = self.encoder(image)
        features = [self.top(skips[-1])]
        for skip, reduce, lateral, fuse in zip(*map(reversed, (skips[:-1], self.reduce, self.lateral, self.fuse))):
            above = F.interpolate(reduce(features[0]), size=skip.shape[2:], mode="trilinear", align_corners=True)
            features.insert(0, fuse(lateral(skip) + above))
        return features


class VelocityDecoder(nn.Module):
    """Coarse-to-fine field: each level warps the moving features by the field so far and adds a correction to it.

    With ``integration_steps`` > 0 the field is one stationary velocity field, refined over the levels and integrated for
    each warp; with 0 it is a displacement.

    Args:
        channels: feature channels of the levels, finest first.
        hidden: channels inside a level's correction.
        integration_steps: squarings of the exponential; 0 for a plain displacement.
        symmetric: whether every correction is half the difference of those of the pair and of the swapped pair. The velocity of the
            swapped pair is then the negative one, its displacement the inverse, and an image is left as it is by itself
            (after Greer et al., MICCAI 2023).

    Raises:
        ValueError: ``symmetric`` of plain displacements, whose negative is no inverse.
    """

    def __init__(self, channels: Sequence[int], hidden: Sequence[int], integration_steps: int = 5, symmetric: bool = False) -> None:
        super().__init__()
        if symmetric and not integration_steps:
            raise ValueError("symmetric is of velocities: the negative of a displacement is not its inverse")
        self.integration_steps, self.symmetric = integration_steps, symmetric
        self.blocks = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.reduce = nn.ModuleList(nn.Conv3d(above, h, 1) for above, h in zip(hidden[:0:-1], hidden[-2::-1]))
        for i, (c, h) in enumerate(zip(reversed(channels), reversed(hidden))):
            self.blocks.append(nn.Sequential(conv_block(2 * c + (h if i else 0), h), conv_block(h, h)))
            head = Conv3d(h, 3, 3, padding=1)
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)
            self.heads.append(head)

    def forward(self, fixed: list[torch.Tensor], moving: list[torch.Tensor]) -> torch.Tensor:
        """Feature lists, finest first, of shapes (B, C_i, D_i, H_i, W_i); returns the field on the finest of these grids."""
        pairs = len(fixed[0])
        if self.symmetric:
            fixed, moving = ([torch.cat(both) for both in zip(*order)] for order in ((fixed, moving), (moving, fixed)))
        fixed, moving = fixed[::-1], moving[::-1]
        state = self.blocks[0](torch.cat((fixed[0], moving[0]), dim=1))
        field = self.correction(self.heads[0], state)
        for f, m, reduce, block, head in zip(fixed[1:], moving[1:], self.reduce, self.blocks[1:], self.heads[1:]):
            size = f.shape[2:]
            field = resize_ddf(field, size)
            warped = warp(m, self.to_displacement(field))
            above = F.interpolate(reduce(state), size=size, mode="trilinear", align_corners=True)
            state = block(torch.cat((f, warped, above), dim=1))
            field = field + self.correction(head, state)
        return field[:pairs]

    def correction(self, head: nn.Module, state: torch.Tensor) -> torch.Tensor:
        """What a level adds to the field."""
        found = head(state).float()
        if not self.symmetric:
            return found
        there, back = found.chunk(2)
        half = (there - back) / 2
        return torch.cat((half, -half))

    def to_displacement(self, field: torch.Tensor) -> torch.Tensor:
        """Displacement of the field on its own grid, both (B, 3, d, h, w) in voxels of that grid."""
        return integrate_velocity(field, self.integration_steps)


class RegistrationNetwork(nn.Module):
    """u = F_R(I_m, I_t): the displacement that brings a moving image onto a fixed one, from the two images alone.

    Args:
        features: Siamese feature extractor of one image (:class:`FeaturePyramid`).
        decoder: coarse-to-fine decoder of the field (:class:`VelocityDecoder`).
        num_classes: when given, a linear layer reads segmentation logits from the finest features: supervision of the
            features in training, and the weights of the affine fit; no input to the registration.
        affine_passes: affine pre-alignments at inference. Each registers once, fits an affine to the answer where the
            features see anatomy in the fixed image, moves the image by it and registers again.
    """

    def __init__(self, features: nn.Module, decoder: nn.Module, num_classes: int | None = None, affine_passes: int = 0) -> None:
        super().__init__()
        self.features, self.decoder, self.affine_passes = features, decoder, affine_passes
        self.segmentation = nn.Conv3d(features.channels[0], num_classes, 1) if num_classes else None
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> RegistrationOutput:
        """fixed, moving: images (B, 1, D, H, W), intensities in [0, 1], on grids of the same shape."""
        if fixed.shape != moving.shape:
            raise ValueError(f"fixed and moving differ in shape: {tuple(fixed.shape)} and {tuple(moving.shape)}")
        output = self.register(fixed, moving)
        affine = None
        for _ in range(0 if self.training else self.affine_passes):
            weights = None if output.fixed_logits is None else 1 - output.fixed_logits.softmax(1)[:, :1]
            matrix = fit_affine(resize_ddf(output.ddf, output.field.shape[2:]), weights)
            affine = affine_ddf(self._to_full_grid(matrix, output), fixed)
            output = self.register(fixed, warp(moving, affine))
            output = output._replace(ddf=compose(affine, output.ddf), affine=affine)
        return output

    def register(self, fixed: torch.Tensor, moving: torch.Tensor) -> RegistrationOutput:
        """One pass, without affine pre-alignment."""
        images = torch.cat((fixed, moving)).contiguous(memory_format=torch.channels_last_3d)
        levels = [level.chunk(2) for level in self.features(images)]
        logits = (None, None) if self.segmentation is None else tuple(self.segmentation(x).float() for x in levels[0])
        field = self.decoder([f for f, _ in levels], [m for _, m in levels])
        output = RegistrationOutput(self.displacement(field, fixed.shape[2:]), field, *logits)
        if not (self.training and self.decoder.symmetric):
            return output
        return output._replace(swapped=RegistrationOutput(self.displacement(-field, fixed.shape[2:]), -field, *logits[::-1]))

    def displacement(self, field: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Displacement on the full grid (B, 3, D, H, W) of a predicted or optimised field."""
        return resize_ddf(self.decoder.to_displacement(field), tuple(size))

    @staticmethod
    def _to_full_grid(matrix: torch.Tensor, output: RegistrationOutput) -> torch.Tensor:
        """An affine [A | t] in voxels of the field's grid, in voxels of the full grid."""
        scale = torch.tensor([(n - 1) / max(m - 1, 1) for n, m in zip(output.ddf.shape[2:], output.field.shape[2:], strict=True)])
        scale = scale.to(matrix)
        linear = matrix[:, :, :3] * scale[None, :, None] / scale[None, None, :]
        return torch.cat((linear, matrix[:, :, 3:] * scale[None, :, None]), dim=-1)
