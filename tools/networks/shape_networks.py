"""From an image straight to corresponding points: the progressive network, and TL-DeepSSM's.

Both are segmentation networks when called with an image alone, and shape networks when asked for scales: one state dictionary, one forward
pass that several processes can share. Points are millimetres from the centre of the image's grid along its axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from monai.data import MetaTensor
from torch import nn

from tools.networks.shape_decoders import LinearShapeDecoder, PointAutoencoder
from tools.networks.shape_heads import ErrorHead, PointRefiner, ScoreHead
from tools.shape.pdm import PointDistributionModel

__all__ = ["ProgressiveShapeNetwork", "ShapeNetwork", "ShapeOutput", "TLShapeNetwork"]


class ShapeOutput(NamedTuple):
    """What a shape network answers.

    points: of each scale asked for, (B, M_s, 3), mm; the last one is the answer.
    steps: of each scale what came before its points, and these: the shape model's answer and its refinements.
    log_error: (B, M) of the last scale, log of the expected distance of each point from the true one, mm.
    logits: of the segmentation, (B, num_classes, D, H, W).
    codes: TL-DeepSSM: codes (B, K) of the image and of the true points, and the points (B, M, 3) that the latter are decoded to.
    """

    points: tuple[torch.Tensor, ...]
    steps: tuple[tuple[torch.Tensor, ...], ...]
    log_error: torch.Tensor | None
    logits: torch.Tensor | None
    codes: tuple[torch.Tensor | None, torch.Tensor, torch.Tensor] | None = None

    @property
    def uncertainty(self) -> torch.Tensor:
        """Expected distance of each point of the last scale from the true one, (B, M), mm."""
        return self.log_error.exp()


class ShapeNetwork(nn.Module):
    """What shape networks have in common.

    Args:
        backbone: image to :class:`tools.networks.shape_backbones.ShapeFeatures`.
        scales: M_s, rising: the first M_s points make scale s.

    Attributes:
        calibration: (M,), factors on the expected errors of :meth:`shape`; ones in training.
    """

    def __init__(self, backbone: nn.Module, scales: Sequence[int]) -> None:
        super().__init__()
        if not scales or any(a >= b for a, b in pairwise(scales)):
            raise ValueError(f"scales must rise, got {list(scales)}")
        self.backbone, self.scales = backbone, tuple(int(n) for n in scales)
        self.register_buffer("calibration", torch.ones(self.scales[-1]))

    @property
    def mean(self) -> torch.Tensor:
        """The mean of the training shapes, (M, 3), mm; zero before :meth:`fit`."""
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether the network holds a shape model."""
        return bool(self.mean.any())

    def fit(self, model_points: torch.Tensor) -> None:
        """Take from training shapes (N, M, 3), mm, what the network needs to know of shapes."""
        raise NotImplementedError

    def reconstruct(self, points: torch.Tensor) -> torch.Tensor:
        """What the shape model alone makes of true points (B, M, 3), mm."""
        raise NotImplementedError

    def shape(self, image: torch.Tensor) -> ShapeOutput:
        """Points of an image (B, 1, D, H, W), at all scales, with calibrated expected errors."""
        output = self(image, scales=len(self.scales))
        return output._replace(log_error=output.log_error + self.calibration.log())


