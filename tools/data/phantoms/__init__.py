"""Phantoms of joints: MR-like images whose labels, dense deformations and corresponding surface points are known, made from a seed."""

from tools.data.phantoms.phantom import DEFAULT_SIZE, JOINTS, Phantom, make_phantom, template_points, true_deformation
from tools.data.phantoms.writing import write_phantoms

__all__ = ["DEFAULT_SIZE", "JOINTS", "Phantom", "make_phantom", "template_points", "true_deformation", "write_phantoms"]
