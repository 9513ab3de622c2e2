import math

import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.batch_norm_statistics import (
    BatchNormStatistics,
    StatisticsDistance,
    channel_statistics,
)


class Net(nn.Module):
    """Two batch norms that run, in another order than they are defined, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.BatchNorm2d(5)
        self.late = nn.BatchNorm2d(4)
        self.early = nn.BatchNorm2d(3)
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.early(self.first(images)).tanh()
        logits: Tensor = self.late(self.second(hidden)).sum((2, 3))
        return logits


def make_net() -> Net:
    torch.manual_seed(0)
    net = Net().double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False)


def make_inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distance_by_hand(layer: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    """From the definitions, channel by channel and value by value."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    of_means, of_variances = [], []
    for channel in range(inputs.shape[1]):
        values = [value for image in inputs for value in image[channel].flatten()]
        mean = sum(values, torch.tensor(0.0)) / len(values)
        variance = sum(((value - mean) ** 2 for value in values), torch.tensor(0.0)) / len(values)
        of_means.append((layer.running_mean[channel] - mean) ** 2)
        of_variances.append((layer.running_var[channel] - variance) ** 2)
    return torch.stack(of_means).sum().sqrt() + torch.stack(of_variances).sum().sqrt()


# Of a channel


def test_pinned_statistics() -> None:
    inputs = torch.tensor([1.0, 2.0, 3.0, 6.0, -1.0, -1.0, 1.0, 1.0]).view(1, 2, 2, 2)
    assert channel_statistics(inputs).tolist() == [[3.0, 0.0], [3.5, 1.0]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_statistics_are_means_and_biased_variances(memory_format: torch.memory_format) -> None:
    inputs = make_inputs(5, 3, 4, 6).to(memory_format=memory_format) * 3 + 7
    expected = inputs.transpose(0, 1).flatten(1).numpy()
    made = channel_statistics(inputs)
    torch.testing.assert_close(made[0], torch.from_numpy(expected.mean(1)))
    torch.testing.assert_close(made[1], torch.from_numpy(expected.var(1)))


def test_variances_far_from_zero_are_exact_in_single_precision() -> None:
    """The mean of squares less the square of the mean would be off by several percent."""
    inputs = make_inputs(20, 2, 8, 8) + 1000
    made = channel_statistics(inputs.float())
    torch.testing.assert_close(made.double(), channel_statistics(inputs.float().double()), rtol=1e-4, atol=0)


def test_one_value_has_no_variance() -> None:
    assert channel_statistics(torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)).tolist() == [[2, 3], [0, 0]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_statistics_is_that_of_finite_differences(memory_format: torch.memory_format) -> None:
    inputs = make_inputs(3, 2, 4, 3).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(channel_statistics, (inputs,), fast_mode=False)


# Of all layers


def test_pinned_distance() -> None:
    targets = [torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0], [5.0]])]
    statistics = [torch.tensor([[3.0, 4.0], [1.0, 3.0]]), torch.tensor([[1.0], [1.0]])]
    assert float(StatisticsDistance(targets)(statistics)) == pytest.approx(10 * (5 + 2) + (1 + 4))
    assert float(StatisticsDistance(targets, first=1)(statistics)) == pytest.approx(12)


def test_gradient_is_zero_where_a_layer_fits_exactly() -> None:
    targets = [torch.ones(2, 3), torch.zeros(2, 1)]
    statistics = [torch.ones(2, 3, requires_grad=True), torch.full((2, 1), 2.0, requires_grad=True)]
    distance = StatisticsDistance(targets)(statistics)
    torch.testing.assert_close(distance, torch.tensor(4.0))
    fits, differs = torch.autograd.grad(distance, statistics)
    assert fits.tolist() == [[0.0] * 3] * 2
    torch.testing.assert_close(differs, torch.ones(2, 1))


@pytest.mark.parametrize("first", [10.0, 1.0, 0.5])
def test_distance_and_gradient_of_a_network_are_those_by_hand(first: float) -> None:
    net, inputs = make_net(), make_inputs(3, 2, 8, 8).requires_grad_()
    with BatchNormStatistics(net, inputs, first=first) as statistics:
        net(inputs)
        distance = statistics.distance()
    before_early = net.first(inputs)
    before_late = net.second(net.early(before_early).tanh())
    # The first in the order of definition of those that run is `late`.
    expected = first * distance_by_hand(net.late, before_late) + distance_by_hand(net.early, before_early)
    torch.testing.assert_close(distance, expected)
    made, by_hand = (torch.autograd.grad(value, inputs)[0] for value in (distance, expected))
    torch.testing.assert_close(made, by_hand)
    assert float(made.abs().max()) > 1e-3


def test_a_batch_that_was_trained_on_has_no_distance() -> None:
    net, inputs = make_net(), make_inputs(4, 2, 8, 8)
    net.early.running_mean, net.early.running_var = channel_statistics(net.first(inputs)).unbind(0)
    hidden = net.second(net.early(net.first(inputs)).tanh())
    net.late.running_mean, net.late.running_var = channel_statistics(hidden).unbind(0)
    with BatchNormStatistics(net, inputs) as statistics:
        net(inputs)
        assert float(statistics.distance()) == pytest.approx(0, abs=1e-9)
        net(inputs + 1)
        assert float(statistics.distance()) > 1


def test_layers_that_run_are_told_in_the_order_of_the_network() -> None:
    net, inputs = make_net(), make_inputs(4, 2, 8, 8)
    with BatchNormStatistics(net, inputs) as statistics:
        net(inputs)
    assert [target.shape for target in statistics.targets] == [(2, 4), (2, 3)]
    torch.testing.assert_close(statistics.targets[1][1], net.early.running_var)
    torch.testing.assert_close(statistics.statistics()[1], channel_statistics(net.first(inputs)))


def test_statistics_ignore_the_order_of_the_images() -> None:
    net, inputs = make_net(), make_inputs(6, 2, 8, 8)
    with BatchNormStatistics(net, inputs[:1]) as statistics:
        net(inputs)
        before = statistics.distance()
        net(inputs.flip(0))
        torch.testing.assert_close(statistics.distance(), before)


def test_the_network_is_left_as_it_was() -> None:
    net, inputs = make_net(), make_inputs(4, 2, 8, 8)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with BatchNormStatistics(net, inputs) as statistics:
        net(inputs)
    before = float(statistics.distance())
    net(inputs + 1)  # is not seen any more
    assert float(statistics.distance()) == before
    with pytest.raises(RuntimeError, match="channels"), statistics:
        net(make_inputs(4, 5, 8, 8))
    assert all(not module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Identity()]
)
def test_a_network_without_running_statistics_is_refused(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), norm).eval()
    with pytest.raises(
        ValueError, match="that keep running statistics, got Sequential without any.*such as `conv3`"
    ):
        BatchNormStatistics(model, torch.zeros(1, 2, 4, 4))


def test_the_weight_of_the_first_layer_is_ten() -> None:
    statistics = [torch.zeros(2, 1), torch.zeros(2, 1)]
    for layer, weight in enumerate((10, 1)):
        targets = [torch.zeros(2, 1), torch.zeros(2, 1)]
        targets[layer] = torch.tensor([[3.0], [0.0]])
        assert math.isclose(StatisticsDistance(targets)(statistics), 3 * weight, rel_tol=1e-6)
