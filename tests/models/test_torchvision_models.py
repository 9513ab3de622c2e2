from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from gift_cl.models import build_model, classifier_name, penultimate
from gift_cl.models.torchvision_models import classifier_names, torchvision_classifier

# Side of the images, name of the last layer, and its inputs.
FAMILIES = {
    "swin_v2_t": (32, "head", 768),
    "vit_b_16": (32, "heads.head", 768),
    "mobilenet_v2": (32, "classifier.1", 1280),
    "mobilenet_v3_small": (32, "classifier.3", 1024),
    "efficientnet_b0": (32, "classifier.1", 1280),
    "shufflenet_v2_x0_5": (32, "fc", 1024),
    "densenet121": (32, "classifier", 1024),
    "convnext_tiny": (32, "classifier.2", 768),
    "googlenet": (32, "fc", 1024),
}

Case = tuple[str, nn.Module]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    """A network of one family for 7 classes, and its name."""
    name: str = request.param
    side, last, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, image_size=side, num_classes=7)
    nn.init.normal_(model.get_submodule(last).weight)  # type: ignore[arg-type]  # that of vit_* is zero
    return name, model


def test_features_are_the_inputs_of_the_last_layer(case: Case) -> None:
    name, model = case
    side, last, num_features = FAMILIES[name]
    model.eval()
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        logits, features = model(images), penultimate(model, images)
        again = model.get_submodule(last)(features)
    assert logits.shape == (1, 7)
    assert classifier_name(model) == last
    assert features.shape == (1, num_features)
    assert model.num_features == num_features
    torch.testing.assert_close(again, logits)


def test_gradients_reach_every_layer_in_training(case: Case) -> None:
    name, model = case
    side = FAMILIES[name][0]
    model.train()
    logits = model(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert next(model.parameters()).grad.abs().sum() > 0  # type: ignore[union-attr]
    model.zero_grad()


def test_with_three_channels_the_network_is_that_of_torchvision() -> None:
    torch.manual_seed(0)
    expected = torchvision.models.shufflenet_v2_x0_5(num_classes=7).state_dict()
    torch.manual_seed(0)
    found = torchvision_classifier("shufflenet_v2_x0_5", in_channels=3, image_size=32, num_classes=7)
    assert list(found.state_dict()) == list(expected)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("shufflenet_v2_x0_5", "conv1.0.weight"),
        ("mobilenet_v2", "features.0.0.weight"),
        ("googlenet", "conv1.conv.weight"),
        ("swin_t", "features.0.0.weight"),  # a convolution with bias
    ],
)
def test_other_channels_change_the_stem_alone(name: str, stem: str) -> None:
    shapes = []
    for channels in (3, 1):
        model = torchvision_classifier(name, in_channels=channels, image_size=32, num_classes=7)
        shapes.append({key: tuple(value.shape) for key, value in model.state_dict().items()})
    assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    before, after = shapes
    assert after[stem] == (before[stem][0], 1, *before[stem][2:])
    assert after | {stem: before[stem]} == before


def test_a_replaced_stem_keeps_stride_and_padding() -> None:
    sizes = []
    for channels in (3, 5):
        model = torchvision_classifier("googlenet", in_channels=channels, image_size=32, num_classes=7)
        sizes.append(model.get_submodule("conv1.conv")(torch.zeros(1, channels, 31, 31)).shape)
    assert sizes[0] == sizes[1] == (1, 64, 16, 16)


def test_a_network_without_convolution_takes_three_channels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: nn.Linear(12, 7))
    with pytest.raises(ValueError, match=r"`in_channels` 3 for Linear, which has no convolution .* got 1"):
        torchvision_classifier("mobilenet_v2", in_channels=1, image_size=2, num_classes=7)


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("alexnet", 63),
        ("convnext_tiny", 32),
        ("densenet121", 29),
        ("googlenet", 15),
        ("inception_v3", 75),
        ("swin_t", 4),
        ("swin_v2_t", 4),
        ("vgg11", 32),
    ],
)
def test_images_below_the_minimum_are_refused_with_a_cure(name: str, minimum: int) -> None:
    with pytest.raises(
        ValueError, match=rf"at least {minimum} for `{name}`, got {minimum - 1}\. Enlarge .* `mobilenet_v2`"
    ):
        torchvision_classifier(name, in_channels=3, image_size=minimum - 1, num_classes=7)


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("densenet121", 29),
        ("efficientnet_v2_s", 1),
        ("googlenet", 15),
        ("inception_v3", 75),
        ("mobilenet_v2", 1),
        ("swin_t", 4),
        ("swin_v2_t", 4),
    ],
)
def test_images_at_the_minimum_work(name: str, minimum: int) -> None:
    model = torchvision_classifier(name, in_channels=3, image_size=minimum, num_classes=7).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, minimum, minimum)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("vit_b_16", 30, r"a multiple of 16 for `vit_b_16`.* got 30\. Resize the images to 32\."),
        ("vit_h_14", 15, r"a multiple of 14 for `vit_h_14`.* got 15\. Resize the images to 28\."),
        ("maxvit_t", 32, r"a multiple of 224 for `maxvit_t`.* got 32\. Resize the images to 224\."),
    ],
)
def test_images_that_cannot_be_cut_into_patches_are_refused(name: str, image_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torchvision_classifier(name, in_channels=3, image_size=image_size, num_classes=7)


def test_maxvit_works_at_its_size() -> None:
    model = torchvision_classifier("maxvit_t", in_channels=3, image_size=224, num_classes=7).eval()
    with torch.inference_mode():
        assert penultimate(model, torch.zeros(1, 3, 224, 224)).shape == (1, 512)
    assert model.num_features == 512


def test_a_network_without_linear_head_is_refused() -> None:
    with pytest.raises(ValueError, match="ends in a linear layer, got `squeezenet1_1`"):
        torchvision_classifier("squeezenet1_1", in_channels=3, image_size=32, num_classes=7)


def test_names_are_those_of_image_classifiers() -> None:
    names = classifier_names()
    assert set(FAMILIES) <= set(names)
    assert names == sorted(names)
    assert not {"fcn_resnet50", "quantized_resnet18", "r3d_18", "maskrcnn_resnet50_fpn"} & set(names)


@pytest.mark.parametrize("size", ["in_channels", "image_size", "num_classes"])
def test_sizes_that_are_no_counts_are_refused(size: str) -> None:
    sizes = {"in_channels": 3, "image_size": 32, "num_classes": 7, size: 0}
    with pytest.raises(ValueError, match=f"Expected `{size}` as an integer of at least 1, got 0"):
        torchvision_classifier("mobilenet_v2", **sizes)
