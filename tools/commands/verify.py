"""``python -m tools verify``: a bundle or an archive, checked before it is released."""

from __future__ import annotations

import sys

from tools.release.faults import CODES
from tools.release.verify import verify as faults_of

__all__ = ["verify"]


def verify(bundle: str, codes: bool = False) -> None:
    """Check files, metadata, configs, requirements, weights, the network's answers and the figures of a bundle; its code is run.

    Prints a line a fault, `CODE: PLACE: what is wrong`, and ends with status 1 where there is one.

    Args:
        bundle: folder of a bundle, or an archive.
        codes: list what the codes mean as well.

    Raises:
        DataError: there is nothing to check.
        SystemExit: there are faults.
    """
    if codes:
        print("\n".join(f"{code:<17} {meaning}" for code, meaning in CODES.items()))
    faults = faults_of(bundle)
    for fault in faults:
        print(fault)
    print(f"{bundle}: {len(faults)} faults" if faults else f"{bundle}: no faults")
    if faults:
        sys.exit(1)
