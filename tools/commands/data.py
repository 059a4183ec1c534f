"""``python -m tools data``: make phantoms, get the real hippocampus set, split a set, or say which images to label first."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from tools.data.checks import DataError
from tools.data.folders import fill_new_folder
from tools.release.hashes import sha256_of

__all__ = ["COMMANDS", "hippocampus", "phantoms", "split", "typical"]

_TASK = "Task04_Hippocampus"


def _numbers(value: object, name: str, kind: type, counts: tuple[int, ...]) -> tuple:
    """fire hands over 48,64,48 as a tuple, a single number as a number, and anything else as it came."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    allowed = (int,) if kind is int else (int, float)
    if len(values) not in counts or any(isinstance(v, bool) or not isinstance(v, allowed) for v in values):
        expected = " or ".join(str(count) for count in counts)
        raise ValueError(f"--{name} takes {expected} {'whole ' if kind is int else ''}number(s) separated by commas, got {value!r}")
    return tuple(kind(v) for v in values)


def phantoms(
    to: str,
    joint: str = "knee",
    cases: int = 24,
    seed: int = 0,
    size: tuple[int, int, int] = (48, 64, 48),
    spacing: float | tuple[float, float, float] | None = None,
    points: int = 512,
    bone: str | None = None,
) -> None:
    """Write a Decathlon-style folder of joint phantoms with known labels and corresponding points.

    Args:
        to: folder to make; it must not exist or be empty.
        joint: ankle, knee or shoulder.
        cases: number of subjects.
        seed: same seed, same files.
        size: voxels, three numbers separated by commas.
        spacing: mm, one number or three; by default what makes the size cover the joint.
        points: corresponding surface points a subject.
        bone: the bone they lie on, such as talus; by default all. Only the points of one closed surface make a shape model.
    """
    from tools.data.phantoms import write_phantoms

    size = _numbers(size, "size", int, (3,))
    if spacing is not None:
        values = _numbers(spacing, "spacing", float, (1, 3))
        spacing = values if len(values) == 3 else values[0]
    cases, seed, points = (_numbers(v, n, int, (1,))[0] for v, n in ((cases, "cases"), (seed, "seed"), (points, "points")))
    folder = write_phantoms(to, joint, cases, seed, size, spacing, points, bone, progress=lambda line: print(line, file=sys.stderr))
    print(folder)


def hippocampus(to: str, url: str | None = None, md5: str | None = None, sha256: str | None = None, progress: bool = True) -> None:
    """Download the hippocampus set of the Medical Segmentation Decathlon (Task04, CC-BY-SA 4.0) by MONAI's downloader.

    The archive's sha256 is written beside the data, as ``<archive>.sha256``. Its md5, the only checksum that MONAI knows, tells damage, not
    malice.

    Args:
        to: folder to make; it must not exist or be empty.
        url: of the archive, by default the one MONAI knows.
        md5: of the archive; goes with another url.
        sha256: of the archive, 64 hexadecimal digits, where you know it; nothing is unpacked from another one.
        progress: show the download's progress bar.
    """
    from monai.apps import DecathlonDataset, download_url, extractall
    from monai.apps.utils import HashCheckError

    if (url is None) != (md5 is None):
        raise ValueError("--url and --md5, the checksum of the archive behind it, go together")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"--sha256 takes 64 hexadecimal digits, got {sha256!r}")
    url, md5 = url or DecathlonDataset.resource[_TASK], md5 or DecathlonDataset.md5[_TASK]

    def fill(folder: Path) -> None:
        # one folder for everything on the way, so that a failure leaves nothing
        archive, unpacked = folder / "archive" / os.path.basename(url), folder / "unpacked"
        try:
            # MONAI's download_and_extract asks the server for a file name first, which file:// cannot answer
            download_url(url, archive, hash_val=md5, hash_type="md5", progress=progress)
            found_sha256 = sha256_of(archive)
            if sha256 is not None and found_sha256 != sha256.lower():
                raise DataError(f"{url}: its sha256 is {found_sha256}, not {sha256.lower()}: damaged, or another archive")
            extractall(archive, unpacked, has_base=False)
        except (OSError, RuntimeError, HashCheckError, tarfile.TarError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{url}: could not be downloaded and unpacked: {reason}") from error
        found = [path for path in sorted(unpacked.glob("**/dataset.json")) if not path.name.startswith("._")]
        if len(found) != 1:
            raise DataError(f"{url}: the archive holds {len(found)} dataset.json instead of one")
        for item in sorted(found[0].parent.iterdir()):
            if not item.name.startswith("._"):  # resource forks of the archive's maker
                shutil.move(item, folder / item.name)
        # as sha256sum writes and reads it
        (folder / f"{archive.name}.sha256").write_text(f"{found_sha256}  {archive.name}\n", encoding="utf-8")
        shutil.rmtree(folder / "archive")
        shutil.rmtree(unpacked)
        for stray in sorted(folder.glob("**/._*")):
            stray.unlink()

    print(fill_new_folder(to, fill))


def split(
    dataset_dir: str, to: str, folds: int | str = 5, fold: int | str = 0, split_seed: int = 0, holdout: int = 0, group_by: str | None = None
) -> None:
    """Write a ``splits.json``: which cases train, validate and are reported, as a training with these options would choose them.

    Trainings and ``correspondences`` follow it by ``--splits_file``; how many labels are used stays theirs to say.

    Args:
        dataset_dir: Decathlon-style folder.
        to: file to write; it must not exist.
        folds: number of folds, or "all".
        fold: the one that validates, from 0; "all" trains on everything that is not held out.
        split_seed: seed of the choice.
        holdout: number of labelled cases (of patients, with ``group_by``) held out for the report.
        group_by: regular expression whose first match in a case's name is the patient; by default that of ``dataset.json``, if any.
    """
    from tools.data.decathlon import read_dataset
    from tools.data.files import write_json
    from tools.data.splits import select

    if Path(to).exists():
        raise DataError(f"{to}: exists already")
    chosen = select(read_dataset(dataset_dir), folds, fold, split_seed, holdout=holdout, group_pattern=group_by)
    write_json(to, {key: value for key, value in chosen.record.items() if key not in ("label_limit", "label_seed", "labelled")})
    print(f"{to}: {len(chosen.train)} cases to train, {len(chosen.validation)} to validate, {len(chosen.report)} to report")


def typical(dataset_dir: str, count: int = 5, start: int = 0) -> None:
    """Print which images to label first: those that stand for the others, by the images alone.

    Args:
        dataset_dir: Decathlon-style folder, labelled or not.
        count: number of names to print, one a line, the first choice first.
        start: 0 begins with the most typical image, 1 with the next.
    """
    from itertools import islice

    from tools.data.checks import check_images
    from tools.data.decathlon import read_dataset
    from tools.data.plan import make_plan
    from tools.data.typical import typical_cases

    dataset = read_dataset(dataset_dir)
    (count,), (start,) = _numbers(count, "count", int, (1,)), _numbers(start, "start", int, (1,))
    for name, value, least, most in (("count", count, 1, len(dataset.cases)), ("start", start, 0, len(dataset.cases) - 1)):
        if not least <= value <= most:
            raise ValueError(f"--{name} must be from {least} to {most}, got {value}")
    check_images(dataset.cases)
    for name in islice(typical_cases(dataset.cases, make_plan(dataset), start=start), count):
        print(name)


#: what ``python -m tools data`` offers
COMMANDS = {"phantoms": phantoms, "hippocampus": hippocampus, "split": split, "typical": typical}
