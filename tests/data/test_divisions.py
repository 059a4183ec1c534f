from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.divisions import Division, divisions_of_labels, find_divisions
from tools.data.files import write_nifti


def bar(*lengths: int, values: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    """Blocks of 4 x 5 voxels, one behind the other along the second axis, within a margin of 2."""
    pieces = [np.full((4, length, 5), value) for length, value in zip(lengths, values, strict=False)]
    return np.pad(np.concatenate(pieces, axis=1), 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_are_divided_across_the_axis_along_which_they_follow(axis):
    volume = np.moveaxis(bar(6, 4), 1, axis)
    assert divisions_of_labels([volume]) == [Division(axis, 1, 2)]
    assert divisions_of_labels([np.flip(volume, axis)]) == [Division(axis, 2, 1)]


def test_three_parts_have_two_planes():
    assert divisions_of_labels([bar(6, 4, 5), bar(5, 5, 4)]) == [Division(1, 1, 2), Division(1, 2, 3)]


def test_the_plane_may_lie_elsewhere_in_every_map():
    assert divisions_of_labels([bar(6, 4), bar(3, 9)]) == [Division(1, 1, 2)]


def test_which_one_is_the_lower_must_agree():
    assert divisions_of_labels([bar(6, 4), bar(6, 4, values=(2, 1))]) == []


@pytest.mark.parametrize(("step", "fits"), [(2, True), (4, True), (5, False), (10, False)])
def test_a_step_in_the_plane_of_two_voxels_in_a_hundred_is_allowed(step, fits):
    volume = bar(6, 4)
    first = np.zeros(20, bool)
    first[:step] = True
    volume[2:6, 8, 2:7][first.reshape(4, 5)] = 1
    assert divisions_of_labels([volume]) == [Division(1, 1, 2)] * fits


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(np.pad(np.pad(np.ones((4, 4, 4), int), 3, constant_values=2), 2), id="one within the other"),
        pytest.param(np.insert(bar(6, 4), 8, 0, axis=1), id="apart"),
        pytest.param(np.pad(np.where(np.add.outer(np.arange(8), np.arange(8)) < 8, 1, 2)[..., None].repeat(4, 2), 2), id="aslant"),
        pytest.param(bar(6), id="one alone"),
        pytest.param(bar(6, 4)[:4, :, :5], id="six faces"),
    ],
)
def test_no_division(volume):
    assert divisions_of_labels([volume]) == []


@pytest.mark.parametrize(("degrees", "fits"), [(0, True), (1, False)])
def test_a_natural_border_that_is_a_little_tilted_is_no_division(degrees, fits):
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in (140, 170, 60)), indexing="ij")
    left = x + np.tan(np.radians(degrees)) * y < 0
    halves = np.where((x / 65) ** 2 + (y / 80) ** 2 + (z / 28) ** 2 < 1, np.where(left, 1, 2), 0)
    assert divisions_of_labels([halves]) == [Division(0, 1, 2)] * fits


@pytest.mark.parametrize("pressed", [1, 2, 3])
def test_balls_that_touch_are_no_division(pressed):
    """Their faces lie in one plane, which is 0.23 or 0.32 of the smaller one's largest cross-section."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in (48, 26, 26)), indexing="ij")
    inside = [(x - place) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 < radius**2 for place, radius in ((12, 10), (30 - pressed, 8))]
    assert divisions_of_labels([np.select(inside, [1, 2])]) == []


@pytest.mark.parametrize(("breadth", "fits"), [(16, True), (15, False)])
def test_a_plane_is_two_fifths_of_the_smaller_structure_at_least(breadth, fits):
    """Of 40 voxels."""
    volume = bar(6, 4).repeat(2, axis=0)
    narrow = np.zeros(40, int)
    narrow[:breadth] = 1
    volume[4:12, 7, 2:7] = narrow.reshape(8, 5)
    assert divisions_of_labels([volume]) == [Division(1, 1, 2)] * fits


def test_an_empty_map_says_nothing():
    assert divisions_of_labels([np.zeros((4, 4, 4), int), bar(6, 4)]) == [Division(1, 1, 2)]


def test_maps_with_one_of_both_say_nothing_and_maps_in_which_they_lie_apart_say_no():
    assert divisions_of_labels([bar(6, 4), bar(6)]) == [Division(1, 1, 2)]
    assert divisions_of_labels([bar(6, 4), np.insert(bar(6, 4), 8, 0, axis=1)]) == []


def case(folder, volume: np.ndarray, affine: np.ndarray) -> Case:
    path = folder / "case.nii.gz"
    write_nifti(path, volume.astype(np.uint8), affine)
    return Case("case", path, path)


@pytest.mark.parametrize(
    ("codes", "orientation", "found"),
    [
        ("RAS", "RAS", {"axis": 1, "lower": 1, "upper": 2}),
        ("RAS", "LPS", {"axis": 1, "lower": 2, "upper": 1}),
        ("LPI", "RAS", {"axis": 1, "lower": 2, "upper": 1}),
        ("SAR", "RAS", {"axis": 1, "lower": 1, "upper": 2}),
        ("ASR", "RAS", {"axis": 2, "lower": 1, "upper": 2}),
        ("RAS", "ARS", {"axis": 0, "lower": 1, "upper": 2}),
    ],
)
def test_axes_are_those_of_the_networks_grid(tmp_path, codes, orientation, found):
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.eye(3)["RAS".find(c)] if c in "RAS" else -np.eye(3)["LPI".find(c)] for c in codes], axis=1)
    assert "".join(nib.aff2axcodes(affine)) == codes
    assert find_divisions([Case("bare", tmp_path / "image.nii.gz"), case(tmp_path, bar(6, 4), affine)], orientation) == [found]


def test_cases_are_looked_at_all_over_the_list(tmp_path):
    """Half of the cases, at the end of the list, have the parts the other way round."""
    for name, values in (("one", (1, 2)), ("other", (2, 1))):
        write_nifti(tmp_path / f"{name}.nii.gz", bar(6, 4, values=values).astype(np.uint8), np.eye(4))
    cases = [Case(f"{k:02}", tmp_path, tmp_path / f"{'one' if k < 20 else 'other'}.nii.gz") for k in range(40)]
    assert find_divisions(cases[:20], "RAS") == [{"axis": 1, "lower": 1, "upper": 2}]
    assert find_divisions(cases, "RAS") == []


def test_without_a_label_there_is_no_division(tmp_path):
    assert find_divisions([Case("bare", tmp_path / "image.nii.gz")], "RAS") == []


def test_a_label_that_is_missing(tmp_path):
    with pytest.raises(DataError, match="gone.nii.gz"):
        find_divisions([Case("gone", tmp_path / "gone.nii.gz", tmp_path / "gone.nii.gz")], "RAS")


def test_an_axis_that_no_volume_has_is_refused():
    with pytest.raises(ValueError, match="axis of a division must be 0, 1 or 2, not 3"):
        Division(3, 1, 2)


def test_one_structure_is_not_divided():
    with pytest.raises(ValueError, match="two structures, not 1 twice"):
        Division(0, 1, 1)
