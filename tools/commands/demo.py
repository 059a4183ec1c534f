"""``python -m tools demo``: from nothing to trained networks, results and pictures, by the commands a user would type."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.data.checks import DataError
from tools.data.decathlon import Case, Dataset, case_name, read_dataset
from tools.data.files import write_csv, write_json
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan
from tools.data.splits import apply_split, case_groups, read_split, report_pairs
from tools.experiments.runs import REPOSITORY, shown_path
from tools.pictures import registration_picture, segmentation_picture
from tools.registration.fields import grid_points, lps_affine, transform_points
from tools.registration.itk_field import read_itk_field

__all__ = ["demo", "draw_pair", "draw_segmentation", "few_labels", "held_out_cases"]

BUNDLE = REPOSITORY / "bundles" / "deepatlas"
JOINT, CASES, SEED = "knee", 24, 0
ENOUGH = 11  # labelled cases: what experiments/demo.json holds out and learns from


def demo(data: str | None = None, out: str = "demo", cases: int = 6) -> None:
    """Train DeepAtlas for a few minutes, then register, segment and evaluate held-out cases and draw a picture of each.

    Every step is a command of its own, printed before it runs, to be copied and changed. The first that fails ends the demo. Run again on
    the same data, it continues a training that was interrupted, and repeats the rest.

    Args:
        data: a Decathlon-style folder (dataset.json, imagesTr/, labelsTr/); knee phantoms are made without one, and kept.
        out: folder for everything that is written.
        cases: how many held-out cases are registered, segmented and drawn.

    Raises:
        SystemExit: a step failed, or the data cannot be used; the message is one line.
    """
    started = time.monotonic()
    out_dir = Path(out).resolve()
    data_dir = Path(data).resolve() if data else out_dir / "data"
    model_dir = out_dir / "model"
    try:
        if not BUNDLE.is_dir():
            raise DataError(f"{BUNDLE}: missing; the demo runs in a checkout of the repository")
        limits = few_labels(read_dataset(data_dir)) if data else {}
        if not data and not (data_dir / "dataset.json").is_file():
            _run("phantoms", ["-m", "tools", "data", "phantoms", "--to", data_dir, "--joint", JOINT, "--cases", CASES, "--seed", SEED])
        resume = _remember(data_dir, out_dir, model_dir)
        configs = ["train.json", "experiments/demo.json"]
        _bundle("training", "training", configs, dataset_dir=data_dir, output_dir=model_dir, **limits, resume=resume)
        held_out = held_out_cases(data_dir, model_dir, int(cases))
        pairs = _write_inputs(held_out, out_dir)
        _bundle(
            "registration", "run", ["register.json"], pairs=out_dir / "pairs.csv", model_dir=model_dir, output_dir=out_dir / "registration"
        )
        _bundle(
            "segmentation",
            "run",
            ["inference.json"],
            dataset_dir=out_dir / "images",
            model_dir=model_dir,
            output_dir=out_dir / "segmentation",
        )
        _bundle(
            "evaluation",
            "evaluating",
            ["train.json", "evaluate.json"],
            dataset_dir=data_dir,
            model_dir=model_dir,
            output_dir=out_dir / "evaluation",
        )
        _title("pictures")
        pictures = _draw(pairs, held_out, model_dir, out_dir)
    except DataError as error:
        raise SystemExit(f"demo: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("demo: interrupted") from None
    _summary(out_dir, pictures, time.monotonic() - started)


def few_labels(dataset: Dataset) -> dict[str, str]:
    """Options of the training where a data set has not the demo's six cases for the report and five more labels.

    A third of the labelled cases (of their patients, where the data set names them), at least one, is then held out, and the labels of
    all others are learnt from.

    Raises:
        DataError: fewer than two cases have a label.
    """
    patients = case_groups(dataset, dataset.group_by)
    labelled = len({patients[case.name] for case in dataset.cases if case.label is not None})
    if labelled < 2:
        raise DataError(f"{dataset.root / 'dataset.json'}: {labelled} case(s) or patient(s) with a label; two are needed")
    return {} if labelled >= ENOUGH else {"holdout": str(max(1, labelled // 3)), "label_limit": "all"}


def held_out_cases(data_dir: Path, model_dir: Path, count: int) -> list[Case]:
    """Up to ``count`` labelled cases that the model was not trained on: the report cases of its split, else those validated on.

    Raises:
        DataError: there is no split, or no labelled case in either list.
    """
    split = apply_split(read_dataset(data_dir), read_split(model_dir / "splits.json"), model_dir / "splits.json")
    cases = [case for case in split.report or split.validation if case.label is not None][:count]
    if not cases:
        raise DataError(f"{model_dir / 'splits.json'}: no labelled case was held out from training")
    return cases


def draw_pair(path: Path, moving: Case, fixed: Case, registration_dir: Path, plan: Plan) -> None:
    """Picture of a pair from the files that ``register.json`` wrote, on the fixed image's network grid.

    Args:
        path: the PNG to write.
        moving, fixed: the pair; labels are drawn where there are any.
        registration_dir: folder of ``<moving>_to_<fixed>_{warped,warped_label,ddf}.nii.gz``.
        plan: the model's plan.

    Raises:
        DataError: a file is missing or unreadable.
    """
    stem = f"{moving.name}_to_{fixed.name}"

    def on_grid(file: Path | None, is_label: bool = False) -> tuple[np.ndarray | None, Any]:
        if file is None or not file.is_file():
            return None, None
        volume, mapping = to_plan(*load_volume(file), plan, is_label=is_label)
        return volume[0].numpy(), mapping

    fixed_image, fixed_grid = on_grid(fixed.image)
    moving_image, moving_grid = on_grid(moving.image)
    warped, _ = to_plan(*load_volume(registration_dir / f"{stem}_warped.nii.gz"), plan)
    displacement, field_affine = read_itk_field(registration_dir / f"{stem}_ddf.nii.gz")
    # Each image has a network grid of its own, centred on it: seen from there, what centring did is no part of the deformation.
    points = grid_points(plan.size, lps_affine(fixed_grid.affine))
    to_moving = np.linalg.inv(lps_affine(moving_grid.affine))
    looked_at = transform_points(points, displacement, field_affine) @ to_moving[:3, :3].T + to_moving[:3, 3]
    ddf = (looked_at - grid_points(plan.size, np.eye(4))).T.reshape(3, *plan.size)
    registration_picture(
        path,
        fixed_image,
        moving_image,
        warped[0],
        ddf,
        fixed_label=on_grid(fixed.label, is_label=True)[0],
        moving_label=on_grid(moving.label, is_label=True)[0],
        warped_label=on_grid(registration_dir / f"{stem}_warped_label.nii.gz", is_label=True)[0],
        spacing=plan.spacing,
        title=f"{moving.name} \N{RIGHTWARDS ARROW} {fixed.name}",
    )


def draw_segmentation(path: Path, case: Case, segmentation_dir: Path, plan: Plan) -> None:
    """Picture of a case from the file that ``inference.json`` wrote, on the network grid.

    Args:
        path: the PNG to write.
        case: the image, and the truth if there is one.
        segmentation_dir: folder of ``<case>_seg.nii.gz``.
        plan: the model's plan.

    Raises:
        DataError: a file is missing or unreadable.
    """
    image, _ = to_plan(*load_volume(case.image), plan)
    prediction, _ = to_plan(*load_volume(segmentation_dir / f"{case.name}_seg.nii.gz"), plan, is_label=True)
    truth = None if case.label is None else to_plan(*load_volume(case.label), plan, is_label=True)[0][0]
    segmentation_picture(path, image[0], prediction[0], truth, plan.labels, plan.spacing, title=case.name)


def _remember(data_dir: Path, out_dir: Path, model_dir: Path) -> str:
    """Note which data the results are of; whether a training of an earlier demo is to be continued, "true" or "false".

    Raises:
        DataError: the folder holds the demo of other data, or a user's own images.
    """
    note = out_dir / "demo.json"
    begun = any(model_dir.rglob("*.pt"))  # the first weights come before the first checkpoint
    earlier = json.loads(note.read_text(encoding="utf-8"))["data"] if note.is_file() else None
    if begun and earlier != str(data_dir):
        raise DataError(f"{out_dir}: holds a demo of other data ({earlier}); choose another folder (OUT=dir) or remove it")
    if earlier is None and (out_dir / "images").exists():
        raise DataError(f"{out_dir / 'images'}: not of a demo, which would replace it; choose another folder (OUT=dir)")
    write_json(note, {"data": data_dir})
    return "true" if begun else "false"


def _write_inputs(cases: Sequence[Case], out_dir: Path) -> list[tuple[Case, Case]]:
    """Lay the held-out images out as a user's own would lie: a folder of images, and a table of pairs (moving, fixed)."""
    images = out_dir / "images"
    if images.exists():
        shutil.rmtree(images)
    images.mkdir(parents=True)
    for case in cases:
        shutil.copyfile(case.image, images / case.image.name)
    # A single case is registered to itself: no test, but a picture.
    pairs = [(cases[k], cases[j]) for k, j in report_pairs(len(cases))] or [(cases[0], cases[0])]
    roles = {"": "image", "_label": "label", "_points": "particles"}
    rows = [
        {f"{role}{kind}": getattr(case, file) for kind, file in roles.items() for role, case in (("fixed", fixed), ("moving", moving))}
        for moving, fixed in pairs
    ]
    write_csv(out_dir / "pairs.csv", rows)
    return pairs


