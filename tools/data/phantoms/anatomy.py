"""What a joint is made of, and the contrast of the images of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Joint", "Motion", "TISSUES", "Tissue"]

#: name of a tissue and the signed distance (N,) of the region it fills; later regions are painted over earlier ones
Tissue = tuple[str, np.ndarray]

TISSUES = ("air", "skin", "fat", "muscle", "tendon", "meniscus", "vessel", "fluid", "cartilage", "cortex", "marrow", "lung")


@dataclass(frozen=True)
class Motion:
    """Largest movement of one bone against the template, each component drawn uniformly from [-a, a].

    Attributes:
        rotation: degrees about x, y, z.
        translation: mm along x, y, z.
        log_scale: of the bone's size along each axis.
    """

    rotation: tuple[float, float, float]
    translation: tuple[float, float, float]
    log_scale: float = 0.06


@dataclass(frozen=True, eq=False)  # by identity, so that what is derived from a joint can be cached
class Joint:
    """Template of a joint in millimetres; x to the right, y forward, z up, the joint's centre at the origin.

    Attributes:
        name: the domain's name.
        bones: labelled bones in the order of their labels 1, 2, ...
        field_of_view: mm along the three axes.
        centre: template point in mm that lies in the middle of the field of view, up to the random pose.
        shapes: points (3, N) -> signed distances of all bones, labelled ones first, then those that stay unlabelled.
        soft_tissue: (points (3, N), jitter, bone distances) -> regions in the order of painting; ``jitter(a)`` draws one
            number from [-a, a], so that unlabelled tissue differs from subject to subject beyond the deformation.
        physes: points (3, N) -> distance to the growth plates (mm), seen inside bones.
        motion: one for each labelled bone.
        contrast: tissue name -> mean signal on a scale where 1 is bright.
        mode_seed: makes the joint's fixed modes of shape.
    """

    name: str
    bones: tuple[str, ...]
    field_of_view: tuple[float, float, float]
    centre: tuple[float, float, float]
    shapes: Callable[[np.ndarray], list[np.ndarray]]
    soft_tissue: Callable[[np.ndarray, Callable[[float], float], list[np.ndarray]], list[Tissue]]
    physes: Callable[[np.ndarray], np.ndarray]
    motion: tuple[Motion, ...]
    contrast: dict[str, float]
    mode_seed: int
