from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from gift_cl.models import classifier_name, penultimate


class Named(nn.Module):
    """Layers one after another, under any names."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        outputs = images.flatten(1)
        for layer in self.children():
            outputs = layer(outputs)
        return outputs


def test_the_usual_names_come_first() -> None:
    model = Named(fc=nn.Linear(4, 3), classifier=nn.Linear(3, 2), late=nn.Linear(2, 2))
    assert classifier_name(model) == "classifier"
    assert classifier_name(Named(fc=nn.Linear(4, 3), late=nn.Linear(3, 2))) == "fc"


def test_a_usual_name_that_is_no_layer_does_not_count() -> None:
    model = Named(linear=nn.Linear(4, 2))
    model.fc = "fully convolutional"  # type: ignore[assignment]
    assert classifier_name(model) == "linear"


def test_without_them_the_last_linear_layer_is_it() -> None:
    assert classifier_name(Named(first=nn.Linear(4, 3), linear=nn.Linear(3, 2))) == "linear"
    inner = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert classifier_name(nn.Sequential(nn.Flatten(), inner, nn.ReLU())) == "1.2"


def test_features_enter_the_last_linear_layer() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    images = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(penultimate(Named(first=first, head=last), images), first(images.flatten(1)))


def test_a_head_that_holds_a_linear_layer_gives_the_same_features() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    images = torch.rand(5, 1, 2, 2)
    grown = Named(first=first, head=Named(classifier=last))
    assert classifier_name(grown) == "head.classifier"
    torch.testing.assert_close(penultimate(grown, images), first(images.flatten(1)))


@pytest.mark.parametrize("usual", ["classifier", "fc"])
def test_in_a_sequential_head_the_last_linear_layer_is_it(usual: str) -> None:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model = Named(**{usual: nn.Sequential(*hidden, nn.Dropout(), nn.Linear(3, 2))}).eval()
    images = torch.rand(5, 1, 2, 2)
    assert classifier_name(model) == f"{usual}.3"
    torch.testing.assert_close(penultimate(model, images), hidden(images.flatten(1)))


def test_a_head_that_took_the_place_of_that_layer_gives_the_same_features() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    images = torch.rand(5, 1, 2, 2)
    grown = Named(fc=nn.Sequential(OrderedDict(hidden=first, head=Named(classifier=last))))
    assert classifier_name(grown) == "fc.head"
    torch.testing.assert_close(penultimate(grown, images), first(images.flatten(1)))


@pytest.mark.parametrize("layers", [[], [nn.ReLU()], [nn.Linear(3, 2), nn.ReLU()]])
def test_a_sequential_head_that_does_not_end_in_a_linear_layer_counts_as_a_whole(
    layers: list[nn.Module],
) -> None:
    assert classifier_name(Named(fc=nn.Sequential(*layers))) == "fc"
