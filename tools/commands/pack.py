"""``python -m tools pack``: a bundle as one archive that needs no repository."""

from __future__ import annotations

from tools.release.pack import pack as write_pack

__all__ = ["pack"]


def pack(bundle: str, to: str = "dist") -> None:
    """Write NAME_v<version>.zip: the bundle and the parts of the shared package that it needs, under names of its own.

    The same input gives the same bytes. The archive is what `python -m monai.bundle download` unpacks.

    Args:
        bundle: folder of the bundle, such as bundles/deepatlas.
        to: folder for the archive.

    Raises:
        DataError: something in the bundle cannot be packed, in one line that names the file.
    """
    print(write_pack(bundle, to))
