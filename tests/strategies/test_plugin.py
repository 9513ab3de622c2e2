# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import TextLogger
from avalanche.models import MTSimpleMLP
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from torch import Tensor, nn
from toys import Spy, make_benchmark, make_images, make_model, make_strategy, make_stream, weights

from gift_cl.normalization import Normalization
from gift_cl.rehearsal import Rehearsal
from strategies import DistilledMemory, GIFTPlugin


def make_plugin(*, per_class: int = 3, labels: str = "stored", **settings: Any) -> GIFTPlugin:
    memory = DistilledMemory(per_class=per_class, labels=labels, num_classes=6)
    defaults: dict[str, Any] = {"loss": "gift", "memory_weight": 1.0, "balance": False}
    return GIFTPlugin(memory, **(defaults | settings))


# What it works with


@pytest.mark.parametrize("labels", ["hard", "stored", "stored:views=3", "online"])
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("kind", ["nc", "raw", "classification"])
def test_it_works_on_naive_with_every_benchmark_head_and_label_regime(
    kind: str, growing: bool, labels: str
) -> None:
    plugin = make_plugin(labels=labels)
    strategy = make_strategy(growing=growing, plugins=[plugin])
    benchmark = make_benchmark(kind)
    for number, experience in enumerate(benchmark.train_stream):
        metrics = strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        classes = range(2 * number + 2)
        assert plugin.storage_policy.exemplars.dataset is not None
        assert plugin.storage_policy.exemplars.dataset.images_per_class == dict.fromkeys(classes, 3)
        assert ("GIFT/loss" in metrics) == (number > 0)
    assert 0 < metrics["GIFT/loss"] < 1


def test_rehearsal_keeps_what_fine_tuning_forgets() -> None:
    accuracies = []
    for plugins in ([], [make_plugin(labels="hard", loss="ce")]):
        strategy = make_strategy(plugins=plugins, metrics=accuracy_metrics(stream=True), train_epochs=10)
        benchmark = make_benchmark()
        for experience in benchmark.train_stream:
            strategy.train(experience)
        metrics = strategy.eval(benchmark.test_stream)
        accuracies += [value for name, value in metrics.items() if name.startswith("Top1_Acc_Stream")]
    fine_tuning, rehearsal = accuracies
    assert fine_tuning < 0.4
    assert rehearsal > 0.7


# What others see


@pytest.mark.parametrize("kind", ["nc", "raw", "classification"])
def test_other_plugins_and_the_criterion_see_the_current_data_only(kind: str) -> None:
    spy, plain = Spy(), Spy()
    lengths: list[tuple[int, int]] = []

    class Criterion(nn.CrossEntropyLoss):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            lengths.append((len(logits), len(labels)))
            return super().forward(logits, labels)

    strategy = make_strategy(plugins=[make_plugin(batch_size_mem=5), spy], criterion=Criterion())
    naive = make_strategy(plugins=[plain])
    for run in (strategy, naive):
        torch.manual_seed(2)
        for experience in make_benchmark(kind).train_stream:
            run.train(experience)
    for seen, expected in zip(spy.inputs, plain.inputs, strict=True):
        torch.testing.assert_close(seen, expected, rtol=0, atol=0)
    assert [len(o) for o in spy.outputs] == [len(i) for i in spy.inputs]
    assert [len(t) for t in spy.task_labels] == [len(t) for t in plain.task_labels]
    assert lengths == [(len(i), len(i)) for i in spy.inputs]
    assert spy.num_rehearsed == 6 * [0] + 12 * [5]


def test_training_accuracy_is_that_of_the_current_data() -> None:
    spy = Spy()
    metrics_wanted = accuracy_metrics(epoch=True)
    strategy = make_strategy(plugins=[make_plugin(), spy], metrics=metrics_wanted, train_epochs=1)
    for experience in make_benchmark().train_stream:
        spy.clear()
        metrics = strategy.train(experience)
    outputs, labels = torch.cat(spy.outputs), torch.cat(spy.labels)
    assert len(labels) == 24
    expected = float((outputs.argmax(1) == labels).float().mean())
    assert metrics["Top1_Acc_Epoch/train_phase/train_stream/Task000"] == pytest.approx(expected)


