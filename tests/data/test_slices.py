from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Invertd
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan
from tools.data.files import write_nifti
from tools.data.slices import SliceCase, crop, slice_preprocessing, stack_slices, to_slices

LABELS = {0: "background", 3: "a", 7: "b"}
SPACING = np.array([1.0, 1.5, 4.0])  # along R, A and S
CODES = ["".join(code) for order in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*order)]


def plan(**fields) -> SlicePlan:
    return SlicePlan(labels=LABELS, **fields)


def label_volume(shape=(11, 13, 6)) -> np.ndarray:
    return np.random.default_rng(0).choice([0, 3, 7], shape).astype(np.uint8)


def disc(shape, spacing) -> np.ndarray:
    """A cylinder of value 7 along the last axis, 8 in radius, in the middle."""
    position = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing)), indexing="ij")
    return np.where(position[0] ** 2 + position[1] ** 2 < 64, 7, 0).astype(np.uint8)


def affine_of(codes: str) -> np.ndarray:
    """An oblique affine (0.3 rad about z) of these axis codes, whose spacing along R, A and S is ``SPACING``."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    turn[:3, 3] = [5, -7, 9]
    return turn @ np.diag([*SPACING, 1]) @ inv_ornt_aff(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)), (11, 13, 6))


@pytest.mark.parametrize("codes", CODES)
def test_a_label_volume_cut_and_stacked_is_itself(codes):
    volume, affine = label_volume(), affine_of(codes)
    assert "".join(nib.aff2axcodes(affine)) == codes
    for axis in range(3):
        slices, mapping = to_slices(volume, affine, plan(slice_axis=axis, spacing=tuple(np.delete(SPACING, axis))), is_label=True)
        stored = next(k for k, code in enumerate(codes) if code in ("RL", "AP", "SI")[axis])
        assert len(slices) == volume.shape[stored]
        assert all(n % 16 == 0 for n in slices.shape[1:])
        assert np.array_equal(stack_slices(slices, mapping), volume)
        scores = torch.stack([slices == value for value in LABELS]).float()
        assert np.array_equal(stack_slices(scores, mapping), volume)
    assert np.array_equal(mapping.to_native(slices), volume)  # the general way gives the same


def test_slices_are_those_of_the_world_however_the_file_is_stored():
    volume, ras = label_volume(), affine_of("RAS")
    expected, _ = to_slices(volume, ras, plan(spacing=(1.0, 1.5)), is_label=True)
    assert torch.equal(expected[:, 2:13, 1:14], torch.from_numpy(volume).permute(2, 0, 1).float())
    for codes in ("LPS", "SAR", "IPL"):
        ornt = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
        stored = nib.orientations.apply_orientation(volume, ornt)
        affine = ras @ inv_ornt_aff(ornt, volume.shape)
        slices, mapping = to_slices(stored, affine, plan(spacing=(1.0, 1.5)), is_label=True, multiple=1)
        assert torch.equal(slices, torch.from_numpy(volume).permute(2, 0, 1).float())
        assert np.array_equal(stack_slices(slices, mapping), stored)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axes_as_stored(axis):
    volume, affine = label_volume(), affine_of("AIR")
    slices, mapping = to_slices(volume, affine, plan(orientation=None, slice_axis=axis, spacing=np.delete([1.5, 4, 1], axis)), True, 1)
    assert torch.equal(slices, torch.from_numpy(np.moveaxis(volume, axis, 0)).float())
    assert np.array_equal(stack_slices(slices, mapping), volume)


def test_plane_is_resampled_and_slices_are_kept():
    # 40 x 20 pixels of 1 x 2 come to 20 x 20 of 2 x 2; what the centre is stays the centre
    volume, affine = disc((40, 20, 5), (1, 2, 7)), np.diag([1.0, 2, 7, 1])
    slices, mapping = to_slices(volume, affine, plan(spacing=(2.0, 2.0)), is_label=True, multiple=1)
    assert slices.shape == (5, 20, 20)
    assert ((slices - slices.transpose(1, 2)) != 0).float().mean() < 0.05  # as round as pixels are
    for back in (stack_slices(slices, mapping).numpy(), stack_slices(torch.stack([slices == v for v in LABELS]).float(), mapping).numpy()):
        both, either = ((back == 7) & (volume == 7)).sum(), (back == 7).sum() + (volume == 7).sum()
        assert 2 * both / either > 0.9
        assert set(np.unique(back)) == {0, 7}


def test_image_is_scaled_by_its_own_percentiles_before_it_is_padded():
    volume = np.linspace(100, 1100, 10 * 10 * 10).reshape(10, 10, 10)
    slices, mapping = to_slices(volume, np.eye(4), plan(intensity={"lower_percentile": 10, "upper_percentile": 90}))
    assert slices.shape == (10, 16, 16)
    inner = slices[:, 3:13, 3:13]
    # 200 and 1000 become 0 and 1
    torch.testing.assert_close(inner, torch.from_numpy(((volume - 200) / 800).clip(0, 1)).permute(2, 0, 1).float(), atol=1e-3, rtol=0)
    assert slices.count_nonzero() == inner.count_nonzero()


def test_invertd_brings_results_back(tmp_path):
    volume, affine = label_volume(), affine_of("PIL")
    write_nifti(tmp_path / "image.nii.gz", volume, affine)
    transform = slice_preprocessing(plan(slice_axis=0, spacing=(1.5, 4.0)), keys=("image",))
    loaded = transform({"image": str(tmp_path / "image.nii.gz")})
    loaded["pred"] = torch.cat([loaded["image"], 1 - loaded["image"]])
    back = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False, to_tensor=True)(loaded)["pred"]
    assert back.shape == (2, *volume.shape)
    np.testing.assert_allclose(back[0], volume / 7, atol=1e-6)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)


@pytest.fixture
def case(tmp_path):
    volume = label_volume()
    write_nifti(tmp_path / "image.nii.gz", volume.astype(np.float32) * 10, affine_of("LPS"))
    write_nifti(tmp_path / "label.nii.gz", volume, affine_of("LPS"))
    return {"name": "case", "image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "label.nii.gz"), "domain": "b"}


def test_case_in_memory(case):
    transform = SliceCase(DomainPlan(domains={"a": plan(), "b": plan(slice_axis=1, spacing=(1.0, 4.0))}))
    loaded = transform(case)
    volume = label_volume()[::-1, ::-1].transpose(1, 0, 2)
    assert loaded["image"].dtype == torch.float16
    assert loaded["label"].dtype == torch.uint8
    assert type(loaded["image"]) is torch.Tensor
    assert np.array_equal(loaded["label"], np.searchsorted([0, 3, 7], volume))
    np.testing.assert_allclose(loaded["image"], volume / 7, atol=1e-3)
    assert (loaded["domain"], loaded["name"]) == (1, "case")
    assert "label" not in transform({"image": case["image"], "domain": "a"})


def test_case_of_an_unknown_domain(case):
    with pytest.raises(DataError, match="unknown domain 'b', the nearest is 'a'"):
        SliceCase(DomainPlan(domains={"a": plan()}))(case)


@pytest.mark.parametrize(
    ("top", "left", "expected"),
    [(0, 0, [[1, 2], [4, 5]]), (1, 1, [[5, 6], [0, 0]]), (-1, -1, [[0, 0], [0, 1]]), (0, 2, [[3, 0], [6, 0]]), (5, 5, [[0, 0], [0, 0]])],
)
def test_crop(top, left, expected):
    assert crop(torch.tensor([[1, 2, 3], [4, 5, 6]]), top, left, (2, 2)).tolist() == expected


def test_real_volumes_come_back(shared_data):
    for name in ("spine_vb1", "cardiac_cine"):
        path = sorted((shared_data / name / "labelsTr").glob("*.nii.gz"))[0]
        volume, affine = np.asarray(nib.load(path).dataobj), nib.load(path).affine
        domain = SlicePlan(labels={0: "b", 1: "x", 2: "y", 3: "z"}, spacing=(2.0, 2.0))
        slices, mapping = to_slices(volume, affine, domain, is_label=True)
        assert len(slices) == volume.shape[2]
        assert np.array_equal(stack_slices(slices, mapping), volume)
