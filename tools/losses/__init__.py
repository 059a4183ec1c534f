"""Losses: each is an ``nn.Module`` usable alone. Smoothness and mutual information are MONAI's own."""

from tools.losses.anatomy import AnatomyLoss
from tools.losses.ncc import GlobalNCCLoss, LocalNCCLoss

__all__ = ["AnatomyLoss", "GlobalNCCLoss", "LocalNCCLoss"]
