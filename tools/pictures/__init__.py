"""Figures: a registered pair, a segmented case, scores by method, points in the plane.

Volumes are (D, H, W) arrays or tensors in RAS order (axis 0 towards the right, 1 anterior, 2 superior), as the plan's grid has them;
``spacing`` is in mm along these axes. Label contours and colours are safe for colour-blind readers (Okabe & Ito, 2008). Files are
written by matplotlib's Agg backend, without a display, and moved into place.
"""

from tools.pictures.plots import scatter_picture, table_picture
from tools.pictures.registration import registration_picture
from tools.pictures.segmentation import segmentation_picture

__all__ = ["registration_picture", "scatter_picture", "segmentation_picture", "table_picture"]
