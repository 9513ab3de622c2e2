from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gift_cl.distillers.conv_statistics import (
    StatisticsMatching,
    as_statistics,
    measure_convolutions,
    patch_moments,
)
from gift_cl.models import MLP

Array = NDArray[np.float64]
both_formats = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


class Net(nn.Module):
    """Statistics are learned at `first`, `norm` and `second`; `spare` is never run."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.spare = nn.Conv2d(1, 1, 1)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(torch.relu(self.norm(self.first(images))))
        logits: Tensor = self.classifier(hidden.mean((2, 3)))
        return logits


def make_net() -> Net:
    torch.manual_seed(0)
    net = Net()
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    net.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
    net.norm.running_var.copy_(torch.tensor([0.5, 1.0, 1.5]))
    return net.eval().requires_grad_(False)


def make_images(count: int = 5, shape: Sequence[int] = (2, 8, 8), seed: int = 0, dtype: Any = None) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def entering(net: Net, images: Tensor) -> dict[str, Array]:
    """What enters each layer, without hooks."""
    convolved = net.first(images)
    return {
        "first": images.detach().double().numpy(),
        "norm": convolved.detach().double().numpy(),
        "second": torch.relu(net.norm(convolved)).detach().double().numpy(),
    }


def by_channel(inputs: Array) -> Array:
    return np.array([[inputs[:, c].mean() for c in range(inputs.shape[1])], inputs.var((0, 2, 3))])


def by_patch(inputs: Array, patch: int) -> Array:
    _, _, height, width = inputs.shape
    tiles = [
        inputs[:, :, top : top + patch, left : left + patch]
        for top in range(0, height, patch)
        for left in range(0, width, patch)
    ]
    return np.array([[tile.mean() for tile in tiles], [tile.var() for tile in tiles]])


def enlarge(inputs: Array, height: int, width: int) -> Array:
    """Bilinear, pixel by pixel; corners are not aligned."""
    n, c, old_height, old_width = inputs.shape
    result = np.zeros((n, c, height, width))
    for row in range(height):
        for column in range(width):
            y = max((row + 0.5) * old_height / height - 0.5, 0)
            x = max((column + 0.5) * old_width / width - 0.5, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
            upper = (1 - (x - left)) * inputs[:, :, top, left] + (x - left) * inputs[:, :, top, right]
            lower = (1 - (x - left)) * inputs[:, :, bottom, left] + (x - left) * inputs[:, :, bottom, right]
            result[:, :, row, column] = (1 - (y - top)) * upper + (y - top) * lower
    return result


# Statistics


@both_formats
@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 4), (4, 4, 4), (6, 3, 1), (9, 6, 3)])
def test_statistics_are_those_of_channels_and_tiles(
    height: int, width: int, patch: int, memory_format: torch.memory_format
) -> None:
    images = make_images(3, (2, height, width), dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = np.concatenate([by_channel(images.numpy()), by_patch(images.numpy(), patch)], 1)
    torch.testing.assert_close(as_statistics(patch_moments(images, patch)), torch.from_numpy(expected))


@both_formats
@pytest.mark.parametrize(
    ("height", "width", "patch", "size"),
    [(5, 7, 4, (8, 8)), (2, 2, 4, (4, 4)), (1, 3, 4, (4, 4)), (4, 6, 4, (4, 8))],
)
def test_inputs_that_do_not_divide_are_enlarged_for_the_tiles_alone(
    height: int, width: int, patch: int, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    images = make_images(3, (2, height, width), dtype=torch.float64).contiguous(memory_format=memory_format)
    larger = enlarge(images.numpy(), *size)
    expected = np.concatenate([by_channel(images.numpy()), by_patch(larger, patch)], 1)
    torch.testing.assert_close(as_statistics(patch_moments(images, patch)), torch.from_numpy(expected))


def test_a_single_position_is_a_patch() -> None:
    images = make_images(6, (3, 1, 1), dtype=torch.float64)
    expected = np.concatenate([by_channel(images.numpy()), by_patch(enlarge(images.numpy(), 4, 4), 4)], 1)
    torch.testing.assert_close(as_statistics(patch_moments(images, 4)), torch.from_numpy(expected))


def test_pinned_moments() -> None:
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    expected = torch.tensor([[2.5, 0.5, 0.5, 1.0, 1.5, 3.0], [7.5, 1.0, 0.5, 2.0, 4.5, 10.0]])
    torch.testing.assert_close(patch_moments(images, 1), expected)


@both_formats
@pytest.mark.parametrize("side", [1, 3, 4])
def test_moments_have_the_right_gradient(side: int, memory_format: torch.memory_format) -> None:
    images = make_images(3, (2, side, side), dtype=torch.float64).contiguous(memory_format=memory_format)
    assert torch.autograd.gradcheck(partial(patch_moments, patch=2), images.requires_grad_())


def test_gradients_keep_the_memory_format() -> None:
    images = make_images().contiguous(memory_format=torch.channels_last).requires_grad_()
    patch_moments(images, 4).sum().backward()
    assert images.grad is not None
    assert images.grad.is_contiguous(memory_format=torch.channels_last)


# Real images


def test_batches_are_measured_as_if_they_were_one() -> None:
    net, images = make_net(), make_images(7)
    measured = measure_convolutions(net, images.split(3), patch=4)
    assert measured.keys() == {"first", "second"}
    for name in measured:
        inputs = entering(net, images)[name]
        expected = np.concatenate([by_channel(inputs), by_patch(inputs, 4)], 1)
        torch.testing.assert_close(measured[name], torch.from_numpy(expected).float())


def test_a_measured_network_is_as_before() -> None:
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_convolutions(net, [make_images()], patch=4)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(layer._forward_pre_hooks for layer in net.modules())


# Matching


def make_matching(net: nn.Module, *, seed: int = 1, **options: float) -> StatisticsMatching:
    settings: dict[str, Any] = {"patch": 4, "momentum": 0.0, "first": 1.0, "drop": 0.0} | options
    return StatisticsMatching(
        net, measure_convolutions(net, [make_images(9, seed=seed)], patch=4), **settings
    )


def statistics_of(net: Net, images: Tensor) -> dict[str, list[Array]]:
    """Of each layer, arrays (2, n) whose means and variances have a norm each."""
    inputs = entering(net, images)
    return {
        "first": [by_channel(inputs["first"]), by_patch(inputs["first"], 4)],
        "norm": [by_channel(inputs["norm"])],
        "second": [by_channel(inputs["second"]), by_patch(inputs["second"], 4)],
    }


def real_statistics(net: Net, *, seed: int = 1) -> dict[str, list[Array]]:
    real = statistics_of(net, make_images(9, seed=seed))
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    running = torch.stack([net.norm.running_mean, net.norm.running_var])
    return real | {"norm": [running.double().numpy()]}


def distances(found: dict[str, list[Array]], real: dict[str, list[Array]]) -> dict[str, float]:
    return {
        name: float(
            sum(
                np.linalg.norm(a[row] - b[row])
                for a, b in zip(found[name], real[name], strict=True)
                for row in (0, 1)
            )
        )
        for name in real
    }


def call(matching: StatisticsMatching, images: Tensor, *, seed: int = 0) -> float:
    return float(matching(images, torch.Generator().manual_seed(seed))[1].detach())


@pytest.mark.parametrize("first", [1.0, 10.0, 0.0])
def test_the_distance_is_the_sum_of_norms_over_layers(first: float) -> None:
    net, images = make_net(), make_images()
    parts = distances(statistics_of(net, images), real_statistics(net))
    expected = first * parts["first"] + parts["norm"] + parts["second"]
    assert call(make_matching(net, first=first), images) == pytest.approx(expected, rel=1e-4)


def test_the_logits_are_those_of_the_network() -> None:
    net, images = make_net(), make_images()
    logits, _ = make_matching(net)(images, torch.Generator())
    torch.testing.assert_close(logits, net(images))


def test_real_images_themselves_are_at_no_distance() -> None:
    net = make_net()
    images = make_images(9, seed=1)
    running = by_channel(entering(net, images)["norm"])
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    net.norm.running_mean.copy_(torch.from_numpy(running[0]))
    net.norm.running_var.copy_(torch.from_numpy(running[1]))
    assert call(make_matching(net), images) == pytest.approx(0, abs=1e-4)


def test_statistics_are_averaged_with_those_before() -> None:
    net, real = make_net(), real_statistics(make_net())
    matching = make_matching(net, momentum=0.8, first=10)
    average: dict[str, list[Array]] = {}
    for seed in (2, 3, 4):
        images = make_images(seed=seed)
        found = statistics_of(net, images)
        average = {
            name: [
                0.8 * old + 0.2 * new
                for old, new in zip(average.get(name, found[name]), found[name], strict=True)
            ]
            for name in found
        }
        parts = distances(average, real)
        expected = 10 * parts["first"] + parts["norm"] + parts["second"]
        assert call(matching, images) == pytest.approx(expected, rel=1e-4)


def test_what_is_forgotten_counts_no_more() -> None:
    net, images = make_net(), make_images()
    matching = make_matching(net, momentum=0.8)
    first = call(matching, images)
    assert call(matching, make_images(seed=3)) != pytest.approx(first, rel=1e-3)
    assert call(matching, images) != pytest.approx(first, rel=1e-3)
    matching.forget()
    assert call(matching, images) == first


def test_the_gradient_passes_the_average_with_weight_one() -> None:
    """Written out: statistics plus a constant that makes them the average."""
    net, before, images = make_net(), make_images(seed=2), make_images(seed=3).requires_grad_()
    matching = make_matching(net, momentum=0.8, first=10)
    call(matching, before)
    (gradient,) = torch.autograd.grad(matching(images, torch.Generator())[1], images)

    old, now, real = statistics_of(net, before), statistics_of(net, images), real_statistics(net)
    convolved = net.first(images)
    inputs = {"first": images, "norm": convolved, "second": torch.relu(net.norm(convolved))}
    total = torch.zeros(())
    for name, weight in (("first", 10), ("norm", 1), ("second", 1)):
        hidden = inputs[name]
        tiles = (
            hidden.unflatten(3, (-1, 4))
            .unflatten(2, (-1, 4))
            .permute(2, 4, 0, 1, 3, 5)
            .flatten(2)
            .flatten(0, 1)
        )
        parts = [
            torch.stack([hidden.mean((0, 2, 3)), hidden.var((0, 2, 3), correction=0)]),
            torch.stack([tiles.mean(1), tiles.var(1, correction=0)]),
        ]
        for k in range(len(real[name])):
            constant = 0.8 * (old[name][k] - now[name][k]) - real[name][k]
            total = total + weight * (parts[k] + torch.from_numpy(constant).float()).norm(dim=1).sum()
    (expected,) = torch.autograd.grad(total, images)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_convolutions_are_passed_over_at_random_and_batch_norms_never() -> None:
    net, images = make_net(), make_images()
    matching = make_matching(net, drop=0.4)
    parts = distances(statistics_of(net, images), real_statistics(net))
    sums = {
        (first, second): parts["norm"] + first * parts["first"] + second * parts["second"]
        for first in (0, 1)
        for second in (0, 1)
    }
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(sums, 0)
    for _ in range(300):
        found = float(matching(images, generator)[1])
        counts[min(sums, key=lambda kept: abs(sums[kept] - found))] += 1
        assert min(abs(value - found) for value in sums.values()) < 1e-3
    # Expected are 108, 72, 72 and 48; the standard deviation of the first is 8.3, of the last 6.3.
    assert counts[1, 1] == pytest.approx(108, abs=42)
    assert counts[0, 0] == pytest.approx(48, abs=32)
    assert min(counts[0, 1], counts[1, 0]) > 36


def test_a_convolution_that_is_passed_over_keeps_its_average() -> None:
    net, images, other = make_net(), make_images(seed=2), make_images(seed=3)
    draws = torch.rand(2, generator=torch.Generator().manual_seed(0))  # of `first` and `second`
    drop = float(draws.mean())
    kept = [name for name, draw in zip(("first", "second"), draws.tolist(), strict=True) if draw >= drop]
    assert len(kept) == 1
    matching = make_matching(net, momentum=0.5, drop=drop)
    seed_of_all = next(
        seed
        for seed in range(99)
        if bool((torch.rand(2, generator=torch.Generator().manual_seed(seed)) >= drop).all())
    )
    call(matching, images, seed=seed_of_all)
    call(matching, other, seed=0)
    found = call(matching, other, seed=seed_of_all)

    first, second = statistics_of(net, images), statistics_of(net, other)
    shares = {name: 0.25 if name in (*kept, "norm") else 0.5 for name in first}  # of the first batch
    average = {
        name: [
            shares[name] * a + (1 - shares[name]) * b for a, b in zip(first[name], second[name], strict=True)
        ]
        for name in first
    }
    assert found == pytest.approx(sum(distances(average, real_statistics(net)).values()), rel=1e-4)


def test_networks_without_batch_norm_have_their_convolutions_matched() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3), nn.Flatten(), nn.Linear(108, 2))
    net.eval().requires_grad_(False)
    images = make_images()
    inputs, real = (batch.double().numpy() for batch in (images, make_images(9, seed=1)))
    expected = sum(
        np.linalg.norm(found[row] - wanted[row])
        for found, wanted in (
            (by_channel(inputs), by_channel(real)),
            (by_patch(inputs, 4), by_patch(real, 4)),
        )
        for row in (0, 1)
    )
    assert call(make_matching(net, first=1), images) == pytest.approx(float(expected), rel=1e-4)


def test_a_batch_norm_without_running_statistics_is_left_out() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Conv2d(2, 3, 3), nn.Flatten())
    images = make_images(9, seed=1)
    assert call(make_matching(net.eval().requires_grad_(False)), images) == pytest.approx(0, abs=1e-5)


def test_hooks_are_gone_even_after_an_error() -> None:
    net = make_net()
    matching = make_matching(net)
    call(matching, make_images())
    with pytest.raises(RuntimeError, match="must match the size"):
        call(matching, make_images(shape=(5, 8, 8)))
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_a_network_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="convolutions or batch norms, got MLP without.*such as `rded`"):
        StatisticsMatching(MLP(1, 8, 3), {}, patch=4, momentum=0.8, first=10, drop=0.4)
