"""What inference writes, in the space of the image as given."""

from __future__ import annotations

import csv
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import pyvista
import torch
from monai.bundle import ConfigParser

from progressive_deepssm.inference import write_prediction
from progressive_deepssm.modelling import ShapePrediction
from tools.bundle.errors import cause
from tools.data.files import write_nifti
from tools.shape.distance import point_distances
from tools.shape.particles import read_particles
from tools.shape.surfaces import Surface, read_surface, volume

CPU = "cpu"


@pytest.fixture(scope="module")
def images(ellipsoid_dataset, tmp_path_factory) -> Path:
    """A folder of one image twice: as it is, and with axes permuted and flipped under an oblique header."""
    folder = tmp_path_factory.mktemp("images")
    image = nib.load(ellipsoid_dataset / "imagesTr" / "case_03.nii.gz")
    array = np.asanyarray(image.dataobj)
    write_nifti(folder / "plain.nii.gz", array, image.affine)
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = array.shape[0] - 1
    permutation = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # new axes 0, 1, 2 are old 2, 0, 1
    turned = array.transpose(2, 0, 1)[:, ::-1]
    write_nifti(folder / "turned.nii.gz", turned, world() @ image.affine @ permutation @ flip)
    return folder


def world() -> np.ndarray:
    """A rotation of the world by 14 degrees about an oblique axis, and a shift, RAS mm."""
    axis, angle = np.array([1.0, 2.0, -1.5]), np.radians(14)
    axis /= np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = (12.0, -30.0, 7.0)
    return matrix


@pytest.fixture(scope="module")
def results(images, model, bundle_call, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("results")
    bundle_call("run", "inference", dataset_dir=images, model_dir=model, output_dir=output, device=CPU, precision="float32")
    return output


@pytest.fixture
def halved(images, model, bundle_call, tmp_path) -> Path:
    """The results in bf16."""
    bundle_call("run", "inference", dataset_dir=images, model_dir=model, output_dir=tmp_path, device=CPU, precision="bf16")
    return tmp_path


def test_precision_is_that_of_points_and_segmentation(results, halved, bundle):
    full, half = (read_particles(folder / "plain.particles") for folder in (results, halved))
    assert 1e-4 < np.abs(full - half).max() < 1.0
    full, half = (np.asanyarray(nib.load(folder / "plain_seg.nii.gz").dataobj) for folder in (results, halved))
    assert (full != half).mean() < 0.01
    inferer = ConfigParser.load_config_files(bundle.files("inference"))["inferer"]
    assert inferer["precision"] == "@precision"


def test_a_precision_that_is_none(images, model, bundle_call, tmp_path):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        bundle_call("run", "inference", dataset_dir=images, model_dir=model, output_dir=tmp_path / "out", device=CPU, precision="half")
    assert "precision must be 'auto' or one of ['bf16', 'float32', 'fp16'], not 'half'" in str(cause(caught.value))
    assert not (tmp_path / "out").exists()


def test_files(results):
    names = {f"{case}{end}" for case in ("plain", "turned") for end in (".particles", ".vtk", "_seg.nii.gz", "_uncertainty.csv")}
    assert {path.name for path in results.iterdir()} == names


def test_points_lie_in_the_world_of_the_image(results, ellipsoid_dataset):
    points, true = read_particles(results / "plain.particles"), read_particles(ellipsoid_dataset / "particles" / "case_03.particles")
    assert points.shape == true.shape
    assert np.sqrt(((points - true) ** 2).sum(1).mean()) < 3.0


def test_a_turned_image_gives_the_turned_points(results):
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    moved = lps @ world() @ lps
    plain, turned = (read_particles(results / f"{case}.particles") for case in ("plain", "turned"))
    expected = plain @ moved[:3, :3].T + moved[:3, 3]
    assert np.abs(turned - expected).max() < 0.02


def test_the_surface_goes_through_the_points(results):
    for case in ("plain", "turned"):
        surface = read_surface(results / f"{case}.vtk")
        assert volume(surface) > 0
        assert point_distances(read_particles(results / f"{case}.particles"), surface).mean() < 0.5


def test_uncertainty(results):
    rows = list(csv.DictReader((results / "plain_uncertainty.csv").open()))
    values = [float(row["uncertainty_mm"]) for row in rows]
    assert len(values) == 64
    assert min(values) > 0
    vertices = pyvista.read(results / "plain.vtk").point_data["uncertainty_mm"]
    assert min(values) - 1e-3 <= vertices.min() <= vertices.max() <= max(values) + 1e-3


def test_itk_reads_the_surface_and_its_uncertainty(tmp_path):
    surface = Surface(np.array([[0.0, 0, 0], [30, 0, 0], [0, 20, 0], [0, 0, 10]]), np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    points = surface.vertices
    write_prediction(tmp_path, "a", ShapePrediction((points,), np.ones(4), surface, np.arange(4.0), torch.zeros(2, 3, 3, 3)))
    mesh = itk.meshread(tmp_path / "a.vtk")
    assert [list(mesh.GetPoint(k)) for k in range(4)] == points.tolist()
    assert mesh.GetNumberOfCells() == 4
    assert [mesh.GetPointData().GetElement(k) for k in range(4)] == [0, 1, 2, 3]


def test_segmentation_has_the_data_sets_labels_and_the_images_geometry(results, images):
    for case in ("plain", "turned"):
        segmentation, image = nib.load(results / f"{case}_seg.nii.gz"), nib.load(images / f"{case}.nii.gz")
        assert segmentation.shape == image.shape
        np.testing.assert_allclose(segmentation.affine, image.affine, atol=1e-4)
        assert set(np.unique(segmentation.dataobj)) <= {0, 2, 5}
        assert 5 in np.unique(segmentation.dataobj)


def test_an_image_smaller_than_the_network_s_field(model, bundle_call, tmp_path):
    path = tmp_path / "images" / "small.nii.gz"
    write_nifti(path, np.random.default_rng(0).normal(size=(20, 30, 28)).astype(np.float32), np.diag([1.5, 1.5, 1.5, 1.0]))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        bundle_call("run", "inference", dataset_dir=path.parent, model_dir=model, output_dir=tmp_path / "out", device=CPU)
    expected = f"{path}: 20 x 30 x 28 voxels of 1.5 x 1.5 x 1.5 mm are less than the network's field, 22 x 24 x 21"
    assert str(cause(caught.value)) == expected
    assert not (tmp_path / "out").exists()
