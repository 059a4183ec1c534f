from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.bundle.checkpoint import load_weights, save_weights
from tools.bundle.teacher import running_average
from tools.networks.divided import DividedSegmentation, divided

# Logits of background, lower and upper structure in a column of six voxels.
SURE = [[9, 0, 0], [0, 4, 1], [0, 1, 2], [0, 3, 1], [0, 1, 4], [9, 0, 0]]


def column(logits: list[list[float]], axis: int = 1) -> torch.Tensor:
    """(1, 3, ...) with the voxels along an axis of the grid."""
    values = torch.tensor(logits, dtype=torch.float32).T
    return values[None, :, :, None, None].movedim(2, axis + 2)


@pytest.mark.parametrize(
    ("logits", "classes"),
    [
        # Evidence for the upper one: -3, 1, -2, 3: the least sum, -4, lies before the last of them.
        pytest.param(SURE, [0, 1, 1, 1, 2, 0], id="one voxel gives way"),
        # -3, 3, -2, 3: before the second of them.
        pytest.param([*SURE[:2], [0, 1, 4], *SURE[3:]], [0, 1, 2, 2, 2, 0], id="the plane moves"),
        pytest.param([[9, 0, 0], [0, 1, 4], [0, 1, 4], [0, 2, 1], [0, 1, 3], [9, 0, 0]], [0, 2, 2, 2, 2, 0], id="upper alone"),
        pytest.param([[9, 0, 0], [0, 4, 1], [0, 4, 1], [0, 1, 2], [0, 4, 1], [9, 0, 0]], [0, 1, 1, 1, 1, 0], id="lower alone"),
        # 2, 2 and 2: each of both is less probable than the background, both together are not.
        pytest.param([[2.2, 2, 1.9]] * 3, [1, 1, 1], id="both together"),
        # The background is more probable than both together: such voxels do not speak, however sure.
        pytest.param([[9, 0, 8], [0, 1, 0], [0, 0, 1], [9, 8, 0]], [0, 1, 2, 0], id="background"),
        # One voxel counts seven at most: 20 counts 7, against -4 and -4.
        pytest.param([[0, 0, 20], [0, 4, 0], [0, 4, 0]], [1, 1, 1], id="no voxel decides alone"),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_structures_are_divided_by_the_most_probable_plane(logits, classes, axis):
    answer = divided(column(logits, axis), [(axis, 1, 2)])
    assert answer.argmax(1).flatten().tolist() == classes


def test_a_plane_is_one_for_all_columns():
    logits = torch.cat([column([[0, 3, 1], [0, 3, 1], [0, 1, 3]]), column([[0, 3, 1], [0, 1, 3], [0, 1, 3]])], dim=2)
    wide = torch.cat([logits, logits[:, :, 1:]], dim=2)
    assert divided(wide, [(1, 1, 2)]).argmax(1)[0, :, :, 0].tolist() == [[1, 2, 2]] * 3


def test_every_image_has_its_own_plane():
    answer = divided(torch.cat([column([[0, 3, 1], [0, 3, 1], [0, 1, 3]]), column([[0, 3, 1], [0, 1, 3], [0, 1, 3]])]), [(1, 1, 2)])
    assert answer.argmax(1).flatten(1).tolist() == [[1, 1, 2], [1, 2, 2]]


def test_probabilities_are_handed_over_whole():
    logits = torch.randn(2, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    before, after = logits.softmax(1), divided(logits, [(2, 3, 1)]).softmax(1)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]])
    torch.testing.assert_close(after[:, 1] + after[:, 3], before[:, 1] + before[:, 3])
    assert torch.minimum(after[:, 1], after[:, 3]).max() < 1e-8


def test_three_parts_are_divided_by_two_planes():
    logits = [[0, 3, 1, 0], [0, 1, 2, 0], [0, 2, 1, 0], [0, 0, 3, 1], [0, 0, 1, 3], [0, 0, 2, 1]]
    values = torch.tensor(logits, dtype=torch.float32).T[None, :, :, None, None]
    classes = divided(values, [(0, 1, 2), (0, 2, 3)]).argmax(1).flatten()
    assert classes.tolist() == sorted(classes.tolist())
    assert set(classes.tolist()) == {1, 2, 3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_plane_holds_for_what_another_one_hands_over(order):
    """A voxel of the third part within the first, or of the first within the third, becomes the second's, which ends at its plane."""
    values = [[4, 0, 0], [0, 0, 4], [4, 0, 0], [4, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4], [4, 0, 0], [0, 0, 4], [0, 0, 4]]
    logits = torch.tensor([[-9, *row] for row in values], dtype=torch.float32).T[None, :, :, None, None]
    planes = [(0, 1, 2), (0, 2, 3)]
    classes = divided(logits, [planes[k] for k in order]).argmax(1).flatten().tolist()
    assert [k for k in range(10) if classes[k] == 1][-1:] < [k for k in range(10) if classes[k] == 2][:1]
    assert [k for k in range(10) if classes[k] == 2][-1:] < [k for k in range(10) if classes[k] == 3][:1]


def test_half_precision_is_answered_in_single():
    assert divided(column(SURE).bfloat16(), [(1, 1, 2)]).dtype == torch.float32


def network() -> DividedSegmentation:
    torch.manual_seed(0)
    return DividedSegmentation(nn.Conv3d(1, 3, 3, padding=1), [(1, 1, 2)])


def test_training_sees_the_networks_own_logits():
    made, image = network(), torch.rand(1, 1, 8, 8, 8)
    torch.testing.assert_close(made.train()(image), made.network(image))
    torch.testing.assert_close(made.eval()(image), divided(made.network(image), [(1, 1, 2)]))


def test_weights_are_those_of_the_network_inside(tmp_path):
    made = network()
    save_weights(tmp_path / "model.pt", made)
    plain = load_weights(tmp_path / "model.pt", nn.Conv3d(1, 3, 3, padding=1))
    torch.testing.assert_close(plain.weight, made.network.weight)
    save_weights(tmp_path / "plain.pt", plain)
    other = DividedSegmentation(nn.Conv3d(1, 3, 3, padding=1), [(1, 1, 2)])
    torch.testing.assert_close(load_weights(tmp_path / "plain.pt", other).network.weight, made.network.weight)


def test_the_weights_of_an_average_are_named_as_without():
    made = network()
    average, plain = running_average(made, 0.9), running_average(made.network, 0.9)
    assert list(average.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        made.network.weight.zero_()
    average.update_parameters(made)
    plain.load_state_dict(average.state_dict())
    other = running_average(network(), 0.9)
    other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(other.module.network.weight, made.network.weight)


def test_weights_of_another_network_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        network().load_state_dict(nn.Conv3d(1, 4, 3).state_dict())
