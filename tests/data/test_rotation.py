from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tools.data.rotation import random_rotation, rotate_points, rotate_volume
from tools.registration.fields import lps_affine

QUARTER = Rotation.from_euler("x", 90, degrees=True).as_matrix()


def test_a_quarter_turn_is_a_permutation_of_voxels() -> None:
    volume = np.random.default_rng(0).random((4, 6, 3))
    turned, affine = rotate_volume(volume, np.eye(4), QUARTER)
    np.testing.assert_allclose(turned, np.rot90(volume, 1, (1, 2)), atol=1e-6)
    # the centre stays in place: (1.5, 2.5, 1) mm is voxel (1.5, 1, 2.5) of the new grid
    np.testing.assert_allclose(affine @ [1.5, 1, 2.5, 1], [1.5, 2.5, 1, 1])


def test_no_rotation_changes_nothing() -> None:
    volume, affine = np.random.default_rng(0).random((4, 5, 6)), np.diag([-1.0, 2, 3, 1])
    turned, new_affine = rotate_volume(volume, affine, np.eye(3))
    np.testing.assert_allclose(turned, volume, atol=1e-6)
    np.testing.assert_allclose(new_affine, affine)


def test_rotation_is_in_mm_and_positions_follow_it() -> None:
    spacing = np.array([1.0, 2.0, 0.5])
    volume = np.zeros((31, 17, 61))
    volume[20, 10, 40] = 1
    rotation = Rotation.from_rotvec([0.1, 0.3, -0.2]).as_matrix()
    turned, affine = rotate_volume(volume, np.diag([*spacing, 1]), rotation)
    centre = (np.array(volume.shape) - 1) / 2 * spacing
    where = np.argwhere(turned > 0)
    position = (where * turned[tuple(where.T)][:, None]).sum(0) / turned.sum() * spacing + affine[:3, 3]
    np.testing.assert_allclose(position, rotation @ (np.array([20, 10, 40]) * spacing - centre) + centre, atol=0.4)
    assert (np.array(turned.shape) >= volume.shape).all()


def test_points_turn_with_the_volume() -> None:
    """A blob about voxel (20, 10, 40) of a grid of other spacings and axes: its centre of mass, LPS mm, before and after."""
    affine = np.array([[0, -2.0, 0, 30], [1.0, 0, 0, -7], [0, 0, 0.5, 4], [0, 0, 0, 1]])
    shape = (31, 17, 61)
    distance = (np.indices(shape).T - [20, 10, 40]) * [1.0, 2.0, 0.5]
    volume = np.exp(-(distance**2).sum(-1).T / 8)

    def centre_of_mass(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        voxel = [(np.indices(volume.shape)[axis] * volume).sum() / volume.sum() for axis in range(3)]
        return (lps_affine(affine) @ [*voxel, 1])[:3]

    rotation = Rotation.from_rotvec([0.1, 0.3, -0.2]).as_matrix()
    before, after = centre_of_mass(volume, affine), centre_of_mass(*rotate_volume(volume, affine, rotation))
    assert np.linalg.norm(after - before) > 1
    np.testing.assert_allclose(rotate_points(before[None], shape, affine, rotation)[0], after, atol=0.05)


def test_labels_keep_their_values_and_volume() -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[6:14, 6:14, 6:10], label[6:14, 6:14, 10:14] = 2, 7
    turned, _ = rotate_volume(label, np.eye(4), Rotation.from_rotvec([0.2, 0.1, 0.3]).as_matrix(), is_label=True)
    assert turned.dtype == np.uint8
    assert set(np.unique(turned)) == {0, 2, 7}
    assert abs((turned > 0).sum() / (label > 0).sum() - 1) < 0.1


def test_images_are_surrounded_by_their_minimum() -> None:
    turned, _ = rotate_volume(np.full((8, 8, 8), 5.0), np.eye(4), Rotation.from_rotvec([0, 0, 0.5]).as_matrix())
    np.testing.assert_allclose(turned, 5, rtol=1e-6)


def test_random_rotations_stay_within_the_angle() -> None:
    generator = np.random.default_rng(0)
    angles = [np.degrees(Rotation.from_matrix(random_rotation(20, generator)).magnitude()) for _ in range(200)]
    assert max(angles) <= 20
    assert max(angles) > 18
    assert 8 < np.mean(angles) < 12


@pytest.mark.parametrize("degrees", [-1, 181])
def test_random_rotation_refuses_other_angles(degrees: float) -> None:
    with pytest.raises(ValueError, match="0 to 180"):
        random_rotation(degrees, np.random.default_rng(0))


def test_rotate_volume_refuses_a_plane() -> None:
    with pytest.raises(ValueError, match="expected a volume"):
        rotate_volume(np.zeros((3, 3)), np.eye(4), np.eye(3))
