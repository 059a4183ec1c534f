"""Which domain is an image of? What each domain's volumes look like to the network under that domain's norms, and how far others are.

A volume's description under the norms of domain k is the mean and the standard deviation, over some of its slices and their pixels,
of every channel of the encoder at every scale: what the projection of the contrastive term pools, before the projection, which
under norms k has only ever seen domain k and may answer the same to anything. A prototype holds the mean and the covariance of the
descriptions of a domain's training volumes, shrunk by at least as much as Ledoit and Wolf (2004) say, for there are more features than
volumes; distances are Mahalanobis'. What no training volume varies in counts most: that is what tells another anatomy whose
intensities are alike. The nearest domain is the one whose distance is smallest in parts of its threshold, which lies beyond the
domain's own volumes, and before those of the other domains.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import nn

from multidomain_segmentation.networks import network_from_plan
from tools.bundle.checkpoint import load_weights, plain
from tools.bundle.overrides import to_bool
from tools.data.checks import DataError, read_json
from tools.data.domain_plan import DomainPlan
from tools.data.files import write_json
from tools.data.geometry import load_volume
from tools.data.slices import to_slices
from tools.networks.multidomain_unet import MultiDomainSegmentation

__all__ = [
    "DomainFinder",
    "Found",
    "Prototype",
    "PrototypeWriter",
    "describe",
    "fit_prototype",
    "keep_away",
    "load_prototypes",
    "make_prototypes",
    "own_reach",
]

VERSION = 2
SLICES = 16  # of a volume, evenly spread, that describe it
OTHERS = 6  # volumes of each other domain that a threshold keeps away from
FLOOR = 0.4  # least spread, relative to the mean, over the root of the volumes' number: few volumes underestimate it
MARGIN = 0.4  # by how much of the distance of the farthest training volume the threshold lies beyond it, at least
FEW = 1.6  # the same, over the root of their number: the farthest of a few volumes is not far
AXES = 32  # of the covariance, at most, that a prototype keeps
GROUPS = 16  # into which volumes are dealt, at most, to be measured against the others
SCATTER = 4  # volumes for which equal scatter in all directions counts: few do not show in which directions there is more
CLOSE = 1.1  # the same, at least, where other domains are as near

logger = logging.getLogger("prototypes")


@dataclass(frozen=True)
class Prototype:
    """A domain's volumes under its own norms.

    Attributes:
        mean: of the descriptions (F,).
        spread: of the descriptions (F,), positive.
        axes: (K, F), orthonormal: main axes of the descriptions in units of their spread.
        variances: along these axes (K,), shrunk.
        rest: variance in every other direction.
        threshold: greatest distance of a volume that may be one of the domain's; None where nothing is known to set it by.
        volumes: number of training volumes.
        own: greatest distance of a training volume from the prototype of all others, None where there is but one.
        others: least distance of another domain's training volume, None without any.
    """

    mean: list[float]
    spread: list[float]
    axes: list[list[float]]
    variances: list[float]
    rest: float
    threshold: float | None
    volumes: int
    own: float | None = None
    others: float | None = None

    def distance(self, description: torch.Tensor) -> float:
        """Mahalanobis' distance of a description (F,) from the mean, over the root of F."""
        return self._shape.distance(description)

    @cached_property
    def _shape(self) -> _Shape:
        parts = (torch.tensor(part, dtype=torch.float64) for part in (self.mean, self.spread, self.axes, self.variances))
        return _Shape(*parts, self.rest)


class _Shape(NamedTuple):
    """Mean and covariance of descriptions, as :class:`Prototype` keeps them."""

    mean: torch.Tensor
    spread: torch.Tensor
    axes: torch.Tensor
    variances: torch.Tensor
    rest: float

    def distance(self, description: torch.Tensor) -> float:
        difference = (description.double() - self.mean) / self.spread
        along = self.axes.reshape(-1, len(difference)) @ difference
        beside = (difference.square().sum() - along.square().sum()).clamp_min(0)
        return float((((along.square() / self.variances).sum() + beside / self.rest) / len(difference)).sqrt())


