"""Losses: each is an ``nn.Module`` usable alone. Smoothness and mutual information are MONAI's own."""

import warnings

from tools.losses.anatomical_prior import AnatomicalPriorLoss
from tools.losses.anatomy import AnatomyLoss
from tools.losses.contrastive import MultiscaleContrastiveLoss, SupervisedContrastiveLoss
from tools.losses.ncc import GlobalNCCLoss, LocalNCCLoss

__all__ = ["AnatomicalPriorLoss", "AnatomyLoss", "GlobalNCCLoss", "LocalNCCLoss", "MultiscaleContrastiveLoss", "SupervisedContrastiveLoss"]

# Of MONAI's smoothness losses, at every step.
warnings.filterwarnings("ignore", message="Using a non-tuple sequence", category=UserWarning)
