"""Instance optimisation: refine the displacement of one pair at test time, from the network's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from monai.losses import DiffusionLoss

from tools.losses import AnatomyLoss, LocalNCCLoss
from tools.registration.displacement import integrate_velocity, resize_ddf, warp

__all__ = ["InstanceResult", "optimise_pair"]

Loss = Callable[..., torch.Tensor]


class InstanceResult(NamedTuple):
    """What :func:`optimise_pair` found.

    Attributes:
        field: the best velocity or displacement, (1, 3, d, h, w), voxels of its own grid.
        ddf: its displacement on the images' grid, (1, 3, D, H, W), voxels.
        start: the parts of the loss before the first step: ``similarity``, ``regularity``, ``anatomy``, ``total``.
        end: the same for ``field``; ``end["total"] <= start["total"]``.
        iteration: the number of steps that led to ``field``.
    """

    field: torch.Tensor
    ddf: torch.Tensor
    start: dict[str, float]
    end: dict[str, float]
    iteration: int


def optimise_pair(
    field: torch.Tensor,
    fixed_image: torch.Tensor,
    moving_image: torch.Tensor,
    fixed_seg: torch.Tensor | None = None,
    moving_seg: torch.Tensor | None = None,
    *,
    iterations: int = 30,
    learning_rate: float = 0.1,
    similarity: Loss | None = None,
    regularity: Loss | None = None,
    similarity_weight: float = 1.0,
    regularity_weight: float = 1.0,
    anatomy_weight: float = 1.0,
    diffeomorphic: bool = True,
    svf_steps: int = 7,
    displacement: Callable[[torch.Tensor], torch.Tensor] | None = None,
    control_spacing: int = 1,
    symmetric: bool = False,
) -> InstanceResult:
    """Minimise the registration loss of one pair over the field itself, by Adam (as in Xu & Niethammer's and VoxelMorph's test time).

    The field is ``field`` plus an update that starts at zero, and the best field met is returned, the start included. Segmentations
    are the network's predictions: no true label is needed or wanted here.

    Args:
        field: the network's velocity if ``diffeomorphic``, else its displacement, (1, 3, d, h, w), in voxels of its own grid, which may be
            coarser than the images'.
        fixed_image: (1, C, D, H, W).
        moving_image: (1, C, D, H, W).
        fixed_seg: predicted class probabilities, (1, K, D, H, W), class 0 the background; both segmentations or neither.
        moving_seg: the same of the moving image.
        iterations: steps of Adam; 0 returns the start.
        learning_rate: voxels a step, about.
        similarity: of (warped image, fixed image), to be minimised; by default :class:`LocalNCCLoss` of window 7.
        regularity: of the field that is optimised, thus of the velocity if ``diffeomorphic``; by default MONAI's ``DiffusionLoss()``.
        similarity_weight, regularity_weight, anatomy_weight: of the loss parts; the anatomy part is 1 - soft Dice without background.
        diffeomorphic: whether ``field`` is a stationary velocity field.
        svf_steps: squarings of its integration.
        displacement: differentiable map from a field to the displacement (1, 3, D, H, W) on the images' grid, for networks with a way of
            their own, such as an affine part; it replaces ``diffeomorphic`` and ``svf_steps``.
        control_spacing: the update lives on a grid this many times coarser than the field and is interpolated, which is smoother.
        symmetric: whether the losses are means over both directions, the second with the negative velocity, which brings the fixed image
            onto the moving one; a ``displacement`` of one's own then has to be the inverse for it.

    Returns:
        :class:`InstanceResult`, detached.

    Raises:
        ValueError: when more than one pair is given, one segmentation without the other, an option is out of range, or ``symmetric`` is
            asked of a displacement.
    """
    if field.ndim != 5 or tuple(field.shape[:2]) != (1, 3):
        raise ValueError(f"expected the field of one pair (1, 3, D, H, W), got {tuple(field.shape)}")
    if (fixed_seg is None) != (moving_seg is None):
        raise ValueError("give both segmentations or neither")
    if iterations < 0 or control_spacing < 1:
        raise ValueError(f"iterations must be >= 0 and control_spacing >= 1, got {iterations} and {control_spacing}")
    if symmetric and not diffeomorphic:
        raise ValueError("symmetric is of velocities: the negative of a displacement is not its inverse")
    similarity = LocalNCCLoss(7) if similarity is None else similarity
    regularity = DiffusionLoss() if regularity is None else regularity
    anatomy = AnatomyLoss(include_background=True)  # the background channel is not even warped
    size, image_size = tuple(field.shape[2:]), tuple(fixed_image.shape[2:])

    def to_displacement(current: torch.Tensor) -> torch.Tensor:
        if displacement is not None:
            return displacement(current)
        return resize_ddf(integrate_velocity(current, svf_steps) if diffeomorphic else current, image_size)

    # evaluators run in inference mode, whose tensors cannot enter a graph: work on copies outside it
    with torch.inference_mode(False), torch.enable_grad():
        start, fixed, moving = (x.detach().clone().float() for x in (field, fixed_image, moving_image))
        channels, segmented = moving.shape[1], moving_seg is not None
        if segmented:
            classes = (x.detach().clone().float()[:, 1:] for x in (fixed_seg, moving_seg))
            fixed, moving = (torch.cat(both, dim=1) for both in zip((fixed, moving), classes, strict=True))
        update = torch.zeros(
            1, 3, *(max(2, -(-n // control_spacing)) if n > 1 else 1 for n in size), device=start.device, requires_grad=True
        )
        optimiser = torch.optim.Adam([update], lr=learning_rate)

        def losses() -> tuple[torch.Tensor, dict[str, float], torch.Tensor, torch.Tensor]:
            current = start + resize_ddf(update, size)
            ddf = to_displacement(current)
            compared = [(warp(moving, ddf), fixed)]
            if symmetric:
                compared.append((warp(fixed, to_displacement(-current)), moving))
            parts = {
                "similarity": similarity_weight * _mean(similarity, [(a[:, :channels], b[:, :channels]) for a, b in compared]),
                "regularity": regularity_weight * regularity(current),
            }
            if segmented:
                parts["anatomy"] = anatomy_weight * _mean(anatomy, [(a[:, channels:], b[:, channels:]) for a, b in compared])
            parts["total"] = sum(parts.values())
            return parts["total"], {name: float(part.detach()) for name, part in parts.items()}, current.detach(), ddf.detach()

        total, first, best_field, best_ddf = losses()
        best, best_iteration = first, 0
        for iteration in range(1, iterations + 1):
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            total, parts, current, ddf = losses()
            if parts["total"] < best["total"]:
                best, best_field, best_ddf, best_iteration = parts, current, ddf, iteration
        return InstanceResult(best_field, best_ddf, first, best, best_iteration)


def _mean(loss: Loss, compared: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Of a loss over the directions that are compared."""
    return sum(loss(warped, target) for warped, target in compared) / len(compared)