class Found(NamedTuple):
    """An image's domain.

    domain: the nearest one.
    distance: from its prototype, and the threshold of it.
    confidence: 0.5 where the second nearest domain (or, without a second, the threshold) is as near, towards 1 the farther it is;
        below 0.5 only beyond a threshold without a second.
    """

    domain: str
    distance: float
    threshold: float | None
    confidence: float

    @property
    def foreign(self) -> bool:
        """Whether the image is too far even from the nearest domain."""
        return self.threshold is not None and self.distance > self.threshold


@torch.no_grad()
def describe(network: MultiDomainSegmentation, volume: np.ndarray, affine: np.ndarray, plan: DomainPlan, domain: str) -> torch.Tensor:
    """Description (F,) float64 of a volume (X, Y, Z), of this affine (4, 4), under the norms of a domain.

    The network must be in evaluation mode.
    """
    device = next(network.parameters()).device
    slices, _ = to_slices(volume, affine, plan.domains[domain], multiple=network.encoder.strides[-1])
    chosen = np.unique(np.linspace(0, len(slices) - 1, SLICES).round().astype(int))
    with network.selector.use(domain, device):
        features = network.encoder(slices[torch.from_numpy(chosen), None].to(device))
    pooled = [maps.double().movedim(1, 0).flatten(1) for maps in features]
    return torch.cat([part for maps in pooled for part in (maps.mean(1), maps.std(1))]).cpu()


def fit_prototype(
    own: torch.Tensor, reach: float | None, others: torch.Tensor | None = None, stray: float = 0.0, patients: int | None = None
) -> Prototype:
    """Prototype of a domain.

    Args:
        own: descriptions (n, F) of its training volumes.
        reach: :func:`own_reach` of these.
        others: descriptions (m, F) of other domains' volumes under this domain's norms.
        stray: how far volumes of other domains lie from the prototypes of theirs: a few volumes of this one cannot tell alone.
        patients: number of patients whose volumes these are; by default each is of another.
    """
    shape = _fit(own)
    near = min((shape.distance(other) for other in others), default=None) if others is not None else None
    threshold = (1 + max(MARGIN, FEW / (patients or len(own)) ** 0.5)) * max(reach or 0.0, stray) or None
    if near is not None:
        threshold = _capped(threshold, reach, near)
    mean, spread, axes, variances = (part.tolist() for part in shape[:4])
    axes = [[float(f"{value:.6g}") for value in axis] for axis in axes]
    return Prototype(mean, spread, axes, variances, shape.rest, threshold, len(own), reach, near)


def _capped(threshold: float | None, reach: float | None, near: float) -> float:
    """A threshold that keeps away from the nearest volume of other domains."""
    limit = near / 2 if reach is None else max(CLOSE * reach, (reach * near) ** 0.5)
    return limit if threshold is None else min(threshold, limit)


def own_reach(own: torch.Tensor, patients: Sequence[str] | None = None) -> float | None:
    """Greatest distance of a domain's volume from the prototype of its other patients', None where there is one patient only.

    From a prototype that it is part of, a volume of few is always near.

    Args:
        own: descriptions (n, F).
        patients: whose volume each is; by default all are of different ones.
    """
    patients = list(patients or range(len(own)))
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    if len(numbers) < 2:
        return None
    group = torch.tensor([numbers[patient] for patient in patients]) % GROUPS
    return max(shape.distance(volume) for k in group.unique() for shape in [_fit(own[group != k])] for volume in own[group == k])


def _fit(own: torch.Tensor) -> _Shape:
    mean, count = own.mean(0), len(own)
    variance = own.var(0) if count > 1 else torch.zeros_like(mean)
    floor = FLOOR / count**0.5 * (mean.abs() + 0.2 * mean.square().mean().sqrt()) + 1e-12
    spread = (variance + floor**2).sqrt()
    values = (own - mean) / spread
    shrinkage = max(float(ledoit_wolf_shrinkage(values.numpy())) if count > 1 else 1.0, SCATTER / (count + SCATTER))
    _, singular, axes = torch.linalg.svd(values, full_matrices=False)
    kept = min(AXES, count - 1)
    variances = singular[:kept].square() / max(count - 1, 1)
    # towards the spread in all directions, of which the floor is a part
    return _Shape(mean, spread, axes[:kept], (1 - shrinkage) * variances + shrinkage, shrinkage)


