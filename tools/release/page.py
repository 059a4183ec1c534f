"""The table of bundles on ``bundles/README.md``, written from the metadata."""

from __future__ import annotations

import os
from pathlib import Path

from tools.data.checks import DataError
from tools.data.files import atomic_path
from tools.release.bundle import Bundle, shipped_files

__all__ = ["PAGE", "page_with_table", "table", "write_page"]

PAGE = "README.md"
_BEGIN = "<!-- table: python -m tools registry --page bundles -->"
_END = "<!-- end of the table -->"
_FIGURES = 3  # of a bundle's metrics, the first


def table(bundles_dir: str | os.PathLike) -> str:
    """Markdown table of the bundles in a folder: task, data, metrics, size of the release's files, licence.

    Raises:
        DataError: a bundle's metadata are unreadable.
    """
    rows = ["| bundle | version | task | data | metrics | size | licence |", "|---|---|---|---|---|---|---|"]
    for metadata in sorted(Path(bundles_dir).glob("*/configs/metadata.json")):
        bundle = Bundle.read(metadata.parents[1])
        cells = [f"[`{bundle.name}`]({bundle.name}/docs/README.md)", str(bundle.version)]
        cells += [bundle.metadata.get(key, "") for key in ("task", "data_source")]
        cells += [_metrics(bundle), _size(bundle), _licence(bundle)]
        rows.append("| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |")
    return "\n".join(rows)


def page_with_table(text: str, table: str) -> str:
    """A page with the table between its two marks.

    Raises:
        DataError: the marks are missing.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise DataError(f"{PAGE}: no lines {_BEGIN} and {_END} for the table")
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def write_page(bundles_dir: str | os.PathLike) -> Path:
    """Bring the table of a folder's ``README.md`` up to date, and return the page's path.

    Raises:
        DataError: there is no page, or it has no place for the table.
    """
    path = Path(bundles_dir) / PAGE
    if not path.is_file():
        raise DataError(f"{path}: missing")
    text = page_with_table(path.read_text(encoding="utf-8"), table(bundles_dir))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _metrics(bundle: Bundle) -> str:
    figures = list(bundle.metadata.get("eval_metrics", {}).items())
    shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures[:_FIGURES])
    return f"{shown}{', ...' if len(figures) > _FIGURES else ''}" or "none yet"


def _size(bundle: Bundle) -> str:
    if not any((bundle.root / "models").glob("*.pt")):
        return "no weights yet"
    return f"{sum(path.stat().st_size for path in shipped_files(bundle)) / 1e6:.0f} MB"


def _licence(bundle: Bundle) -> str:
    """Of the code, and where that of the data is told."""
    page = bundle.root / "docs" / "data_license.txt"
    return "code Apache-2.0" + (f"; [data]({bundle.name}/docs/data_license.txt)" if page.is_file() else "")
