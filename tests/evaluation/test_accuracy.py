from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gift_cl.evaluation.accuracy import Accuracy, measure
from gift_cl.evaluation.cost import forward_flops
from gift_cl.evaluation.memory_limits import TooLargeError
from gift_cl.models import build_model
from gift_cl.normalization import Normalization


class Pixels(nn.Module):
    """Logits are the pixels."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)


class LimitedMemory(nn.Module):
    """Logits are the pixels, of few images at a time."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.limit:
            raise self.error
        self.sizes.append(len(inputs))
        return inputs.flatten(1)


def make_images(ranks: list[list[int]]) -> Tensor:
    return torch.tensor(ranks, dtype=torch.uint8)[:, :, None, None]


RANKS = [[9, 8, 7, 6, 5, 4, 3]] * 5


def test_the_shares_are_those_counted_by_hand() -> None:
    labels = torch.tensor([0, 4, 5, 6, 0])  # first, fifth, sixth, last, first
    assert measure(Pixels(), make_images(RANKS), labels) == Accuracy(top1=0.4, top5=0.6, n=5)


def test_with_few_classes_the_label_is_always_among_the_best_five() -> None:
    images = make_images([[1, 2, 3], [3, 2, 1]])
    assert measure(Pixels(), images, torch.tensor([0, 0])) == Accuracy(top1=0.5, top5=1.0, n=2)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_size_of_batches_does_not_matter(batch_size: int) -> None:
    labels = torch.tensor([0, 4, 5, 6, 0])
    assert measure(Pixels(), make_images(RANKS), labels, batch_size=batch_size).top1 == 0.4


def test_images_are_scaled_and_normalised() -> None:
    # The first pixel is the larger one, unless the second channel's mean is taken off.
    images, labels = make_images([[100, 90]]), torch.tensor([1])
    normalization = Normalization((0.5, 0.1), (0.5, 0.5))
    assert measure(Pixels(), images, labels).top1 == 0
    assert measure(Pixels(), images, labels, normalization=normalization).top1 == 1
    assert measure(Pixels(), images.float() / 255, labels, normalization=normalization).top1 == 1


def test_what_comes_first_sees_the_images_as_they_are() -> None:
    seen = []

    def inverted(images: Tensor) -> Tensor:
        seen.append(images)
        return 255 - images.float()

    accuracy = measure(Pixels(), make_images([[3, 9]] * 3), torch.zeros(3).long(), preprocess=inverted)
    assert accuracy.top1 == 1
    assert seen[0].dtype == torch.uint8


def test_the_mode_of_every_module_is_restored() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.BatchNorm1d(7), nn.Linear(7, 7)).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, make_images(RANKS), torch.zeros(5).long())
    assert [module.training for module in model] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_is_measured_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.999)).train()
    assert measure(model, make_images(RANKS), torch.zeros(5).long()).top1 == 1


def test_the_forward_pass_has_the_precision_asked_for() -> None:
    types = []

    class Spy(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs.flatten(1))
            types.append(outputs.dtype)
            return outputs

    for precision in ("float32", "bfloat16"):
        measure(Spy(7, 7), make_images(RANKS), torch.zeros(5).long(), precision=precision)
    assert types == [torch.float32, torch.bfloat16]


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_batches_are_halved_while_they_do_not_fit(error: Exception) -> None:
    model = LimitedMemory(2, error)
    labels = torch.tensor([0, 4, 5, 6, 0])
    assert measure(model, make_images(RANKS), labels, batch_size=4) == Accuracy(0.4, 0.6, 5)
    assert model.sizes == [2, 2, 1]


def test_a_single_image_that_does_not_fit_is_an_error_with_a_name() -> None:
    with pytest.raises(TooLargeError, match="single image does not fit the memory of a measurement"):
        measure(LimitedMemory(0, ERRORS[0]), make_images(RANKS), torch.zeros(5).long())


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        measure(LimitedMemory(1, RuntimeError("shapes")), make_images(RANKS), torch.zeros(5).long())


@pytest.mark.parametrize(("num_images", "num_labels"), [(0, 0), (5, 4)])
def test_images_without_labels_are_refused(num_images: int, num_labels: int) -> None:
    with pytest.raises(ValueError, match="one label for each of at least one image, got"):
        measure(Pixels(), make_images(RANKS)[:num_images], torch.zeros(num_labels).long())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # Two for each product and sum; biases, norms and activations are not counted.
        ("mlp:hidden=5", 2 * (64 * 5 + 5 * 3)),
        ("conv3:width=2", 2 * (64 * 9 * 2 + 16 * 9 * 2 * 2 + 4 * 9 * 2 * 2 + 2 * 3)),
    ],
)
def test_operations_of_a_forward_pass_are_those_counted_by_hand(spec: str, expected: int) -> None:
    model = build_model(spec, in_channels=1, image_size=8, num_classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert forward_flops(model, (1, 8, 8)) == expected
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_accuracy_of_a_trained_batch_norm_does_not_depend_on_the_batch() -> None:
    model: Any = build_model("conv3:width=4", in_channels=1, image_size=8, num_classes=3)
    images = torch.randint(
        0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model(images.float() / 255)
    labels = torch.arange(20) % 3
    assert measure(model, images, labels, batch_size=3) == measure(model, images, labels, batch_size=20)
