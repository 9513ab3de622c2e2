import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gift_cl.losses import (
    ce_loss,
    cosine_loss,
    gift_loss,
    kl_loss,
    mse_ce_loss,
    mse_loss,
    soft_ce_ce_loss,
    soft_ce_loss,
)

N, C = 5, 7
Array = npt.NDArray[np.float64]
Rival = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(N, C, dtype=torch.float64, generator=generator)
    soft_labels = 2 * torch.randn(N, C, dtype=torch.float64, generator=generator)
    labels = torch.randint(C, (N,), generator=generator)
    return logits.to(dtype), soft_labels.to(dtype), labels


def softmax(logits: Array) -> Array:
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Array = powers / powers.sum(axis=1, keepdims=True)
    return probs


def cosine_oracle(student: Array, teacher: Array, hard: Array) -> float:
    lengths = np.linalg.norm(student, axis=1) * np.linalg.norm(teacher, axis=1)
    return float(1 - ((student * teacher).sum(axis=1) / lengths).mean())


def kl_oracle(student: Array, teacher: Array, hard: Array, temperature: float = 20.0) -> float:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return float((p * np.log(p / q)).sum() / len(p))


def soft_ce_oracle(student: Array, teacher: Array, hard: Array, temperature: float = 1.0) -> float:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return float(-(p * np.log(q)).sum() / len(p))


def mse_oracle(student: Array, teacher: Array, hard: Array) -> float:
    return float(((student - teacher) ** 2).sum() / student.size)


def ce_oracle(student: Array, teacher: Array, hard: Array) -> float:
    return float(-(hard * np.log(softmax(student))).sum() / len(hard))


CASES: dict[str, tuple[Rival, Callable[[Array, Array, Array], float]]] = {
    "cosine": (cosine_loss, cosine_oracle),
    "kl": (kl_loss, kl_oracle),
    "kl at 4": (partial(kl_loss, temperature=4.0), partial(kl_oracle, temperature=4.0)),
    "kl at 4, scaled": (
        partial(kl_loss, temperature=4, t2=True),
        lambda student, teacher, hard: 16 * kl_oracle(student, teacher, hard, temperature=4.0),
    ),
    "softce": (soft_ce_loss, soft_ce_oracle),
    "softce at 3": (
        partial(soft_ce_loss, temperature=3.0),
        partial(soft_ce_oracle, temperature=3.0),
    ),
    "mse": (mse_loss, mse_oracle),
    "ce": (ce_loss, ce_oracle),
    "mse_ce": (mse_ce_loss, lambda *arrays: mse_oracle(*arrays) + 0.1 * ce_oracle(*arrays)),
    "mse_ce at 2": (
        partial(mse_ce_loss, ce_weight=2.0),
        lambda *arrays: mse_oracle(*arrays) + 2 * ce_oracle(*arrays),
    ),
    "softce_ce": (
        soft_ce_ce_loss,
        lambda *arrays: soft_ce_oracle(*arrays) + 0.1 * ce_oracle(*arrays),
    ),
    "softce_ce at 0": (partial(soft_ce_ce_loss, ce_weight=0), soft_ce_oracle),
}
each_case = pytest.mark.parametrize(("loss", "oracle"), CASES.values(), ids=CASES)
each_loss = pytest.mark.parametrize("loss", [loss for loss, _ in CASES.values()], ids=CASES)


@each_case
def test_rival_matches_its_formula(loss: Rival, oracle: Callable[[Array, Array, Array], float]) -> None:
    logits, soft_labels, labels = make_batch()
    value = loss(logits, soft_labels, labels)
    expected = oracle(logits.numpy(), soft_labels.numpy(), np.eye(C)[labels.numpy()])
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-12)


# Student logits [0, 0] give one half to each class; teacher logits [0, log 3] are 1/4 and 3/4.
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (cosine_loss, 1.0),
        (partial(kl_loss, temperature=1.0), 0.75 * math.log(3) - math.log(2)),
        (soft_ce_loss, math.log(2)),
        (mse_loss, math.log(3) ** 2 / 2),
        (ce_loss, math.log(2)),
        (mse_ce_loss, math.log(3) ** 2 / 2 + 0.1 * math.log(2)),
        (soft_ce_ce_loss, 1.1 * math.log(2)),
    ],
)
def test_rival_has_the_value_computed_by_hand(loss: Rival, expected: float) -> None:
    logits, soft_labels = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    assert loss(logits, soft_labels, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)


