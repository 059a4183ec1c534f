from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from tools.data.files import AtomicNibabelWriter, atomic_path, remove_leftovers, write_csv, write_json, write_nifti


def test_atomic_path_keeps_suffixes_and_moves(tmp_path):
    target = tmp_path / "new" / "x.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        assert not temporary.exists()
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_atomic_path_leaves_old_file_on_error(tmp_path):
    target = tmp_path / "x.json"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_nothing_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass


def test_write_json_numpy_and_paths(tmp_path):
    write_json(tmp_path / "a.json", {"n": np.float32(0.5), "list": np.arange(2), "path": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 0.5, "list": [0, 1], "path": str(tmp_path)}


def test_write_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"n": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".writing-abc-model.pt", "checkpoints/.writing-x-last.pt", "model.pt", "checkpoints/last.pt"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.pt")) == ["last.pt", "model.pt"]


def test_write_csv_union_of_columns(tmp_path):
    write_csv(tmp_path / "a.csv", [{"case": "x", "dice": 0.5}, {"case": "y, z", "hd95": 2}])
    assert (tmp_path / "a.csv").read_text() == 'case,dice,hd95\nx,0.5,\n"y, z",,2\n'


def test_write_csv_unknown_column(tmp_path):
    with pytest.raises(ValueError, match="dice"):
        write_csv(tmp_path / "a.csv", [{"dice": 1}], columns=["case"])


@pytest.mark.parametrize(("given", "stored"), [(bool, np.uint8), (np.int64, np.int32), (np.float64, np.float64), (np.int16, np.int16)])
def test_write_nifti_types_and_affine(tmp_path, given, stored):
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    array = np.arange(24).reshape(2, 3, 4).astype(given)
    write_nifti(tmp_path / "x.nii.gz", array, affine)
    image = nib.load(tmp_path / "x.nii.gz")
    assert image.get_data_dtype() == stored
    assert np.array_equal(np.asarray(image.dataobj), array)
    assert np.allclose(image.affine, affine)
    assert np.allclose(image.get_qform(), affine, atol=1e-6)


def test_write_nifti_other_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"nii\.gz"):
        write_nifti(tmp_path / "x.mha", np.zeros((2, 2, 2)), np.eye(4))


def test_saved_images_keep_a_grid_of_permuted_axes(tmp_path):
    """The upper left part of this affine, which MONAI's own writer inverts, is singular."""
    affine = np.array([[0.0, -4, 0, 28], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    image = MetaTensor(torch.arange(24.0).reshape(1, 2, 3, 4), meta={"affine": torch.from_numpy(affine), "filename_or_obj": "case.nii.gz"})
    save = SaveImage(
        tmp_path,
        output_postfix="seg",
        separate_folder=False,
        resample=False,
        writer=AtomicNibabelWriter,
        output_dtype=np.uint8,
        print_log=False,
    )
    save(image)
    written = nib.load(tmp_path / "case_seg.nii.gz")
    np.testing.assert_allclose(written.affine, affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.arange(24).reshape(2, 3, 4))
