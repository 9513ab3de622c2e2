from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gift_cl.models import MLP, ConvNet, classifier_name, penultimate


class GrowingHead(nn.Module):
    """One linear layer for each experience, side by side."""

    def __init__(self, num_features: int, sizes: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(num_features, size) for size in sizes)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([part(features) for part in self.parts], dim=1)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def manual_features(model: ConvNet, depth: int, images: Tensor) -> Tensor:
    """Features of a batch-norm model in evaluation mode, from its state dict alone."""
    state = model.state_dict()
    hidden = images
    for d in range(depth):
        conv, norm = f"layers.conv.{d}.", f"layers.norm.{d}."
        hidden = F.conv2d(hidden, state[conv + "weight"], state[conv + "bias"], padding=1)
        mean = state[norm + "running_mean"].view(1, -1, 1, 1)
        var = state[norm + "running_var"].view(1, -1, 1, 1)
        scale = state[norm + "weight"].view(1, -1, 1, 1)
        shift = state[norm + "bias"].view(1, -1, 1, 1)
        hidden = (hidden - mean) / (var + 1e-5).sqrt() * scale + shift
        hidden = F.avg_pool2d(hidden.clamp(min=0), 2)
    return hidden.flatten(1)


def trained_a_little(model: nn.Module, images: Tensor) -> nn.Module:
    """The model after two forward passes in training mode, so that its statistics are not 0, 1."""
    model.train()
    for _ in range(2):
        model(images)
    return model.eval()


@pytest.mark.parametrize(
    ("depth", "image_size", "num_classes", "expected"),
    [(3, 32, 100, 504_420), (4, 64, 200, 857_160), (5, 128, 10, 615_690), (6, 128, 100, 794_340)],
)
def test_parameter_counts_are_those_of_the_published_networks(
    depth: int, image_size: int, num_classes: int, expected: int
) -> None:
    model = ConvNet(depth, 3, image_size, num_classes)
    assert num_parameters(model) == expected
    assert model.num_features == (512 if depth == 6 else 2048)


def test_instance_norm_has_as_many_parameters_as_batch_norm() -> None:
    assert num_parameters(ConvNet(3, 3, 32, 100, norm="instance")) == 504_420


@pytest.mark.parametrize(
    ("norm", "norm_entries"),
    [
        ("batch", ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]),
        ("instance", ["weight", "bias"]),
        ("none", []),
    ],
)
def test_state_dict_has_the_published_names_in_the_published_order(
    norm: str, norm_entries: list[str]
) -> None:
    model = ConvNet(3, 3, 8, 5, width=4, norm=norm)  # type: ignore[arg-type]
    expected = [f"layers.conv.{d}.{entry}" for d in range(3) for entry in ("weight", "bias")]
    expected += [f"layers.norm.{d}.{entry}" for d in range(3) for entry in norm_entries]
    expected += ["classifier.weight", "classifier.bias"]
    assert list(model.state_dict()) == expected


def test_forward_agrees_with_the_formula() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 16, 16)
    model = ConvNet(4, 3, 16, 5, width=8)
    trained_a_little(model, images)
    head = model.classifier
    expected = manual_features(model, 4, images) @ head.weight.T + head.bias
    torch.testing.assert_close(model(images), expected)


