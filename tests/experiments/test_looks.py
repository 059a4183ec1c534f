from __future__ import annotations

import pytest
from torch.utils.tensorboard import SummaryWriter

from tools.experiments.looks import looks, summarise_looks


@pytest.fixture
def run(tmp_path):
    """A training that was killed after its second look and repeated it."""
    for session in ([(2, 0.3), (4, 0.5)], [(4, 0.6), (6, 0.4)]):
        with SummaryWriter(str(tmp_path / "tensorboard"), filename_suffix=f".{session[0][0]}") as writer:
            for epoch, value in session:
                writer.add_scalar("dice_knee", value, epoch)
    return tmp_path


def test_a_look_that_was_repeated_counts_once(run):
    assert looks(run, "dice_knee") == pytest.approx({2: 0.3, 4: 0.6, 6: 0.4})


def test_what_was_not_logged(run):
    assert looks(run, "dice_hip") == {}
    assert looks(run / "nowhere", "dice_knee") == {}


def test_the_best_look_is_that_of_the_mean():
    found = summarise_looks([{2: 0.1, 4: 0.9, 6: 0.5, 8: 1.0}, {2: 0.1, 4: 0.5, 6: 0.8}])
    # by hand: 0.1, 0.7, 0.65; the last is no look of both
    assert found == {"last": pytest.approx(0.65), "best": pytest.approx(0.7), "best_epoch": 4, "last_epoch": 6, "looks": 3}


@pytest.mark.parametrize("curves", [[], [{}], [{2: 0.1}, {3: 0.1}]])
def test_no_common_look(curves):
    assert summarise_looks(curves) is None
