"""``python -m tools correspondences``: corresponding points on the structures of a data set, or on meshes, and their shape model."""

from __future__ import annotations

import csv
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.data.checks import DataError
from tools.data.decathlon import particle_name, read_dataset
from tools.data.files import remove_leftovers
from tools.data.splits import read_split
from tools.registration.shapes import MESHES
from tools.shape.comparison import belonging
from tools.shape.correspondence import REGISTRATIONS, SHARE, ShapeModel, correspond, correspond_to, medoid
from tools.shape.distance import point_distances
from tools.shape.particles import read_particle_set, write_particles
from tools.shape.procrustes import mirror as reflect
from tools.shape.report import ShapeCase, read_model, write_cases, write_report
from tools.shape.sides import RATIO, mirror_ratios
from tools.shape.surfaces import Surface, closed_part, mirrored, read_label_surface, read_surface, size

__all__ = ["correspondences"]

LEAST = 3  # shapes that a model of shapes needs
LEAST_POINTS = 16
POINTS = 512
NAMED = 3  # cases that a message names, at most
ODD_SIZE = 5  # times the median of the set, or a fifth of it: metres among millimetres, another bone
ODD_FIT = 3  # times the median distance of the points' surfaces: a case worth a look


def correspondences(
    to: str,
    dataset_dir: str | None = None,
    points: int | None = None,
    meshes: str | None = None,
    label: str = "all",
    mirror: str | None = None,
    check_sides: bool = True,
    scaling: bool = False,
    splits_file: str | None = None,
    turn: bool = True,
    registration: str = "splines",
    share: float = SHARE,
    against: str | None = None,
    model: str | None = None,
    force: bool = False,
) -> None:
    """Write TO/<case>.particles (LPS mm of each case's own image or mesh) and, into TO/model, template, shape model, figures and pictures.

    The first 64, 128, 256, ... lines of a file are the coarser scales. Every case is read before anything is written.

    Args:
        to: folder for the particle files; DATASET_DIR/particles is where training looks for them.
        dataset_dir: Decathlon-style folder, whose labelled cases are used.
        points: corresponding points a case; 512, or with --model as many as it has.
        meshes: folder of closed surface meshes (.vtk .vtp .ply .stl .obj) instead of a data set; the largest part of each counts.
        label: label value of the structure; all takes everything but the background as one.
        mirror: regular expression; cases whose name it is found in are mirrored in x for the model. Their particles are mirrored back.
        check_sides: stop where shapes look like mirror images of the others; false takes them as they are.
        scaling: remove size from the shape model.
        splits_file: splits.json; only its training cases, not those of validation or report, shape the template and the model, and of
            them, where the file names any, only those whose label is used (label_limit). The others get particles all the same.
        turn: shapes may lie in other orientations than the first template; false holds them to small rotations.
        registration: how the template is fitted: splines, or distance_maps, which is slower.
        share: of the variance, 0 to 1, in the modes that points are drawn to; less makes a smaller, more specific model.
        against: folder of other .particles of the same cases, such as those of ShapeWorks: both models side by side in
            TO/model/statistics.csv and .png. They lie in the space of the surfaces or, for mirrored cases, of their mirror images.
        model: folder "model" that this command wrote for other cases: no template is made, its own is fitted to these cases, of which one
            is enough, so that their points correspond to those of the others. It stays as it is. Points of two separate runs do not
            correspond.
        force: write into a folder that holds particle files of another origin, over those of the same cases.

    Raises:
        DataError: input that cannot be used, in one line that names the file.
    """
    start = time.perf_counter()
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < LEAST_POINTS):
        raise DataError(f"--points must be a whole number of at least {LEAST_POINTS}, got {points!r}")
    if registration not in REGISTRATIONS:
        raise DataError(f"--registration must be {' or '.join(REGISTRATIONS)}, got {registration!r}")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise DataError(f"--share must be a number above 0 and at most 1, got {share!r}")
    folder = Path(to)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    if against is not None and Path(against).resolve() == folder.resolve():
        raise DataError(f"{folder}: the points of --against lie here; choose another --to")
    known = None
    if model is not None:
        known = _known(Path(model), folder, points, {"splits_file": splits_file, "scaling": scaling, "against": against})
    if not force:
        _check_own(folder)
    sources, cases = _sources(dataset_dir, meshes)
    if not sources:
        raise DataError(f"{dataset_dir or meshes}: no labelled case, or no mesh")
    shapes = _shapes(sources, set() if known else _training(sources, cases, splits_file), label, mirror)
    surfaces = [shape.surface for shape in shapes]
    _check_sizes(list(sources.values()), surfaces, known)
    others = None if against is None else _others(Path(against), shapes)
    stages = {"side": "compared", "mean": "template", "fit": "fitted", "refine": "refined"}

    def report(stage: str, k: int) -> None:
        _say(f"{stages[stage]:<8} {k + 1:>4}/{len(shapes)} {shapes[k].name} ({time.perf_counter() - start:.0f} s)")

    if check_sides:
        _check_sides(shapes, known, lambda k: report("side", k))
    way = {"turn": turn, "registration": registration, "share": share, "progress": report}
    try:
        if known:
            found = correspond_to(known, surfaces, **way)
        else:
            found = correspond(surfaces, points or POINTS, [shape.training for shape in shapes], **way)
    except ValueError as error:
        raise DataError(f"{model or dataset_dir or meshes}: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    for shape, own in zip(shapes, found.points):
        write_particles(folder / f"{shape.name}.particles", reflect(own) if shape.mirrored else own)
    if known:
        summary = write_cases(folder / "model", shapes, found, known, Path(model), start)
    else:
        summary = write_report(folder / "model", shapes, found, scaling, start, others)
    needed = " / ".join(str(count) for count in summary["modes_for"].values())
    unseen = summary["model_surface_mm_of_unseen"]
    rebuilt = "" if unseen is None else f", and {unseen:.3f} mm as the model rebuilds cases that it has not seen"
    _say(f"modes for 90 / 95 / 99 %: {needed}; surface of the points {summary['points_surface_mm']:.3f} mm off the true one{rebuilt}")
    worst = summary["worst_case"]
    if worst["points_surface_mm"] > ODD_FIT * worst["median_mm"]:
        _say(f"worst: {worst['case']}, {worst['points_surface_mm']:.3f} mm, where the median is {worst['median_mm']:.3f}; look at it")
    if others is not None:
        compared = summary["against"]
        rebuilt = " and ".join(f"{compared[name]['surface_mm']:.3f} mm off by the points of {name}" for name in ("model", "against"))
        _say(f"surfaces: {rebuilt}; points of {against} carried from all other cases land {compared['points_mm']['mean']:.3f} mm off")
    print(folder)


def _known(path: Path, to: Path, points: int | None, others: dict[str, object]) -> ShapeModel:
    """The model in a folder, where the request goes with it; ``others`` are options that do not."""
    for option, given in others.items():
        if given:
            raise DataError(f"--{option} does not go with --model, which stays as it is; leave it out")
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    if path.resolve() == (to / "model").resolve():
        raise DataError(f"{path}: the model of --model would be written over; choose another --to")
    model = read_model(path)
    if points not in (None, len(model.numbers)):
        raise DataError(f"--points must be left out, or be the {len(model.numbers)} of --model {path}, got {points}")
    return model


def _check_own(folder: Path) -> None:
    """Check that all particle files of a folder are named in the table that this command writes beside them."""
    table = folder / "model" / "cases.csv"
    own: set[str] = set()
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as stream:
            own = {row.get("case", "") for row in csv.DictReader(stream)}
    for path in sorted(folder.glob("[!.]*.particles")):
        if path.stem not in own:
            raise DataError(f"{path}: not written by this command; choose another --to, or --force true to write over what lies there")


def _sources(dataset_dir: str | None, meshes: str | None) -> tuple[dict[str, Path], set[str]]:
    """Label map or mesh by name of case, and the names of all cases, those without one too."""
    if (dataset_dir is None) == (meshes is None):
        raise DataError("give either --dataset_dir or --meshes")
    if dataset_dir is not None:
        dataset = read_dataset(dataset_dir)
        cases = (*dataset.cases, *dataset.test)
        return {case.name: case.label for case in cases if case.label is not None}, {case.name for case in cases}
    root = Path(meshes)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    sources: dict[str, Path] = {}
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in MESHES and not path.name.startswith(".")):
        if path.stem in sources:
            raise DataError(f"{path}: another mesh has the same name, {sources[path.stem].name}")
        sources[path.stem] = path
    return sources, set(sources)


