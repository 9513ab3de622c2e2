import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from gift_cl.losses import GIFTLoss, gift_loss, refine_labels

N, C = 6, 10
Array = npt.NDArray[np.float64]


def make_batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(N, C, dtype=torch.float64, generator=generator)
    soft_labels = 3 * torch.randn(N, C, dtype=torch.float64, generator=generator) + 1
    labels = torch.randint(C, (N,), generator=generator)
    return logits.to(dtype), soft_labels.to(dtype), labels


def smooth(label: int, num_classes: int, alpha: float) -> Array:
    if num_classes == 1:
        return np.ones(1)
    hard = np.full(num_classes, alpha / (num_classes - 1))
    hard[label] = 1 - alpha
    return hard


def refine_oracle(soft_labels: Tensor, labels: Tensor, weight: float, alpha: float) -> Array:
    rows = []
    for soft, label in zip(soft_labels.numpy(), labels.tolist(), strict=True):
        hard = smooth(label, len(soft), alpha)
        hard_part = weight * hard / np.sqrt((hard**2).sum())
        rows.append(hard_part + (1 - weight) * soft / np.sqrt((soft**2).sum()))
    return np.stack(rows)


def cosine_oracle(logits: Array, targets: Array) -> float:
    cosines = [
        float(row @ target) / math.sqrt(float(row @ row) * float(target @ target))
        for row, target in zip(logits, targets, strict=True)
    ]
    return 1 - sum(cosines) / len(cosines)


OPTIONS = [(1 / 11, 0.1), (0.0, 0.1), (1.0, 0.1), (1.0, 0.0), (0.5, 0.9), (0.25, 0.4)]


@pytest.mark.parametrize(("weight", "alpha"), OPTIONS)
def test_refined_labels_match_the_formula(weight: float, alpha: float) -> None:
    _, soft_labels, labels = make_batch()
    refined = refine_labels(soft_labels, labels, weight=weight, alpha=alpha)
    assert_close(refined.numpy(), refine_oracle(soft_labels, labels, weight, alpha))


@pytest.mark.parametrize(("weight", "alpha"), OPTIONS)
def test_loss_matches_the_formula(weight: float, alpha: float) -> None:
    logits, soft_labels, labels = make_batch()
    targets = refine_oracle(soft_labels, labels, weight, alpha)
    loss = gift_loss(logits, soft_labels, labels, weight=weight, alpha=alpha)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(cosine_oracle(logits.numpy(), targets), rel=1e-12)


def test_loss_has_the_value_computed_by_hand() -> None:
    # Equal parts of two orthogonal unit vectors, against one of them: cosine 1 / sqrt(2).
    logits, soft_labels = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    loss = gift_loss(logits, soft_labels, torch.tensor([0]), weight=0.5, alpha=0.0)
    assert_close(loss, torch.tensor(0.29289322))


def test_loss_with_default_options_has_the_value_computed_by_hand() -> None:
    # Up to scale the target is [0.1 * 9 / sqrt(82), 1 + 0.1 / sqrt(82)] = [0.099388, 1.011043].
    logits, soft_labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    loss = gift_loss(logits, soft_labels, torch.tensor([0]))
    assert_close(loss, torch.tensor(0.90216847))


def test_refined_labels_have_the_values_computed_by_hand() -> None:
    soft_labels = torch.tensor([[0.0, 3.0, 4.0]])
    refined = refine_labels(soft_labels, torch.tensor([0]), weight=0.25, alpha=0.0)
    assert_close(refined, torch.tensor([[0.25, 0.45, 0.6]]))


