"""``models/evaluation.json``: the evaluations of shipped weights, and which figure in the metadata is which of theirs.

The file holds:

- ``weights``: file in ``models/`` or in a folder of it to its sha256: what was evaluated;
- ``evaluations``: name to ``summary.json`` as the run id ``evaluating`` wrote it;
- ``metrics``: figure of the metadata's ``eval_metrics`` to [evaluation, metric in it], or [evaluation, metric, domain]; the figure is
  the metric's mean over all cases, or over those of the domain, rounded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.files import write_json
from tools.release.bundle import files_below
from tools.release.hashes import sha256_of

__all__ = ["EVALUATION", "differences", "write_evaluation"]

EVALUATION = "models/evaluation.json"


def write_evaluation(
    bundle_dir: str | os.PathLike, summaries: Mapping[str, str | os.PathLike], metrics: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Write a bundle's ``models/evaluation.json``.

    Args:
        bundle_dir: the bundle; all ``*.pt`` below its ``models/`` count as evaluated.
        summaries: name of an evaluation to its ``summary.json``.
        metrics: figure of the metadata to (evaluation, metric in it), or (evaluation, metric, domain).

    Returns:
        its content.

    Raises:
        DataError: there are no weights, a summary is unreadable, or has no such metric.
    """
    root = Path(bundle_dir)
    weights = _weights(root)
    if not weights:
        raise DataError(f"{root / 'models'}: no weights")
    evaluations = {name: read_json(path) for name, path in summaries.items()}
    content = {
        "weights": weights,
        "evaluations": evaluations,
        "metrics": {figure: list(place) for figure, place in metrics.items()},
    }
    for figure in metrics:
        _mean(content, figure, root / EVALUATION)
    write_json(root / EVALUATION, content)
    return content


def differences(root: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between ``eval_metrics`` of the metadata, ``models/evaluation.json`` and the weights: one line a fault.

    Args:
        root: folder of the bundle, in which the file lies.
        metadata: content of its ``metadata.json``.

    Raises:
        DataError: the file is unreadable, or not of the form above.
    """
    path = root / EVALUATION
    content = read_json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(key), dict) for key in ("weights", "evaluations", "metrics")):
        raise DataError(f"{path}: needs the objects weights, evaluations and metrics")
    present = _weights(root)
    for name in sorted(present.keys() | content["weights"].keys()):
        if name not in content["weights"]:
            yield f"{name} was not evaluated: {EVALUATION} does not list it"
        elif present.get(name) != content["weights"][name]:
            yield f"{name} is not the file that was evaluated (sha256)"
    for figure, value in metadata.get("eval_metrics", {}).items():
        if figure not in content["metrics"]:
            yield f"{figure} is in no evaluation: {EVALUATION} does not list it"
            continue
        mean = _mean(content, figure, path)
        if not _rounds_to(mean, value):
            yield f"{figure} is {value} in the metadata and {mean:.6g} in the evaluation"


def _weights(root: Path) -> dict[str, str]:
    """The sha256 of every file of weights below ``models/``, by its place there."""
    folder = root / "models"
    files = files_below(folder) if folder.is_dir() else ()
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files if path.suffix == ".pt"}


def _mean(content: Mapping[str, Any], figure: str, path: Path) -> float:
    try:
        evaluation, metric, *domain = content["metrics"][figure]
        found = content["evaluations"][evaluation]
        value = (found["domains"][domain[0]] if domain else found["metrics"])[metric]["mean"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {figure}: its evaluation or its metric is not there") from error
    if not isinstance(value, (int, float)):
        raise DataError(f"{path}: {figure}: the metric has no mean")
    return float(value)


def _rounds_to(mean: float, value: Any) -> bool:
    """Whether ``value`` is ``mean``, rounded to as many digits as it is written with."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    digits = max(0, -Decimal(repr(value)).as_tuple().exponent)
    return abs(mean - value) <= 0.5 * 10.0**-digits * (1 + 1e-9)
