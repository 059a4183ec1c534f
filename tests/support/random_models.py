"""Tiny models of each bundle as a training leaves them, with random weights and label values that have gaps."""

from __future__ import annotations

from pathlib import Path

import torch
from bundle_runs import BundleRuns
from torch import nn

from tools.bundle.checkpoint import save_weights
from tools.data.domain_plan import DomainPlan, SlicePlan
from tools.data.plan import Plan

__all__ = ["DEEPATLAS", "LABELS", "MULTIDOMAIN", "SHAPES", "random_deepatlas", "random_multidomain", "random_shapes"]

DEEPATLAS, MULTIDOMAIN, SHAPES = (BundleRuns(name) for name in ("deepatlas", "multidomain_segmentation", "progressive_deepssm"))
LABELS = {0: "background", 2: "core", 5: "shell"}


def random_deepatlas(folder: Path) -> Path:
    """DeepAtlas with both networks, for images of 32 voxels a side."""
    from deepatlas.networks import registration_from_plan, segmentation_from_plan

    sizes = {"segmentation": {"channels": [4, 8]}, "registration": {"channels": [4, 8], "hidden": [4, 8]}}
    plan = Plan(labels=LABELS, size=(32, 32, 32), extra=sizes)
    return _write(folder, plan, model=segmentation_from_plan(plan), registration=registration_from_plan(plan))


def random_multidomain(folder: Path) -> Path:
    """Two domains, ``disc`` and ``ring``, that share the name of a structure."""
    from multidomain_segmentation.networks import network_from_plan

    domains = {"disc": SlicePlan(labels=LABELS), "ring": SlicePlan(labels={0: "background", 1: "ring", 4: "core"})}
    plan = DomainPlan(domains=domains, extra={"network": {"channels": [4, 8], "embedding": 4}})
    return _write(folder, plan, model=network_from_plan(plan))


def random_shapes(folder: Path) -> Path:
    """A shape model of 16 points with a segmentation, without ``template.vtk``."""
    from progressive_deepssm.networks import network_from_plan

    shape = {"scales": [8, 16], "modes": [2, 4], "channels": [4, 4], "refinements": [1, 1], "hidden": 8, "points": 16}
    plan = Plan(labels=LABELS, size=(32, 48, 32), spacing=(1.0, 1.5, 2.0), extra={"shape": {**shape, "segmentation": True}})
    return _write(folder, plan, model=network_from_plan(plan))


def _write(folder: Path, plan: Plan | DomainPlan, **networks: nn.Module) -> Path:
    """Random in every tensor: an untrained field is zero, an untrained shape flat."""
    generator = torch.Generator().manual_seed(0)
    plan.save(folder / "plan.json")
    for name, network in networks.items():
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator)
                    tensor.add_(0.05 * (noise.abs() if key.endswith(("running_var", "calibration")) else noise))
        save_weights(folder / f"{name}.pt", network)
    return folder