def test_a_weight_of_zero_trains_as_if_there_were_no_memory() -> None:
    naive, rehearsing = make_strategy(), make_strategy(plugins=[make_plugin(memory_weight=0.0)])
    for strategy in (naive, rehearsing):
        torch.manual_seed(5)
        for experience in make_benchmark().train_stream:
            strategy.train(experience)
    # Matrices of another height are multiplied in another order.
    torch.testing.assert_close(weights(rehearsing), weights(naive), rtol=1e-4, atol=1e-5)


# What is rehearsed


@pytest.mark.parametrize("count", [1, 7, 20])
def test_every_step_rehearses_exactly_the_same_number_of_exemplars(count: int) -> None:
    spy = Spy()
    strategy = make_strategy(plugins=[make_plugin(per_class=1, batch_size_mem=count), spy], train_mb_size=10)
    for experience in make_benchmark().train_stream[:2]:
        strategy.train(experience)
    assert [len(i) for i in spy.inputs] == [10, 10, 4] * 4
    assert spy.num_rehearsed == [0] * 6 + [count] * 6


def test_as_many_exemplars_as_a_full_batch_by_default() -> None:
    spy = Spy()
    strategy = make_strategy(plugins=[make_plugin(), spy], train_mb_size=10)
    for experience in make_benchmark().train_stream[:2]:
        strategy.train(experience)
    assert spy.num_rehearsed[6:] == [10] * 6


