import math

import pytest

from gift_cl.statistic import mean_sd


def test_mean_and_sample_deviation_agree_with_hand_calculation() -> None:
    # (2, 4, 4, 6): mean 4, squares 4 + 0 + 0 + 4 = 8, 8 / 3
    found = mean_sd([2.0, 4.0, None, 4.0, 6.0])
    assert found.n == 4
    assert found.mean == pytest.approx(4.0)
    assert found.sd == pytest.approx(math.sqrt(8 / 3))
    assert found.text() == "4.0 ± 1.6"


def test_one_value_has_no_deviation_and_none_has_no_mean() -> None:
    assert math.isnan(mean_sd([0.25]).sd)
    assert mean_sd([0.25]).text(scale=100) == "25.0"
    assert mean_sd([None]).text() == "-"