class ProgressiveShapeNetwork(ShapeNetwork):
    """Coarse shape first, detail later (Aziz, Adams & Elhabian, ShapeMI 2023).

    Each scale has a shape model (a linear decoder) and a head that finds its scores from the image and from the points of the scale before;
    then its points are moved by what the decoder's feature maps show around them. With one scale and no refinements this is DeepSSM.

    Args:
        backbone: image to :class:`tools.networks.shape_backbones.ShapeFeatures`.
        scales: M_s, rising.
        modes: K_s, as many.
        size: the images' grid, voxels.
        spacing: mm.
        refinements: steps of refinement, at every scale or one number a scale.
        hidden: width of the heads.

    Raises:
        ValueError: scales do not rise, or scales, modes and refinements differ in number.
    """

    def __init__(
        self,
        backbone: nn.Module,
        scales: Sequence[int],
        modes: Sequence[int],
        size: Sequence[int],
        spacing: Sequence[float],
        refinements: int | Sequence[int] = 1,
        hidden: int = 128,
    ) -> None:
        super().__init__(backbone, scales)
        if len(modes) != len(scales):
            raise ValueError(f"one number of modes a scale is needed, got {list(modes)} for the scales {list(scales)}")
        steps = [int(refinements)] * len(scales) if isinstance(refinements, (int, str)) else [int(n) for n in refinements]
        if len(steps) != len(scales):
            raise ValueError(f"one number of refinements a scale is needed, got {steps} for the scales {list(scales)}")
        self.size = tuple(int(n) for n in size)
        self.register_buffer("spacing", torch.tensor([float(s) for s in spacing]), persistent=False)
        vector = backbone.vector_channels
        previous = (0, *self.scales[:-1])
        self.decoders = nn.ModuleList(LinearShapeDecoder(points, count) for points, count in zip(self.scales, modes))
        self.heads = nn.ModuleList(ScoreHead(vector, count, before, hidden) for count, before in zip(modes, previous))
        self.refiners = nn.ModuleList(
            nn.ModuleList(PointRefiner(backbone.map_channels, vector, backbone.grids, hidden) for _ in range(count)) for count in steps
        )
        # without refinement, which tells it, the expected error of the points is read from the image vector
        self.errors = nn.ModuleList(nn.Identity() if count else ErrorHead(vector, n) for count, n in zip(steps, self.scales))

    @property
    def mean(self) -> torch.Tensor:
        return self.decoders[-1].mean

    def fit(self, model_points: torch.Tensor) -> None:
        """Make the shape model of every scale from training shapes (N, M, 3), mm."""
        shapes = model_points.double().cpu().numpy()
        for points, decoder, head in zip(self.scales, self.decoders, self.heads):
            decoder.fill(PointDistributionModel.fit(shapes[:, :points]))
            head.fill(decoder)

    def reconstruct(self, points: torch.Tensor) -> torch.Tensor:
        """What the finest shape model makes of points (B, M, 3), mm: least squares in its modes, no prior."""
        decoder = self.decoders[-1]
        modes = decoder.modes.flatten(1)
        scores = (points - decoder.mean).flatten(1) @ modes.T
        return decoder.mean + (scores @ modes).view_as(points)

    def freeze_decoders(self, frozen: bool) -> None:
        """Whether the linear decoders stay what the shape models made them."""
        for decoder in self.decoders:
            decoder.frozen = frozen

    def forward(self, image: torch.Tensor, scales: int | None = None) -> torch.Tensor | ShapeOutput:
        """Image (B, 1, D, H, W) in [0, 1] to segmentation logits, or to the points of the first ``scales`` scales."""
        if scales is None:
            return self.backbone(image).logits
        features = self.backbone(_plain(image))
        # Points need more than the three digits of bf16.
        with torch.autocast(image.device.type, enabled=False):
            return self._points(features.vector.float(), [m.float().contiguous() for m in features.maps], features.logits, scales)

    def _points(self, vector: torch.Tensor, maps: list[torch.Tensor], logits: torch.Tensor, scales: int) -> ShapeOutput:
        points, log_error, results, steps = None, None, [], []
        for index in range(min(scales, len(self.scales))):
            decoder = self.decoders[index]
            points = decoder(self.heads[index](vector, decoder.mean, points))
            steps.append([points])
            for refiner in self.refiners[index]:
                displacement, log_error = refiner(maps, vector, points, decoder.mean, self.spacing, self.size)
                points = points + displacement
                steps[-1].append(points)
            if not self.refiners[index]:
                log_error = self.errors[index](vector)
            results.append(points)
        return ShapeOutput(tuple(results), tuple(map(tuple, steps)), log_error, logits)


class TLShapeNetwork(ShapeNetwork):
    """TL-DeepSSM: the image is sent to the code that an auto-encoder has for its points (ShapeWorks; after Girdhar et al., ECCV 2016).

    Args:
        backbone: image to :class:`tools.networks.shape_backbones.ShapeFeatures`.
        points: M.
        latent: K, length of a code.
    """

    def __init__(self, backbone: nn.Module, points: int, latent: int) -> None:
        super().__init__(backbone, [points])
        self.autoencoder = PointAutoencoder(points, latent)
        self.code = nn.Linear(backbone.vector_channels, latent)
        self.error = ErrorHead(backbone.vector_channels, points)

    @property
    def mean(self) -> torch.Tensor:
        return self.autoencoder.mean

    def fit(self, model_points: torch.Tensor) -> None:
        """Normalise by training shapes (N, M, 3), mm."""
        self.autoencoder.fill(PointDistributionModel.fit(model_points.double().cpu().numpy()[:, : self.scales[-1]]))

    def reconstruct(self, points: torch.Tensor) -> torch.Tensor:
        """What the auto-encoder makes of points (B, M, 3), mm."""
        return self.autoencoder.decode(self.autoencoder.encode(points))

    def forward(self, image: torch.Tensor, scales: int | None = None, points: torch.Tensor | None = None) -> torch.Tensor | ShapeOutput:
        """Image (B, 1, D, H, W) in [0, 1] to segmentation logits, or with ``scales`` to points.

        Args:
            image: the images.
            scales: None for the logits; 0 for the auto-encoder alone, which does not look at the image; 1 for points.
            points: the true ones (B, M, 3), mm, for the auto-encoder.
        """
        if scales is None:
            return self.backbone(image).logits
        codes, vector, logits = None, None, None
        if scales:
            features = self.backbone(_plain(image))
            vector, logits = features.vector, features.logits
        with torch.autocast(image.device.type, enabled=False):
            code = None if vector is None else self.code(vector.float())
            if points is not None:
                true = self.autoencoder.encode(points)
                codes = (code, true, self.autoencoder.decode(true))
            if code is None:
                return ShapeOutput((), (), None, None, codes)
            predicted = self.autoencoder.decode(code)
            return ShapeOutput((predicted,), ((predicted,),), self.error(vector.float()), logits, codes)


def _plain(image: torch.Tensor) -> torch.Tensor:
    # MONAI's meta-data would ride along through every operation.
    return image.as_tensor() if isinstance(image, MetaTensor) else image
