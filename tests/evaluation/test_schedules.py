import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from gift_cl.evaluation.schedules import SCHEDULES, build_schedule


def make_optimizer() -> Optimizer:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates_of_torch(optimizer: Optimizer, scheduler: LRScheduler, epochs: int) -> list[float]:
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own chains of schedulers step with an argument
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def factors(spec: str, epochs: int) -> list[float]:
    schedule = build_schedule(spec)
    return [schedule(epoch, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize(("epochs", "milestones"), [(300, [200, 250]), (1000, [666, 833])])
def test_multistep_is_that_of_torch_with_milestones_rounded_down(epochs: int, milestones: list[int]) -> None:
    optimizer = make_optimizer()
    expected = rates_of_torch(optimizer, MultiStepLR(optimizer, milestones, gamma=0.2), epochs)
    assert factors("multistep", epochs) == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    optimizer = make_optimizer()
    expected = rates_of_torch(optimizer, CosineAnnealingLR(optimizer, T_max=40), 40)
    assert factors("cosine", 40) == pytest.approx(expected)


def test_a_warm_up_before_a_cosine_is_that_of_torchvisions_reference_training() -> None:
    optimizer = make_optimizer()
    rise = LinearLR(optimizer, start_factor=0.01, total_iters=5)
    fall = CosineAnnealingLR(optimizer, T_max=20 - 5)
    expected = rates_of_torch(optimizer, SequentialLR(optimizer, [rise, fall], milestones=[5]), 20)
    assert factors("warmup:epochs=5,start=0.01 | cosine", 20) == pytest.approx(expected)


def test_half_a_cosine_ends_at_half_the_rate() -> None:
    rates = factors("half_cosine", 300)
    assert rates[0] == 1
    assert rates[150] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rates[299] == pytest.approx(0.5, abs=0.003)


def test_a_step_drops_to_a_tenth_after_half_of_the_epochs() -> None:
    assert factors("step", 4) == [1, 1, 0.1, 0.1]
    assert factors("step:at=0.75,factor=0.5", 4) == [1, 1, 1, 0.5]


@pytest.mark.parametrize("spec", ["multistep", "step", "step:at=0"])
def test_a_training_of_one_epoch_has_its_whole_rate(spec: str) -> None:
    assert factors(spec, 1) == [1]


def test_a_constant_rate_stays() -> None:
    assert factors("constant", 3) == [1, 1, 1]


def test_the_drops_of_multistep_can_be_moved() -> None:
    assert factors("multistep:first=0.25,second=0.5,factor=0.5", 4) == [1, 0.5, 0.25, 0.25]


@given(spec=st.sampled_from(SCHEDULES.names()), epochs=st.integers(1, 60), warm_up=st.integers(0, 10))
def test_a_rate_never_rises_after_the_warm_up_and_stays_within_its_first_value(
    spec: str, epochs: int, warm_up: int
) -> None:
    rates = factors(f"warmup:{warm_up} | {spec}" if warm_up else spec, epochs)
    assert all(0 <= rate <= 1 for rate in rates)
    after = rates[warm_up:]
    assert after == sorted(after, reverse=True)
    assert rates[: warm_up + 1] == sorted(rates[: warm_up + 1])


def test_a_warm_up_as_long_as_the_training_is_all_there_is() -> None:
    assert factors("warmup:epochs=3,start=0 | cosine", 3) == pytest.approx([0, 1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear", "Unknown schedule `linear`. Known: multistep, cosine, half_cosine, step, constant"),
        ("warmup:5", "Unknown schedule `warmup`"),
        ("warmup:5 | linear", "Unknown schedule `linear`"),
        ("cosine | step", "Unknown warm-up `cosine`. Known: warmup"),
        ("step:when=0.5", "Options of `step`: at, factor"),
        ("step:at=1.5", r"`at` in \[0, 1\], got 1.5"),
        ("step:factor=-1", "`factor` of at least 0, got -1"),
        ("multistep:first=true", r"`first` in \[0, 1\], got True"),
        ("warmup:0 | cosine", "`epochs` of the warm-up of at least 1, got 0"),
        ("warmup:epochs=1.5 | cosine", "`epochs` of the warm-up of at least 1, got 1.5"),
        ("warmup:start=2 | cosine", r"`start` in \[0, 1\], got 2"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_schedule(spec)
