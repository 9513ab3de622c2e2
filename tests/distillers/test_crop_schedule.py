from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_cl.distillers.crop_schedule import CropSchedule, Curriculum

PINNED: dict[Curriculum, list[float]] = {
    "constant": [0.08, 0.08, 0.08, 0.08, 0.08],
    "step": [1.0, 1.0, 1.0, 1.0, 0.08],
    "linear": [1.0, 0.77, 0.54, 0.31, 0.08],
    "cosine": [1.0, 0.8652691193458119, 0.54, 0.21473088065418814, 0.08],
}


@pytest.mark.parametrize("curriculum", PINNED)
def test_pinned_shares_of_the_published_curricula(curriculum: Curriculum) -> None:
    schedule = CropSchedule(curriculum)
    assert [schedule.at(t, 4000) for t in (0, 1000, 2000, 3000, 4000)] == pytest.approx(PINNED[curriculum])


@pytest.mark.parametrize("curriculum", PINNED)
def test_the_end_is_reached_at_the_milestone(curriculum: Curriculum) -> None:
    schedule = CropSchedule(curriculum, milestone=0.5)
    assert [schedule.at(t, 4000) for t in (0, 500, 1000, 1500)] == pytest.approx(PINNED[curriculum][:4])
    assert [schedule.at(t, 4000) for t in (2000, 2001, 3999)] == [0.08] * 3


@given(
    curriculum=st.sampled_from(list(PINNED)),
    min_scale=st.floats(0.01, 1),
    milestone=st.floats(0.01, 1),
    iterations=st.integers(1, 50),
)
def test_shares_never_grow_and_stay_between_the_smallest_and_all(
    curriculum: Curriculum, min_scale: float, milestone: float, iterations: int
) -> None:
    schedule = CropSchedule(curriculum, min_scale, milestone)
    shares = [schedule.at(t, iterations) for t in range(iterations)]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= min_scale
    assert max(shares) <= 1
    assert shares[0] == pytest.approx(min_scale if curriculum == "constant" else 1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"curriculum": "sine"},
            "`curriculum` to be one of constant, step, linear, cosine, got 'sine'",
        ),
        ({"min_scale": 0}, r"`min_scale` in \(0, 1\], got 0"),
        ({"min_scale": 1.1}, r"`min_scale` in \(0, 1\], got 1.1"),
        ({"min_scale": "abc"}, r"`min_scale` in \(0, 1\], got 'abc'"),
        ({"milestone": 0.0}, r"`milestone` in \(0, 1\], got 0.0"),
        ({"milestone": float("nan")}, r"`milestone` in \(0, 1\], got nan"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CropSchedule(**options)
