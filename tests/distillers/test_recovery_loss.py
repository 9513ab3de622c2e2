import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.recovery_loss import RecoveryLoss, total_variation
from gift_cl.models import build_model
from gift_cl.teacher import Teacher, UnseenClassError

SEEN = (0, 1, 3)


class Net(nn.Module):
    """Two batch norms and five outputs; ``viewed`` reshapes as only contiguous features can be."""

    def __init__(self, viewed: bool = False) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
        self.classifier = nn.Linear(12, 5)
        self.viewed = viewed

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What enters each batch norm."""
        first = self.conv1(images)
        return first, self.conv2(self.norm1(first).tanh())

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm2(self.features(images)[1]).tanh()
        flat = hidden.view(len(hidden), -1) if self.viewed else hidden.flatten(1)
        logits: Tensor = self.classifier(flat)
        return logits


def make_teacher(viewed: bool = False, *, classes: tuple[int, ...] = SEEN, oracle: bool = False) -> Teacher:
    torch.manual_seed(0)
    net = Net(viewed).double()
    for norm in (net.norm1, net.norm2):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return Teacher(net, classes=classes, oracle=oracle)


def make_loss(teacher: Teacher, classes: tuple[int, ...] = (1, 3), **weights: float) -> RecoveryLoss:
    options: dict[str, Any] = {"bn_weight": 0.0, "first_bn": 10.0, "tv": 0.0, "l2": 0.0, **weights}
    return RecoveryLoss(teacher, torch.tensor(classes), make_inputs()[:2], method="sre2l", **options)


def make_inputs() -> Tensor:
    return torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([1, 3, 3, 1])


def answer(loss: RecoveryLoss, inputs: Tensor, labels: Tensor = LABELS) -> tuple[Tensor, Tensor]:
    """Loss and its gradient."""
    inputs = inputs.clone().requires_grad_()
    with loss.statistics:
        value = loss(inputs, labels)
    return value.detach(), torch.autograd.grad(value, inputs)[0]


def cross_entropy_by_hand(teacher: Teacher, inputs: Tensor, columns: tuple[int, ...] = SEEN) -> Tensor:
    """Image after image, with the columns of the classes that the teacher has seen."""
    losses = []
    for image, label in zip(inputs, LABELS.tolist(), strict=True):
        logits = teacher.model(image[None])[0]
        losses.append(sum(logits[c].exp() for c in columns).log() - logits[label])
    return torch.stack(losses).mean()


def distance_by_hand(teacher: Teacher, inputs: Tensor, first: float) -> Tensor:
    """Channel after channel."""
    total = torch.zeros((), dtype=torch.float64)
    net: Any = teacher.model
    weights_and_norms = ((first, net.norm1), (1.0, net.norm2))
    for (weight, norm), hidden in zip(weights_and_norms, net.features(inputs), strict=True):
        channels = [hidden[:, c] for c in range(hidden.shape[1])]
        means = [values.sum() / values.numel() for values in channels]
        variances = [((v - m) ** 2).sum() / v.numel() for v, m in zip(channels, means, strict=True)]
        of_means = sum((r - m) ** 2 for r, m in zip(norm.running_mean, means, strict=True))
        of_variances = sum((r - v) ** 2 for r, v in zip(norm.running_var, variances, strict=True))
        total = total + weight * (of_means.sqrt() + of_variances.sqrt())
    return total


def variation_by_hand(inputs: Tensor) -> Tensor:
    """Pixel after pixel."""
    total = torch.zeros((), dtype=inputs.dtype)
    height, width = inputs.shape[2:]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = [
            (inputs[:, :, row, column] - inputs[:, :, row + down, column + right]).square().sum()
            for row in range(height - down)
            for column in range(max(0, -right), width - max(0, right))
        ]
        total = total + torch.stack(squares).sum().sqrt()
    return total


def norm_by_hand(inputs: Tensor) -> Tensor:
    return torch.stack([(image * image).sum().sqrt() for image in inputs]).mean()


@pytest.mark.parametrize(
    ("bn_weight", "first", "tv", "l2"),
    [(0.0, 10.0, 0.0, 0.0), (0.01, 10.0, 0.0, 0.0), (2.0, 1.0, 0.0, 0.0), (0.5, 10.0, 0.3, 0.7)],
)
@pytest.mark.parametrize("viewed", [False, True])
def test_value_and_gradient_are_those_by_hand(
    bn_weight: float, first: float, tv: float, l2: float, viewed: bool
) -> None:
    teacher, inputs = make_teacher(viewed), make_inputs().requires_grad_()
    expected = cross_entropy_by_hand(teacher, inputs)
    expected = expected + bn_weight * distance_by_hand(teacher, inputs, first)
    expected = expected + tv * variation_by_hand(inputs) + l2 * norm_by_hand(inputs)
    (by_hand,) = torch.autograd.grad(expected, inputs)
    value, gradient = answer(
        make_loss(teacher, bn_weight=bn_weight, first_bn=first, tv=tv, l2=l2), inputs.detach()
    )
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, by_hand)
    assert float(gradient.abs().max()) > 1e-3


def test_pinned_total_variation() -> None:
    image = torch.tensor([[0.0, 3.0], [4.0, 4.0]]).view(1, 1, 2, 2)
    # Across: 3 and 0; down: 4 and 1; falling: 4; rising: 1.
    assert float(total_variation(image)) == pytest.approx(3 + math.sqrt(17) + 4 + 1)


def test_a_plain_batch_has_no_variation() -> None:
    plain = torch.full((2, 3, 4, 4), 0.3, requires_grad=True)
    variation = total_variation(plain)
    assert variation.item() == 0
    assert torch.autograd.grad(variation, plain)[0].abs().max() == 0


def test_what_the_teacher_says_of_classes_it_has_not_seen_does_not_matter() -> None:
    teacher, inputs = make_teacher(), make_inputs()
    before = answer(make_loss(teacher), inputs)
    net: Any = teacher.model
    net.classifier.weight[2] += 5
    net.classifier.bias[4] += 5
    torch.testing.assert_close(answer(make_loss(teacher), inputs), before)
    net.classifier.bias[0] += 5
    assert float(answer(make_loss(teacher), inputs)[0] - before[0]) > 0.5


def test_an_oracle_answers_for_the_classes_asked_too() -> None:
    teacher, inputs = make_teacher(classes=(0, 1), oracle=True), make_inputs()
    expected = cross_entropy_by_hand(teacher, inputs, (0, 1, 3))
    torch.testing.assert_close(answer(make_loss(teacher), inputs)[0], expected)


def test_the_order_of_the_images_does_not_matter() -> None:
    loss, inputs = make_loss(make_teacher(), bn_weight=1.0), make_inputs()
    value, gradient = answer(loss, inputs)
    turned, turned_gradient = answer(loss, inputs.flip(0), LABELS.flip(0))
    torch.testing.assert_close(turned, value)
    torch.testing.assert_close(turned_gradient.flip(0), gradient)


def test_a_teacher_without_an_output_for_a_class_is_refused() -> None:
    teacher = make_teacher(classes=(0, 6))
    with pytest.raises(
        UnseenClassError, match=r"output for each of the classes \[0, 6\], got 5 outputs. Pass the classes"
    ):
        make_loss(teacher, (0,))


def test_a_teacher_that_diverged_is_refused() -> None:
    teacher = make_teacher()
    teacher.model.get_submodule("classifier").bias.fill_(float("inf"))  # type: ignore[operator]
    with pytest.raises(ValueError, match="`sre2l` got NaN or infinite values from its teacher"):
        make_loss(teacher)


def test_images_that_the_teacher_cannot_take_are_refused_in_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="3 channels"):
        RecoveryLoss(
            make_teacher(),
            torch.tensor([1]),
            torch.zeros(1, 2, 6, 6, dtype=torch.float64),
            method="sre2l",
            bn_weight=1,
            first_bn=1,
            tv=0,
            l2=0,
        )


def test_a_network_without_batch_norm_is_refused() -> None:
    model = build_model("mlp:hidden=4", in_channels=3, image_size=6, num_classes=5).double()
    with pytest.raises(ValueError, match="got MLP without any.*such as `conv3`"):
        make_loss(Teacher(model, classes=SEEN))