@each_loss
def test_rival_gradients_match_finite_differences(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch()
    inputs = (logits.requires_grad_(), soft_labels.requires_grad_())

    def loss_of(logits: Tensor, soft_labels: Tensor) -> Tensor:
        return loss(logits, soft_labels, labels)

    assert torch.autograd.gradcheck(loss_of, inputs)


def test_cosine_ignores_scale_of_logits_and_soft_labels() -> None:
    logits, soft_labels, labels = make_batch()
    scaled = cosine_loss(logits * 9, soft_labels * 0.01, labels)
    assert_close(scaled, cosine_loss(logits, soft_labels, labels))


def test_cosine_gradient_is_orthogonal_to_logits() -> None:
    logits, soft_labels, labels = make_batch()
    logits.requires_grad_()
    cosine_loss(logits, soft_labels, labels).backward()
    assert logits.grad is not None
    assert_close((logits.grad * logits).sum(dim=1), torch.zeros(N, dtype=torch.float64))


def test_cosine_is_gift_without_hard_labels() -> None:
    batch = make_batch()
    assert_close(cosine_loss(*batch), gift_loss(*batch, weight=0.0))


@pytest.mark.parametrize("loss", [kl_loss, soft_ce_loss, soft_ce_ce_loss])
def test_softmax_losses_ignore_offsets(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch()
    shifted = loss(logits + 5, soft_labels - 3, labels)
    assert_close(shifted, loss(logits, soft_labels, labels))


@pytest.mark.parametrize("loss", [kl_loss, mse_loss, cosine_loss])
def test_distances_vanish_when_student_equals_teacher(loss: Rival) -> None:
    _, soft_labels, labels = make_batch()
    assert loss(soft_labels, soft_labels, labels).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [cosine_loss, kl_loss, soft_ce_loss, mse_loss])
def test_soft_losses_ignore_hard_labels(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch()
    other = loss(logits, soft_labels, (labels + 1) % C)
    assert_close(other, loss(logits, soft_labels, labels), rtol=0, atol=0)


def test_unscaled_kl_gradient_falls_with_squared_temperature() -> None:
    logits, soft_labels, labels = make_batch()

    def gradient_norm(*, t2: bool) -> float:
        leaf = logits.clone().requires_grad_()
        kl_loss(leaf, soft_labels, labels, t2=t2).backward()
        assert leaf.grad is not None
        return float(leaf.grad.norm())

    assert gradient_norm(t2=True) == pytest.approx(400 * gradient_norm(t2=False))


def test_kl_stays_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = kl_loss(logits, torch.tensor([[-1e4, 1e4]]), torch.tensor([0]), temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_ce_ignores_soft_labels() -> None:
    logits, soft_labels, labels = make_batch()
    without = ce_loss(logits, None, labels)
    assert_close(without, ce_loss(logits, soft_labels, labels), rtol=0, atol=0)


@each_loss
def test_rival_is_finite_for_zero_rows(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch(torch.float32)
    logits[0] = 0
    soft_labels[1] = 0
    logits.requires_grad_()
    value = loss(logits, soft_labels, labels)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 10


@pytest.mark.parametrize("loss", [kl_loss, soft_ce_loss, ce_loss, soft_ce_ce_loss])
def test_one_class_leaves_softmax_losses_nothing_to_learn(loss: Rival) -> None:
    assert loss(torch.tensor([[2.0]]), torch.tensor([[5.0]]), torch.tensor([0])).item() == 0


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rival_under_autocast_equals_float32(loss: Rival, dtype: torch.dtype) -> None:
    logits, soft_labels, labels = make_batch(dtype)
    expected = loss(logits.float(), soft_labels.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, soft_labels, labels)
    assert_close(value, expected, rtol=0, atol=0)
    assert value.dtype == torch.float32


@each_loss
def test_rival_needs_no_values(loss: Rival) -> None:
    # Meta tensors have none: reading one raises.
    logits, soft_labels, labels = (tensor.to("meta") for tensor in make_batch(torch.float32))
    logits.requires_grad_()
    loss(logits, soft_labels, labels).backward()
    assert logits.grad is not None


@each_loss
def test_rival_refuses_empty_batches(loss: Rival) -> None:
    logits, labels = torch.ones(0, C), torch.ones(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="Expected at least one row"):
        loss(logits, logits, labels)


@pytest.mark.parametrize("loss", [loss for name, (loss, _) in CASES.items() if name != "ce"])
def test_rival_refuses_soft_labels_of_another_shape(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(ValueError, match=r"`soft_labels` of shape \(N, C\) = \(5, 7\), got \(5, 6\)"):
        loss(logits, soft_labels[:, 1:], labels)


@each_loss
def test_rival_refuses_one_hot_hard_labels(loss: Rival) -> None:
    logits, soft_labels, labels = make_batch()
    with pytest.raises(ValueError, match=r"`labels` of shape \(N,\) = \(5,\), got \(5, 7\)"):
        loss(logits, soft_labels, torch.eye(C)[labels])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_outside_its_range_raises(temperature: float) -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match=r"Expected `temperature` in \(0, inf\), got"):
        kl_loss(*batch, temperature=temperature)
    with pytest.raises(ValueError, match=r"Expected `temperature` in \(0, inf\), got"):
        soft_ce_loss(*batch, temperature=temperature)


@pytest.mark.parametrize("ce_weight", [-0.1, math.inf])
def test_ce_weight_outside_its_range_raises(ce_weight: float) -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match=r"Expected `ce_weight` in \[0, inf\), got"):
        mse_ce_loss(*batch, ce_weight=ce_weight)
    with pytest.raises(ValueError, match=r"Expected `ce_weight` in \[0, inf\), got"):
        soft_ce_ce_loss(*batch, ce_weight=ce_weight)


def test_t2_that_is_neither_true_nor_false_raises() -> None:
    with pytest.raises(TypeError, match="Expected `t2` to be true or false, got 1"):
        kl_loss(*make_batch(), t2=1)  # type: ignore[arg-type]
