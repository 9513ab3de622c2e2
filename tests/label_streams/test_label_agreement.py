import math

import pytest
import torch

from gift_cl.label_streams import Cutmix, Mixup
from gift_cl.label_streams.agreement import Agreement, Answers

PREDICTED = torch.tensor([0, 1, 2, 2])
LABELS = torch.tensor([0, 1, 1, 0])
PARTNER = torch.tensor([1, 0, 3, 2])  # of labels 1, 0, 0, 1
EVEN = torch.full((3,), 1 / 3)


def test_answers_that_are_the_label_count() -> None:
    found = Answers(PREDICTED, None, 8).agreement(LABELS, EVEN)
    assert (found.hits, found.rows, found.share) == (2, 4, 0.5)
    assert found.chance == pytest.approx(1 / 3)


def test_answers_on_blended_views_count_by_the_weights() -> None:
    predicted = torch.tensor([0, 0, 0, 2])  # own label, partner's label, partner's label, neither
    found = Answers(predicted, Mixup(PARTNER, 0.75), 8).agreement(LABELS, EVEN)
    assert found.hits == 0.75 + 0.25 + 0.25


def test_answers_on_pasted_views_count_by_the_area_and_not_by_lam() -> None:
    predicted = torch.tensor([0, 0, 0, 2])
    found = Answers(predicted, Cutmix(PARTNER, 0.9, (0, 0, 4, 4)), 8).agreement(LABELS, EVEN)
    assert found.hits == 0.75 + 0.25 + 0.25


def test_a_row_whose_partner_has_the_same_label_counts_in_full() -> None:
    same = torch.zeros(4, dtype=torch.int64)
    assert Answers(same, Mixup(PARTNER, 0.3), 8).agreement(same, EVEN).hits == pytest.approx(4)


def test_chance_follows_the_frequencies_of_classes() -> None:
    frequencies = torch.tensor([0.5, 0.25, 0.25])
    found = Answers(PREDICTED, None, 8).agreement(LABELS, frequencies)
    assert found.chance == pytest.approx((0.5 + 0.25 + 0.25 + 0.25) / 4)


def test_agreements_add_up() -> None:
    total = Agreement(1.0, 0.5, 4) + Agreement(2.0, 1.5, 6)
    assert (total.hits, total.expected, total.rows) == (3.0, 2.0, 10)
    assert (total.share, total.chance) == (0.3, 0.2)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("rows", [1, 5, 20, 200])
def test_what_is_significant_is_rarer_than_one_in_a_thousand(num_classes: int, rows: int) -> None:
    chance = 1 / num_classes
    weights = [
        math.comb(rows, hits) * chance**hits * (1 - chance) ** (rows - hits) for hits in range(rows + 1)
    ]
    found = [Agreement(hits, rows * chance, rows).is_significant for hits in range(rows + 1)]
    tails = [sum(weights[hits:]) for hits in range(rows + 1)]
    assert all(tail < 1e-3 for tail, significant in zip(tails, found, strict=True) if significant)
    assert all(significant for tail, significant in zip(tails, found, strict=True) if tail < 1e-4 / rows)
    assert found == sorted(found)


def test_agreement_at_chance_or_of_nothing_is_not_significant() -> None:
    assert not Agreement(10_000.0, 10_000.0, 100_000).is_significant
    assert not Agreement(0.0, 10.0, 100).is_significant
    assert not Agreement(50.0, 50.0, 50).is_significant  # one class only
    assert not Agreement().is_significant


def test_a_small_surplus_over_many_rows_is_significant() -> None:
    assert Agreement(200.0, 50.0, 50_000).is_significant
