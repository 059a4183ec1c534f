"""``python -m tools registry``: the lists that make a folder of archives a registry."""

from __future__ import annotations

from tools.data.checks import DataError
from tools.release.page import write_page
from tools.release.registry import INDEX, MODEL_INFO, write_registry

__all__ = ["registry"]


def registry(folder: str | None = None, url: str = "", page: str | None = None) -> None:
    """Write index.json (for `python -m tools install`) and model_info.json (the Model Zoo's form) for a folder of archives.

    Args:
        folder: with the archives that `python -m tools pack` wrote.
        url: address that the folder will have; without one, the lists hold where the folder is.
        page: instead, write the table of bundles into the README.md of this folder of bundles, such as bundles.

    Raises:
        DataError: there is no archive, or one is unsound.
    """
    if page is not None:
        print(write_page(page))
    if folder is None:
        if page is None:
            raise DataError("give the folder of the archives, or --page bundles")
        return
    index = write_registry(folder, url)
    for name, entries in index["bundles"].items():
        print(f"{name}: {', '.join(entry['version'] for entry in entries)}")
    print(f"written: {INDEX}, {MODEL_INFO}")
