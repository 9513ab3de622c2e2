from typing import Any

import pytest

from gift_cl.evaluation.choice import best_by_validation
from gift_cl.evaluation.rows import Row


def make_row(lr: float, seed: int = 0, validation: float | None = 0.5, **more: Any) -> Row:
    row: Row = {"cell_id": f"{lr}-{seed}-{sorted(more.items())}", "method": "rded", "dataset": "digits"}
    row |= {"model": "mlp", "loss": "gift", "optimizer": "SGD", "lr": lr, "seed": seed, "status": "done"}
    row |= {"validation_accuracy": validation, "accuracy_last": 0.5, "evaluated_on": "test"}
    return row | more


def rates(rows: list[Row]) -> list[float]:
    return [row["lr"] for row in best_by_validation(rows)]


def test_highest_mean_validation_accuracy_chooses_and_test_accuracy_does_not() -> None:
    rows = [
        make_row(0.1, seed=0, validation=0.6, accuracy_last=0.1),
        make_row(0.1, seed=1, validation=0.8, accuracy_last=0.1),
        make_row(0.2, seed=0, validation=0.9, accuracy_last=0.9),
        make_row(0.2, seed=1, validation=0.3, accuracy_last=0.9),
    ]
    assert best_by_validation(rows) == rows[:2]


def test_each_loss_optimizer_model_and_method_has_its_own_learning_rate() -> None:
    rows = []
    others: list[dict[str, Any]] = [{}, {"loss": "kl"}, {"optimizer": "Adam"}, {"model": "conv3"}]
    others += [{"method": "datm"}, {"epochs": 5}]
    for number, other in enumerate(others):
        best = 0.1 if number % 2 else 0.2
        rows += [make_row(lr, validation=float(lr == best), **other) for lr in (0.1, 0.2)]
    assert rates(rows) == [0.2, 0.1, 0.2, 0.1, 0.2, 0.1]


def test_of_equal_learning_rates_the_smallest_is_chosen() -> None:
    assert rates([make_row(lr, validation=0.5) for lr in (0.3, 0.1, 0.2)]) == [0.1]


def test_learning_rate_with_a_diverged_seed_is_not_chosen() -> None:
    rows = [make_row(0.1, seed=s, validation=0.5) for s in (0, 1)]
    rows += [make_row(1.0, seed=0, validation=0.9)]
    rows += [make_row(1.0, seed=1, validation=None, status="failed")]
    assert rates(rows) == [0.1, 0.1]


def test_accuracy_of_a_row_that_was_evaluated_on_validation_counts() -> None:
    rows = [
        make_row(lr, validation=None, evaluated_on="validation", accuracy_last=lr) for lr in (0.1, 0.3, 0.2)
    ]
    assert rates(rows) == [0.3]


def test_row_without_a_validation_accuracy_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"none for cell 0\.2-0.*the test accuracy must not choose"):
        best_by_validation([make_row(0.1), make_row(0.2, validation=None)])


def test_no_rows_have_no_choice() -> None:
    assert best_by_validation([]) == []