def _training(sources: dict[str, Path], known: set[str], splits_file: str | None) -> set[str]:
    """Names of the cases that shape template and model."""
    training = set(sources)
    if splits_file:
        record = read_split(splits_file)
        named = set(record["train"])
        if named - known:
            raise DataError(f"{splits_file}: train case {min(named - known)} is not in the data set")
        labelled = record.get("labelled")  # a training with a label_limit knows the labels of these alone
        training &= named if labelled is None else named & set(labelled)
    if len(training) < LEAST:
        raise DataError(f"{splits_file or 'the input'}: {len(training)} training shapes, at least {LEAST} are needed")
    return training


def _shapes(sources: dict[str, Path], training: set[str], label: str, mirror: str | None) -> list[ShapeCase]:
    if label != "all" and (not label.isdigit() or int(label) == 0):
        raise DataError(f"--label must be a label value above 0, or all, got {label!r}")
    try:
        turned = re.compile(mirror) if mirror else None
    except re.error as error:
        raise DataError(f"--mirror {mirror!r} is not a regular expression ({error})") from error
    if turned and not any(turned.search(name) for name in sources):
        raise DataError(f"--mirror {mirror!r} is found in no case's name")
    shapes = []
    for name, path in sources.items():
        is_mesh = path.suffix.lower() in MESHES
        surface = closed_part(read_surface(path), path) if is_mesh else read_label_surface(path, None if label == "all" else int(label))
        flip = bool(turned and turned.search(name))
        shapes.append(ShapeCase(particle_name(name, path), mirrored(surface) if flip else surface, name in training, flip))
    return shapes


