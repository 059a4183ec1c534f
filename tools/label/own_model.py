"""A model that was trained here, in the place of the one that comes with a bundle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.bundle.checkpoint import load_weights
from tools.bundle.training_record import RECORD
from tools.data.checks import DataError, read_json
from tools.data.files import write_json
from tools.release.build import build, read_configs
from tools.release.bundle import Bundle
from tools.release.evaluation import EVALUATION
from tools.release.isolation import isolated

__all__ = ["put_model"]


def put_model(folder: Path, model_dir: str | os.PathLike) -> None:
    """Replace the model in an unpacked bundle, and what its metadata say of labels, shape, data and results.

    Of the trained model the files are taken that the bundle's own model has, and ``training.json``; one that the training did not leave
    stays away (a DeepAtlas of segmentation alone has no ``registration.pt``).

    Args:
        folder: the unpacked bundle.
        model_dir: what a training of this bundle left, ``OUT``.

    Raises:
        DataError: the plan, the weights or what a training writes when it ends is missing, or they are not of this bundle's network.
            Nothing has been changed then.
    """
    source, models, metadata_file = Path(model_dir), folder / "models", folder / "configs" / "metadata.json"
    plan = read_json(source / "plan.json")
    names = {path.name for path in models.iterdir()} - {Path(EVALUATION).name} | {RECORD}
    for name in sorted(names - {"splits.json", RECORD}):
        if name.endswith(".json") and not (source / name).is_file():
            raise DataError(f"{source / name}: missing; has the training ended?")
    labels = _labels(Bundle.read(folder), source)
    shutil.rmtree(models)
    models.mkdir()
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, models / name)
    (folder / "docs" / "data_license.txt").unlink(missing_ok=True)  # of the data behind the weights that came with it

    metadata = read_json(metadata_file)
    for key in ("eval_metrics", "data_source"):
        metadata.pop(key, None)
    metadata["description"] = f"{metadata.get('name', folder.name)}, the model of {source.resolve()}."
    metadata["label_classes"] = ", ".join(f"{value} {name}" for value, name in labels.items())
    metadata["pred_classes"] = f"{len(labels)} channels: {', '.join(labels.values())}"
    formats = metadata["network_data_format"]
    (image,), (pred,) = formats["inputs"].values(), formats["outputs"].values()
    pred["num_channels"], pred["channel_def"] = len(labels), {str(value): name for value, name in labels.items()}
    if "size" in plan:
        image["spatial_shape"] = pred["spatial_shape"] = plan["size"]
    write_json(metadata_file, metadata)


def _labels(bundle: Bundle, model_dir: Path) -> dict[int, str]:
    """Label values and names of the answers, once the network is built and has its weights."""
    parser = read_configs(bundle, ["inference.json"], model_dir)
    if "labels" not in parser:
        raise DataError(f"{bundle.root}: its inference.json does not say which labels a model of one's own has")
    with isolated(bundle):
        network = build(parser, "network_def", f"{model_dir}: the network")
        load_weights(model_dir / "model.pt", network)
        labels = dict(build(parser, "labels", f"{model_dir}: the labels"))
    return {**labels, 0: "background"}  # as MONAI Label calls what is no label
