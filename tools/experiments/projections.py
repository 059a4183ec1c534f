"""The figure of a projection: maps of embeddings that several evaluations drew, one below the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.experiments.confusion import read_rows
from tools.experiments.definition import Projection
from tools.pictures import scatter_picture

__all__ = ["draw_projection", "read_maps", "read_silhouettes"]


def read_maps(path: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """An ``embeddings.csv``: scale to domain to places in the plane, in the file's order.

    Raises:
        DataError: the file is missing, lacks a column, or has a place that is no finite number.
    """
    maps: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in read_rows(path):
        try:
            place = float(row["x"]), float(row["y"])
            maps.setdefault(row["scale"], {}).setdefault(row["domain"], []).append(place)
        except KeyError as error:
            raise DataError(f"{path}: has no column {error}") from None
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {error}") from None
        if not all(map(math.isfinite, place)):
            raise DataError(f"{path}: a place is not finite")
    if not maps:
        raise DataError(f"{path}: is empty")
    return maps


def read_silhouettes(path: Path) -> dict[str, dict[str, float | None]]:
    """Silhouettes of a ``summary.json``: ``silhouette`` and, where there is such, ``projected``, each scale to number.

    Raises:
        DataError: the file is missing or no JSON, or has none.
    """
    content = read_json(path)
    found = content.get("embeddings") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("silhouette"), dict):
        raise DataError(f'{path}: has no silhouettes ("embeddings")')
    return {part: found[part] for part in ("silhouette", "projected") if isinstance(found.get(part), dict)}


def draw_projection(path: Path, name: str, projection: Projection, folders: Mapping[tuple[str, str], Path]) -> dict[str, Any]:
    """Draw the figure.

    Args:
        path: the PNG to write.
        name: of the projection, the figure's title.
        projection: its rows.
        folders: (run, evaluation) to the folder of its results.

    Returns:
        ``picture``, the file's name, and ``of``: title to ``source`` ("run/evaluation") and the silhouettes (:func:`read_silhouettes`).

    Raises:
        DataError: an evaluation has written no maps or no silhouettes.
    """
    rows, found = {}, {}
    for title, source in projection.of.items():
        maps, silhouettes = read_maps(folders[source] / "embeddings.csv"), read_silhouettes(folders[source] / "summary.json")
        scores = silhouettes["silhouette"]
        rows[title] = {f"scale {scale}{_shown(scores.get(scale))}": points for scale, points in maps.items()}
        found[title] = {"source": "/".join(source), **silhouettes}
    scatter_picture(path, rows, title=name)
    return {"picture": path.name, "of": found}


def _shown(score: float | None) -> str:
    return "" if score is None else f", silhouette {score:.2f}"
