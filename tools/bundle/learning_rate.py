"""The course of a learning rate over a training."""

from __future__ import annotations

import math

__all__ = ["warmup_cosine"]


def warmup_cosine(progress: float, warmup: float = 0.03, final: float = 0.01) -> float:
    """Factor on the base learning rate: linear warm-up, then a half cosine (Loshchilov & Hutter, ICLR 2017).

    Args:
        progress: share of the steps that are done, in [0, 1).
        warmup: share of the steps over which the rate rises.
        final: rate at the end, relative to the highest.
    """
    if progress < warmup:
        return max(progress / warmup, 0.02)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    return final + (1 - final) * cosine