@torch.no_grad()
def make_prototypes(
    network: MultiDomainSegmentation,
    plan: DomainPlan,
    cases: Sequence[Mapping[str, Any]],
    domains: Collection[str] | None = None,
    stray: float = 0.0,
) -> dict[str, Prototype]:
    """Prototypes of the domains of some training cases.

    Args:
        network: the trained network, in evaluation mode.
        plan: the plan of all domains.
        cases: with "image" (path), "domain" (name) and, where volumes may be of one, "patient".
        domains: names of the domains to make prototypes of, by default all that occur; the others' cases still say what they are not.
        stray: see :func:`fit_prototype`; what the domains' own volumes say counts beside it.

    Returns:
        prototype by name.
    """
    occurring = {case["domain"] for case in cases}
    names = [name for name in plan.names if name in occurring and (domains is None or name in domains)]
    own: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    others: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    patients: dict[str, list[str]] = {name: [] for name in names}
    seen: Counter[str] = Counter()
    for case in cases:
        domain = case["domain"]
        seen[domain] += 1
        volume = load_volume(case["image"])
        for name in names:
            if name == domain:
                own[name].append(describe(network, *volume, plan, name))
                patients[name].append(case.get("patient") or str(case["image"]))
            elif seen[domain] <= OTHERS:
                others[name].append(describe(network, *volume, plan, name))
    described = {name: torch.stack(own[name]) for name in names}
    reaches = {name: own_reach(described[name], patients[name]) for name in names}
    stray = max([stray, *(reach or 0.0 for reach in reaches.values())])
    foreign = {name: torch.stack(others[name]) if others[name] else None for name in names}
    return {name: fit_prototype(described[name], reaches[name], foreign[name], stray, len(set(patients[name]))) for name in names}


@torch.no_grad()
def keep_away(
    network: MultiDomainSegmentation, plan: DomainPlan, known: Mapping[str, Prototype], cases: Sequence[Mapping[str, Any]]
) -> dict[str, Prototype]:
    """Prototypes whose ``others`` and ``threshold`` know of volumes of domains that came later.

    Args:
        network: the trained network, in evaluation mode; the norms of the known domains are those that the prototypes were made by.
        plan: the plan of all domains.
        known: prototype by name.
        cases: of other domains than these, with "image" (path) and "domain" (name); OTHERS of each are looked at.
    """
    if not cases:
        return dict(known)
    near = {name: [] if prototype.others is None else [prototype.others] for name, prototype in known.items()}
    seen: Counter[str] = Counter()
    for case in cases:
        seen[case["domain"]] += 1
        if seen[case["domain"]] <= OTHERS:
            volume = load_volume(case["image"])
            for name, prototype in known.items():
                near[name].append(prototype.distance(describe(network, *volume, plan, name)))
    nearest = {name: min(distances) for name, distances in near.items()}
    return {
        name: replace(prototype, others=nearest[name], threshold=_capped(prototype.threshold, prototype.own, nearest[name]))
        for name, prototype in known.items()
    }


