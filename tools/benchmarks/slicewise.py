"""What is timed of a network of slices: one whole volume, from its file to the label map on its own grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.benchmarks.modules import bundle_modules
from tools.bundle.checkpoint import load_weights
from tools.data.domain_plan import DomainPlan
from tools.data.files import write_nifti

__all__ = ["slicewise_tasks"]


def slicewise_tasks(
    bundle_root: Path, model_dir: Path, scratch: Path, domain: str | None = None, size: tuple[int, int, int] = (112, 112, 38), seed: int = 0
) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """Segmentation of a volume of random intensities as one domain, and finding out its domain; reading the file is part of both.

    Args:
        bundle_root: folder of the multidomain_segmentation bundle.
        model_dir: folder of plan.json, model.pt and domains.json.
        scratch: folder for the volume.
        domain: name of the domain, by default the model's first.
        size: rows and columns of a slice, in pixels of the domain's spacing, and the number of slices.
        seed: of the intensities.

    Returns:
        the functions to time, ``segmentation`` and ``domain``, and what they work on: ``size``, ``domain``, ``channels``, ``parameters``.

    Raises:
        DataError: the model is missing, or does not know the domain.
    """
    networks, evaluation, prototypes = bundle_modules(bundle_root, "networks", "evaluation", "prototypes")
    plan = DomainPlan.load(model_dir / "plan.json")
    domain = domain or plan.names[0]
    plan.index(domain)
    axis, shape, spacing = plan.domains[domain].slice_axis, list(size[:2]), list(plan.domains[domain].spacing)
    shape.insert(axis, size[2])
    spacing.insert(axis, 4 * max(spacing))
    image = scratch / "volume.nii.gz"
    write_nifti(image, np.random.default_rng(seed).random(shape, dtype=np.float32), np.diag((*spacing, 1.0)))
    network = load_weights(model_dir / "model.pt", networks.network_from_plan(plan))
    answering = networks.DomainNetwork(network, plan, precision="auto")
    finder = prototypes.DomainFinder(plan, model_dir, force=True)
    functions = {
        "segmentation": lambda: evaluation.segment(answering, image, plan, domain, torch.device("cpu")),
        "domain": lambda: finder(image),
    }
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return functions, {"size": list(size), "domain": domain, "channels": plan.extra["network"]["channels"], "parameters": parameters}
