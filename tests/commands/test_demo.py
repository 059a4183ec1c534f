from __future__ import annotations

import dataclasses
import itertools
import shlex
import subprocess
import types
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tools.commands import demo as module
from tools.commands.demo import demo, draw_pair, draw_segmentation, few_labels, held_out_cases
from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, case_name, read_dataset
from tools.data.files import write_json, write_nifti
from tools.data.plan import Plan
from tools.registration.itk_field import write_itk_field

NAMES = ("a", "b", "c", "d")
PLAN = Plan(labels={0: "background", 1: "bone"}, size=(16, 16, 16))
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def ball(shift: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(14.0)] * 3, indexing="ij"))
    return np.linalg.norm(grid - np.array([6 + shift, 7, 7])[:, None, None, None], axis=0) < 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four labelled cases, each a ball at another place."""
    root = tmp_path / "data"
    for k, name in enumerate(NAMES):
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", ball(0.5 * k) * np.float32(10), AFFINE)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", ball(0.5 * k).astype(np.uint8), AFFINE)
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in NAMES]
    write_json(root / "dataset.json", {"name": "balls", "labels": {"0": "background", "1": "bone"}, "training": training})
    return root


def write_model(folder: Path, **lists: list[str]) -> None:
    PLAN.save(folder / "plan.json")
    write_json(folder / "splits.json", {"train": ["a"], "validation": ["b"], **lists})


def write_registration(folder: Path, moving: Case, fixed: Case) -> None:
    stem = f"{moving.name}_to_{fixed.name}"
    write_nifti(folder / f"{stem}_warped.nii.gz", ball(0) * np.float32(10), AFFINE)
    write_nifti(folder / f"{stem}_warped_label.nii.gz", ball(0).astype(np.uint8), AFFINE)
    write_itk_field(folder / f"{stem}_ddf.nii.gz", np.ones((14, 14, 14, 3), np.float32), AFFINE)


def write_summary(folder: Path) -> None:
    metrics = {"dice_bone": {"mean": 0.4, "std": 0.1, "n": 2}, "dice_mean": {"mean": 0.5, "std": 0.1, "n": 2}}
    write_json(folder / "summary.json", {"metrics": metrics, "seed": 0})


class FakeRuns:
    """Stands for the child processes: notes the commands and writes what each would write."""

    def __init__(self, fail: str | None = None) -> None:
        self.commands: list[list[str]] = []
        self.fail = fail

    def __call__(self, command: list[str], cwd: Path, check: bool) -> types.SimpleNamespace:
        self.commands.append(command)
        if self.fail and any(self.fail in word for word in command):
            return types.SimpleNamespace(returncode=3)
        option = {key[2:]: Path(value) for key, value in itertools.pairwise(command) if key.startswith("--")}
        if "training" in command:
            write_model(option["output_dir"], report=["c", "d"])
        elif "register.json" in str(option["config_file"]):
            for line in option["pairs"].read_text().splitlines()[1:]:
                fixed, moving = (Case(case_name(word), Path(word)) for word in line.split(",")[:2])
                write_registration(option["output_dir"], moving, fixed)
            write_summary(option["output_dir"])
        elif "inference.json" in str(option["config_file"]):
            for image in option["dataset_dir"].glob("*.nii.gz"):
                write_nifti(option["output_dir"] / f"{case_name(image)}_seg.nii.gz", ball(1).astype(np.uint8), AFFINE)
        elif "evaluating" in command:
            write_summary(option["output_dir"])
        return types.SimpleNamespace(returncode=0)


def test_demo_runs_the_steps_and_draws_the_held_out_cases(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = FakeRuns()
    monkeypatch.setattr(subprocess, "run", runs)
    monkeypatch.setattr("tools.pictures.style.DPI", 40)
    demo(data=str(data), out=str(tmp_path / "out"))
    assert [p.name for p in sorted((tmp_path / "out" / "pictures").iterdir())] == [
        "registration_c_to_d.png",
        "registration_d_to_c.png",
        "segmentation_c.png",
        "segmentation_d.png",
    ]
    printed = capsys.readouterr().out
    assert [command[command.index("monai.bundle") + 2] for command in runs.commands] == [
        "training",
        "--config_file",
        "--config_file",
        "evaluating",
    ]
    assert all(shlex.join(command) in printed for command in runs.commands)
    assert "evaluation    dice_mean 0.500\n" in printed
    assert "--holdout 1 --label_limit all" in shlex.join(runs.commands[0])


@pytest.mark.parametrize(("labelled", "expected"), [(2, "1"), (5, "1"), (10, "3"), (11, None)])
def test_fewer_labels_than_the_demo_wants(data: Path, labelled: int, expected: str | None) -> None:
    dataset = read_dataset(data)
    cases = tuple(Case(f"case_{k}", Path("image"), Path("label") if k < labelled else None) for k in range(20))
    limits = few_labels(dataclasses.replace(dataset, cases=cases))
    assert limits == ({} if expected is None else {"holdout": expected, "label_limit": "all"})


def test_patients_count_where_they_are_named(data: Path) -> None:
    dataset = read_dataset(data)
    cases = tuple(
        dataclasses.replace(dataset.cases[0], name=f"case_{k}", label=Path("label.nii.gz"), patient=str(k // 2)) for k in range(12)
    )
    assert few_labels(dataclasses.replace(dataset, cases=cases)) == {"holdout": "2", "label_limit": "all"}


def test_one_label_is_too_few(data: Path, tmp_path: Path) -> None:
    content = read_json(data / "dataset.json")
    for entry in content["training"][1:]:
        del entry["label"]
    write_json(data / "dataset.json", content)
    with pytest.raises(SystemExit, match=r"demo: .*dataset\.json: 1 case\(s\) or patient\(s\) with a label"):
        demo(data=str(data), out=str(tmp_path / "out"))


def test_demo_makes_phantoms_without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = FakeRuns(fail="phantoms")
    monkeypatch.setattr(subprocess, "run", runs)
    with pytest.raises(SystemExit):
        demo(out=str(tmp_path))
    assert runs.commands[0][1:5] == ["-m", "tools", "data", "phantoms"]


@pytest.mark.parametrize("written", ["checkpoints/last.pt", "model.pt"])
def test_demo_continues_its_own_training_only(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """Wherever it was killed: the weights of its first epoch are written before the checkpoint."""
    out = tmp_path / "out"
    for expected in ("false", "true"):
        runs = FakeRuns(fail="register.json")
        monkeypatch.setattr(subprocess, "run", runs)
        with pytest.raises(SystemExit):
            demo(data=str(data), out=str(out))
        assert runs.commands[0][-2:] == ["--resume", expected]
        write_json(out / "model" / written, {})
    write_json(out / "data" / "dataset.json", {})
    with pytest.raises(SystemExit, match="holds a demo of other data"):
        demo(out=str(out))


def test_a_users_own_images_stay(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "out" / "images" / "mine.nii.gz"
    own.parent.mkdir(parents=True)
    own.touch()
    with pytest.raises(SystemExit, match="images: not of a demo, which would replace it"):
        demo(data=str(data), out=str(tmp_path / "out"))
    assert own.is_file()
    assert not (tmp_path / "out" / "demo.json").exists()


def test_demo_stops_at_the_first_failure_with_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = FakeRuns(fail="register.json")
    monkeypatch.setattr(subprocess, "run", runs)
    with pytest.raises(SystemExit, match=r"^demo: the step 'registration' failed \(exit code 3\)"):
        demo(data=str(data), out=str(tmp_path / "out"))
    assert len(runs.commands) == 2


def test_demo_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        demo(data=str(tmp_path / "nowhere"), out=str(tmp_path / "out"))


@pytest.mark.parametrize(("report", "expected"), [([], ["b"]), (["c", "d"], ["c", "d"])])
def test_held_out_cases_are_the_report_or_the_validation(data: Path, tmp_path: Path, report: list[str], expected: list[str]) -> None:
    write_model(tmp_path / "model", report=report)
    assert [case.name for case in held_out_cases(data, tmp_path / "model", 6)] == expected


def test_held_out_cases_need_one(data: Path, tmp_path: Path) -> None:
    write_model(tmp_path, validation=[])
    with pytest.raises(DataError, match="no labelled case was held out"):
        held_out_cases(data, tmp_path, 6)


def test_draw_pair_shows_the_field_in_network_voxels(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed = read_dataset(data).cases[:2]
    write_registration(tmp_path, moving, fixed)
    drawn = {}
    monkeypatch.setattr(module, "registration_picture", lambda path, *volumes, **options: drawn.update(ddf=volumes[3], **options))
    draw_pair(tmp_path / "pair.png", moving, fixed, tmp_path, PLAN)
    # (1, 1, 1) mm in LPS is (-1, -1, 1) in the network's RAS grid of 1 mm
    np.testing.assert_allclose(drawn["ddf"], np.broadcast_to(np.reshape([-1, -1, 1], (3, 1, 1, 1)), (3, 16, 16, 16)), atol=1e-5)
    assert drawn["fixed_label"].sum() == ball(0.5).sum()


def test_draw_segmentation_without_truth(data: Path, tmp_path: Path) -> None:
    case = Case("a", data / "imagesTr" / "a.nii.gz")
    write_nifti(tmp_path / "a_seg.nii.gz", ball(1).astype(np.uint8), AFFINE)
    draw_segmentation(tmp_path / "a.png", case, tmp_path, PLAN)
    assert matplotlib.image.imread(tmp_path / "a.png").std() > 0.05
