"""What the contrastive term works on, looked at: the network's answers to single slices at each scale, and how far domains lie apart.

The map and the first silhouette are of what a projection receives, the mean over the pixels of every channel of the encoder. Networks
with and without the contrastive term have that alike; the answer of a projection that no loss has trained says nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.domain_plan import DomainPlan
from tools.data.files import write_csv
from tools.data.geometry import load_volume
from tools.data.slices import to_slices
from tools.metrics.embeddings import project, silhouette
from tools.networks.multidomain_unet import MultiDomainSegmentation
from tools.pictures import scatter_picture

__all__ = ["Embedded", "embed_cases", "write_embeddings"]

SLICES = 24  # of a volume, evenly spread over those that show a structure
PER_DOMAIN = 240  # slices at most, about: the time of a map grows with their number
BATCH = 8


class Embedded(NamedTuple):
    """N slices and what the network makes of them.

    slices: of each its "case", its number "slice" along the slice axis of the plan, and its "domain".
    pooled: (N, C_s) float32 at each scale, finest first: the encoder's features averaged over the pixels.
    projected: (N, E) float32 at each scale, of length one; empty where the network has no projection.
    """

    slices: list[dict[str, Any]]
    pooled: list[np.ndarray]
    projected: list[np.ndarray]


@torch.no_grad()
def embed_cases(network: MultiDomainSegmentation, cases: Mapping[str, Sequence[Case]], plan: DomainPlan, device: torch.device) -> Embedded:
    """Look at labelled cases, slice by slice, under the norms of their own domain.

    Args:
        network: the network.
        cases: by domain.
        plan: the plan of all domains.
        device: where it computes.

    Raises:
        DataError: a file is unfit, a domain unknown, or fewer than four slices show a structure.
    """
    network = network.to(device).eval()
    slices: list[dict[str, Any]] = []
    parts: list[list[torch.Tensor]] = []
    for domain, members in cases.items():
        plan.index(domain)
        limit = min(SLICES, max(1, PER_DOMAIN // max(len(members), 1)))
        for case in members:
            options = {"plan": plan.domains[domain], "multiple": network.encoder.strides[-1]}
            images, _ = to_slices(*load_volume(case.image), **options)
            labels, _ = to_slices(*load_volume(case.label), **options, is_label=True)
            shown = labels.flatten(1).any(1).nonzero()[:, 0]
            if not len(shown):
                continue
            chosen = shown[np.unique(np.linspace(0, len(shown) - 1, limit).round().astype(int))]
            slices += [{"case": case.name, "slice": index, "domain": domain} for index in chosen.tolist()]
            for batch in images[chosen, None].split(BATCH):
                with network.selector.use(domain, device):
                    features = network.encoder(batch.to(device))
                    projected = [] if network.projection is None else network.projection(features)
                parts.append([maps.flatten(2).mean(2).float().cpu() for maps in features] + [value.cpu() for value in projected])
    if len(slices) < 4:
        raise DataError(f"embeddings: only {len(slices)} slices of the cases to evaluate on show a structure, at least 4 are needed")
    joined = [torch.cat(values).numpy() for values in zip(*parts, strict=True)]
    scales = len(network.encoder.strides)
    return Embedded(slices, joined[:scales], joined[scales:])


def write_embeddings(folder: str | os.PathLike, embedded: Embedded, seed: int | None = None) -> dict[str, Any]:
    """Write ``embeddings.csv`` (case, slice, domain, scale, x, y: a row a slice and scale) and ``embeddings.png``, atomically.

    Args:
        folder: where to; is made if it is missing.
        embedded: the slices.
        seed: of the map in the plane, by default 0.

    Returns:
        ``silhouette`` of the pooled features by domain, and ``projected``, that of the embeddings, where there are any: each scale,
        counted from 1, the finest, to its silhouette (:func:`tools.metrics.embeddings.silhouette`), None where there is only one domain;
        and the number of ``slices``.
    """
    domains = [row["domain"] for row in embedded.slices]
    scores = {
        name: {str(k): _defined(silhouette(features, domains)) for k, features in enumerate(values, start=1)}
        for name, values in (("silhouette", embedded.pooled), ("projected", embedded.projected))
        if values
    }
    rows, panels = [], {}
    for scale, features in enumerate(embedded.pooled, start=1):
        places = project(features, seed or 0)
        rows += [{**row, "scale": scale, "x": x, "y": y} for row, (x, y) in zip(embedded.slices, places.tolist(), strict=True)]
        score = scores["silhouette"][str(scale)]
        title = f"scale {scale}" + ("" if score is None else f", silhouette {score:.2f}")
        panels[title] = {name: places[[name == domain for domain in domains]] for name in dict.fromkeys(domains)}
    write_csv(Path(folder) / "embeddings.csv", rows)
    scatter_picture(Path(folder) / "embeddings.png", {"": panels}, title="slices by domain")
    return {**scores, "slices": len(embedded.slices)}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
