from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from gift_cl.models import MLP, MODELS, ConvNet, build_model, find_architecture, penultimate

SMALLEST = {"conv3": 8, "conv4": 16, "conv5": 32, "conv6": 64}
SMALLEST |= dict.fromkeys(["resnet18", "resnet50", "resnet101"], 8)
SMALLEST |= dict.fromkeys(["resnet18_modified", "resnet50_modified", "resnet101_modified", "mlp"], 8)


def test_registry_lists_the_models() -> None:
    assert MODELS.names() == list(SMALLEST)
    assert all(MODELS.entry(name).reference for name in MODELS.names())


@pytest.mark.parametrize("name", SMALLEST)
def test_every_model_gives_logits_and_features(name: str) -> None:
    side = SMALLEST[name]
    model = build_model(name, in_channels=1, image_size=side, num_classes=4)
    images = torch.zeros(2, 1, side, side)
    assert model.training
    assert model(images).shape == (2, 4)
    assert penultimate(model, images).shape == (2, model.num_features)


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_convnets_have_the_depth_of_their_name_and_the_published_width(depth: int) -> None:
    model = build_model(f"conv{depth}", in_channels=3, image_size=64, num_classes=4)
    assert isinstance(model, ConvNet)
    assert f"layers.conv.{depth - 1}.weight" in model.state_dict()
    assert f"layers.conv.{depth}.weight" not in model.state_dict()
    assert model.state_dict()["layers.norm.0.running_mean"].shape == (128,)


def test_options_reach_the_convnet() -> None:
    spec = "conv3:width=6,norm=instance"
    model = build_model(spec, in_channels=3, image_size=8, num_classes=4)
    assert model.num_features == 6
    assert "layers.norm.0.running_mean" not in model.state_dict()
    assert "layers.norm.0.weight" in model.state_dict()


def test_one_unnamed_option_is_the_width() -> None:
    model = build_model("conv3:6", in_channels=3, image_size=8, num_classes=4)
    assert model.num_features == 6


def test_options_reach_the_mlp() -> None:
    model = build_model("mlp:hidden=256", in_channels=1, image_size=8, num_classes=10)
    assert isinstance(model, MLP)
    assert sum(p.numel() for p in model.parameters()) == 64 * 256 + 256 + 256 * 10 + 10


@pytest.mark.parametrize(
    "spec", ["conv3:width=4", "mlp", "resnet18", "resnet18_modified", "shufflenet_v2_x0_5"]
)
def test_architectures_can_be_pickled(spec: str) -> None:
    architecture = pickle.loads(pickle.dumps(find_architecture(spec)))
    model = architecture(in_channels=1, image_size=8, num_classes=3)
    assert model.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("spec", ["conv3:width=4", "mlp"])
def test_models_repeat_under_a_seed(spec: str) -> None:
    logits = []
    for _ in range(2):
        torch.manual_seed(7)
        model = build_model(spec, in_channels=1, image_size=8, num_classes=3)
        logits.append(model.eval()(torch.ones(1, 1, 8, 8)))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("conv7", "Unknown model `conv7`. Known: conv3, conv4"),
        ("conv3:depth=4", "Options of `conv3`: width, norm"),
        ("resnet18_modified:width=4", "Options of `resnet18_modified`: none"),
        ("mlp:width=4", "Options of `mlp`: hidden"),
        ("resnet18:width=4", "Options of `resnet18`: none"),
        ("mobilenet_v2:width=4", "Options of `mobilenet_v2`: none"),
        ("conv3:width=0", "Expected `width` as an integer of at least 1, got 0"),
        ("conv3:width=1.5", "Expected `width` as an integer of at least 1, got 1.5"),
        ("conv3:width=true", "Expected `width` as an integer of at least 1, got True"),
        ("conv3:norm=layer", "Expected `norm` to be one of batch, instance, none, got 'layer'"),
        ("mlp:hidden=-3", "Expected `hidden` as an integer of at least 1, got -3"),
        ("conv4", "Expected `image_size` of at least 16 for depth 4, got 8"),
    ],
)
def test_bad_specs_are_explained(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(spec, in_channels=1, image_size=8, num_classes=3)


@pytest.mark.parametrize("name", ["conv3", "resnet18", "resnet18_modified", "mlp"])
@pytest.mark.parametrize("size", ["in_channels", "num_classes"])
def test_bad_sizes_are_explained(name: str, size: str) -> None:
    sizes = {"in_channels": 1, "image_size": 8, "num_classes": 3, size: 0}
    with pytest.raises(ValueError, match=f"Expected `{size}` as an integer of at least 1, got 0"):
        build_model(name, **sizes)


def test_classifiers_of_torchvision_are_found_by_their_name_there() -> None:
    model = build_model("mobilenet_v2", in_channels=3, image_size=32, num_classes=7)
    assert type(model).__name__ == "MobileNetV2"
    assert MODELS.names() == list(SMALLEST)  # finding it changes no registry


def test_unknown_name_lists_our_models_and_those_of_torchvision() -> None:
    with pytest.raises(ValueError, match=r"Known: conv3, .*mlp, alexnet, .*vit_b_16"):
        build_model("resnet19", in_channels=3, image_size=32, num_classes=7)


@pytest.mark.parametrize("name", ["fcn_resnet50", "quantized_resnet18", "r3d_18", "raft_small"])
def test_networks_of_torchvision_for_other_tasks_are_unknown(name: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown model `{name}`"):
        find_architecture(name)


def test_small_networks_do_not_import_torchvision() -> None:
    code = (
        "import sys; from gift_cl.models import build_model\n"
        "for spec in ('conv3', 'mlp'): build_model(spec, in_channels=1, image_size=8, num_classes=2)\n"
        "assert 'torchvision' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
