"""Point and mesh files, read, moved and written with everything else in them kept. Coordinates are LPS mm throughout.

Formats: ``.particles`` (ShapeWorks: one ``x y z`` a line), ``.csv`` (a header with the columns x, y, z), ``.fcsv`` (3D Slicer's
markups, RAS files included) and the meshes ``.vtk .vtp .ply .stl .obj``. A mesh file does not say which world it means:
it is taken as LPS mm, which ITK, ShapeWorks and 3D Slicer (since version 5) write.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.data.checks import DataError, first_line
from tools.data.files import atomic_path

__all__ = ["MESHES", "POINTS", "move_mesh", "move_points", "read_mesh", "write_mesh"]

POINTS = (".particles", ".csv", ".fcsv")
MESHES = (".vtk", ".vtp", ".ply", ".stl", ".obj")

Mover = Callable[[np.ndarray], np.ndarray]


def move_points(source: Path, destination: Path, move: Mover) -> int:
    """Write a point file with its points moved, in the same format; other columns are kept.

    Args:
        source: one of :data:`POINTS`.
        destination: the same suffix as ``source``.
        move: from (N, 3) to (N, 3), LPS mm.

    Returns:
        the number of points.

    Raises:
        DataError: the file is missing, empty or holds something else than points, or the suffixes differ.
    """
    source, destination = Path(source), Path(destination)
    if source.suffix != destination.suffix:
        raise DataError(f"{destination}: points are written in the format of their source, {source.suffix}")
    if not source.is_file():
        raise DataError(f"{source}: missing")
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not a text file") from error
    reader = {".particles": _read_particles, ".csv": _read_csv, ".fcsv": _read_fcsv}[source.suffix]
    rows, columns, flip, head = reader(source, text)
    if not rows:
        raise DataError(f"{source}: no points")
    try:
        points = np.array([[float(row[column]) for column in columns] for row in rows])
    except (ValueError, IndexError) as error:
        raise DataError(f"{source}: a line without three coordinates ({error})") from error
    if not np.isfinite(points).all():
        raise DataError(f"{source}: coordinates that are not finite")
    for row, point in zip(rows, move(points * flip) * flip):
        for column, value in zip(columns, point):
            row[column] = f"{value:.6f}"
    with atomic_path(destination) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        stream.write(head)
        if source.suffix == ".particles":
            stream.writelines(" ".join(row) + "\n" for row in rows)
        else:
            csv.writer(stream, lineterminator="\n").writerows(rows)
    return len(rows)


def read_mesh(path: Path) -> Any:
    """What a mesh file holds, as pyvista reads it, without its warnings: the callers' checks say the same in a line.

    Raises:
        DataError: the file is missing or unreadable.
    """
    import pyvista

    if not path.is_file():
        raise DataError(f"{path}: missing")
    with pyvista.vtk_verbosity("off"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pyvista.read(path)
        except Exception as error:  # pyvista's readers raise anything, this file is the one cause
            raise DataError(f"{path}: not readable as a mesh ({first_line(error)})") from error


def write_mesh(path: str | os.PathLike, mesh: Any) -> None:
    """Write a mesh of pyvista, atomically, with its data; the suffix (:data:`MESHES`) says the format.

    ``.vtk`` is written in version 4.2: ITK, and programs built on it, cannot read the 5.1 of newer VTK.

    Raises:
        ValueError: the format is unknown, or takes no such mesh.
    """
    import pyvista

    writers = {pyvista.PolyData: pyvista.PolyDataWriter, pyvista.UnstructuredGrid: pyvista.UnstructuredGridWriter}
    with atomic_path(path) as temporary:
        if temporary.suffix != ".vtk" or type(mesh) not in writers:
            mesh.save(temporary)
            return
        writer = writers[type(mesh)](temporary, mesh)
        writer.data_format = "binary"
        writer.writer.SetFileVersion(42)
        writer.write()


def move_mesh(source: Path, destination: Path, move: Mover) -> int:
    """Write a mesh with its vertices moved; cells and data are kept, stored normals are dropped, for they turn with the surface.

    Args:
        source: one of :data:`MESHES`.
        destination: one of :data:`MESHES`, the format to write.
        move: from (N, 3) to (N, 3), LPS mm.

    Returns:
        the number of vertices.

    Raises:
        DataError: the file is missing, unreadable, holds no mesh or an empty one, or cannot be written in that format.
    """
    import pyvista

    source, destination = Path(source), Path(destination)
    mesh = read_mesh(source)
    if not isinstance(mesh, pyvista.PointSet | pyvista.PolyData | pyvista.UnstructuredGrid):
        raise DataError(f"{source}: holds {type(mesh).__name__}, not a mesh")
    if mesh.n_points == 0 or mesh.n_cells == 0:
        raise DataError(f"{source}: empty or damaged mesh ({mesh.n_points} vertices, {mesh.n_cells} cells)")
    points = np.asarray(mesh.points)
    if not np.isfinite(points).all():
        raise DataError(f"{source}: vertices that are not finite")
    mesh.points = np.asarray(move(points.astype(np.float64)), dtype=points.dtype if points.dtype.kind == "f" else np.float32)
    for data in (mesh.point_data, mesh.cell_data):
        for name in [name for name in data if name.lower() == "normals"]:
            del data[name]
    try:
        write_mesh(destination, mesh)
    except (ValueError, FileNotFoundError) as error:
        raise DataError(
            f"{destination}: a {type(mesh).__name__} cannot be written as {destination.suffix} ({first_line(error)})"
        ) from error
    return int(mesh.n_points)


Table = tuple[list[list[str]], tuple[int, int, int], np.ndarray, str]  # rows, columns of x y z, sign to LPS, lines before the rows


def _read_particles(source: Path, text: str) -> Table:
    rows = [line.split() for line in text.splitlines() if line.strip()]
    for row in rows:
        if len(row) != 3:
            raise DataError(f"{source}: a line of {len(row)} values, three are needed: {' '.join(row)[:60]}")
    return rows, (0, 1, 2), np.ones(3), ""


def _read_csv(source: Path, text: str) -> Table:
    lines = [row for row in csv.reader(io.StringIO(text)) if row]
    names = [name.strip().lower() for name in lines[0]] if lines else []
    if not {"x", "y", "z"} <= set(names):
        raise DataError(f"{source}: the first line must name the columns x, y and z")
    head = io.StringIO()
    csv.writer(head, lineterminator="\n").writerow(lines[0])
    return lines[1:], (names.index("x"), names.index("y"), names.index("z")), np.ones(3), head.getvalue()


def _read_fcsv(source: Path, text: str) -> Table:
    comments = [line for line in text.splitlines() if line.startswith("#")]
    settings = dict(line[1:].split("=", 1) for line in comments if "=" in line)
    system = {key.strip(): value.strip() for key, value in settings.items()}.get("CoordinateSystem", "LPS")
    signs = {"LPS": (1, 1, 1), "1": (1, 1, 1), "RAS": (-1, -1, 1), "0": (-1, -1, 1)}
    if system not in signs:
        raise DataError(f"{source}: unknown CoordinateSystem {system!r}, known are LPS and RAS")
    rows = [row for row in csv.reader(io.StringIO(text)) if row and not row[0].startswith("#")]
    return rows, (1, 2, 3), np.array(signs[system], dtype=np.float64), "".join(f"{line}\n" for line in comments)
