"""Surfaces of label maps, and mesh files. Coordinates are ITK's: LPS mm, in the world of the label map or file they came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyvista
from scipy import ndimage
from skimage.measure import marching_cubes

from tools.data.checks import DataError, read_nifti
from tools.registration.fields import lps_affine
from tools.registration.shapes import read_mesh, write_mesh

__all__ = [
    "Surface",
    "closed_part",
    "decimated",
    "from_polydata",
    "label_surface",
    "mirrored",
    "read_label_surface",
    "read_surface",
    "size",
    "smoothed",
    "to_polydata",
    "vertex_normals",
    "volume",
    "write_surface",
]


class Surface(NamedTuple):
    """A triangle mesh, faces counter-clockwise as seen from outside.

    Attributes:
        vertices: (V, 3) float64, LPS mm.
        faces: (F, 3) int64, vertex numbers.
    """

    vertices: np.ndarray
    faces: np.ndarray


def label_surface(
    label: np.ndarray,
    affine: np.ndarray,
    value: int | None = None,
    sigma: float = 0.6,
    level: float = 0.5,
    name: str | os.PathLike = "label map",
) -> Surface:
    """The outer surface of a structure: largest component, cavities filled, Gaussian, marching cubes.

    A structure cut by the image's border is closed there; a cavity that is open there, or through a gap in its wall, is not filled.
    Cavities of a few voxels are left to the Gaussian, which closes them.

    Args:
        label: label map (X, Y, Z).
        affine: (4, 4), voxel to RAS mm, as nibabel gives it; any origin, spacing and direction.
        value: the label value; None for everything but the background.
        sigma: of the Gaussian, voxels.
        level: of the smoothed mask, between 0 and 1.
        name: of the label map, for messages.

    Raises:
        DataError: the structure is not there, or so small that nothing of it reaches ``level`` after smoothing.
    """
    mask = label != 0 if value is None else label == value
    if not mask.any():
        raise DataError(f"{name}: no voxel of {'any structure' if value is None else f'label {value}'}, no surface")
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    margin = int(np.ceil(4 * sigma)) + 1
    smooth = _blurred(mask[box], sigma, margin)
    solid = ndimage.binary_fill_holes(mask[box])
    cavities = np.pad(solid & ~mask[box], margin)
    if (smooth[cavities] <= level).any():  # thresholded bone is hollow, and its inner walls would draw points to them
        smooth = _blurred(solid, sigma, margin)
    if smooth.max() <= level:
        raise DataError(f"{name}: the structure's {int(mask.sum())} voxel(s) are too few for a surface")
    vertices, faces, _, _ = marching_cubes(smooth, level)
    vertices = vertices + np.array([axis.start for axis in box]) - margin
    world = lps_affine(affine)
    return _outward(Surface(vertices @ world[:3, :3].T + world[:3, 3], faces.astype(np.int64)))


def read_label_surface(path: str | os.PathLike, value: int | None = None, sigma: float = 0.6, level: float = 0.5) -> Surface:
    """The surface of a structure in a NIfTI label map, see :func:`label_surface`.

    Raises:
        DataError: the file cannot be read, holds values that are not finite, or no such surface.
    """
    label, affine = read_nifti(Path(path))
    if not np.isfinite(label).all():
        raise DataError(f"{path}: label values are NaN or infinite")
    return label_surface(label, affine, value, sigma, level, path)


def read_surface(path: str | os.PathLike) -> Surface:
    """Read a mesh (``.vtk .vtp .ply .stl .obj``); polygons are cut to triangles, vertices that coincide are merged.

    Raises:
        DataError: the file is missing, unreadable, or holds no triangles or vertices that are not finite.
    """
    mesh = read_mesh(Path(path))
    if not isinstance(mesh, pyvista.PolyData | pyvista.UnstructuredGrid) or mesh.n_points == 0:
        raise DataError(f"{path}: empty, damaged or no surface mesh")
    if not np.isfinite(mesh.points).all():
        raise DataError(f"{path}: vertices that are not finite")
    mesh = (mesh if isinstance(mesh, pyvista.PolyData) else mesh.extract_surface()).triangulate().clean()
    if len(mesh.regular_faces) < 4:
        raise DataError(f"{path}: empty or damaged mesh ({mesh.n_points} vertices, {len(mesh.regular_faces)} triangles)")
    return _outward(from_polydata(mesh))


def closed_part(surface: Surface, name: str | os.PathLike = "mesh") -> Surface:
    """The largest of a mesh's parts, by area, which must be closed.

    Args:
        surface: a mesh, maybe with specks beside it, or walls of cavities in it.
        name: for the message.

    Raises:
        DataError: it has edges that do not lie between two triangles.
    """
    mesh = to_polydata(surface).connectivity("all").compute_cell_sizes(length=False, volume=False)
    part = np.asarray(mesh.cell_data["RegionId"])
    largest = part == np.argmax(np.bincount(part, mesh.cell_data["Area"]))
    kept, faces = np.unique(surface.faces[largest], return_inverse=True)
    main = Surface(surface.vertices[kept], faces.reshape(-1, 3))
    if edges := to_polydata(main).n_open_edges:
        raise DataError(f"{name}: not a closed surface, {edges} of its edges do not lie between two triangles")
    return _outward(main)


def write_surface(path: str | os.PathLike, surface: Surface) -> None:
    """Write a mesh, atomically; the suffix (``.vtk .vtp .ply .stl .obj``) says the format."""
    write_mesh(path, to_polydata(surface))


def to_polydata(surface: Surface) -> pyvista.PolyData:
    """For pyvista and VTK."""
    return pyvista.PolyData.from_regular_faces(np.asarray(surface.vertices, dtype=np.float64), surface.faces)


def from_polydata(mesh: pyvista.PolyData) -> Surface:
    """From a triangle mesh of pyvista."""
    return Surface(np.asarray(mesh.points, dtype=np.float64), np.asarray(mesh.regular_faces, dtype=np.int64))


def decimated(surface: Surface, vertices: int) -> Surface:
    """The same surface with about so many vertices at most (VTK's quadric decimation)."""
    if len(surface.vertices) <= vertices:
        return surface
    mesh = to_polydata(surface).decimate(1 - vertices / len(surface.vertices)).clean()
    return _outward(from_polydata(mesh))


def smoothed(surface: Surface, pass_band: float = 0.1, iterations: int = 30) -> Surface:
    """The same surface without the steps that voxels leave (Taubin's filter, which does not shrink); a smaller band smooths more."""
    return from_polydata(to_polydata(surface).smooth_taubin(n_iter=iterations, pass_band=pass_band))


def mirrored(surface: Surface) -> Surface:
    """The mirror image in x (a left side as a right one); faces still look outwards."""
    return Surface(surface.vertices * np.array([-1.0, 1.0, 1.0]), surface.faces[:, ::-1])


def size(surface: Surface) -> float:
    """Root-mean-square distance of the vertices from their centroid, mm."""
    return float(np.sqrt(surface.vertices.var(0).sum()))


def volume(surface: Surface) -> float:
    """Enclosed volume in mm^3 of a closed surface, negative where the faces look inwards (divergence theorem)."""
    corners = surface.vertices[surface.faces] - surface.vertices.mean(0)
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outward unit normals (V, 3): of the faces around a vertex, weighted by area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = faces.ravel()
    total = np.stack([np.bincount(flat, np.repeat(normals[:, axis], 3), len(vertices)) for axis in range(3)], axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _blurred(mask: np.ndarray, sigma: float, margin: int) -> np.ndarray:
    return ndimage.gaussian_filter(np.pad(mask.astype(np.float32), margin), sigma)


def _outward(surface: Surface) -> Surface:
    return surface if volume(surface) >= 0 else Surface(surface.vertices, surface.faces[:, ::-1])
