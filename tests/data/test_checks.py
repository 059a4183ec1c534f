from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tools.data.checks import DataError, check_dataset, check_images
from tools.data.decathlon import read_dataset, read_images
from tools.data.files import write_nifti


def image(root: Path) -> Path:
    return root / "imagesTr" / "case_02.nii.gz"


def label(root: Path) -> Path:
    return root / "labelsTr" / "case_02.nii.gz"


def rewrite(path: Path, change, affine=None) -> None:
    volume = nib.load(path)
    write_nifti(path, change(np.asarray(volume.dataobj)), volume.affine if affine is None else affine)


def put(value, dtype=np.float32):
    def change(array):
        array = array.astype(dtype)
        array[3, 3, 3] = value
        return array

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def shifted(shift: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = shift
    return affine


FAULTS = {
    "missing image": (lambda r: image(r).unlink(), image, "missing"),
    "missing label": (lambda r: label(r).unlink(), label, "missing"),
    "truncated": (lambda r: truncate(image(r)), image, "truncated"),
    "truncated content": (lambda r: image(r).write_bytes(gzip.compress(gzip.decompress(image(r).read_bytes())[:-500])), image, "truncated"),
    "not gzip": (lambda r: image(r).write_bytes(b"hello"), image, "corrupt"),
    "no NIfTI": (lambda r: image(r).write_bytes(gzip.compress(b"hello" * 100)), image, "not readable as NIfTI"),
    "NaN": (lambda r: rewrite(image(r), put(np.nan)), image, "NaN or infinite"),
    "infinite": (lambda r: rewrite(image(r), put(np.inf)), image, "NaN or infinite"),
    "4-D": (lambda r: rewrite(image(r), lambda a: np.stack([a, a], -1)), image, "4-D"),
    "2-D": (lambda r: rewrite(image(r), lambda a: a[..., 0]), image, "2-D"),
    "complex": (lambda r: rewrite(image(r), lambda a: a.astype(np.complex64)), image, "complex64"),
    "constant": (lambda r: rewrite(image(r), np.zeros_like), image, "constant"),
    "nearly constant": (lambda r: rewrite(image(r), lambda a: put(1)(np.zeros_like(a))), image, "99.99 % of the voxels are 0; crop"),
    "shape": (lambda r: rewrite(label(r), lambda a: a[1:]), label, r"shape 19 x 22 x 18, but its image case_02\.nii\.gz has 20"),
    "affine": (lambda r: rewrite(label(r), lambda a: a, shifted(0.01)), label, "affine differs"),
    "unknown value": (lambda r: rewrite(label(r), put(7, np.uint8)), label, r"label value 7 not in the data set's \[0, 1, 2\]"),
    "negative value": (lambda r: rewrite(label(r), put(-1, np.int16)), label, "label value -1"),
    "fraction": (lambda r: rewrite(label(r), put(0.5)), label, r"integers, found 0\.5"),
    "NaN label": (lambda r: rewrite(label(r), put(np.nan)), label, "NaN"),
    "empty": (lambda r: rewrite(label(r), np.zeros_like), label, "every voxel is background"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_file_in_one_line(tiny_dataset, fault):
    spoil, where, message = FAULTS[fault]
    spoil(tiny_dataset)
    with pytest.raises(DataError, match=message) as caught:
        check_dataset(read_dataset(tiny_dataset))
    assert str(caught.value).startswith(f"{where(tiny_dataset)}: ")
    assert "\n" not in str(caught.value)


def test_sound_data_passes(tiny_dataset):
    check_dataset(read_dataset(tiny_dataset))
    check_images(read_images(tiny_dataset))


HARMLESS = {
    "trailing axis": lambda r: rewrite(image(r), lambda a: a[..., None]),
    "float label": lambda r: rewrite(label(r), lambda a: a.astype(np.float32)),
    "header noise": lambda r: rewrite(label(r), lambda a: a, shifted(5e-4)),
    "signed label": lambda r: rewrite(label(r), lambda a: a.astype(np.int8)),
}


@pytest.mark.parametrize("oddity", HARMLESS)
def test_harmless_oddity_passes(tiny_dataset, oddity):
    HARMLESS[oddity](tiny_dataset)
    check_dataset(read_dataset(tiny_dataset))


def test_uncompressed_truncated(tiny_dataset, tmp_path):
    path = tmp_path / "x.nii"
    nib.save(nib.load(image(tiny_dataset)), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"x\.nii: .*truncated"):
        check_images(read_images(path))


def test_too_few_cases(tiny_dataset):
    with pytest.raises(DataError, match="too few cases: 6, at least 7"):
        check_dataset(read_dataset(tiny_dataset), need_cases=7)


def test_too_few_labels(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    unlabelled = dataclasses.replace(dataset, cases=tuple(dataclasses.replace(case, label=None) for case in dataset.cases))
    with pytest.raises(DataError, match="too few labelled cases: 0, at least 1"):
        check_dataset(unlabelled)
    check_dataset(unlabelled, need_labels=0)


def test_duplicate_name(tiny_dataset):
    path = tiny_dataset / "dataset.json"
    content = json.loads(path.read_text())
    content["training"].append(content["training"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="two cases are named case_00"):
        check_dataset(read_dataset(tiny_dataset))


def test_missing_particles(tiny_dataset):
    with pytest.raises(DataError, match="no particle file"):
        check_dataset(read_dataset(tiny_dataset), need_particles=True)


def test_no_images():
    with pytest.raises(DataError, match="no image given"):
        check_images([])


def test_real_data_is_sound(shared_data):
    dataset = read_dataset(shared_data / "hippocampus")
    check_dataset(dataclasses.replace(dataset, cases=dataset.cases[:20]))
