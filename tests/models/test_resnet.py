from __future__ import annotations

import pytest
import torch
from torch import nn

from gift_cl.models import build_model, classifier_name, modified_resnet, penultimate, resnet18_modified


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18_modified(3, 100).eval()


def expected_names() -> set[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{entry}" for entry in norm)}
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            prefix = f"layer{layer}.{block}."
            for i in (1, 2):
                names.add(f"{prefix}conv{i}.weight")
                names.update(f"{prefix}bn{i}.{entry}" for entry in norm)
            if layer > 1 and block == 0:
                names.add(f"{prefix}downsample.0.weight")
                names.update(f"{prefix}downsample.1.{entry}" for entry in norm)
    return names


def test_parameter_count_is_that_of_the_published_network(resnet: nn.Module) -> None:
    assert sum(parameter.numel() for parameter in resnet.parameters()) == 11_220_132


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision's published counts for 1000 classes, with a head for 100 classes
        ("resnet18", 11_689_512 - 900 * 513),
        ("resnet50", 25_557_032 - 900 * 2049),
        ("resnet101", 44_549_160 - 900 * 2049),
        # and with a stem of 64 x 3 x 3 x 3 for 64 x 3 x 7 x 7
        ("resnet50_modified", 25_557_032 - 900 * 2049 - 64 * 3 * (49 - 9)),
        ("resnet101_modified", 44_549_160 - 900 * 2049 - 64 * 3 * (49 - 9)),
    ],
)
def test_parameter_counts_of_the_others_follow_from_those_of_torchvision(name: str, expected: int) -> None:
    model = build_model(name, in_channels=3, image_size=32, num_classes=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model.num_features == (512 if name == "resnet18" else 2048)


def test_plain_resnet_has_the_stem_of_torchvision() -> None:
    model = build_model("resnet18", in_channels=1, image_size=32, num_classes=4)
    assert model.get_submodule("conv1")(torch.zeros(1, 1, 32, 32)).shape == (1, 64, 16, 16)
    assert isinstance(model.get_submodule("maxpool"), nn.MaxPool2d)
    assert set(model.state_dict()) == expected_names()


def test_modified_resnet_of_another_depth_keeps_the_resolution() -> None:
    model = modified_resnet(50, 1, 4).eval()
    seen: list[torch.Size] = []
    model.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 4)
    assert seen == [(1, 64, 8, 8)]


def test_depth_that_torchvision_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `depth` to be one of 18, 34, 50, 101, 152, got 20"):
        modified_resnet(20, 3, 10)


def test_state_dict_has_the_names_of_torchvision(resnet: nn.Module) -> None:
    assert set(resnet.state_dict()) == expected_names()


def test_stem_keeps_the_resolution(resnet: nn.Module) -> None:
    stem = resnet.get_submodule("conv1")
    assert stem(torch.zeros(1, 3, 8, 8)).shape == (1, 64, 8, 8)
    assert resnet.state_dict()["conv1.weight"].shape == (64, 3, 3, 3)
    assert isinstance(resnet.get_submodule("maxpool"), nn.Identity)


def test_any_image_size_gives_logits(resnet: nn.Module) -> None:
    for side in (8, 12):
        assert resnet(torch.zeros(2, 3, side, side)).shape == (2, 100)


def test_penultimate_agrees_with_the_layers_called_by_hand(resnet: nn.Module) -> None:
    torch.manual_seed(1)
    images = torch.randn(2, 3, 8, 8)
    hidden = images
    for name in ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4"):
        hidden = resnet.get_submodule(name)(hidden)
    features = penultimate(resnet, images)
    assert classifier_name(resnet) == "fc"
    assert features.shape == (2, resnet.num_features)
    torch.testing.assert_close(features, hidden.mean((2, 3)))


def test_penultimate_works_after_the_head_is_replaced() -> None:
    torch.manual_seed(0)
    model = resnet18_modified(1, 4).eval()
    images = torch.randn(2, 1, 8, 8)
    before = penultimate(model, images)
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 7)).eval()
    assert model(images).shape == (2, 7)
    torch.testing.assert_close(penultimate(model, images), before, rtol=0, atol=0)


def test_weights_repeat_under_a_seed(resnet: nn.Module) -> None:
    torch.manual_seed(0)
    again = resnet18_modified(3, 100).state_dict()
    for name, value in resnet.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("in_channels", "num_classes", "name"), [(0, 10, "in_channels"), (3, 0, "num_classes")]
)
def test_sizes_that_are_no_counts_are_refused(in_channels: int, num_classes: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` as an integer of at least 1, got 0"):
        resnet18_modified(in_channels, num_classes)
