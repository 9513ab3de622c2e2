import pytest
import torch

from gift_cl.soft_labels import SoftLabels, coverage_nbytes, extend

NAN = float("nan")


def make() -> tuple[SoftLabels, torch.Tensor, torch.Tensor]:
    """Three exemplars of classes 2, 0, 2; class 0 was labelled when only 0 and 1 were known."""
    labels = torch.tensor([2, 0, 2])
    logits = torch.arange(3 * 2 * 3, dtype=torch.float32).view(3, 2, 3)
    covered = {0: (0, 1), 2: (0, 1, 2)}
    return SoftLabels.from_logits(logits, labels, covered), labels, logits


def test_only_covered_logits_are_stored() -> None:
    soft, _, _ = make()
    assert soft.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13, 14, 15, 16, 17]


def test_dense_puts_logits_back_and_marks_unknown_classes() -> None:
    soft, labels, logits = make()
    dense = soft.dense(labels, range(3)).float()
    expected = logits.clone()
    expected[1, :, 2] = NAN
    torch.testing.assert_close(dense, expected, equal_nan=True)


def test_dense_follows_the_order_of_the_classes_asked_for() -> None:
    soft, labels, logits = make()
    dense = soft.dense(labels, [2, 7, 0]).float()
    torch.testing.assert_close(
        dense[0],
        torch.stack([logits[0, :, 2], logits[0, :, 0] * NAN, logits[0, :, 0]], 1),
        equal_nan=True,
    )


def test_bytes_are_half_precision_logits_and_a_bit_for_each_pair() -> None:
    soft, _, _ = make()
    assert soft.nbytes(num_classes=10) == 2 * 16 + 2 * 2
    assert coverage_nbytes({0: (), 1: ()}, 9) == 4


def test_view_parameters_are_charged() -> None:
    soft, labels, logits = make()
    views = torch.zeros(3, 2, 3, dtype=torch.int8)
    with_views = SoftLabels.from_logits(logits, labels, soft.covered, views=views)
    assert with_views.nbytes(10) == soft.nbytes(10) + 18


def test_selection_keeps_the_rows_it_names() -> None:
    soft, labels, _ = make()
    indices = torch.tensor([2, 1])
    chosen = soft.select(indices, labels)
    torch.testing.assert_close(
        chosen.dense(labels[indices], range(3)),
        soft.dense(labels, range(3))[indices],
        equal_nan=True,
    )


def test_parts_are_assembled_in_the_order_of_their_rows() -> None:
    soft, labels, _ = make()
    parts = [(rows, soft.select(rows, labels)) for rows in (torch.tensor([1]), torch.tensor([0, 2]))]
    again = SoftLabels.assemble(labels, parts, num_classes=3)
    torch.testing.assert_close(again.values, soft.values)
    assert dict(again.covered) == dict(soft.covered)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        SoftLabels(torch.tensor([1.0, NAN]).half(), {0: (0, 1)}, 1)


def test_values_of_other_exemplars_are_refused() -> None:
    soft, labels, _ = make()
    with pytest.raises(ValueError, match="belong to other exemplars"):
        soft.dense(labels[:2], range(3))


@pytest.mark.parametrize(("mode", "expected"), [("row_min", -1.0), ("row_mean", 1.0), ("zero", 0.0)])
def test_unknown_classes_are_extended(mode: str, expected: float) -> None:
    row = torch.tensor([[3.0, NAN, -1.0]])
    torch.testing.assert_close(extend(row, mode), torch.tensor([[3.0, expected, -1.0]]))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["row_min", "row_mean", "zero"])
def test_a_row_that_knows_nothing_becomes_zeros(mode: str) -> None:
    assert extend(torch.full((1, 3), NAN), mode).tolist() == [[0, 0, 0]]  # type: ignore[arg-type]


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(ValueError, match="row_min, row_mean or zero"):
        extend(torch.zeros(1, 2), "max")  # type: ignore[arg-type]


def test_published_logits_keep_their_precision() -> None:
    logits, labels = torch.tensor([[[0.1, 1 / 3]]]), torch.tensor([1])
    soft = SoftLabels.from_logits(logits, labels, {1: (0, 1)}, dtype=torch.float32)
    assert torch.equal(soft.dense(labels, (0, 1)), logits)
    assert torch.equal(soft.select(torch.tensor([0]), labels).values, logits.flatten())
    assert soft.nbytes(2) == 2 * 4 + 1


def test_dense_rows_are_those_asked_for() -> None:
    labels = torch.tensor([0, 1, 0])
    logits = torch.arange(12.0).view(3, 2, 2)
    soft = SoftLabels.from_logits(logits, labels, {0: (0, 1), 1: (1,)})
    chosen = torch.tensor([2, 1, 2])
    rows = soft.dense(labels, (0, 1), chosen)
    torch.testing.assert_close(rows, soft.dense(labels, (0, 1))[chosen], rtol=0, atol=0, equal_nan=True)
