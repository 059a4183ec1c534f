"""Networks in the form in which they are exported (``configs/export.json``): tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import nn

from tools.networks.registration import RegistrationNetwork

__all__ = ["FieldNetwork"]


class FieldNetwork(nn.Module):
    """What of the registration network's answer another program needs.

    Args:
        network: F_R, with its weights.
    """

    def __init__(self, network: RegistrationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacement (B, 3, D, H, W) and field (B, 3, D/2, H/2, W/2), see :class:`tools.networks.registration.RegistrationOutput`."""
        output = self.network(fixed, moving)
        return output.ddf, output.field
