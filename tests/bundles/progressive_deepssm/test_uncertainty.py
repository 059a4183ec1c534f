from __future__ import annotations

import numpy as np
import pytest

from progressive_deepssm.uncertainty import PointErrors, add_usual_uncertainty, over_cases, rank_correlation

# the mean of both uncertainties rises with the number of the point
ERRORS = [
    PointErrors(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])),
    PointErrors(np.array([2.0, 3, 4, 7]), np.array([4.0, 3, 2, 1]), None),
]


def test_one_map_for_all_cases():
    rows = [{"case": "a"}, {"case": "b"}]
    add_usual_uncertainty(rows, ERRORS)
    # 1 - 6 * sum of squared differences of ranks / (n^3 - n)
    assert rows[0] == {
        "case": "a",
        "usual_uncertainty_surface_spearman": pytest.approx(1),
        "usual_uncertainty_spearman": pytest.approx(0.8),
    }
    assert rows[1] == {"case": "b", "usual_uncertainty_surface_spearman": pytest.approx(-1)}


def test_correlation_over_cases():
    cases = [(0.9, 0.5, 1.0), (1.0, 0.4, 1.1), (1.1, 0.7, 1.3), (1.2, 0.6, 1.2)]
    rows = [{"uncertainty_mm": u, "surface_mm": s, "rmse_mm_64": r} for u, s, r in cases]
    found = over_cases(rows, 64)
    assert found["surface_mm"]["spearman"] == pytest.approx(0.6)
    assert found["rmse_mm_64"]["spearman"] == pytest.approx(0.8)
    assert found["rmse_mm_64"]["p_value"] == pytest.approx(0.2)
    assert found["surface_mm"]["n"] == 4


def test_cases_without_true_points():
    rows = [{"uncertainty_mm": u, "surface_mm": u} for u in (1.0, 2.0, 3.0)]
    assert over_cases(rows, 64)["rmse_mm_64"] == {"spearman": None, "p_value": None, "n": 0}


@pytest.mark.parametrize(("first", "second"), [([1.0, 2], [1.0, 2]), ([1.0, 1, 1], [1.0, 2, 3]), ([1.0, 2, 3], [2.0, 2, 2])])
def test_no_correlation_is_defined(first, second):
    assert np.isnan(rank_correlation(np.array(first), np.array(second))).all()
