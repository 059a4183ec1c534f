"""Segmentation by registration to an atlas, as a network from image to logits, for programs that know no other networks."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from deepatlas.networks import registration_from_plan
from deepatlas.registering import Registrar
from tools.data.checks import check_pair
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan
from tools.networks.answering import Answering
from tools.registration.displacement import warp

__all__ = ["AtlasSegmentation"]

LEAST = 1e-6  # probability of a label that does not occur


class AtlasSegmentation(Answering):
    """Registers an atlas to the image and answers with the atlas' labels, carried along.

    Its state dictionary is that of the registration network inside.

    Args:
        plan: the plan of the registration network.
        image: image file of the atlas.
        label: label file of the atlas, with the plan's label values.
        iterations, precision: of :class:`deepatlas.registering.Registrar`.

    Raises:
        DataError: a file is missing or faulty, or they do not belong together.
    """

    def __init__(
        self, plan: Plan, image: str | os.PathLike, label: str | os.PathLike, iterations: int = 0, precision: str = "auto"
    ) -> None:
        super().__init__()
        image, label = Path(image), Path(label)
        check_pair(image, label, plan.label_values)
        self.network, self.plan, self.iterations, self.precision = registration_from_plan(plan), plan, int(iterations), precision
        channels = plan.to_channels(to_plan(*load_volume(label), plan, is_label=True)[0])
        one_hot = F.one_hot(channels, plan.num_classes).movedim(-1, 1).float()
        # They belong to the atlas, not to the weights.
        self.register_buffer("atlas", to_plan(*load_volume(image), plan)[0][None], persistent=False)
        self.register_buffer("labels", one_hot, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, D, H, W) of preprocessed images (B, 1, D, H, W): logarithms of the warped labels' share in each voxel."""
        registrar = Registrar(self.network, self.plan, iterations=self.iterations, device=images.device, precision=self.precision)
        images = images.as_tensor() if isinstance(images, MetaTensor) else images
        # The instance optimisation needs gradients of its own, also where the caller wants none.
        with torch.enable_grad():
            fields = [registrar.ddf(image[None], self.atlas) for image in images]
        return warp(self.labels.expand(len(images), -1, -1, -1, -1), torch.cat(fields).detach()).clamp_min(LEAST).log()
