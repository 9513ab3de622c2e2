from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gift_cl.models import (
    MLP,
    ConvNet,
    load_checkpoint,
    load_weights,
    resnet18_modified,
)


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class DcConvNet(nn.Module):
    """The ConvNet as DC, DATM and G-VBSM lay it out."""

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for d in range(depth):
            layers += [nn.Conv2d(width if d else 3, width, 3, padding=1)]
            layers += [nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(self.bn1(self.conv1(maps)).relu()))
        return torch.relu(hidden + self.shortcut(maps))


class CifarResNet18(nn.Module):
    """ResNet-18 under the names that G-VBSM publishes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(CifarBlock(64, 64, 1), CifarBlock(64, 64, 1))
        self.layer2 = nn.Sequential(CifarBlock(64, 128, 2), CifarBlock(128, 128, 1))
        self.layer3 = nn.Sequential(CifarBlock(128, 256, 2), CifarBlock(256, 256, 1))
        self.layer4 = nn.Sequential(CifarBlock(256, 512, 2), CifarBlock(512, 512, 1))
        self.linear = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(images)).relu()
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = layer(hidden)
        logits: Tensor = self.linear(hidden.mean((2, 3)))
        return logits


def small(**options: Any) -> ConvNet:
    sizes = {"depth": 3, "in_channels": 3, "image_size": 8, "num_classes": 5, "width": 4, **options}
    return ConvNet(**sizes)


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "teacher.pth"


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_every_published_layout_gives_the_same_state_dict(
    path: Path, wrapper: str | None, prefix: str, legacy: bool
) -> None:
    state = small().state_dict()
    stored: object = OrderedDict((prefix + name, value) for name, value in state.items())
    if wrapper is not None:
        stored = {wrapper: stored, "epoch": 3, "acc": 61.5, "optimizer": {"state": {}}}
    torch.save(stored, path, _use_new_zipfile_serialization=not legacy)
    assert_same_state(load_checkpoint(path), state)


def test_arguments_of_the_training_script_are_let_through(path: Path) -> None:
    state = small().state_dict()
    args = argparse.Namespace(lr=0.2, model="resnet18", output_dir="out", nested=[1, (2, None)])
    torch.save({"model": state, "epoch": 49, "args": args}, path)
    assert_same_state(load_checkpoint(path), state)
    allowed = torch.serialization.get_safe_globals()
    assert argparse.Namespace not in allowed  # the allowance ends with the call


def test_tensors_come_back_detached(path: Path) -> None:
    torch.save(dict(small().named_parameters()), path)
    assert not any(value.requires_grad for value in load_checkpoint(path).values())


def test_convnet_of_the_dc_family_gives_the_same_outputs(path: Path) -> None:
    torch.manual_seed(0)
    published = DcConvNet(3, 4, 5)
    for parameter in published.parameters():
        nn.init.normal_(parameter)
    torch.save(published.state_dict(), path)
    model = small(norm="instance")
    load_weights(model, path)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(images), published(images), rtol=1e-5, atol=1e-6)


def test_resnet_of_the_cifar_family_gives_the_same_outputs(path: Path) -> None:
    torch.manual_seed(0)
    published = CifarResNet18(10)
    images = torch.randn(2, 3, 8, 8)
    published(images)  # moves the running statistics away from 0 and 1
    torch.save(published.eval().state_dict(), path)
    model = resnet18_modified(3, 10).eval()
    load_weights(model, path)
    torch.testing.assert_close(model(images), published(images))


@pytest.mark.parametrize(
    "names",
    [
        ["features.0.weight", "features.3.weight", "classifier.1.weight"],  # AlexNet
        ["features.0.weight", "features.2.weight", "classifier.0.weight"],  # VGG
        ["features.0.weight", "features.1.conv.0.weight", "classifier.weight"],
    ],
)
def test_features_of_other_networks_keep_their_names(path: Path, names: list[str]) -> None:
    torch.save({name: torch.zeros(2, 3, 3, 3) for name in names}, path)
    assert list(load_checkpoint(path)) == names


def test_mlp_weights_come_back_unrenamed(path: Path) -> None:
    published = MLP(1, 8, 10, hidden=16)
    torch.save(published.state_dict(), path)
    model = MLP(1, 8, 10, hidden=16)
    load_weights(model, path)
    assert_same_state(model.state_dict(), published.state_dict())


def test_load_weights_copies_everything_and_keeps_the_mode(path: Path) -> None:
    published = small()
    published(torch.randn(4, 3, 8, 8))
    torch.save({"model": published.state_dict()}, path)
    model = small().eval()
    load_weights(model, str(path))
    assert not model.training
    assert_same_state(model.state_dict(), published.state_dict())


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "namespace"])
def test_planted_command_is_refused_and_not_run(
    path: Path, tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Torch reads this variable; it must not weaken an explicit `weights_only=True`.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    stored: dict[str, object] = {"extra": Command(marker), "model": small().state_dict()}
    if container == "namespace":
        stored["extra"] = argparse.Namespace(hook=Command(marker))
    if container == "pickle":
        path.write_bytes(pickle.dumps(stored, protocol=2))
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=container != "legacy")
    with pytest.raises(ValueError, match=r"teacher\.pth` wants to run code .*system.* not opened"):
        load_checkpoint(path)
    assert not marker.exists()


def test_planted_command_would_run_without_protection(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Command(marker)))
    assert marker.exists()


def test_whole_module_is_refused_with_a_cure(path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, path)
    with pytest.raises(ValueError, match=r"nn\.modules\.linear\.Linear.*save its state dict"):
        load_checkpoint(path)


def test_numpy_scalar_beside_the_weights_is_refused(path: Path) -> None:
    torch.save({"state_dict": small().state_dict(), "acc": np.float64(61.5)}, path)
    with pytest.raises(ValueError, match=r"multiarray\.scalar"):
        load_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_file_is_named_with_a_cure(path: Path, kept: float, legacy: bool) -> None:
    torch.save(small().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"teacher\.pth` is no readable .* get it again"):
        load_checkpoint(path)


def test_web_page_in_place_of_the_download_is_named(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ValueError, match="a web page in place of the download") as caught:
        load_checkpoint(path)
    assert "weights_only=False" not in str(caught.value)  # torch's own advice is not passed on


def test_missing_file_is_a_plain_file_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=path.name):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([torch.zeros(2)], "got list"),
        (torch.zeros(2), "got Tensor"),
        ({}, "it is empty"),
        ({"model": {}}, "it is empty"),
        ({"epoch": 3, "acc": 0.5}, "no tensors: epoch, acc"),
        ({"model": {"fc.weight": torch.zeros(2), "nested": {}}}, "no tensors: nested"),
    ],
)
def test_contents_without_a_state_dict_are_refused(path: Path, stored: object, message: str) -> None:
    torch.save(stored, path)
    with pytest.raises(ValueError, match=rf"Expected a state dict.*{message}"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 100}, r"file has num_classes=100; the model has num_classes=5\."),
        ({"width": 8}, r"file has num_features=8, width=8; the model has num_features=4, width=4"),
        ({"in_channels": 1}, r"file has in_channels=1; the model has in_channels=3"),
        ({"norm": "instance"}, r"9 missing: .*running_mean.* and 3 more\..*norm=instance"),
        ({"norm": "none"}, r"15 missing: .*norm=none; the model has norm=batch"),
        ({"image_size": 16}, r"file has num_features=16;.*for the image size of the file"),
        ({"depth": 4, "image_size": 16}, r"7 unexpected: layers\.conv\.3\.weight.*depth=4"),
    ],
)
def test_weights_of_another_shape_are_explained(path: Path, options: dict[str, Any], message: str) -> None:
    torch.save(small(**options).state_dict(), path)
    with pytest.raises(ValueError, match=message):
        load_weights(small(), path)


def test_shapes_are_listed_file_first(path: Path) -> None:
    torch.save(small(num_classes=7).state_dict(), path)
    with pytest.raises(ValueError, match=r"classifier\.weight \(7, 4\) for \(5, 4\)"):
        load_weights(small(), path)


def test_refused_weights_leave_the_model_as_it_was(path: Path) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(small(num_classes=7).state_dict(), path)
    with pytest.raises(ValueError, match="do not fit this ConvNet"):
        load_weights(model, path)
    assert_same_state(model.state_dict(), before)


def test_weights_of_another_network_are_listed(path: Path) -> None:
    torch.save(MLP(1, 8, 10).state_dict(), path)
    with pytest.raises(ValueError, match=r"missing: layers\.conv\.0\.weight.*2 unexpected"):
        load_weights(small(), path)
