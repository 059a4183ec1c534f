"""Which images to label first: those that stand for the others, chosen by the images alone.

With few labels it matters much whose they are: a network that has seen one unusual case is wrong on the usual ones. The first choice
is the image that resembles all others most; each further one is that by which the similarity of every image to its nearest chosen one
rises most (the greedy maximisation of the facility-location function: Nemhauser, Wolsey & Fisher, Mathematical Programming 14, 1978).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from tools.data.decathlon import Case
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan

__all__ = ["describe", "representatives", "typical_cases"]

BLOCK, CELLS = 4, 16  # voxels a side of a block of the description, and most blocks along an axis


def describe(cases: Sequence[Case], plan: Plan) -> np.ndarray:
    """Images as coarse patterns, whose inner products are their correlations.

    Args:
        cases: N cases; their labels are not looked at.
        plan: the grid they are brought to.

    Returns:
        (N, F) float32: averages over blocks of 4 voxels a side, at most 16 blocks along an axis, of mean 0 and norm 1.

    Raises:
        DataError: an image is missing, truncated or no 3-D volume.
    """
    cells = [min(CELLS, max(1, n // BLOCK)) for n in plan.size]
    rows = []
    for case in cases:
        blocks = F.adaptive_avg_pool3d(to_plan(*load_volume(case.image), plan)[0][None], cells).flatten()
        centred = torch.nan_to_num(blocks - blocks.mean())
        rows.append(centred / centred.norm().clamp_min(1e-12))
    return torch.stack(rows).numpy()


def representatives(descriptions: np.ndarray, candidates: Collection[int] | None = None, start: int = 0) -> Iterator[int]:
    """Indices of rows in the order in which they are best chosen, one after the other.

    Args:
        descriptions: (N, F), rows of norm 1.
        candidates: rows that may be chosen, by default all; all N are to be represented.
        start: the first choice: 0 for the row with the highest mean similarity to all, 1 for the one after it, and so on.

    Raises:
        ValueError: ``start`` is not less than the number of candidates.
    """
    chosen_from = np.arange(len(descriptions)) if candidates is None else np.array(sorted(candidates))
    if not 0 <= start < len(chosen_from):
        raise ValueError(f"start must be from 0 to {len(chosen_from) - 1}, not {start}")
    similarity = descriptions @ descriptions[chosen_from].T  # of all to the candidates
    index = int(np.argsort(-similarity.mean(0), kind="stable")[start])
    left = np.ones(len(chosen_from), dtype=bool)
    covered = np.full(len(descriptions), -np.inf)
    while True:
        left[index] = False
        yield int(chosen_from[index])
        if not left.any():
            return
        covered = np.maximum(covered, similarity[:, index])
        gain = np.maximum(similarity, covered[:, None]).sum(0)
        index = int(np.where(left, gain, -np.inf).argmax())


def typical_cases(cases: Sequence[Case], plan: Plan, candidates: Collection[str] | None = None, start: int = 0) -> Iterator[str]:
    """Names of cases in the order in which they are best labelled.

    Args:
        cases: those to be represented.
        plan: the grid on which they are compared.
        candidates: names of those that may be chosen, by default all.
        start: see :func:`representatives`.

    Raises:
        DataError, ValueError: see :func:`describe` and :func:`representatives`.
    """
    names = [case.name for case in cases]
    allowed = None if candidates is None else [k for k, name in enumerate(names) if name in candidates]
    for index in representatives(describe(cases, plan), allowed, start):
        yield names[index]
