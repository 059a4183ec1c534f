"""Anatomical prior: a predicted segmentation should have the code of a true one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["AnatomicalPriorLoss"]


class AnatomicalPriorLoss(nn.Module):
    """||E(prediction) - E(truth)||^2, the mean over the code, with E a frozen auto-encoder of masks (Oktay et al., TMI 2018).

    The auto-encoder runs in evaluation mode and without gradients to its weights, whatever its state, which it has again afterwards.
    It moves with the loss (``.to(device)``) but is none of its submodules: it is in no state dictionary and no list of parameters of
    the loss or of what holds the loss.

    Args:
        autoencoder: with ``encode(masks, domain)`` (:class:`tools.networks.mask_autoencoder.MaskAutoencoder`); used, not copied, so
            that it may be trained after this loss is made.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.__dict__["autoencoder"] = autoencoder  # past nn.Module's registration

    def _apply(self, fn: Callable, recurse: bool = True) -> AnatomicalPriorLoss:
        self.autoencoder._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, prediction: torch.Tensor, truth: torch.Tensor, domain: str) -> torch.Tensor:
        """Scalar loss of one domain's samples; gradients flow to the prediction.

        Args:
            prediction: probabilities, (B, C_k, H, W), channel 0 the background.
            truth: one-hot labels, the same shape.
            domain: its name.

        Raises:
            DataError: the domain is unknown.
            ValueError: the shapes differ, or have not the domain's number of channels.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction and truth differ in shape: {tuple(prediction.shape)} and {tuple(truth.shape)}")
        with _frozen(self.autoencoder):
            with torch.no_grad():
                target = self.autoencoder.encode(truth.to(prediction.dtype), domain)
            return F.mse_loss(self.autoencoder.encode(prediction, domain).float(), target.float())


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    # MONAI's eval_mode also switches all gradients off, those to the prediction too.
    training = [module for module in network.modules() if module.training]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)
