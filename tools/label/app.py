"""The folder that MONAI Label serves: its own app for bundles, and packed bundles in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai.bundle import ConfigParser

from tools.data.checks import DataError, check_pair, read_json, read_nifti
from tools.data.files import write_json, write_nifti
from tools.data.folders import fill_new_folder
from tools.data.plan import Plan
from tools.label.own_model import put_model
from tools.release.archive import read_archive, unpack
from tools.release.pack import pack

__all__ = ["ATLAS", "add_atlas", "add_bundle", "copy_app"]

ATLAS = "deepatlas_atlas"
_APP = "monaibundle"  # of MONAI Label's sample apps the one that serves bundles


def copy_app(environment: Path, app: Path) -> None:
    """Copy MONAI Label's app for bundles, as it is installed in its environment, to ``app``, where there is none yet."""
    if (app / "main.py").is_file():
        return
    if app.exists() and any(app.iterdir()):
        raise DataError(f"{app}: holds something else than an app of MONAI Label; choose another --app")
    fill_new_folder(app, lambda folder: shutil.copytree(environment / "monailabel" / "sample-apps" / _APP, folder, dirs_exist_ok=True))


def add_bundle(app: Path, bundle: str | os.PathLike, model_dir: str | os.PathLike | None = None) -> str:
    """Put a bundle into an app. One that is there already stays: it may have learnt from its user's labels.

    Args:
        app: folder of the app.
        bundle: folder of a bundle of the repository, which is packed, or an archive.
        model_dir: folder of a model that was trained here, instead of the weights that come with the bundle.

    Returns:
        its name.

    Raises:
        DataError: there is no such bundle, it has no weights, the archive is unsound, or ``model_dir`` holds no model of this bundle, or
            the app has one of this bundle already.
    """
    with _unpacked(app / "model", bundle) as (name, folder):
        target = app / "model" / name
        if model_dir is not None:
            if target.exists():
                raise DataError(f"{target}: is there, with what it has learnt; to go on with it leave --model_dir away, else move it")
            put_model(folder, model_dir)
        if not (folder / "models" / "model.pt").is_file():
            raise DataError(f"{bundle}: no models/model.pt; a bundle needs weights to be served")
        if not target.exists():
            os.replace(folder, target)
    return name


def add_atlas(app: Path, deepatlas: str | os.PathLike, image: str | os.PathLike, label: str | os.PathLike) -> str:
    """Put DeepAtlas into an app once more, to segment by registration to an atlas, in the place of an earlier atlas.

    The registration network is that of the DeepAtlas in the app, where there is one, with what it has learnt; else the bundle's own.
    MONAI Label reads ``inference.json`` and ``models/model.pt`` alone: into these go the overlay ``atlas.json`` and the weights of the
    registration network. What would train it stays out.

    Args:
        app: folder of the app.
        deepatlas: the bundle's folder or archive.
        image, label: files of the atlas.

    Returns:
        its name, :data:`ATLAS`.

    Raises:
        DataError: see :func:`add_bundle`; a file of the atlas is missing or unreadable, or its label is not the model's; or the model has
            no registration network.
    """
    volumes = {"atlas": read_nifti(Path(image)), "atlas_label": read_nifti(Path(label))}
    with _unpacked(app / "model", deepatlas) as (name, folder):
        configs, models = folder / "configs", folder / "models"
        served = app / "model" / name / "models"
        if served.is_dir():
            put_model(folder, served)
        if not (configs / "atlas.json").is_file() or not (models / "registration.pt").is_file():
            source = served if served.is_dir() else deepatlas
            raise DataError(f"{source}: no registration network; an atlas needs a deepatlas with registration.pt")
        check_pair(Path(image), Path(label), Plan.load(models / "plan.json").label_values)
        inference = ConfigParser(read_json(configs / "inference.json"))
        # the network's weights lie where MONAI Label looks for them
        overlay = {**read_json(configs / "atlas.json"), "handlers#0#load_path": "$@model_dir + '/model.pt'"}
        for key in overlay.keys() - {"_desc_"}:
            inference[key] = overlay[key]
        write_json(configs / "inference.json", inference.config)
        for train in ("train", "multi_gpu_train", "evaluate", "atlas"):
            (configs / f"{train}.json").unlink()
        for file, (volume, affine) in volumes.items():
            write_nifti(models / f"{file}.nii.gz", volume, affine)
        os.replace(models / "registration.pt", models / "model.pt")
        metadata = read_json(configs / "metadata.json")
        metadata["description"] = f"Registers the atlas {Path(image).name} to the image, and answers with its label."
        write_json(configs / "metadata.json", metadata)
        shutil.rmtree(app / "model" / ATLAS, ignore_errors=True)
        os.replace(folder, app / "model" / ATLAS)
    return ATLAS


@contextmanager
def _unpacked(parent: Path, bundle: str | os.PathLike) -> Iterator[tuple[str, Path]]:
    """Name and content of a bundle, below ``parent`` for the time of the block."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=parent) as scratch:
        archive = pack(bundle, scratch) if Path(bundle).is_dir() else Path(bundle)
        name = read_archive(archive).name
        folder = Path(scratch) / name
        folder.mkdir()
        unpack(archive, folder)
        yield name, folder