def _draw(pairs: Sequence[tuple[Case, Case]], cases: Sequence[Case], model_dir: Path, out_dir: Path) -> list[Path]:
    plan = Plan.load(model_dir / "plan.json")
    written = []
    for moving, fixed in pairs:
        written.append(out_dir / "pictures" / f"registration_{moving.name}_to_{fixed.name}.png")
        draw_pair(written[-1], moving, fixed, out_dir / "registration", plan)
    for case in cases:
        written.append(out_dir / "pictures" / f"segmentation_{case_name(case.image)}.png")
        draw_segmentation(written[-1], case, out_dir / "segmentation", plan)
    return written


def _bundle(title: str, run_id: str, configs: Sequence[str], **overrides: Path | str) -> None:
    """Run one entry of the bundle with these configs, one laid over the other."""
    files = [shown_path(BUNDLE / "configs" / name) for name in configs]
    # fire reads a list of files from one argument in brackets
    config_file = files[0] if len(files) == 1 else json.dumps(files)
    command: list[Any] = ["-m", "monai.bundle", "run", *([] if run_id == "run" else [run_id]), "--config_file", config_file]
    for key, value in overrides.items():
        command += [f"--{key}", value]
    _run(title, command)


def _run(title: str, arguments: Sequence[Any]) -> None:
    """Run Python with these arguments in the repository's root, in the terminal, after printing the command."""
    command = [shown_path(sys.executable), *(shown_path(value) if isinstance(value, Path) else str(value) for value in arguments)]
    _title(title)
    print(("" if Path.cwd() == REPOSITORY else f"cd {shlex.quote(str(REPOSITORY))} && ") + shlex.join(command) + "\n", flush=True)
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if code != 0:
        raise SystemExit(f"demo: the step '{title}' failed (exit code {code}); its command stands above")


