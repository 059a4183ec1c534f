"""One phantom, and the true deformation between two.

Everything about a subject - labels, image, dense deformations, corresponding surface points - comes from one map phi between
the joint's template and the subject (:mod:`tools.data.phantoms.deformation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from skimage.measure import marching_cubes

from tools.data.phantoms.anatomy import Joint
from tools.data.phantoms.ankle import ANKLE
from tools.data.phantoms.deformation import SubjectMap, draw_subject_map
from tools.data.phantoms.knee import KNEE
from tools.data.phantoms.rendering import render
from tools.data.phantoms.shoulder import SHOULDER

__all__ = ["DEFAULT_SIZE", "JOINTS", "Phantom", "make_phantom", "template_points", "true_deformation"]

JOINTS = {joint.name: joint for joint in (ANKLE, KNEE, SHOULDER)}
DEFAULT_SIZE = (48, 64, 48)


@dataclass(frozen=True)
class Phantom:
    """One subject.

    Attributes:
        joint: name of the joint, a key of ``JOINTS``.
        image: (D, H, W) int16.
        label: (D, H, W) uint8, 0 background, 1... the joint's bones.
        affine: 4x4, voxel -> world, RAS mm.
        points: (P, 3) world coordinates in RAS mm of surface points; row i is the same anatomical point in every subject.
        point_labels: (P,) uint8, the bone each point lies on.
        label_names: label value -> name, 0 being the background.
        subject_map: phi and its inverse.
    """

    joint: str
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    points: np.ndarray
    point_labels: np.ndarray
    label_names: dict[int, str]
    subject_map: SubjectMap


def _world_grid(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates (N, 3) in mm of all voxels, in C order."""
    index = np.stack([a.ravel() for a in np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")], axis=1)
    return index @ affine[:3, :3].T + affine[:3, 3]


@lru_cache(maxsize=8)
def template_points(joint: Joint, count: int, bone: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Well-spread points on the template's labelled surfaces, where they lie inside the field of view of every subject.

    Args:
        joint: the joint.
        count: number of points. They come in farthest-first order, so that the first n are spread as well.
        bone: name of the bone they lie on; None for all.

    Returns:
        points (count, 3) in template mm and their labels (count,) uint8.

    Raises:
        ValueError: the joint has no labelled bone of this name, or the template's surfaces have fewer vertices than points are asked for.
    """
    if bone is not None and bone not in joint.bones:
        raise ValueError(f"the {joint.name} has no bone {bone!r}: choose from {', '.join(joint.bones)}")
    half = np.asarray(joint.field_of_view, dtype=np.float32) / 2
    corner = np.asarray(joint.centre, dtype=np.float32) - half
    step = 1.6
    axes = [np.arange(c, c + 2 * h, step, dtype=np.float32) for c, h in zip(corner, half)]
    grid = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")])
    bones = len(joint.bones)
    candidates, labels = [], []
    for value, distance in enumerate(joint.shapes(grid)[:bones], start=1):
        vertices = marching_cubes(distance.reshape([len(a) for a in axes]), 0.0)[0].astype(np.float32) * step + corner
        candidates.append(vertices)
        labels.append(np.full(len(vertices), value, dtype=np.uint8))
    points, label = np.concatenate(candidates), np.concatenate(labels)
    points = _onto_surface(joint, points, label)
    # the pose turns, shifts and scales a subject within the field of view: keep a margin
    inside = (np.abs(points - np.asarray(joint.centre, dtype=np.float32)) < 0.74 * half).all(1)
    if bone is not None:
        inside &= label == joint.bones.index(bone) + 1
    points, label = points[inside], label[inside]
    if count > len(points):
        raise ValueError(f"points: the {bone or joint.name} has {len(points)} to choose from, not {count}")
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = int(np.argmax(points @ np.array([1, 1, 1], dtype=np.float32)))
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for i in range(1, count):
        nearest = np.minimum(nearest, ((points - points[chosen[i - 1]]) ** 2).sum(1))
        chosen[i] = int(np.argmax(nearest))
    return points[chosen], label[chosen]


def _onto_surface(joint: Joint, points: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Newton steps along the gradient of each point's own bone onto its zero level."""
    rows = np.arange(len(points))

    def distance(where: np.ndarray) -> np.ndarray:
        return np.stack(joint.shapes(np.ascontiguousarray(where.T, dtype=np.float32)))[label - 1, rows]

    for _ in range(3):
        value = distance(points)
        gradient = np.stack([(distance(points + e) - distance(points - e)) / 0.4 for e in 0.2 * np.eye(3, dtype=np.float32)], axis=1)
        points = points - (value / np.maximum((gradient**2).sum(1), 0.05))[:, None] * gradient
    return points.astype(np.float32)


def make_phantom(
    joint: str,
    seed: int = 0,
    case_index: int = 0,
    size: tuple[int, int, int] = DEFAULT_SIZE,
    spacing: float | tuple[float, float, float] | None = None,
    points: int = 512,
    bone: str | None = None,
) -> Phantom:
    """Make one subject; the same arguments give the same arrays.

    The subject's shape and pose depend on joint, seed and case_index alone, not on the grid.

    Args:
        joint: "ankle", "knee" or "shoulder".
        seed: of the data set.
        case_index: number of the subject in the data set.
        size: voxels along x (right), y (forward), z (up).
        spacing: mm; None takes the isotropic one at which ``size`` covers the joint's field of view.
        points: number of corresponding surface points.
        bone: the bone they lie on; None for all labelled ones.

    Raises:
        ValueError: when the joint or the bone is unknown, a size is below 8, a spacing is not positive, or seed or case_index is negative.
    """
    if joint not in JOINTS:
        raise ValueError(f"unknown joint {joint!r}: choose from {', '.join(JOINTS)}")
    if len(size) != 3 or min(size) < 8:
        raise ValueError(f"size must be three numbers of at least 8 voxels, got {size}")
    if seed < 0 or case_index < 0:
        raise ValueError(f"seed and case_index must not be negative, got {seed} and {case_index}")
    model = JOINTS[joint]
    if spacing is None:
        spacing = max(extent / n for extent, n in zip(model.field_of_view, size))
    spacing = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ValueError(f"spacing must be positive, got {spacing.tolist()}")
    if points < 1:
        raise ValueError(f"points must be positive, got {points}")
    # one stream a purpose: the shape does not change with the size of the grid
    shape_seed, image_seed = np.random.SeedSequence([seed, case_index, model.mode_seed]).spawn(2)
    subject_map = draw_subject_map(model, np.random.default_rng(shape_seed))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.asarray(size) - 1) / 2

    where = np.ascontiguousarray(subject_map.to_template(_world_grid(size, affine)).T)
    distances = model.shapes(where)
    labelled = np.stack(distances[: len(model.bones)])
    label = np.where(labelled.min(0) < 0, labelled.argmin(0) + 1, 0).astype(np.uint8).reshape(size)
    image = render(model, where, distances, tuple(size), float(spacing.mean()), np.random.default_rng(image_seed))
    surface, point_labels = template_points(model, points, bone)
    names = {0: "background", **dict(enumerate(model.bones, start=1))}
    return Phantom(joint, image, label, affine, subject_map.to_subject(surface), point_labels, names, subject_map)


def true_deformation(fixed: Phantom, moving: Phantom) -> torch.Tensor:
    """The deformation that carries the moving subject onto the fixed one, exactly: phi_moving o phi_fixed^-1.

    Returns:
        (1, 3, D, H, W) float32 in voxels on the fixed grid, the convention of :mod:`tools.registration.displacement`:
        voxel p of the fixed image looks at p + ddf[:, :, p] of the moving image.

    Raises:
        ValueError: when the two are different joints.
    """
    if fixed.joint != moving.joint:
        raise ValueError(f"a true deformation needs two subjects of one joint: {fixed.joint} and {moving.joint}")
    shape = fixed.label.shape
    world = moving.subject_map.to_subject(fixed.subject_map.to_template(_world_grid(shape, fixed.affine)))
    to_voxel = np.linalg.inv(moving.affine)
    looked_at = world @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    index = np.indices(shape).reshape(3, -1)
    return torch.as_tensor((looked_at.T - index).reshape(1, 3, *shape), dtype=torch.float32)
