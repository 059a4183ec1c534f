"""The losses of the two networks, composed of the shared parts; each returns its parts by name."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import BendingEnergyLoss
from torch import nn

from tools.data.checks import DataError
from tools.losses import AnatomyLoss, LocalNCCLoss
from tools.networks.registration import RegistrationOutput
from tools.registration.displacement import warp

__all__ = ["RegistrationLoss", "RegistrationParts", "SegmentationLoss", "SegmentationParts"]


class RegistrationParts(NamedTuple):
    """Weighted parts of the registration loss and their sum, scalars."""

    loss: torch.Tensor
    similarity: torch.Tensor
    smoothness: torch.Tensor
    anatomy: torch.Tensor
    features: torch.Tensor


class SegmentationParts(NamedTuple):
    """Weighted parts of the segmentation loss and their sum, scalars."""

    loss: torch.Tensor
    supervised: torch.Tensor
    anatomy: torch.Tensor
    consistency: torch.Tensor


class RegistrationLoss(nn.Module):
    """l_i L_i(I_m o phi, I_t) + l_r L_r(u) + l_a L_a(S_m o phi, S_t) (Xu & Niethammer, MICCAI 2019) + l_f L_f.

    L_f is ours: soft Dice between the segmentations read from the Siamese features of each image and the same S_m, S_t.

    Args:
        similarity: L_i, a dissimilarity of two images (B, 1, D, H, W).
        smoothness: L_r, of the predicted velocity or displacement (B, 3, d, h, w) in voxels.
        anatomy: L_a.
        similarity_weight, smoothness_weight, anatomy_weight, feature_weight: l_i, l_r, l_a, l_f.
    """

    def __init__(
        self,
        similarity: nn.Module | None = None,
        smoothness: nn.Module | None = None,
        anatomy: nn.Module | None = None,
        similarity_weight: float = 1.0,
        smoothness_weight: float = 1.0,
        anatomy_weight: float = 2.0,
        feature_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.similarity = LocalNCCLoss(7) if similarity is None else similarity
        self.smoothness = BendingEnergyLoss() if smoothness is None else smoothness
        self.anatomy = AnatomyLoss() if anatomy is None else anatomy
        self.similarity_weight, self.smoothness_weight = similarity_weight, smoothness_weight
        self.anatomy_weight, self.feature_weight = anatomy_weight, feature_weight

    def forward(
        self,
        output: RegistrationOutput,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        fixed_segmentation: torch.Tensor | None = None,
        moving_segmentation: torch.Tensor | None = None,
    ) -> RegistrationParts:
        """Images (B, 1, D, H, W); segmentations (B, C, D, H, W), one-hot or soft, or None for the unsupervised loss."""
        zero = output.field.new_zeros(())
        anatomy = features = zero
        if fixed_segmentation is None or moving_segmentation is None:
            warped = warp(moving, output.ddf)
        else:
            warped, warped_segmentation = warp(torch.cat((moving, moving_segmentation), dim=1), output.ddf).tensor_split([1], dim=1)
            anatomy = self.anatomy_weight * self.anatomy(warped_segmentation, fixed_segmentation)
            if output.fixed_logits is not None and self.feature_weight:
                features = (
                    self.feature_weight
                    * 0.5
                    * (
                        self._feature_loss(output.fixed_logits, fixed_segmentation)
                        + self._feature_loss(output.moving_logits, moving_segmentation)
                    )
                )
        similarity = self.similarity_weight * self.similarity(warped, fixed)
        smoothness = self.smoothness_weight * self.smoothness(output.field)
        return RegistrationParts(similarity + smoothness + anatomy + features, similarity, smoothness, anatomy, features)

    def _feature_loss(self, logits: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
        target = F.adaptive_avg_pool3d(segmentation, logits.shape[2:])
        return self.anatomy(logits.softmax(1), target)


class SegmentationLoss(nn.Module):
    """l_sp L_sp(F_S(I), S) on labelled images + l_a L_a(prediction, carried label) (Xu & Niethammer, MICCAI 2019) + l_c L_c.

    Both are soft multi-class Dice in the paper. Ours: ``cross_entropy_weight`` adds voxel-wise cross-entropy to L_sp, and L_a may be
    cross-entropy instead. Carried labels are uncertain at the boundary, and of an uncertain voxel Dice asks for foreground, so that
    structures swell; cross-entropy asks for the probability itself. L_c is ours as well: cross-entropy between the answers of F_S and
    of its teacher to one unlabelled image (Tarvainen & Valpola, NeurIPS 2017).

    Args:
        supervised_weight, anatomy_weight, consistency_weight: l_sp, l_a, l_c.
        cross_entropy_weight: of the cross-entropy in L_sp, relative to Dice.
        anatomy: "dice" or "cross_entropy".

    Raises:
        DataError: ``anatomy`` is neither.
    """

    def __init__(
        self,
        supervised_weight: float = 1.0,
        anatomy_weight: float = 1.0,
        consistency_weight: float = 1.0,
        cross_entropy_weight: float = 0.5,
        anatomy: str = "dice",
    ) -> None:
        super().__init__()
        if anatomy not in ("dice", "cross_entropy"):
            raise DataError(f"anatomy must be 'dice' or 'cross_entropy', not {anatomy!r}")
        self.dice = AnatomyLoss()
        self.supervised_weight, self.anatomy_weight, self.consistency_weight = supervised_weight, anatomy_weight, consistency_weight
        self.cross_entropy_weight, self.anatomy = cross_entropy_weight, anatomy

    def forward(
        self,
        logits: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        prediction: torch.Tensor | None = None,
        target: torch.Tensor | None = None,
        unlabelled: torch.Tensor | None = None,
        answers: torch.Tensor | None = None,
    ) -> SegmentationParts:
        """Compare what is there; at least one of the three pairs of arguments.

        Args:
            logits, labels: (N, C, D, H, W) of the labelled images, labels one-hot or soft.
            prediction, target: (M, C, D, H, W), probabilities of F_S and labels, one of the two carried over by the registration.
            unlabelled, answers: (K, C, D, H, W), logits of the unlabelled images and the teacher's probabilities.
        """
        reference = next(tensor for tensor in (logits, prediction, unlabelled) if tensor is not None)
        supervised = anatomy = consistency = reference.new_zeros(())
        if logits is not None:
            supervised = self.dice(logits.softmax(1), labels)
            if self.cross_entropy_weight:
                supervised = supervised + self.cross_entropy_weight * F.cross_entropy(logits, labels)
            supervised = self.supervised_weight * supervised
        if prediction is not None:
            anatomy = self.anatomy_weight * self._anatomy(prediction, target)
        if unlabelled is not None:
            consistency = self.consistency_weight * F.cross_entropy(unlabelled, answers)
        return SegmentationParts(supervised + anatomy + consistency, supervised, anatomy, consistency)

    def _anatomy(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.anatomy == "dice":
            return self.dice(prediction, target)
        return -(target * prediction.clamp_min(1e-6).log()).sum(1).mean()