def _title(title: str) -> None:
    print(f"\n== {title} ".ljust(80, "="), flush=True)


def _summary(out_dir: Path, pictures: Sequence[Path], seconds: float) -> None:
    """Print the means that the steps wrote, and where everything lies."""
    _title(f"done in {seconds / 60:.1f} min")
    for folder in ("registration", "evaluation"):
        print(f"{folder:13} " + ", ".join(f"{name} {value:.3f}" for name, value in _means(out_dir / folder).items()))
    print(f"\npictures      {shown_path(out_dir / 'pictures')}{os.sep} ({len(pictures)} files, such as {pictures[0].name})")
    for name, what in (
        ("registration", "warped images and labels, displacement fields (ITK, LPS mm), metrics.csv"),
        ("segmentation", "<case>_seg.nii.gz"),
        ("evaluation", "metrics.csv, summary.json"),
        ("model", "model.pt, registration.pt, plan.json, splits.json, training.json, tensorboard; --model_dir for your own runs"),
    ):
        print(f"{name:13} {shown_path(out_dir / name)}{os.sep} ({what})")


def _means(folder: Path) -> dict[str, float]:
    """The main means over cases and structures from the step's summary.json; the others stay in the file."""
    metrics = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["metrics"]
    return {
        name: value["mean"]
        for name, value in metrics.items()
        if name.endswith(("dice_mean", "hd95_mean", "folding_percent", "tre")) and value["mean"] is not None
    }
