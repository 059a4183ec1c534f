"""The bundle's package on the path, for all tests of the bundle."""

from __future__ import annotations

import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "multidomain_segmentation"
if str(BUNDLE) not in sys.path:
    sys.path.insert(0, str(BUNDLE))
