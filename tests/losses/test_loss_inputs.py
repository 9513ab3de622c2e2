import pytest
import torch
from torch import Tensor

from gift_cl.losses import gift_loss, refine_labels

N, C = 6, 10


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.ones(N, C), torch.ones(N, C), torch.zeros(N, dtype=torch.int64)


def test_empty_batch_raises() -> None:
    logits, labels = torch.ones(0, C), torch.ones(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"at least one row .*`logits`, got shape .* \(0, 10\)"):
        gift_loss(logits, logits, labels)
    with pytest.raises(ValueError, match=r"at least one row .*`soft_labels`"):
        refine_labels(logits, labels)


def test_single_row_without_batch_raises() -> None:
    logits = torch.ones(C)
    with pytest.raises(ValueError, match=r"`logits` of shape \(N, C\), got \(10,\)"):
        gift_loss(logits, logits, torch.tensor(0))


def test_soft_labels_of_fewer_classes_raise() -> None:
    logits, soft_labels, labels = make_batch()
    expected = r"`soft_labels` of shape \(N, C\) = \(6, 10\), got \(6, 8\)\..*fewer classes"
    with pytest.raises(ValueError, match=expected):
        gift_loss(logits, soft_labels[:, :8], labels)


def test_integer_logits_raise() -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(TypeError, match=r"`logits` of a floating dtype, got torch\.int64"):
        gift_loss(logits.long(), soft_labels, labels)


def test_missing_soft_labels_raise() -> None:
    logits, _, labels = make_batch()
    expected = r"`soft_labels` to be a tensor, got NoneType\. Label the images"
    with pytest.raises(TypeError, match=expected):
        gift_loss(logits, None, labels)  # type: ignore[arg-type]


def test_labels_of_another_shape_raise() -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(ValueError, match=r"`labels` of shape \(N,\) = \(6,\), got \(6, 1\)"):
        gift_loss(logits, soft_labels, labels.unsqueeze(1))


def test_labels_that_are_no_class_numbers_raise() -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(TypeError, match=r"dtype torch\.int64, got torch\.float32.*labels\.long"):
        gift_loss(logits, soft_labels, labels.float())
    with pytest.raises(TypeError, match="`labels` to be a tensor, got list"):
        gift_loss(logits, soft_labels, labels.tolist())  # type: ignore[arg-type]


def test_labels_beyond_the_classes_raise_on_cpu() -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(RuntimeError, match="index 10 is out of bounds"):
        gift_loss(logits, soft_labels, labels + C)
