import pytest

from experiments.avalanche_memory import sample_ledger, samples_within
from experiments.evaluation import forgetting


def test_forgetting_is_the_mean_drop_from_the_best() -> None:
    history = [[0.9], [0.7, 0.8], [0.8, 0.5, 1.0]]
    assert forgetting(history) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.5)) / 2)


def test_nothing_is_forgotten_after_one_experience() -> None:
    assert forgetting([[0.9]]) == 0


def test_a_sample_of_der_is_pixels_logits_and_a_label() -> None:
    sample = sample_ledger(pixels=64, num_classes=10, num_logits=10)
    assert sample.total == 64 + 40 + 1
    assert samples_within(50 * sample.total, sample) == 50


def test_a_budget_below_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 65"):
        samples_within(64, sample_ledger(pixels=64, num_classes=10))
