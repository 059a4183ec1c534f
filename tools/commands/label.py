"""``python -m tools label``: MONAI Label's server with the bundles, for 3D Slicer and other clients."""

from __future__ import annotations

import difflib
from pathlib import Path

import tools
from tools.data.checks import DataError
from tools.label.app import add_atlas, add_bundle, copy_app
from tools.label.environment import label_environment
from tools.label.server import serve

__all__ = ["label"]

BUNDLES = Path(tools.__file__).resolve().parents[1] / "bundles"


def label(
    studies: str | None = None,
    bundles: str | None = None,
    model_dir: str | None = None,
    atlas: str | None = None,
    app: str = "monailabel",
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Serve bundles by MONAI Label, in an environment of its own that is made the first time; without STUDIES, only make that.

    A model that is in APP already is served as it is there, with what it has learnt; remove its folder for a fresh one.

    Args:
        studies: folder of images, *.nii.gz; MONAI Label keeps labels and its notes in it.
        bundles: names in bundles/, folders of bundles or archives, separated by commas; by default all in bundles/ that have weights.
        model_dir: folder of a model that was trained here, served instead of the weights of the one bundle that BUNDLES names.
        atlas: IMAGE,LABEL: serve also deepatlas_atlas, which registers this image to others and answers with its label.
        app: folder for the server's models and logs.
        host: address to listen at; 0.0.0.0 for all.
        port: port to listen at.

    Raises:
        DataError: the environment cannot be made, a bundle, a model or the atlas cannot be used, or there is no folder STUDIES.
    """
    if studies is not None and not Path(studies).is_dir():
        raise DataError(f"{studies}: no such folder")
    files = [part.strip() for part in (atlas or "").split(",") if part.strip()]
    if atlas is not None and len(files) != 2:
        raise DataError(f"--atlas {atlas}: give two files, IMAGE,LABEL")
    chosen = _chosen(bundles)
    for file in files:
        if not Path(file).is_file():
            raise DataError(f"{file}: missing")
    if model_dir is not None and not Path(model_dir).is_dir():
        raise DataError(f"{model_dir}: no such folder")
    if model_dir is not None and (bundles is None or len(chosen) != 1):
        raise DataError(f"--model_dir {model_dir}: say of which one bundle it is a model, by --bundles")
    environment = label_environment()
    if studies is None:
        print(environment)
        return
    folder = Path(app).resolve()
    copy_app(environment, folder)
    models = [add_bundle(folder, bundle, model_dir) for bundle in chosen]
    if files:
        models.append(add_atlas(folder, BUNDLES / "deepatlas", *files))
    print(f"{', '.join(models)} at http://{host}:{port} (Ctrl-C ends)", flush=True)
    serve(environment, folder, Path(studies).resolve(), models, host, int(port))


def _chosen(bundles: str | None) -> list[Path]:
    if bundles is None:
        return sorted(path.parents[1] for path in BUNDLES.glob("*/models/model.pt"))
    names = [name.strip() for name in bundles.split(",") if name.strip()]
    known = [path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir()]
    for name in names:
        if name not in known and not Path(name).exists():
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise DataError(f"--bundles {name}: no bundle, folder or archive of this name; the nearest is {near[0]}")
    return [BUNDLES / name if name in known else Path(name) for name in names]
