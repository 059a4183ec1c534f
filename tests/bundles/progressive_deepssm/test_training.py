"""What a training leaves, that it has learnt, and what stops it before it begins."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from training_runs import curves

from progressive_deepssm.networks import network_from_plan
from tools.bundle.checkpoint import load_weights
from tools.bundle.errors import cause
from tools.bundle.training_record import read_training
from tools.data.files import write_nifti
from tools.data.plan import Plan
from tools.shape.particles import read_particles, write_particles
from tools.shape.procrustes import mirror
from tools.shape.surfaces import read_surface


def refused(call, **arguments) -> str:
    """The one line with which a run is refused."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        call(**arguments)
    error = cause(caught.value)
    assert error is not None, caught.value
    assert "\n" not in str(error)
    return str(error)


def test_what_a_training_writes(model):
    for name in ("model.pt", "plan.json", "splits.json", "template.vtk", "checkpoints/last.pt"):
        assert (model / name).is_file(), name
    assert not list(model.rglob(".writing*"))
    shape = json.loads((model / "plan.json").read_text())["extra"]["shape"]
    # voxels of the smallest image, by three quarters
    assert shape["field"] == [22, 24, 21]
    assert (shape["points"], shape["scales"], shape["modes"]) == (64, [16, 32, 64], [4, 5, 6])


def test_the_checkpoint_holds_the_shape_model_of_the_training_cases(model, ellipsoid_dataset):
    network = load_weights(model / "model.pt", network_from_plan(Plan.load(model / "plan.json")))
    names = json.loads((model / "splits.json").read_text())["train"]
    points = np.stack([read_particles(ellipsoid_dataset / "particles" / f"{name}.particles") for name in names])
    # The grid's axes are RAS, and its centre is that of the image, up to half a voxel where padding is uneven.
    affine_centre = np.array([10.0, -20.0, 5.0]) + 1.5 * (np.array([30, 32, 28]) - 1) / 2
    expected = points.mean(0) * np.array([-1, -1, 1]) - affine_centre
    offset = network.mean.numpy() - expected
    assert np.abs(offset).max() < 0.76
    assert np.ptp(offset, axis=0).max() < 1e-3


def test_the_template_lies_on_the_mean_shape(model):
    network = load_weights(model / "model.pt", network_from_plan(Plan.load(model / "plan.json")))
    template = read_surface(model / "template.vtk")
    distance = np.linalg.norm(template.vertices[:, None] - network.mean.numpy(), axis=2)
    assert distance.min(0).max() < 1.5  # mm, of a mesh with edges of about that


def test_it_learns(model):
    values = curves(model)
    assert len(values["step/loss"]) == 120
    assert len(values["step/scale/16"]) == 120
    assert len(values["step/scale/32"]) == 108
    assert len(values["step/scale/64"]) == 96
    assert np.mean(values["step/scale/16"][-20:]) < 0.3 * np.mean(values["step/scale/16"][:5])
    assert np.mean(values["step/segmentation"][-20:]) < 0.7 * np.mean(values["step/segmentation"][:5])


def test_evaluation(evaluated, model):
    rows = list(csv.DictReader((evaluated / "metrics.csv").open()))
    assert len(rows) == 3
    values = {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key != "case"}
    assert (values["surface_mm"] < 0.75 * values["mean_shape_surface_mm"]).all()
    assert (values["surface_mm"] < values["hausdorff_mm"]).all()
    assert values["rmse_mm_64"].mean() < 2.25  # 1.5 voxels
    assert (values["pdm_surface_mm"] < values["placed_mean_surface_mm"]).all()
    assert (values["dice_mean"] > 0.5).all()
    correlations = {f"{kind}{of}_spearman" for kind in ("", "usual_") for of in ("uncertainty", "uncertainty_surface")}
    assert {"rmse_mm_16", "rmse_mm_32", "seconds", *correlations} <= set(values)
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["seed"] == 0
    assert summary["steps"] == read_training(model)["steps"]
    assert {metric: found["n"] for metric, found in summary["uncertainty_over_cases"].items()} == {"surface_mm": 3, "rmse_mm_64": 3}
    assert summary["metrics"]["surface_mm"]["mean"] == pytest.approx(values["surface_mm"].mean())


@pytest.fixture
def training(bundle_call, tiny, own_dataset, tmp_path):
    def training(**options) -> None:
        arguments = {"dataset_dir": own_dataset, "output_dir": tmp_path / "out", **tiny, "epochs": 1, "epoch_length": 1, "folds": 5}
        bundle_call("training", "train", **{**arguments, **options})

    return training


def test_particle_files_of_unequal_length(training, own_dataset):
    path = own_dataset / "particles" / "case_03.particles"
    write_particles(path, read_particles(path)[:60])
    assert refused(training) == f"{path}: 60 points, 64 are needed"


def test_particles_in_the_wrong_world(training, own_dataset):
    path = own_dataset / "particles" / "case_02.particles"
    write_particles(path, read_particles(path) * np.array([-1, -1, 1]))
    assert "case_02.particles: the points lie outside their image (wrong world)" in refused(training)


def test_particles_of_both_sides(training, own_dataset):
    path = own_dataset / "particles" / "case_03.particles"
    points = read_particles(path)
    write_particles(path, mirror(points - points.mean(0)) + points.mean(0))
    assert "case_03.particles: the points are mirror images of those of case_" in refused(training)