def _check_sizes(paths: Sequence[Path], surfaces: Sequence[Surface], known: ShapeModel | None) -> None:
    """Check that all surfaces are of about one size, with a known model of its template's."""
    sizes = np.array([size(surface) for surface in surfaces])
    usual, whose = (size(known.template), "the model's template") if known else (np.median(sizes), "the median of the shapes")
    for path, own in zip(paths, sizes):
        if not usual / ODD_SIZE < own < usual * ODD_SIZE:
            what = f"{path}: {own:.3g} mm in size (root mean square), where {whose} is {usual:.3g}"
            raise DataError(f"{what}; is it in other units, or another structure?")


def _check_sides(shapes: Sequence[ShapeCase], known: ShapeModel | None, progress: Callable[[int], None]) -> None:
    """Check that no shape, mirrored where that is asked for, is a mirror image of the known model's template, or of the set's middle.

    The middle is the training shape there.
    """
    if known:
        template, whose = known.template, "the model's template"
    else:
        members = [shape for shape in shapes if shape.training]
        middle = members[medoid([shape.surface for shape in members])]
        template, whose = middle.surface, middle.name
    ratios = mirror_ratios(template, [shape.surface for shape in shapes], progress)
    odd = [shape.name for shape, ratio in zip(shapes, ratios) if ratio < RATIO]
    if odd:
        more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        yet = ", with this --mirror" if any(shape.mirrored for shape in shapes) else ""
        what = f"{', '.join(odd[:NAMED])}{more}: mirror images of {whose}{yet}"
        raise DataError(f"{what}; --mirror REGEX mirrors the cases of one side by their names, --check_sides false takes all as they are")


def _others(folder: Path, shapes: list[ShapeCase]) -> np.ndarray:
    """The other points (N, L, 3) of the cases, where their surfaces are."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files = {path.stem: path for path in sorted(folder.glob("*.particles"))}
    found = read_particle_set([_file_of(shape.name, files, folder) for shape in shapes])
    placed = []
    for shape, points in zip(shapes, found):
        candidates = [points, reflect(points)] if shape.mirrored else [points]
        placed.append(min(candidates, key=lambda candidate: point_distances(candidate, shape.surface).mean()))
    others = np.stack(placed)
    if belonging(others, [shape.surface for shape in shapes]).sum() < LEAST_POINTS:
        raise DataError(f"{folder}: fewer than {LEAST_POINTS} points of its files lie on the surfaces (wrong world, or other cases)")
    return others


def _file_of(name: str, files: dict[str, Path], folder: Path) -> Path:
    """A case's file, or the only one named like it but for a part at the end: _Left, or _world."""
    if name in files:
        return files[name]
    alike = [path for stem, path in files.items() if f"{name}_".startswith(f"{stem}_") or f"{stem}_".startswith(f"{name}_")]
    if len(alike) != 1:
        raise DataError(f"{folder}: {len(alike) or 'no'} particle files for case {name}")
    return alike[0]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