def test_instance_norm_normalises_each_channel_of_each_image() -> None:
    torch.manual_seed(0)
    model = ConvNet(3, 3, 8, 5, width=4, norm="instance")
    maps = torch.randn(2, 4, 6, 6) * 3 + 7
    expected = (maps - maps.mean((2, 3), keepdim=True)) / (
        maps.var((2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(model.get_submodule("layers.norm.0")(maps), expected)


def test_instance_norm_gives_an_image_the_same_logits_in_any_batch() -> None:
    torch.manual_seed(0)
    model = ConvNet(3, 3, 8, 5, width=4, norm="instance")
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def test_odd_image_sizes_round_down() -> None:
    model = ConvNet(3, 1, 28, 10, width=4)
    assert model.num_features == 4 * 3 * 3
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_weights_repeat_under_a_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(ConvNet(3, 3, 8, 5, width=4).state_dict())
    first, second, other = states
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    assert not torch.equal(first["layers.conv.0.weight"], other["layers.conv.0.weight"])


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = ConvNet(3, 3, 8, 5, width=4)
    F.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_penultimate_agrees_with_the_formula() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)
    model = ConvNet(3, 3, 8, 5, width=4)
    trained_a_little(model, images)
    features = penultimate(model, images)
    assert features.shape == (4, model.num_features)
    torch.testing.assert_close(features, manual_features(model, 3, images))


def test_penultimate_of_an_mlp_is_its_hidden_layer() -> None:
    torch.manual_seed(0)
    model = MLP(1, 8, 10, hidden=16)
    images = torch.randn(4, 1, 8, 8)
    state = model.state_dict()
    expected = images.flatten(1) @ state["features.0.weight"].T + state["features.0.bias"]
    torch.testing.assert_close(penultimate(model, images), expected.clamp(min=0))


def test_penultimate_works_with_a_head_that_grows() -> None:
    torch.manual_seed(0)
    model = ConvNet(3, 3, 8, 5, width=4).eval()
    images = torch.randn(2, 3, 8, 8)
    before = penultimate(model, images)
    model.classifier = GrowingHead(model.num_features, [5, 3])  # type: ignore[assignment]
    assert model(images).shape == (2, 8)
    torch.testing.assert_close(penultimate(model, images), before, rtol=0, atol=0)


def test_penultimate_leaves_no_hook_and_no_mode_behind() -> None:
    model = ConvNet(3, 3, 8, 5, width=4)
    penultimate(model, torch.zeros(2, 3, 8, 8))
    assert model.training
    assert not model.classifier._forward_pre_hooks


def test_penultimate_leaves_no_hook_behind_when_the_model_fails() -> None:
    model = ConvNet(3, 3, 8, 5, width=4)
    with pytest.raises(RuntimeError):
        penultimate(model, torch.zeros(2, 1, 8, 8))
    assert not model.classifier._forward_pre_hooks


def test_penultimate_carries_gradients_unless_turned_off() -> None:
    model = ConvNet(3, 3, 8, 5, width=4)
    images = torch.zeros(2, 3, 8, 8)
    assert penultimate(model, images).requires_grad
    with torch.no_grad():
        assert not penultimate(model, images).requires_grad


def test_penultimate_of_an_empty_batch_is_empty() -> None:
    model = ConvNet(3, 3, 8, 5, width=4).eval()
    assert penultimate(model, torch.zeros(0, 3, 8, 8)).shape == (0, 4)


def test_model_without_a_known_head_is_refused() -> None:
    with pytest.raises(TypeError, match="`classifier` or `fc`, or with a Linear layer, got Sequential"):
        classifier_name(nn.Sequential(nn.Flatten()))


def test_model_that_does_not_call_its_head_is_refused() -> None:
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(2, 2)

        def forward(self, images: Tensor) -> Tensor:
            return images

    with pytest.raises(ValueError, match="to call `classifier` with a tensor"):
        penultimate(Headless(), torch.zeros(1, 2))


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_smallest_image_of_a_depth_works_and_one_pixel_less_is_refused(depth: int) -> None:
    side = 2**depth
    assert ConvNet(depth, 1, side, 3, width=4).num_features == 4
    with pytest.raises(ValueError, match=f"at least {side} for depth {depth}, got {side - 1}"):
        ConvNet(depth, 1, side - 1, 3, width=4)


@pytest.mark.parametrize("depth", [2, 7])
def test_unknown_depth_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"Expected `depth` from 3 to 6, got {depth}"):
        ConvNet(depth, 3, 128, 10)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_sizes_that_are_no_counts_are_refused(name: str, value: object) -> None:
    sizes = {"in_channels": 3, "image_size": 8, "num_classes": 5, "width": 4, name: value}
    with pytest.raises(ValueError, match=f"Expected `{name}` as an integer of at least 1"):
        ConvNet(3, **sizes)  # type: ignore[arg-type]


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="`norm` to be one of batch, instance, none, got 'layer'"):
        ConvNet(3, 3, 8, 5, norm="layer")  # type: ignore[arg-type]
