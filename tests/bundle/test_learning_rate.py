from __future__ import annotations

import pytest

from tools.bundle.learning_rate import warmup_cosine


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.02),  # never nothing
        (0.05, 0.5),
        (0.1, 1.0),
        (0.55, 0.2 + 0.8 * 0.5),  # half of the way down
        (1.0, 0.2),
    ],
)
def test_rises_and_falls(progress, expected):
    assert warmup_cosine(progress, warmup=0.1, final=0.2) == pytest.approx(expected)


def test_without_warm_up():
    assert warmup_cosine(0.0, warmup=0.0) == pytest.approx(1.0)
