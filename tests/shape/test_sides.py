from __future__ import annotations

import pytest
from screws import screw

from tools.shape.sides import RATIO, mirror_ratios
from tools.shape.surfaces import mirrored, read_label_surface, read_surface


def test_the_other_side_is_found_by_its_mirror_image():
    ratios = mirror_ratios(screw(1.0), [screw(1.0, 9.0), mirrored(screw(1.0, 7.5)), screw(1.2)])
    assert ((ratios < RATIO) == [False, True, False]).all()


def test_a_shape_without_sides_has_none():
    assert mirror_ratios(screw(0.0), [screw(0.0, 9.0)]) == pytest.approx([1], abs=0.05)


@pytest.mark.parametrize(
    ("files", "template", "left"), [("calcaneus/*.stl", "TTA_02_Calcaneus_Right", "_Left"), ("ankle/*_talus.ply", "KSBL_R_04_talus", "_L_")]
)
def test_real_bones(shared_data, files, template, left):
    bones = {path.stem: path for path in sorted((shared_data / "bones").glob(files))}
    names = sorted(bones)[::3]
    ratios = mirror_ratios(read_surface(bones[template]), [read_surface(bones[name]) for name in names])
    assert ((ratios < RATIO) == [left in name for name in names]).all()


def test_hippocampi_are_not_taken_for_mirror_images(shared_data):
    surfaces = [read_label_surface(path) for path in sorted((shared_data / "hippocampus" / "labelsTr").glob("h*.nii.gz"))[:12]]
    assert (mirror_ratios(surfaces[5], surfaces) > RATIO).all()
