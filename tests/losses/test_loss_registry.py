import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gift_cl import losses
from gift_cl.losses import LOSSES, Loss, build_loss

dill = pytest.importorskip("dill", reason="avalanche saves its strategies with dill")

NAMES = ["gift", "cosine", "kl", "softce", "mse", "ce", "mse_ce", "softce_ce", "gift_ce"]
FUNCTIONS = dict(
    zip(
        NAMES,
        [
            losses.gift_loss,
            losses.cosine_loss,
            losses.kl_loss,
            losses.soft_ce_loss,
            losses.mse_loss,
            losses.ce_loss,
            losses.mse_ce_loss,
            losses.soft_ce_ce_loss,
            losses.gift_ce_loss,
        ],
        strict=True,
    )
)


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits, soft_labels = torch.randn(2, 4, 5, generator=generator)
    return logits, soft_labels, torch.tensor([0, 4, 2, 2])


def test_registry_has_the_names_of_the_paper_and_our_own_last() -> None:
    assert LOSSES.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_loss_without_options_has_the_defaults_of_its_function(name: str) -> None:
    loss = build_loss(name)
    batch = make_batch()
    assert loss.name == name
    assert_close(loss(*batch), FUNCTIONS[name](*batch), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("gift:weight=0.5,alpha=0.2", {"weight": 0.5, "alpha": 0.2}),
        ("gift:0", {"weight": 0}),
        ("kl:temperature=4,t2=true", {"temperature": 4, "t2": True}),
        ("kl:4", {"temperature": 4}),
        ("softce:temperature=2.5", {"temperature": 2.5}),
        ("mse_ce:1", {"ce_weight": 1}),
        ("softce_ce:ce_weight=0.5", {"ce_weight": 0.5}),
        ("gift_ce:weight=0.5,ce_weight=2", {"weight": 0.5, "ce_weight": 2}),
    ],
)
def test_options_of_a_spec_reach_the_function(spec: str, options: dict[str, Any]) -> None:
    batch = make_batch()
    loss = LOSSES.create(spec)
    expected = FUNCTIONS[loss.name](*batch, **options)
    assert_close(loss(*batch), expected, rtol=0, atol=0)


@pytest.mark.parametrize("library", [pickle, dill])
@pytest.mark.parametrize("spec", [*NAMES, "kl:temperature=4,t2=true"])
def test_loss_survives_pickling(library: Any, spec: str) -> None:
    loss = build_loss(spec)
    copy = library.loads(library.dumps(loss))
    assert (copy.name, copy.accepts_hard) == (loss.name, loss.accepts_hard)
    assert_close(copy(*make_batch()), loss(*make_batch()), rtol=0, atol=0)


def test_only_ce_needs_no_soft_labels() -> None:
    assert [name for name in NAMES if not build_loss(name).needs_soft_labels] == ["ce"]


def test_only_ce_and_the_cosine_losses_accept_hard_labels() -> None:
    assert [name for name in NAMES if build_loss(name).accepts_hard] == ["gift", "cosine", "ce", "gift_ce"]


@pytest.mark.parametrize("name", ["gift", "cosine"])
def test_one_hot_labels_stand_in_for_missing_soft_labels(name: str) -> None:
    logits, _, labels = make_batch()
    loss = build_loss(name)
    one_hot = torch.eye(5)[labels]
    assert_close(loss(logits, None, labels), loss(logits, one_hot, labels), rtol=0, atol=0)


def test_ce_works_without_soft_labels() -> None:
    logits, _, labels = make_batch()
    assert_close(build_loss("ce")(logits, None, labels), losses.ce_loss(logits, None, labels))


@pytest.mark.parametrize("name", ["kl", "softce", "mse", "mse_ce", "softce_ce"])
def test_missing_soft_labels_raise_where_they_are_needed(name: str) -> None:
    logits, _, labels = make_batch()
    with pytest.raises(ValueError, match=rf"`soft_labels` for the loss `{name}`, got None\. Label"):
        build_loss(name)(logits, None, labels)


def test_missing_soft_labels_do_not_hide_wrong_labels() -> None:
    logits, _, labels = make_batch()
    with pytest.raises(ValueError, match=r"`labels` of shape \(N,\) = \(4,\), got \(3,\)"):
        build_loss("gift")(logits, None, labels[:3])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gift:weight=2", r"Expected `weight` in \[0, 1\], got 2"),
        ("gift:alpha=1", r"Expected `alpha` in \[0, 1\), got 1"),
        ("kl:temperature=0", r"Expected `temperature` in \(0, inf\), got 0"),
        ("kl:t2=yes", "Bad option value in loss `kl:t2=yes`: Expected `t2` to be true or false"),
        ("softce:-1", r"Expected `temperature` in \(0, inf\), got -1"),
        ("softce:warm", "Bad option value in loss .* Expected `temperature` to be a number"),
        ("mse_ce:ce_weight=-1", r"Expected `ce_weight` in \[0, inf\), got -1"),
        ("softce_ce:-1", r"Expected `ce_weight` in \[0, inf\), got -1"),
    ],
)
def test_unusable_option_raises_at_creation(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LOSSES.create(spec)


def test_unknown_option_raises() -> None:
    with pytest.raises(ValueError, match=r"Bad options in loss `mse:ce_weight=1`.*`mse`: none"):
        build_loss("mse:ce_weight=1")


def test_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown loss `gfit`\. Known: gift, cosine, kl"):
        build_loss("gfit")


def test_loss_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build_loss("gift").name = "mine"  # type: ignore[misc]


def test_own_function_can_be_a_loss() -> None:
    loss = Loss("mine", losses.ce_loss, needs_soft_labels=False, accepts_hard=True)
    logits, _, labels = make_batch()
    assert_close(loss(logits, None, labels), losses.ce_loss(logits, None, labels))
