import copy

import pytest
import torch
from torch import Tensor, nn

from gift_cl.evaluation.folding import folded
from gift_cl.models import build_model

EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Shared(nn.Module):
    """The output of the convolution is read by the batch norm, and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.convolution(inputs)
        mixed: Tensor = hidden + self.norm(hidden)
        return mixed.mean((2, 3))


class Twice(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.second(self.norm(self.first(inputs))))
        return normalised.mean((2, 3))


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that have seen something, so that leaving one out would show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
        for _ in range(3):
            model.train()(torch.randn(8, 3, 16, 16) + 1)
    return model


def built(spec: str) -> nn.Module:
    return with_statistics(build_model(spec, in_channels=3, image_size=16, num_classes=4))


def num_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("spec", ["conv3:width=8", "resnet18_modified"])
def test_all_batch_norms_after_convolutions_go_and_the_answers_stay(spec: str) -> None:
    model = built(spec)
    fused = folded(model, EXAMPLE)
    assert num_norms(model) > 0
    assert num_norms(fused) == 0
    expected = copy.deepcopy(model).eval()(EXAMPLE)
    torch.testing.assert_close(fused(EXAMPLE), expected, rtol=1e-3, atol=1e-4)  # float32, many layers


@pytest.mark.parametrize("model", [Shared(), Twice()])
def test_what_cannot_be_folded_is_left_alone(model: nn.Module) -> None:
    model = with_statistics(model)
    fused = folded(model, EXAMPLE)
    assert num_norms(fused) == 1
    assert torch.equal(fused(EXAMPLE), copy.deepcopy(model).eval()(EXAMPLE))


@pytest.mark.parametrize("spec", ["conv3:width=8,norm=instance", "mlp"])
def test_networks_without_batch_norms_are_copied(spec: str) -> None:
    model = built(spec)
    fused = folded(model, EXAMPLE)
    assert fused is not model
    assert torch.equal(fused(EXAMPLE), model.eval()(EXAMPLE))


def test_the_model_itself_does_not_change() -> None:
    model = built("conv3:width=8").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = folded(model, EXAMPLE)
    assert model.training
    assert not fused.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*model.modules(), *fused.modules()))