def test_loss_equals_the_official_form() -> None:
    logits, soft_labels, labels = make_batch()
    hard = np.stack([smooth(label, C, 0.1) for label in labels.tolist()])
    hard /= np.linalg.norm(hard, axis=1, keepdims=True)
    soft = soft_labels.numpy()
    soft = soft / np.linalg.norm(soft, axis=1, keepdims=True)
    official = cosine_oracle(logits.numpy(), soft + 0.1 * hard)
    assert gift_loss(logits, soft_labels, labels).item() == pytest.approx(official, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_loss_ignores_scale_of_logits(scale: float) -> None:
    logits, soft_labels, labels = make_batch()
    scaled = gift_loss(logits * scale, soft_labels, labels)
    assert_close(scaled, gift_loss(logits, soft_labels, labels))


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_loss_ignores_scale_of_soft_labels(scale: float) -> None:
    logits, soft_labels, labels = make_batch()
    scaled = gift_loss(logits, soft_labels * scale, labels)
    assert_close(scaled, gift_loss(logits, soft_labels, labels))


def test_loss_is_zero_for_logits_parallel_to_the_target() -> None:
    _, soft_labels, labels = make_batch()
    logits = 5 * refine_labels(soft_labels, labels)
    assert gift_loss(logits, soft_labels, labels).item() == pytest.approx(0, abs=1e-12)
    assert gift_loss(-logits, soft_labels, labels).item() == pytest.approx(2, abs=1e-12)


def test_gradient_is_orthogonal_to_logits() -> None:
    logits, soft_labels, labels = make_batch()
    logits.requires_grad_()
    gift_loss(logits, soft_labels, labels).backward()
    assert logits.grad is not None
    assert logits.grad.norm() > 0.01
    assert_close((logits.grad * logits).sum(dim=1), torch.zeros(N, dtype=torch.float64))


def test_gradient_shrinks_as_logits_grow() -> None:
    logits, soft_labels, labels = make_batch()

    def gradient(scale: float) -> Tensor:
        scaled = (logits * scale).requires_grad_()
        gift_loss(scaled, soft_labels, labels).backward()
        assert scaled.grad is not None
        return scaled.grad

    assert_close(gradient(4.0) * 4, gradient(1.0))


@pytest.mark.parametrize("weight", [0.0, 1 / 11, 1.0])
def test_gradients_match_finite_differences(weight: float) -> None:
    logits, soft_labels, labels = make_batch()
    inputs = (logits.requires_grad_(), soft_labels.requires_grad_())

    def loss(logits: Tensor, soft_labels: Tensor) -> Tensor:
        return gift_loss(logits, soft_labels, labels, weight=weight)

    assert torch.autograd.gradcheck(loss, inputs)


def test_alpha_hardly_changes_the_gradient() -> None:
    logits, soft_labels, labels = make_batch()

    def gradient(alpha: float) -> Tensor:
        leaf = logits.clone().requires_grad_()
        gift_loss(leaf, soft_labels, labels, alpha=alpha).backward()
        assert leaf.grad is not None
        return leaf.grad

    change = (gradient(0.1) - gradient(0.0)).norm() / gradient(0.0).norm()
    assert 0 < change < 0.01


def test_weight_zero_ignores_hard_labels() -> None:
    logits, soft_labels, labels = make_batch()
    other_labels = (labels + 1) % C
    losses = [gift_loss(logits, soft_labels, hard, weight=0.0) for hard in (labels, other_labels)]
    assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_weight_one_ignores_soft_labels() -> None:
    logits, soft_labels, labels = make_batch()
    losses = [gift_loss(logits, soft, labels, weight=1.0) for soft in (soft_labels, -soft_labels)]
    assert_close(losses[0], losses[1], rtol=0, atol=0)


@pytest.mark.parametrize("zero", ["logits", "soft_labels"])
@pytest.mark.parametrize("weight", [0.0, 1 / 11, 1.0])
def test_zero_rows_give_finite_values_and_moderate_gradients(zero: str, weight: float) -> None:
    logits, soft_labels, labels = make_batch(torch.float32)
    (logits if zero == "logits" else soft_labels)[2] = 0
    logits.requires_grad_()
    soft_labels.requires_grad_()
    loss = gift_loss(logits, soft_labels, labels, weight=weight)
    loss.backward()
    assert loss.isfinite()
    for leaf in (logits, soft_labels):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        # The shortest vector here is the hard part alone, 1/11 long: (10/11) / (1/11) / N < 2.
        assert leaf.grad.abs().max() < 2


def test_zero_logits_count_as_orthogonal_and_move_towards_the_target() -> None:
    _, soft_labels, labels = make_batch()
    logits = torch.zeros(N, C, dtype=torch.float64, requires_grad=True)
    loss = gift_loss(logits, soft_labels, labels)
    loss.backward()
    assert loss.item() == 1
    assert logits.grad is not None
    assert gift_loss(-logits.grad, soft_labels, labels).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_one_class_has_no_smoothing(alpha: float) -> None:
    soft_labels, labels = torch.tensor([[4.0]]), torch.tensor([0])
    refined = refine_labels(soft_labels, labels, alpha=alpha)
    assert_close(refined, torch.tensor([[1.0]]))
    assert gift_loss(torch.tensor([[-2.0]]), soft_labels, labels, alpha=alpha).item() == 2


def test_inputs_are_left_as_they_were() -> None:
    batch = make_batch(torch.float32)
    copies = [tensor.clone() for tensor in batch]
    gift_loss(*batch)
    refine_labels(*batch[1:])
    for tensor, copy in zip(batch, copies, strict=True):
        assert_close(tensor, copy, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, soft_labels, labels = make_batch(dtype)
    loss = gift_loss(logits, soft_labels, labels)
    refined = refine_labels(soft_labels, labels)
    assert_close(loss, gift_loss(logits.float(), soft_labels.float(), labels), rtol=0, atol=0)
    assert_close(refined, refine_labels(soft_labels.float(), labels), rtol=0, atol=0)


def test_stored_half_labels_meet_float_logits() -> None:
    logits, soft_labels, labels = make_batch(torch.float32)
    half = soft_labels.half()
    assert_close(gift_loss(logits, half, labels), gift_loss(logits, half.float(), labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    logits, soft_labels, labels = make_batch(dtype)
    expected = gift_loss(logits, soft_labels, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = gift_loss(logits, soft_labels, labels)
        refined = refine_labels(soft_labels, labels)
        assert torch.is_autocast_enabled("cpu")
    assert refined.dtype == torch.float32
    assert_close(loss, expected, rtol=0, atol=0)


class Recorder(TorchDispatchMode):
    """Notes the size of every tensor that is made, and the operations that made them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: list[int] = []
        self.operations: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.operations.append(str(func))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, Tensor):
                self.sizes.append(tensor.numel())
        return output


def test_no_tensor_is_larger_than_the_logits() -> None:
    logits, soft_labels, labels = make_batch(torch.float32)
    logits.requires_grad_()
    with Recorder() as recorder:
        gift_loss(logits, soft_labels, labels).backward()
    assert max(recorder.sizes) == N * C


def test_no_value_is_read_back() -> None:
    logits, soft_labels, labels = make_batch(torch.float32)
    logits.requires_grad_()
    with Recorder() as recorder:
        gift_loss(logits, soft_labels, labels).backward()
    assert recorder.operations
    assert not [name for name in recorder.operations if "local_scalar" in name or "equal" in name]


def test_loss_needs_no_values() -> None:
    # Meta tensors have none: reading one raises.
    logits, soft_labels, labels = (tensor.to("meta") for tensor in make_batch(torch.float32))
    logits.requires_grad_()
    gift_loss(logits, soft_labels, labels).backward()
    assert logits.grad is not None
    assert refine_labels(soft_labels, labels).shape == (N, C)


def test_module_calls_the_function() -> None:
    logits, soft_labels, labels = make_batch()
    loss = GIFTLoss(weight=0.3, alpha=0.2)(logits, soft_labels, labels)
    assert_close(loss, gift_loss(logits, soft_labels, labels, weight=0.3, alpha=0.2))
    assert_close(GIFTLoss()(logits, soft_labels, labels), gift_loss(logits, soft_labels, labels))


def test_module_prints_its_options() -> None:
    assert repr(GIFTLoss(weight=0.25, alpha=0.0)) == "GIFTLoss(weight=0.25, alpha=0)"


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_weight_outside_its_range_raises(weight: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `weight` in \[0, 1\], got"):
        gift_loss(*make_batch(), weight=weight)
    with pytest.raises(ValueError, match=r"Expected `weight` in \[0, 1\], got"):
        GIFTLoss(weight=weight)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.inf])
def test_alpha_outside_its_range_raises(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `alpha` in \[0, 1\), got"):
        gift_loss(*make_batch(), alpha=alpha)
    with pytest.raises(ValueError, match=r"Expected `alpha` in \[0, 1\), got"):
        refine_labels(*make_batch()[1:], alpha=alpha)


def test_weight_that_is_no_number_raises() -> None:
    with pytest.raises(TypeError, match=r"Expected `weight` to be a number in \[0, 1\], got True"):
        GIFTLoss(weight=True)
