import pytest

from gift_cl.ledger import BudgetError, Ledger, label_nbytes


def test_total_is_the_sum_of_the_parts() -> None:
    ledger = Ledger(pixels=1000, labels=200, soft_labels=30, teacher=4)
    assert ledger.total == 1234
    assert ledger.by_part() == {"pixels": 1000, "labels": 200, "soft_labels": 30, "teacher": 4}


def test_an_empty_ledger_costs_nothing() -> None:
    assert Ledger().total == 0
    Ledger().require_within(0)


def test_a_budget_is_kept_to_the_byte() -> None:
    ledger = Ledger(pixels=90, labels=10)
    ledger.require_within(100)
    with pytest.raises(BudgetError, match=r"takes 100 bytes \{'pixels': 90, .*, over `budget_bytes` = 99"):
        ledger.require_within(99)


def test_a_broken_budget_is_a_value_error() -> None:
    assert issubclass(BudgetError, ValueError)


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [(1, 1), (10, 1), (256, 1), (257, 2), (1000, 2), (1 << 16, 2), ((1 << 16) + 1, 4)],
)
def test_a_label_takes_as_many_bytes_as_its_classes_need(num_classes: int, expected: int) -> None:
    assert label_nbytes(num_classes) == expected
