from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from gift_cl.evaluation.optimizers import build_optimizer, find_optimizer, optimizer_names


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def build(spec: str, model: nn.Module | None = None, **values: Any) -> Optimizer:
    settings = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "decay_all": True} | values
    return build_optimizer(spec, model or make_model(), **settings)


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name != "Muon"])
def test_every_optimizer_of_torch_moves_all_weights(name: str) -> None:
    model = make_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build(name, model)
    model(torch.randn(5, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    assert type(optimizer) is getattr(torch.optim, name)
    # What stands before a batch norm is a bias without effect: its gradient is rounding.
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 1


def test_muon_trains_matrices_and_says_why_it_trains_nothing_else() -> None:
    assert type(build("Muon", nn.Linear(2, 2, bias=False))) is torch.optim.Muon
    with pytest.raises(ValueError, match="`Muon` cannot train this student: Muon only supports 2D"):
        build("Muon")


def test_capitals_do_not_matter_and_options_are_handed_over() -> None:
    optimizer = build("sgd:nesterov=true")
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["nesterov"] is True


def test_momentum_goes_to_those_that_have_one_and_to_no_other() -> None:
    assert build("SGD", momentum=0.75).param_groups[0]["momentum"] == 0.75
    assert build("RMSprop", momentum=0.75).param_groups[0]["momentum"] == 0.75
    assert "momentum" not in build("AdamW", momentum=0.75).param_groups[0]


def test_weight_decay_is_on_all_parameters_or_on_matrices_alone() -> None:
    (everything,) = build("AdamW", weight_decay=0.25).param_groups
    assert everything["weight_decay"] == 0.25
    assert len(everything["params"]) == 6
    groups = {
        g["weight_decay"]: g["params"] for g in build("SGD", weight_decay=0.25, decay_all=False).param_groups
    }
    assert {decay: [p.ndim for p in params] for decay, params in groups.items()} == {
        0.25: [4, 2],
        0.0: [1] * 4,
    }


def test_frozen_parameters_are_left_out() -> None:
    model = make_model()
    model[0].requires_grad_(False)
    (group,) = build("SGD", model).param_groups
    assert len(group["params"]) == 4


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_usual_optimizers_are_fused_unless_something_else_is_asked_for(name: str) -> None:
    assert build(name).param_groups[0]["fused"] is True
    assert not build(f"{name}:foreach=true").param_groups[0]["fused"]


def test_an_optimizer_without_weight_decay_takes_none() -> None:
    assert type(build("Rprop")) is torch.optim.Rprop
    with pytest.raises(ValueError, match=r"`weight_decay` 0 for `Rprop`, which has none, got 0.1"):
        build("Rprop", weight_decay=0.1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Lion", "Unknown optimizer `Lion`. Known: ASGD, Adadelta, .*SGD"),
        ("Optimizer", "Unknown optimizer `Optimizer`"),
        ("lr_scheduler", "Unknown optimizer `lr_scheduler`"),
        ("LBFGS", "steps once a batch, got `LBFGS`: it calls the loss several times"),
        ("SparseAdam", "steps once a batch, got `SparseAdam`"),
        ("AdamW:nesterov=true", "Options of `AdamW`, each written as name=value: betas, eps, amsgrad"),
        ("SGD:0.9", "Bad options in optimizer `SGD:0.9`"),
        ("SGD:lr=0.1", "Bad options in optimizer `SGD:lr=0.1`"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_optimizer(spec)


def test_a_value_that_torch_refuses_is_told() -> None:
    with pytest.raises(ValueError, match="`AdamW:eps=-1` cannot train this student: Invalid epsilon value"):
        build("AdamW:eps=-1")
