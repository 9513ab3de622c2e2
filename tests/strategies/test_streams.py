from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.benchmarks import (
    nc_benchmark,
    split_continuous_linear_decay_stream,
    split_online_stream,
    task_incremental_benchmark,
)
from torch import Tensor
from toys import Spy, make_benchmark, make_images, make_strategy, make_stream, weights

from gift_cl.memory import ExemplarMemory
from strategies import DistilledMemory, GIFTPlugin


def make_plugin(*, per_class: int = 3, labels: str = "stored", **settings: Any) -> GIFTPlugin:
    memory = DistilledMemory(per_class=per_class, labels=labels, num_classes=6)
    defaults: dict[str, Any] = {"loss": "gift", "memory_weight": 1.0, "balance": False}
    return GIFTPlugin(memory, **(defaults | settings))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Sizes of the data of each distillation, and classes of each decoding."""
    recorded: dict[str, list[Any]] = {"update": [], "open": []}
    update, open_ = ExemplarMemory.update, ExemplarMemory.open

    def counted_update(self: ExemplarMemory, images: Tensor, labels: Tensor, teacher: Any) -> None:
        recorded["update"].append((len(images), labels.unique().tolist()))
        update(self, images, labels, teacher)

    def counted_open(self: ExemplarMemory, classes: Any, device: Any, **settings: Any) -> None:
        recorded["open"].append(tuple(classes))
        open_(self, classes, device, **settings)

    monkeypatch.setattr(ExemplarMemory, "update", counted_update)
    monkeypatch.setattr(ExemplarMemory, "open", counted_open)
    return recorded


# Online streams


@pytest.mark.parametrize("size", [4, 5])  # parts of one size, and a shorter last part
@pytest.mark.parametrize("drop_last", [False, True])
def test_an_online_task_is_distilled_once_at_its_end_and_as_a_whole(
    calls: dict[str, list[Any]], size: int, drop_last: bool
) -> None:
    plugin = make_plugin()
    strategy = make_strategy(plugins=[plugin], train_epochs=1)
    online = split_online_stream(
        make_benchmark("raw").train_stream, size, drop_last=drop_last, access_task_boundaries=True, seed=0
    )
    num_classes = []
    for experience in online:
        strategy.train(experience)
        num_classes.append(len(plugin.storage_policy.exemplars.classes))
    assert calls["update"] == [(24, [0, 1]), (24, [2, 3]), (24, [4, 5])]
    per_task = len(num_classes) // 3
    assert num_classes == ([0] * (per_task - 1) + [2] * per_task + [4] * per_task + [6])


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # a tensor on "cpu:0" says that it is on "cpu"
def test_an_online_memory_is_decoded_once_for_each_task(calls: dict[str, list[Any]], device: str) -> None:
    strategy = make_strategy(plugins=[make_plugin()], train_epochs=1, device=torch.device(device))
    stream = make_benchmark("raw").train_stream
    for part in split_online_stream(stream, 2, access_task_boundaries=True, seed=0):
        strategy.train(part)
    assert calls["open"] == [(0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]


def test_an_online_task_whose_distillation_is_past_is_rehearsed_in_every_part() -> None:
    spy = Spy()
    strategy = make_strategy(plugins=[make_plugin(batch_size_mem=3), spy], train_epochs=1)
    stream = make_benchmark("raw").train_stream
    for part in split_online_stream(stream, 8, access_task_boundaries=True, seed=0):
        strategy.train(part)
    assert spy.num_rehearsed == [0] * 3 + [3] * 6


@pytest.mark.parametrize("labels", ["hard", "stored", "online"])
def test_an_online_stream_compares_open_units_of_a_growing_head_only(
    calls: dict[str, list[Any]], labels: str
) -> None:
    spy = Spy()
    strategy = make_strategy(growing=True, plugins=[make_plugin(labels=labels), spy], train_epochs=1)
    stream = make_benchmark("raw").train_stream
    for part in split_online_stream(stream, 1, access_task_boundaries=True, seed=0):
        strategy.train(part)
    assert len(spy.model_outputs) == 72
    for task, classes in enumerate(calls["open"], start=1):
        for outputs in spy.model_outputs[24 * task : 24 * (task + 1)]:
            assert bool((outputs[:, list(classes)] > -1000).all())


def test_an_online_stream_without_boundaries_is_refused() -> None:
    for growing in (False, True):
        strategy = make_strategy(growing=growing, plugins=[make_plugin()])
        before = weights(strategy)
        part = next(iter(split_online_stream(make_benchmark("raw").train_stream, 4)))
        with pytest.raises(ValueError, match="without.*split_online_stream.*access_task_boundaries=True"):
            strategy.train(part)
        torch.testing.assert_close(weights(strategy), before, rtol=0, atol=0)


def test_a_stream_whose_tasks_run_into_each_other_is_refused() -> None:
    stream = split_continuous_linear_decay_stream(
        make_benchmark("raw").train_stream, 8, iters_per_virtual_epoch=2, beta=2.0, shuffle=True
    )
    with pytest.raises(ValueError, match="there is no moment at which to distil"):
        make_strategy(plugins=[make_plugin()]).train(next(iter(stream)))


# Several tasks


def test_task_labels_of_the_older_benchmarks_are_refused() -> None:
    benchmark = nc_benchmark(make_images(), make_images(), 3, task_labels=True, seed=0)
    strategy = make_strategy(plugins=[make_plugin()])
    strategy.train(benchmark.train_stream[0])  # its one task label is 0
    with pytest.raises(ValueError, match=r"the one task label 0, got \[1\].*without task labels"):
        strategy.train(benchmark.train_stream[1])


def test_task_labels_of_the_newer_benchmarks_are_refused() -> None:
    stream = make_stream([0, 1], [2, 3])
    benchmark = task_incremental_benchmark(
        type("Benchmark", (), {"streams": {"train": stream}})(), reset_task_labels=True
    )
    with pytest.raises(ValueError, match=r"the one task label 0, got \[1\]"):
        make_strategy(plugins=[make_plugin()]).train(list(benchmark.train_stream)[1])


def test_task_labels_behind_an_online_stream_are_refused() -> None:
    benchmark = nc_benchmark(make_images(), make_images(), 3, task_labels=True, seed=0)
    online = split_online_stream(benchmark.train_stream[1:], 4, access_task_boundaries=True)
    with pytest.raises(ValueError, match=r"the one task label 0, got \[1\]"):
        make_strategy(plugins=[make_plugin()]).train(next(iter(online)))


# Classes that come back


@pytest.mark.parametrize("labels", ["hard", "stored", "stored:views=2,refresh=true"])
def test_a_class_that_comes_back_shares_its_place(labels: str) -> None:
    budget = 2000
    memory = DistilledMemory(budget_bytes=budget, labels=labels, num_classes=6)
    strategy = make_strategy(plugins=[GIFTPlugin(memory)])
    stream = make_stream([0, 1], [2, 3], [1, 4])
    for experience in stream[:2]:
        strategy.train(experience)
    with pytest.warns(UserWarning, match=r"Classes \[1\] came back"):
        strategy.train(stream[2])
    assert memory.ledger.total <= budget
    dataset = memory.exemplars.dataset
    assert dataset is not None
    counts = dataset.images_per_class
    assert set(counts) == {0, 1, 2, 3, 4}
    assert max(counts.values()) - min(counts.values()) <= 1
    kept = as_rows(dataset.images[dataset.labels == 1])
    old, new = (images_of(stream[i], 1) for i in (0, 2))
    assert kept <= old | new
    assert abs(len(kept & old) - len(kept & new)) <= 1
    assert not old & new


def images_of(experience: Any, label: int) -> set[bytes]:
    images = torch.stack([image for image, y, *_ in experience.dataset if y == label])
    return as_rows((images * 255).round().to(torch.uint8))


def as_rows(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_stream_of_classes_that_all_come_back_is_rehearsed() -> None:
    spy = Spy()
    strategy = make_strategy(plugins=[make_plugin(batch_size_mem=4), spy])
    stream = make_stream([0, 1, 2], [0, 1, 2])
    strategy.train(stream[0])
    with pytest.warns(UserWarning, match=r"Classes \[0, 1, 2\] came back"):
        strategy.train(stream[1])
    assert spy.num_rehearsed[-1] == 4


# Experiences without data


def test_an_experience_without_data_changes_nothing() -> None:
    images = make_images()
    nothing = type(images)(images.tensors[0][:0], images.tensors[1][:0])
    plugin = make_plugin()
    strategy = make_strategy(plugins=[plugin])
    stream = make_stream([0, 1], nothing, [2, 3])
    strategy.train(stream[0])
    memory = plugin.storage_policy
    before, updates = memory.exemplars.dataset, memory.num_updates
    with pytest.warns(UserWarning, match="An experience without data was passed over"):
        strategy.train(stream[1], shuffle=False)  # torch cannot shuffle nothing
    assert memory.exemplars.dataset is before
    assert memory.num_updates == updates
    strategy.train(stream[2])
    assert memory.exemplars.classes == (0, 1, 2, 3)


def test_a_stream_may_begin_without_data() -> None:
    images = make_images()
    nothing = type(images)(images.tensors[0][:0], images.tensors[1][:0])
    plugin = make_plugin()
    strategy = make_strategy(plugins=[plugin])
    stream = make_stream(nothing, [2, 3])
    with pytest.warns(UserWarning, match="without data"):
        strategy.train(stream[0], shuffle=False)
    assert len(plugin.storage_policy) == 0
    strategy.train(stream[1])
    assert len(plugin.storage_policy) == 6
