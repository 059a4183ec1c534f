"""Corresponding points on a set of surfaces, made group-wise.

1. The template begins as the shape nearest to the middle of the set.
2. It is fitted to a part of the set, and takes the mean shape of what comes out: no single anatomy stays in it.
3. The mean template is fitted to every surface. Its farthest-first vertices are the points.
4. The fits learn from each other: each is replaced by what the main modes of all make of it, drawn a little towards the mean, and goes back
   to its surface along the normals. What had slid along the surface is lost, the form is not (the aim of ShapeWorks' ensemble
   entropy, Cates et al. 2007, by alternating projection).
5. The points are moved onto the nearest place of their surface's triangles.

Points of further surfaces that correspond to those of a model begin at step 3, with the model's mean mesh and its points, and the fits are
drawn to the model's modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tools.shape.distance import closest_points, warp_weights
from tools.shape.distance_maps import DistanceMapRegistration
from tools.shape.pdm import PointDistributionModel
from tools.shape.procrustes import generalised_procrustes
from tools.shape.splines import SplineRegistration, Target
from tools.shape.surfaces import Surface, decimated, smoothed, volume

__all__ = ["REGISTRATIONS", "SHARE", "Correspondences", "ShapeModel", "correspond", "correspond_to", "medoid"]

REGISTRATIONS = ("splines", "distance_maps")

CONTROLS = 768
REFINEMENTS = 4
FIRST_ROUND = 40  # shapes that make the mean
TEMPLATE_VERTICES = 6000
SHRINKAGE = 0.9
SHARE = 0.9


class Correspondences(NamedTuple):
    """What :func:`correspond` or :func:`correspond_to` found.

    Attributes:
        template: mesh of the mean shape, mm.
        template_points: (M, 3), vertices of the template in farthest-first order.
        points: (N, M, 3), on each surface in its own coordinates, mm.
        residuals: (N,), mean distance of the points from their surface before they were moved onto it, mm.
    """

    template: Surface
    template_points: np.ndarray
    points: np.ndarray
    residuals: np.ndarray


class ShapeModel(NamedTuple):
    """A shape model that further surfaces can be given the points of.

    Attributes:
        template: mesh of the mean shape, mm.
        numbers: (M,), of the template's vertices that are the points, in their order.
        pdm: the model of the points; its mean is ``template.vertices[numbers]``.
        scaling: whether it is one of shapes without size.
    """

    template: Surface
    numbers: np.ndarray
    pdm: PointDistributionModel
    scaling: bool


def medoid(surfaces: Sequence[Surface]) -> int:
    """Number of the shape in the middle of the set by size and extents along its principal axes."""
    extents = [np.linalg.eigvalsh(np.cov(surface.vertices.T)) for surface in surfaces]
    features = np.log(np.column_stack((np.sqrt(extents), [max(volume(surface), 1e-9) ** (1 / 3) for surface in surfaces])))
    return int(np.argmin(((features - np.median(features, axis=0)) ** 2).sum(1)))


def correspond(
    surfaces: Sequence[Surface],
    count: int = 512,
    training: Sequence[bool] | None = None,
    turn: bool = True,
    refinements: int = REFINEMENTS,
    shrinkage: float = SHRINKAGE,
    share: float = SHARE,
    controls: int = CONTROLS,
    registration: str = "splines",
    progress: Callable[[str, int], None] | None = None,
) -> Correspondences:
    """Put corresponding points on surfaces.

    Args:
        surfaces: closed meshes of one anatomy; left sides mirrored before.
        count: points a surface.
        training: which surfaces shape the template and the modes; the others get points, and leave no trace. All by default.
        turn: whether surfaces may lie in any orientation, see :func:`tools.shape.icp.place`.
        refinements: rounds of step 4.
        shrinkage: what is left of the modes' scores in a round. 1 takes out chance only; less lets points slide until shapes
            differ as little as they can, which makes smaller models.
        share: of the variance, in the modes that make a shape anew in step 4. Less makes models that are smaller and more specific, and
            points that lie a little less well.
        controls: control points of the splines, at least; never fewer than ``count``.
        registration: what fits the template in steps 2 and 3: "splines" (:mod:`tools.shape.splines`) or "distance_maps"
            (:mod:`tools.shape.distance_maps`).
        progress: called with the stage's name and the number of the surface it has done.

    Raises:
        ValueError: there are fewer than three training surfaces, more points asked for than the template has vertices, or the
            registration is unknown, or the share not above 0 and at most 1.
    """
    _check_way(registration, share)
    training = np.ones(len(surfaces), dtype=bool) if training is None else np.asarray(training, dtype=bool)
    members = np.flatnonzero(training)
    if len(members) < 3:
        raise ValueError(f"at least three training surfaces are needed, got {len(members)}")
    report = progress or (lambda stage, number: None)
    targets = [Target(surface) for surface in surfaces]

    first = decimated(surfaces[members[medoid([surfaces[member] for member in members])]], TEMPLATE_VERTICES)
    first = smoothed(first)  # or the voxel steps of one case would show in all
    if len(first.vertices) < count:
        raise ValueError(f"the template's mesh has {len(first.vertices)} vertices, too few for {count} points")
    controls = max(controls, count)
    make = DistanceMapRegistration if registration == "distance_maps" else SplineRegistration
    fitted = _fit_all(make(first, controls), targets, members[:: -(-len(members) // FIRST_ROUND)], turn, "mean", report)
    template = Surface(generalised_procrustes(fitted, reference=first.vertices).mean, first.faces)

    def draw(fitted: np.ndarray) -> list[np.ndarray]:
        model = PointDistributionModel.fit(generalised_procrustes(fitted[members], reference=template.vertices).aligned)
        modes = model.modes_for(share)
        return [model.approximate(vertices, modes, shrinkage=shrinkage)[0] for vertices in fitted]

    splines = SplineRegistration(template, controls)
    return _spread(splines, count, targets, registration, turn, refinements, draw, report)


def correspond_to(
    model: ShapeModel,
    surfaces: Sequence[Surface],
    turn: bool = True,
    refinements: int = REFINEMENTS,
    shrinkage: float = SHRINKAGE,
    share: float = SHARE,
    controls: int = CONTROLS,
    registration: str = "splines",
    progress: Callable[[str, int], None] | None = None,
) -> Correspondences:
    """Put the points of a model on further surfaces, each for itself.

    Args:
        model: it stays as it is.
        surfaces: closed meshes of the same anatomy and side, at least one.
        turn, refinements, shrinkage, share, controls, registration, progress: as in :func:`correspond`; the modes are the model's.

    Raises:
        ValueError: the registration is unknown, the share not above 0 and at most 1, or the model without a mode.
    """
    _check_way(registration, share)
    count, modes = len(model.numbers), model.pdm.modes_for(share)
    weights = warp_weights(model.pdm.mean, model.template.vertices)

    def draw(fitted: np.ndarray) -> list[np.ndarray]:
        return [weights @ model.pdm.approximate(vertices[model.numbers], modes, model.scaling, shrinkage)[0] for vertices in fitted]

    splines = SplineRegistration(model.template, max(controls, count), first=model.numbers)
    targets = [Target(surface) for surface in surfaces]
    return _spread(splines, count, targets, registration, turn, refinements, draw, progress or (lambda stage, number: None))


def _check_way(registration: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if registration not in REGISTRATIONS:
        raise ValueError(f"registration must be one of {', '.join(REGISTRATIONS)}, not {registration!r}")


def _spread(
    splines: SplineRegistration,
    count: int,
    targets: Sequence[Target],
    registration: str,
    turn: bool,
    refinements: int,
    draw: Callable[[np.ndarray], Sequence[np.ndarray]],
    report: Callable[[str, int], None],
) -> Correspondences:
    """Steps 3 to 5: the template's first ``count`` control points, on every surface.

    Args:
        draw: what the main modes make of all fits (N, V, 3), in the fits' own places.
    """
    template, chosen = splines.template, splines.order[:count]
    fitter = splines if registration == "splines" else DistanceMapRegistration(template, len(splines.order))
    fitted = _fit_all(fitter, targets, range(len(targets)), turn, "fit", report)
    for _ in range(refinements):
        fitted = _refine(splines, targets, draw(fitted), report)
    points = [closest_points(vertices[chosen], target.surface) for vertices, target in zip(fitted, targets)]
    residuals = [np.linalg.norm(vertices[chosen] - moved, axis=1).mean() for vertices, moved in zip(fitted, points)]
    return Correspondences(template, template.vertices[chosen], np.stack(points), np.array(residuals))


def _fit_all(
    registration: SplineRegistration | DistanceMapRegistration,
    targets: Sequence[Target],
    which: Sequence[int],
    turn: bool,
    stage: str,
    report: Callable[[str, int], None],
) -> np.ndarray:
    fitted = []
    for number in which:
        fitted.append(registration.fit(targets[number], turn))
        report(stage, int(number))
    return np.stack(fitted)


def _refine(
    registration: SplineRegistration, targets: Sequence[Target], drawn: Sequence[np.ndarray], report: Callable[[str, int], None]
) -> np.ndarray:
    """One round of step 4 from what the modes make of the fits, (N, V, 3): back to the surfaces."""
    refined = []
    for number, (base, target) in enumerate(zip(drawn, targets)):
        refined.append(registration.step(base, target, registration.smoothers[-1], base))
        report("refine", number)
    return np.stack(refined)
