# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn
from toys import make_benchmark, make_strategy, weights

from strategies import DistilledMemory, GIFTPlugin, GIFTReplay


def test_it_is_naive_with_the_plugin() -> None:
    settings: dict[str, Any] = {
        "loss": "kl:temperature=4,t2=true",
        "batch_size_mem": 5,
        "memory_weight": 0.5,
        "balance": True,
        "extension": "row_mean",
    }
    memories = [DistilledMemory(per_class=2, num_classes=6) for _ in range(2)]
    ready = make_strategy(GIFTReplay, memory=memories[0], **settings)
    by_hand = make_strategy(plugins=[GIFTPlugin(memories[1], **settings)])
    for strategy in (ready, by_hand):
        torch.manual_seed(3)
        for experience in make_benchmark().train_stream:
            strategy.train(experience)
    torch.testing.assert_close(weights(ready), weights(by_hand), rtol=0, atol=0)
    assert ready.memory is memories[0]


@pytest.mark.parametrize(
    "loss", ["gift", "gift:weight=0.5", "cosine", "kl:temperature=4,t2=true", "mse", "ce"]
)
def test_every_loss_can_be_chosen(loss: str) -> None:
    strategy = make_strategy(GIFTReplay, memory=DistilledMemory(per_class=2), loss=loss)
    for experience in make_benchmark().train_stream[:2]:
        metrics = strategy.train(experience)
    assert metrics["GIFT/loss"] > 0


@pytest.mark.parametrize("labels", ["stored:views=2", "online"])
def test_views_are_rehearsed_under_every_regime(labels: str) -> None:
    memory = DistilledMemory(per_class=2, labels=labels, augmentation="crop_flip:pad=1")
    strategy = make_strategy(GIFTReplay, memory=memory)
    for experience in make_benchmark().train_stream:
        metrics = strategy.train(experience)
    assert 0 < metrics["GIFT/loss"] < 1


def test_the_criterion_is_cross_entropy_unless_given() -> None:
    memory = DistilledMemory(per_class=2)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert make_strategy(GIFTReplay, memory=memory, criterion=criterion)._criterion is criterion
    assert type(make_strategy(GIFTReplay, memory=memory, criterion=None)._criterion) is nn.CrossEntropyLoss


def test_plugins_of_the_user_come_before_the_rehearsal() -> None:
    class Mine(SupervisedPlugin):
        pass

    mine = Mine()
    strategy = make_strategy(GIFTReplay, memory=DistilledMemory(per_class=2), plugins=(mine,))
    assert strategy.plugins[:2] == [mine, strategy.gift]
    assert strategy.gift.storage_policy is strategy.memory


def test_a_loss_without_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="needs soft labels, and the memory keeps hard ones"):
        make_strategy(GIFTReplay, memory=DistilledMemory(per_class=2, labels="hard"), loss="mse")