def load_prototypes(path: str | os.PathLike) -> dict[str, Prototype]:
    """Read a ``domains.json``.

    Raises:
        DataError: it is missing, or holds no prototypes.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: missing, so that an image's domain cannot be found; give --domain NAME")
    content = read_json(path)
    known = {field.name for field in fields(Prototype)}
    try:
        if content["version"] != VERSION:
            raise DataError(f"{path}: version {content['version']} is not supported (this is version {VERSION})")
        made = {name: Prototype(**{key: value[key] for key in known}) for name, value in content["domains"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: holds no prototypes of domains") from error
    if not made:
        raise DataError(f"{path}: holds no prototypes of domains, its table is empty")
    return made


class PrototypeWriter:
    """Handler: when a training ends, writes the prototypes of its domains into ``domains.json``, atomically.

    Args:
        path: the file.
        network: what was trained.
        plan: the plan of all domains.
        data: the training cases, dictionaries with "image" and "domain".
        target: the only domain to get a prototype, where the network was made for one; or None.
        before: the ``domains.json`` of a model whose domains are still the same to this network, or None. Their images may not be there:
            what they are under the norms of a new domain is not known.
        rank: only the process of rank 0 writes.

    Raises:
        DataError: ``before`` holds no prototypes.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        network: nn.Module,
        plan: DomainPlan,
        data: Sequence[Mapping[str, Any]],
        target: str | None = None,
        before: str | os.PathLike | None = None,
        rank: int = 0,
    ) -> None:
        self.path, self.network, self.plan, self.rank = Path(path), network, plan, rank
        self.cases, self.target = data, target
        self.known = load_prototypes(before) if before is not None and Path(before).is_file() else {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.rank == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        """Describe all training volumes, and write."""
        network, training = plain(self.network), plain(self.network).training
        network.eval()
        known = keep_away(network, self.plan, self.known, [case for case in self.cases if case["domain"] not in self.known])
        stray = max((prototype.own or 0.0 for prototype in known.values()), default=0.0)
        made = known | make_prototypes(network, self.plan, self.cases, [self.target] if self.target else None, stray)
        network.train(training)
        for name, prototype in made.items():
            if prototype.own and prototype.others and prototype.others < prototype.own:
                logger.warning(f"{name}: volumes of other domains look like its own; give --domain {name} rather than auto")
        write_json(self.path, {"version": VERSION, "domains": {name: asdict(prototype) for name, prototype in made.items()}})


class DomainFinder:
    """The domain of an image; reads the model when it is asked for the first time.

    Args:
        plan: the plan of all domains.
        model_dir: folder with ``model.pt`` and ``domains.json``.
        device: where the network computes.
        force: whether an image far from all domains gets the nearest one.
    """

    def __init__(
        self, plan: DomainPlan, model_dir: str | os.PathLike, device: str | torch.device = "cpu", force: bool | str = False
    ) -> None:
        self.plan, self.model_dir, self.device, self.force = plan, Path(model_dir), device, to_bool(force)
        self._network: MultiDomainSegmentation | None = None
        self._prototypes: dict[str, Prototype] = {}

    def __call__(self, image: str | os.PathLike, among: Collection[str] | None = None) -> Found:
        """Find the domain of an image file, of all or among some.

        Raises:
            DataError: the image is far from all domains, and that is not forced; the message names file and distance. Or the model
                has no prototypes.
        """
        found = self.nearest(image, among)
        if found.foreign and not self.force:
            raise DataError(
                f"{image}: like no domain the model knows; the nearest, {found.domain!r}, is at a distance of {found.distance:.2f}, "
                f"accepted are up to {found.threshold:.2f} (give --domain NAME, or --force true)"
            )
        return found

    def nearest(self, image: str | os.PathLike, among: Collection[str] | None = None) -> Found:
        """The nearest domain, however far. Raises DataError when the image is unfit or the model has no prototypes of these domains."""
        distances = self.distances(image, among)
        # Where nothing is known to set a threshold by, the distance counts in the spread itself.
        parts = {name: distance / (self._prototypes[name].threshold or 1.0) for name, distance in distances.items()}
        nearest, *further = sorted(parts, key=parts.__getitem__)
        second = parts[further[0]] if further else 1.0
        confidence = second / max(parts[nearest] + second, 1e-12)
        return Found(nearest, distances[nearest], self._prototypes[nearest].threshold, confidence)

    @torch.no_grad()
    def distances(self, image: str | os.PathLike, among: Collection[str] | None = None) -> dict[str, float]:
        """Distance of an image file from the prototype of every domain, or of some, under that domain's norms."""
        if self._network is None:
            self._prototypes = load_prototypes(self.model_dir / "domains.json")
            for name in self._prototypes:
                self.plan.index(name)
            self._network = load_weights(self.model_dir / "model.pt", network_from_plan(self.plan)).to(self.device)
        known = {name: prototype for name, prototype in self._prototypes.items() if among is None or name in among}
        if not known:
            raise DataError(f"{self.model_dir / 'domains.json'}: knows none of {sorted(among)}, one of which {image} must be of")
        volume = load_volume(image)
        return {name: prototype.distance(describe(self._network, *volume, self.plan, name)) for name, prototype in known.items()}
