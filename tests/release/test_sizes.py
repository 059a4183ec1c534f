from __future__ import annotations

import pytest

from tools.data.checks import DataError
from tools.release.sizes import spatial_size, trial_values

VALUES = {"n": 3, "p": 4, "*": 7}


@pytest.mark.parametrize(("entry", "size"), [(5, 5), ("*", 7), ("16*n", 48), ("2**p", 16), ("2**p * n + 1", 49), ("32", 32)])
def test_sizes(entry, size):
    assert spatial_size([entry], [VALUES]) == (size,)


@pytest.mark.parametrize("entry", ["m", "n(", "__import__('os')", "n.real", "-1*n", "n - n", "9**9**9", "''"])
def test_no_size(entry):
    with pytest.raises(DataError, match="spatial_shape"):
        spatial_size([entry], [VALUES])


def test_axes_get_different_sizes():
    sizes = {spatial_size(["16*n"] * 3, values) for values in trial_values(["16*n"] * 3)}
    assert len(sizes) == 3
    assert all(len(set(size)) == 3 for size in sizes)
