"""How well embeddings keep groups of samples apart: one figure, and a map of them in the plane.

Both look at directions only, as the contrastive term does, which compares embeddings of length one by their products: the silhouette
takes the cosine distance 1 - cos, the map the squared Euclidean distance of vectors of length one, which is 2 (1 - cos).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize

__all__ = ["project", "silhouette"]

PERPLEXITY = 30.0


def silhouette(features: Any, names: Sequence[str]) -> float:
    """Mean over the samples of (b - a) / max(a, b) (Rousseeuw, 1987), from -1 to 1.

    a is the mean cosine distance from the other samples of the same group (a sample alone in its group counts as 0), b the least mean
    distance from those of another one.

    Args:
        features: (N, F).
        names: the group of each sample.

    Returns:
        the figure; NaN where it is not defined: with one group, or with as many as samples.

    Raises:
        ValueError: the features have another shape, are not finite, or are not as many as the names.
    """
    features = _checked(features)
    if len(names) != len(features):
        raise ValueError(f"{len(features)} samples, but {len(names)} names")
    if not 1 < len(set(names)) < len(features):
        return float("nan")
    return float(silhouette_score(features, [str(name) for name in names], metric="cosine"))


def project(features: Any, seed: int = 0) -> np.ndarray:
    """Places in the plane by t-SNE (van der Maaten & Hinton, 2008), from the first two principal components on.

    Near samples stay near; how far apart distant groups lie says nothing. The perplexity is 30, and a third of the other samples where
    these are fewer.

    Args:
        features: (N, F), N at least 4, F at least 2.
        seed: of the principal components' solver and of the optimisation.

    Returns:
        (N, 2) float32, without unit.

    Raises:
        ValueError: the features have another shape, are not finite, or too few.
    """
    features = _checked(features)
    if len(features) < 4 or features.shape[1] < 2:
        raise ValueError(f"a map needs at least 4 samples of 2 features, got {features.shape[0]} of {features.shape[1]}")
    directions = normalize(features)
    if np.ptp(directions, axis=0).max() < 1e-9:  # t-SNE divides by the spread
        return np.zeros((len(features), 2), dtype=np.float32)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(directions)


def _checked(features: Any) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be (N, F), not of the shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite")
    return features