def test_particles_that_do_not_correspond_to_those_of_the_model_to_fine_tune(training, own_dataset, model, tmp_path):
    for path in (own_dataset / "particles").iterdir():
        write_particles(path, read_particles(path)[::-1])
    assert "the points do not correspond to the model's" in refused(training, finetune=True, model_dir=model)
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"structure": 5}, "--structure 5: {plan} has all, which a model that goes on learning keeps"),
        ({"scales": "single"}, "--scales [64]: {plan} has [16, 32, 64], which a model that goes on learning keeps"),
        ({"modes": [2, 5, 6]}, "--modes [2, 5, 6]: {plan} has [4, 5, 6], which a model that goes on learning keeps"),
        (
            {"segmentation_weight": 0},
            "--segmentation_weight: the model of {plan} has learnt a segmentation, which would be forgotten: give one above 0",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_fine_tuning_refuses_what_the_model_has_otherwise(training, model, tmp_path, options, fault):
    assert refused(training, finetune=True, model_dir=model, **options) == fault.format(plan=model / "plan.json")
    assert not (tmp_path / "out").exists()


def test_fine_tuning_says_what_stays_of_the_model(training, model, caplog):
    with caplog.at_level("INFO", "training"):
        training(finetune=True, model_dir=model, hidden=48, modes=6, structure="all")
    kept = f"{model / 'plan.json'}: the model's own settings stay: shape.hidden 32 (not 48), shape.modes [4, 5, 6] (not [6, 6, 6])"
    assert kept in caplog.messages


def test_fine_tuning_of_a_model_without_segmentation_learns_none(training, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "points_alone")
    plan = json.loads((folder / "plan.json").read_text())
    plan["extra"]["shape"]["segmentation"] = False
    (folder / "plan.json").write_text(json.dumps(plan))
    assert refused(training, finetune=True, model_dir=folder).endswith("has learnt no segmentation: give 0")


def test_a_grid_that_crops_the_points(training):
    assert "of the points lie outside the network's grid, 16 x 16 x 16 voxels of 1.5 x 1.5 x 1.5 mm" in refused(training, size=16)


def test_a_case_without_particles(training, own_dataset):
    (own_dataset / "particles" / "case_01.particles").unlink()
    assert "case_01.nii.gz: no particle file" in refused(training)


def test_a_label_map_without_a_surface(training, own_dataset):
    path = own_dataset / "labelsTr" / "case_04.nii.gz"
    label = np.zeros((30, 32, 28), dtype=np.uint8)
    label[15, 16, 14] = 5
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = (10.0, -20.0, 5.0)
    write_nifti(path, label, affine)
    assert refused(training).startswith(f"{path}: the structure's 1 voxel(s) are too few")


def test_too_few_cases_for_a_shape_model(training, own_dataset):
    assert "at least 3 are needed" in refused(training, label_limit=2)


def test_scales_beyond_the_particle_files(training):
    assert "64 points only" in refused(training, scales=[64, 128], modes=4, refinements=1)


def test_nothing_is_written_by_a_refused_run(training, own_dataset, tmp_path):
    (own_dataset / "particles" / "case_01.particles").unlink()
    refused(training)
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_resumed_with_other_points(training, own_dataset, tmp_path):
    training()
    template = (tmp_path / "out" / "template.vtk").read_bytes()
    for path in (own_dataset / "particles").iterdir():
        write_particles(path, read_particles(path) + 1.0)
    assert "last.pt: the run to resume had other points, " in refused(training, resume=True)
    assert (tmp_path / "out" / "template.vtk").read_bytes() == template


@pytest.mark.parametrize(("stages", "end"), [([{"name": "all"}], 2), ([{"name": "coarse", "scales": 1}, {"name": "all"}], 5)])
def test_a_training_that_is_stopped_early_calibrates_its_uncertainties(train, tmp_path, stages, end):
    """At a learning rate of zero the second look is no better than the first; looks count from the last stage on."""
    options = {"epochs": 6, "epoch_length": 1, "validation_interval": 1, "early_stopping_patience": 1, "learning_rate": 0.0}
    train(tmp_path, **options, stages=stages, holdout=3)
    assert torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["epoch"] == end
    network = load_weights(tmp_path / "model.pt", network_from_plan(Plan.load(tmp_path / "plan.json")))
    assert not torch.equal(network.calibration, torch.ones_like(network.calibration))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"structure": "talus"}, "--structure talus: give the label value of the structure, a whole number"),
        ({"precision": "fp16"}, "precision 'fp16' needs a GPU; on a CPU use 'bf16' or 'float32'"),
        ({"early_stopping_patience": -1}, "early_stopping_patience must not be negative, got -1"),
        ({"stages": [{"name": "all", "learn": "pionts"}]}, "stage 'all': learn must be one of"),
        ({"stages": [{"name": "all", "learn": "codes"}]}, "stage 'all': learn 'codes' is of TL-DeepSSM; take architecture and stages from"),
        ({"architecture": "tl"}, "architecture 'tl': no stage learns the auto-encoder; take architecture and stages from"),
        ({"scale_weights": "many"}, "weights must be at least one number"),
        ({"shapes#modes": 100, "shape_augmentation": 0.5}, "drawn shapes: modes must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_unfit_options_stop_before_anything_is_written(train, tmp_path, options, fault):
    assert fault in refused(train, output_dir=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "plan.json").exists()