@pytest.mark.parametrize("growing", [False, True])
def test_the_loss_added_is_the_weighted_gift_loss_on_the_classes_so_far(growing: bool) -> None:
    spy = Spy()
    plugin = make_plugin(memory_weight=0.7, batch_size_mem=5)
    strategy = make_strategy(plugins=[plugin, spy], growing=growing, train_epochs=1)
    benchmark = make_benchmark()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)  # it widens a growing head to six units, four of them masked
    dataset = plugin.storage_policy.exemplars.dataset
    assert dataset is not None
    assert dataset.soft_labels is not None
    exemplars = dataset.images.numpy().reshape(len(dataset), -1) / 255
    soft = dataset.soft_labels.dense(dataset.labels, [0, 1]).numpy()[:, 0].astype(np.float64)
    soft = np.concatenate([soft, np.repeat(soft.min(1, keepdims=True), 2, 1)], 1)  # row_min: 2 and 3
    spy.clear()
    strategy.train(benchmark.train_stream[1])
    steps = zip(spy.model_inputs, spy.model_outputs, spy.labels, spy.losses, strict=True)
    for inputs, outputs, labels, loss in steps:
        drawn = inputs[-5:].numpy().reshape(5, 1, -1)
        distance = np.abs(drawn - exemplars).max(2)
        chosen = distance.argmin(1)
        assert distance.min(1).max() < 1e-6
        hard = np.full((5, 4), 0.1 / 3)
        hard[np.arange(5), dataset.labels.numpy()[chosen]] = 0.9
        target = unit(soft[chosen]) + 0.1 * unit(hard)
        logits = outputs.numpy()[-5:, :4].astype(np.float64)
        expected = 0.7 * (1 - (unit(logits) * unit(target)).sum(1).mean())
        expected += float(nn.functional.cross_entropy(outputs[:-5], labels))
        assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def rehearsal_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss on the exemplars in each step, before any weight."""
    losses: list[float] = []
    compute = Rehearsal.loss

    def record(self: Rehearsal, *args: Any) -> Tensor:
        loss = compute(self, *args)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(Rehearsal, "loss", record)
    return losses


def test_balanced_classes_count_the_same(rehearsal_losses: list[float]) -> None:
    spy = Spy()
    strategy = make_strategy(plugins=[make_plugin(memory_weight=0.7, balance=True), spy], train_epochs=1)
    for num_old, experience in zip((0, 2, 4), make_benchmark().train_stream, strict=True):
        spy.clear()
        rehearsal_losses.clear()
        strategy.train(experience)
        ratio = num_old / 2
        rehearsed = rehearsal_losses or [0.0] * 3
        for outputs, labels, loss, on_memory in zip(
            spy.outputs, spy.labels, spy.losses, rehearsed, strict=True
        ):
            on_current = float(nn.functional.cross_entropy(outputs, labels))
            expected = (on_current + 0.7 * ratio * on_memory) / (1 + ratio)
            assert float(loss) == pytest.approx(expected, rel=1e-5)


def unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    normalised: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("labels", ["hard", "stored", "online"])
@pytest.mark.parametrize("filler", [float("nan"), 1e6, -1000.0])
def test_units_of_unseen_classes_never_enter_the_loss(labels: str, filler: float) -> None:
    plugin = make_plugin(labels=labels)
    make_strategy(plugins=[plugin]).train(make_benchmark().train_stream[0])
    plugin.rehearsal.open([0, 1, 2, 3], "cpu")
    batch = plugin.rehearsal.draw(4)
    answers = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    spoilt = answers.clone()
    spoilt[:, 4:] = filler
    losses, gradients = [], []
    for logits in (answers, spoilt):
        logits.requires_grad_()
        loss = plugin.rehearsal.loss(logits, batch)
        loss.backward()
        assert logits.grad is not None
        losses.append(loss.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert not bool(gradients[0][:, 4:].any())
    assert bool(gradients[0][:, :4].any())


def test_a_memory_that_is_resized_within_an_experience_is_rehearsed_on() -> None:
    spy = Spy()
    plugin = make_plugin(batch_size_mem=4)

    class Shrink(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if len(plugin.storage_policy) and strategy.clock.train_exp_epochs == 1:
                plugin.storage_policy.resize(strategy, 2)

    strategy = make_strategy(plugins=[Shrink(), plugin, spy])
    for experience in make_benchmark().train_stream[:2]:
        strategy.train(experience)
    assert spy.num_rehearsed[6:] == [4] * 6
    assert len(plugin.storage_policy) == 8


def test_normalised_inputs_are_rehearsed_normalised() -> None:
    spy = Spy()
    normalization = Normalization((0.4,), (0.25,))
    memory = DistilledMemory(per_class=12, exemplars="random", normalization=normalization)
    strategy = make_strategy(plugins=[GIFTPlugin(memory), spy], train_epochs=1)
    stream = make_benchmark(normalization=normalization).train_stream
    strategy.train(stream[0])
    first = torch.cat(spy.inputs).flatten(1)
    strategy.train(stream[1])
    rehearsed = spy.model_inputs[-1][len(spy.inputs[-1]) :].flatten(1)
    nearest = torch.cdist(rehearsed, first).amin(1)
    # Distances in float32 are exact to about a thousandth at this length.
    torch.testing.assert_close(nearest, torch.zeros_like(nearest), rtol=0, atol=5e-3)


# Company


def test_it_composes_with_lwf() -> None:
    spy = Spy()
    lwf = LwFPlugin(alpha=1.0, temperature=2.0)
    strategy = make_strategy(plugins=[lwf, make_plugin(), spy])
    for experience in make_benchmark().train_stream:
        strategy.train(experience)
    assert lwf.lwf.prev_classes_by_task == {0: set(range(6))}
    assert {len(i) for i in spy.inputs} == {8}
    assert len(spy.model_inputs[-1]) == 16


def test_it_composes_with_a_schedule_of_the_learning_rate() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    rates: list[float] = []

    class Rates(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            rates.append(strategy.optimizer.param_groups[0]["lr"])

    plugins = [LRSchedulerPlugin(schedule), make_plugin(), Rates()]
    strategy = make_strategy(model=model, optimizer=optimizer, plugins=plugins)
    for experience in make_benchmark().train_stream[:2]:
        metrics = strategy.train(experience)
    assert rates == [0.4, 0.2, 0.4, 0.2]
    assert "GIFT/loss" in metrics


# Avalanche warns at the first epoch of each experience that it has no best value yet.
@pytest.mark.filterwarnings("ignore:Metric Top1_Acc_Stream used by the EarlyStopping plugin")
def test_it_composes_with_early_stopping() -> None:
    plugin = make_plugin()
    strategy = make_strategy(
        plugins=[EarlyStoppingPlugin(patience=1, val_stream_name="test_stream"), plugin],
        metrics=accuracy_metrics(stream=True),
        train_epochs=50,
        eval_every=1,
    )
    benchmark = make_benchmark()
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        assert strategy.clock.train_exp_epochs < 50
    assert len(plugin.storage_policy) == 18


def test_it_composes_with_replay() -> None:
    spy = Spy()

    class Replay(ReplayPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            # Avalanche's own warns of a deprecated call, past all filters.
            self.storage_policy.post_adapt(strategy, strategy.experience)

    strategy = make_strategy(plugins=[Replay(mem_size=8, batch_size_mem=4), make_plugin(), spy])
    for experience in make_benchmark().train_stream[:2]:
        strategy.train(experience)
    assert (len(spy.inputs[-1]), len(spy.model_inputs[-1])) == (12, 20)


def test_a_plugin_that_changes_the_batch_afterwards_is_noticed() -> None:
    class Longer(SupervisedPlugin):
        def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            strategy.mb_output = torch.cat([strategy.mb_output, strategy.mb_output])

    strategy = make_strategy(plugins=[make_plugin(), Longer()])
    stream = make_benchmark().train_stream
    with pytest.raises(ValueError, match="batch_size"):
        strategy.train(stream[0])  # the criterion notices
    before = make_strategy(plugins=[Longer(), plugin := make_plugin()])
    make_strategy(plugins=[plugin]).train(stream[0])
    with pytest.raises(
        TypeError, match=r"one row for each of 16 inputs, got \(32, 6\).*Put this plugin last"
    ):
        before.train(stream[1])


# What is published


def test_costs_and_losses_are_published() -> None:
    memory = DistilledMemory(budget_bytes=4000, labels="online", num_classes=6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    strategy = make_strategy(model=model, plugins=[GIFTPlugin(memory)])
    logger = strategy.evaluator.loggers[0]
    for number, experience in enumerate(make_benchmark().train_stream):
        metrics = strategy.train(experience)
        ledger = memory.ledger
        for part, nbytes in ledger.by_part().items():
            assert metrics[f"GIFT/memory_bytes/{part}"] == nbytes
        assert metrics["GIFT/memory_bytes/total"] == ledger.total <= 4000
        assert metrics["GIFT/memory_bytes/teacher"] == 2 * (64 * 6 + 6)
        assert metrics["GIFT/distillation_seconds"] == memory.distillation_seconds > 0
        assert metrics["GIFT/teacher_accuracy"] == memory.teacher_accuracy
        assert len(logger.metrics["GIFT/memory_bytes/total"]) == number + 1
    parts = {f"memory_bytes/{name}" for name in ("pixels", "labels", "soft_labels", "teacher", "total")}
    names = {f"GIFT/{name}" for name in parts | {"distillation_seconds", "teacher_accuracy", "loss"}}
    assert names <= strategy.evaluator.get_all_metrics().keys()
    assert names <= logger.metrics.keys()
    assert all(type(v) in (int, float) for name in names for v in logger.metrics[name])
    assert len(logger.metrics["GIFT/loss"]) == 4  # two experiences with a memory, of two epochs


def test_the_loss_published_is_the_mean_over_the_epoch(rehearsal_losses: list[float]) -> None:
    strategy = make_strategy(plugins=[make_plugin(memory_weight=3.0)])
    for experience in make_benchmark().train_stream[:2]:
        metrics = strategy.train(experience)
    assert len(rehearsal_losses) == 6
    assert metrics["GIFT/loss"] == pytest.approx(sum(rehearsal_losses[3:]) / 3)


def test_metrics_reach_avalanches_text_logger(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    evaluator = EvaluationPlugin(loggers=[TextLogger(sys.stdout)])
    strategy = make_strategy(plugins=[make_plugin()], evaluator=evaluator)
    benchmark = make_benchmark()
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
    printed = capsys.readouterr().out
    assert "GIFT/loss = " in printed
    assert "GIFT/memory_bytes/total = " in printed


# Repeatability


def test_the_same_seeds_give_the_same_numbers() -> None:
    results = []
    for seed in (0, 0, 1):
        memory = DistilledMemory(
            per_class=3, exemplars="random", labels="stored:views=2", augmentation="crop", seed=seed
        )
        strategy = make_strategy(plugins=[GIFTPlugin(memory)])
        for experience in make_benchmark().train_stream:
            strategy.train(experience)
        results.append(weights(strategy))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0], results[2])


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size_mem": 0}, "`batch_size_mem` of at least 1, got 0"),
        ({"memory_weight": -0.5}, "`memory_weight` of at least 0, got -0.5"),
        ({"memory_weight": float("nan")}, "`memory_weight` of at least 0, got nan"),
        ({"extension": "row_max"}, "row_min, row_mean or zero"),
        ({"loss": "gfit"}, "Unknown loss `gfit`"),
        ({"loss": "kl", "labels": "hard"}, "needs soft labels, and the memory keeps hard ones"),
    ],
)
def test_unusable_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plugin(**settings)


def test_inputs_that_are_not_images_are_refused_before_training() -> None:
    images = make_images()
    flat = type(images)(images.tensors[0].flatten(1), images.tensors[1])
    strategy = make_strategy(plugins=[make_plugin()])
    before = weights(strategy)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), got \(1, 64\)"):
        strategy.train(make_stream(flat)[0])
    torch.testing.assert_close(weights(strategy), before, rtol=0, atol=0)


def test_inputs_out_of_range_are_refused_before_training() -> None:
    strategy = make_strategy(plugins=[make_plugin()])
    before = weights(strategy)
    stream = make_benchmark(normalization=Normalization((0.5,), (0.25,))).train_stream
    with pytest.raises(ValueError, match="Pass as `normalization` the mean and std"):
        strategy.train(stream[0])
    torch.testing.assert_close(weights(strategy), before, rtol=0, atol=0)


def test_inputs_that_are_not_tensors_are_refused() -> None:
    class Arrays:
        def eval(self) -> list[Any]:
            return [(np.zeros((1, 8, 8)), 0)]

    strategy = SimpleNamespace(experience=SimpleNamespace(dataset=Arrays()), model=nn.Flatten())
    with pytest.raises(TypeError, match="got ndarray.*ToTensor"):
        make_plugin().before_train_dataset_adaptation(strategy)


def test_a_head_that_is_too_narrow_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    strategy = make_strategy(model=model, plugins=[make_plugin()])
    stream = make_benchmark().train_stream
    strategy.train(stream[0])
    with pytest.raises(
        ValueError, match="at least 4 outputs for the classes so far, got 2.*with_growing_head"
    ):
        strategy.train(stream[1])


def test_models_that_need_task_labels_are_refused() -> None:
    strategy = make_strategy(model=MTSimpleMLP(input_size=64), plugins=[make_plugin()])
    with pytest.raises(TypeError, match="one head, got the multi-task module MTSimpleMLP"):
        strategy.train(make_benchmark().train_stream[0])


def test_batches_that_are_not_tuples_are_refused() -> None:
    plugin = make_plugin()
    make_strategy(plugins=[plugin]).train(make_benchmark().train_stream[0])
    strategy = SimpleNamespace(mbatch={"x": torch.zeros(1)}, device=torch.device("cpu"), train_mb_size=1)
    with pytest.raises(TypeError, match="got dict. Make the data set return tuples"):
        plugin.before_forward(strategy)
