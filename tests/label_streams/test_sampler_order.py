import random

import pytest
import torch
from torch.utils.data import RandomSampler

from gift_cl.label_streams.order import SamplerOrder


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_two_draws_an_epoch_are_torchs_sampler(count: int) -> None:
    sampler = RandomSampler(range(count), generator=torch.Generator().manual_seed(42))
    order = SamplerOrder(count, seed=42, draws=2)
    for epoch in range(3):
        assert order.epoch(epoch).tolist() == list(sampler)


def test_one_draw_an_epoch_is_one_permutation_after_another() -> None:
    generator = torch.Generator().manual_seed(42)
    order = SamplerOrder(9, seed=42, draws=1)
    for epoch in range(3):
        assert order.epoch(epoch).tolist() == torch.randperm(9, generator=generator).tolist()


def test_rules_are_the_same_in_epoch_0_and_differ_later() -> None:
    one, two = (SamplerOrder(50, seed=42, draws=draws) for draws in (1, 2))
    assert torch.equal(one.epoch(0), two.epoch(0))
    assert not torch.equal(one.epoch(1), two.epoch(1))
    assert torch.equal(one.epoch(2), two.epoch(1))


def test_the_published_order_is_pinned() -> None:
    order = SamplerOrder(5, seed=42, draws=2)
    assert [order.epoch(epoch).tolist() for epoch in range(3)] == [
        [2, 4, 3, 0, 1],
        [0, 2, 3, 1, 4],
        [0, 4, 2, 3, 1],
    ]


def test_epochs_may_be_asked_for_in_any_order() -> None:
    forward = SamplerOrder(20, seed=1, draws=2)
    expected = [forward.epoch(epoch).tolist() for epoch in range(8)]
    order, asked = SamplerOrder(20, seed=1, draws=2), [5, 5, 0, 7, 2, 6, 1, 3, 4, 0]
    random.Random(0).shuffle(asked)
    assert [order.epoch(epoch).tolist() for epoch in asked] == [expected[epoch] for epoch in asked]


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(
        SamplerOrder(50, seed=42, draws=2).epoch(0), SamplerOrder(50, seed=43, draws=2).epoch(0)
    )


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    SamplerOrder(50, seed=42, draws=2).epoch(3)
    assert torch.equal(torch.get_rng_state(), before)
