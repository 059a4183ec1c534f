from __future__ import annotations

import itertools

import pytest

from tools.data.checks import DataError
from tools.release.versions import Version

# of semver.org, item 11, and the numbers that text sorts wrongly
RELEASES = "0.5.9 0.5.10 0.10.0".split()
BEFORE = "alpha alpha.1 alpha.beta beta beta.2 beta.11 rc.1".split()
ORDER = [*RELEASES, *(f"1.0.0-{name}" for name in BEFORE), "1.0.0", "2.0.0"]


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(ORDER)))
def test_order(before, after):
    assert Version(before) < Version(after)
    assert not Version(after) <= Version(before)


def test_build_metadata_do_not_order():
    assert Version("1.0.0+a") == Version("1.0.0+b")


@pytest.mark.parametrize("text", ["1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0 ", "", None])
def test_no_version(text):
    with pytest.raises(DataError, match="a version is three numbers"):
        Version(text)


def test_part_of_a_python_name():
    assert Version("1.0.0-rc.1").identifier == "1_0_0_rc_1"
