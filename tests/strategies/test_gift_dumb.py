# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from torch import Tensor, nn
from toys import make_benchmark, make_model, make_strategy, weights

from gift_cl.normalization import Normalization
from gift_cl.rehearsal import Rehearsal
from gift_cl.students import optimizer_like, reinitialized, train_on_memory
from strategies import DistilledMemory, GIFTDumb


def make_dumb(*, memory: DistilledMemory | None = None, **settings: Any) -> Any:
    if memory is None:
        memory = DistilledMemory(per_class=4, num_classes=6)
    defaults: dict[str, Any] = {"loss": "gift", "memory_weight": 1.0, "student_epochs": 5}
    return make_strategy(GIFTDumb, memory=memory, **(defaults | settings))


def vector(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


# Training of the student


def test_the_student_is_what_training_on_the_memory_alone_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []

    class Before(SupervisedPlugin):
        """Copies the memory as the student will find it."""

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            copies.append((copy.deepcopy(strategy.memory.exemplars), copy.deepcopy(strategy.model)))

    strategy = make_dumb(student_seed=7, batch_size_mem=3)
    strategy.plugins.insert(1, Before())
    for number, experience in enumerate(make_benchmark().train_stream):
        strategy.train(experience)
        exemplars, model = copies[-1]
        expected = reinitialized(model, seed=7 + number)
        optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
        rehearsal = Rehearsal(exemplars, loss="gift")
        rehearsal.open(exemplars.classes, "cpu")
        train_on_memory(expected, rehearsal, optimizer, epochs=5, batch_size=3)
        torch.testing.assert_close(vector(strategy.student), vector(expected), rtol=0, atol=0)


def test_the_student_does_not_depend_on_the_weights_of_the_model() -> None:
    students, models = [], []
    for seed in (0, 1):
        memory = DistilledMemory(per_class=4, exemplars="random", labels="hard")
        strategy = make_dumb(memory=memory, model=make_model(seed=seed), loss="ce")
        for experience in make_benchmark().train_stream[:2]:
            strategy.train(experience)
        students.append(vector(strategy.student))
        models.append(vector(strategy.model))
    torch.testing.assert_close(students[0], students[1], rtol=0, atol=0)
    assert not torch.equal(models[0], models[1])


def test_the_student_and_the_model_share_no_tensor() -> None:
    strategy = make_dumb()
    strategy.train(make_benchmark().train_stream[0])
    model = {tensor.data_ptr() for tensor in strategy.model.state_dict().values()}
    student = {tensor.data_ptr() for tensor in strategy.student.state_dict().values()}
    assert not model & student
    optimised = {p.data_ptr() for group in strategy.optimizer.param_groups for p in group["params"]}
    assert optimised == model


def test_a_fresh_student_is_trained_at_each_experience() -> None:
    strategy = make_dumb()
    assert strategy.student is None
    students: list[Any] = []
    for experience in make_benchmark().train_stream:
        strategy.train(experience)
        students.append(strategy.student)
    assert len({id(student) for student in students}) == 3


def test_the_student_is_left_as_it_is_where_nothing_is_condensed() -> None:
    strategy = make_dumb(train_epochs=1)
    stream = make_benchmark("raw").train_stream
    students: list[Any] = []
    for part in split_online_stream(stream, 6, access_task_boundaries=True, seed=0):
        strategy.train(part)
        students.append(strategy.student)
    assert students[:3] == [None] * 3
    assert students[3:7] == [students[3]] * 4
    assert len({id(student) for student in students[3:]}) == 3


def test_the_same_seeds_give_the_same_student() -> None:
    students = []
    for seed in (0, 0, 1):
        strategy = make_dumb(student_seed=seed)
        for experience in make_benchmark().train_stream:
            strategy.train(experience)
        students.append(vector(strategy.student))
    torch.testing.assert_close(students[0], students[1], rtol=0, atol=0)
    assert not torch.equal(students[0], students[2])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_every_common_optimiser_can_be_taken_over(name: str) -> None:
    model = make_model()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, weight_decay=0.1)
    strategy = make_dumb(model=model, optimizer=optimizer)
    strategy.train(make_benchmark().train_stream[0])
    made = optimizer_like(optimizer, strategy.student)
    assert type(made) is type(optimizer)
    expected = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "initial_lr")}
    assert {k: v for k, v in made.param_groups[0].items() if k != "params"} == expected


def test_the_learning_rate_is_the_one_before_any_schedule() -> None:
    model = make_model()
    groups = [{"params": model.parameters(), "lr": 0.5, "momentum": 0.8}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    optimizer.step()
    schedule.step()
    made = optimizer_like(optimizer, model)
    assert (made.param_groups[0]["lr"], made.param_groups[0]["momentum"]) == (0.5, 0.8)


# Evaluation


@pytest.mark.parametrize("growing", [False, True])
def test_the_student_is_evaluated_and_the_model_put_back(growing: bool) -> None:
    answering: list[nn.Module] = []

    class Who(SupervisedPlugin):
        def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            assert not strategy.model.training
            answering.append(strategy.model)

    normalization = Normalization((0.5,), (0.25,))
    memory = DistilledMemory(per_class=4, num_classes=6, normalization=normalization)
    settings: dict[str, Any] = {"train_epochs": 10, "student_epochs": 30}
    settings |= {"plugins": [Who()], "metrics": accuracy_metrics(stream=True)}
    strategy = make_dumb(memory=memory, growing=growing, **settings)
    benchmark = make_benchmark(normalization=normalization)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        model, state = strategy.model, vector(strategy.model)
        metrics = strategy.eval(benchmark.test_stream)
        assert set(answering) == {strategy.student}
        answering.clear()
        assert strategy.model is model
        torch.testing.assert_close(vector(strategy.model), state, rtol=0, atol=0)
    right = []
    for experience in benchmark.test_stream:
        for image, label, *_ in experience.dataset:
            right.append(int(strategy.student(image[None]).argmax()) == label)
    accuracy = metrics["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    assert accuracy == pytest.approx(sum(right) / len(right))
    assert accuracy > 0.5


def test_before_the_first_student_the_model_is_evaluated() -> None:
    strategy = make_dumb(metrics=accuracy_metrics(stream=True))
    metrics = strategy.eval(make_benchmark().test_stream)
    assert "Top1_Acc_Stream/eval_phase/test_stream/Task000" in metrics


@pytest.mark.parametrize("again", ["train", "eval"])
def test_an_evaluation_that_is_broken_off_does_not_lose_the_model(again: str) -> None:
    class Stop(SupervisedPlugin):
        is_on = True

        def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if self.is_on:
                raise KeyboardInterrupt

    stop = Stop()
    strategy = make_dumb(plugins=[stop])
    benchmark = make_benchmark()
    strategy.train(benchmark.train_stream[0])
    model, student = strategy.model, strategy.student
    with pytest.raises(KeyboardInterrupt):
        strategy.eval(benchmark.test_stream)
    stop.is_on = False
    if again == "eval":
        strategy.eval(benchmark.test_stream)
    else:
        before = vector(student)
        strategy.train(benchmark.train_stream[1])
        assert model.training
        torch.testing.assert_close(vector(student), before, rtol=0, atol=0)
    assert strategy.model is model


def test_evaluation_during_training_leaves_the_training_alone() -> None:
    results = []
    for eval_every in (-1, 1):
        strategy = make_dumb(eval_every=eval_every)
        for number, experience in enumerate(make_benchmark().train_stream):
            torch.manual_seed(number)
            strategy.train(experience, shuffle=False)  # Avalanche's evaluation draws a seed for its loader
        results.append(weights(strategy))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


# Fresh weights


def test_fresh_weights_are_those_of_a_new_model() -> None:
    trained = make_model(seed=3)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(vector(reinitialized(trained, seed=3)), vector(make_model(seed=3)))


def test_fresh_weights_leave_the_global_random_state_and_the_model_alone() -> None:
    model = make_model()
    before, state = vector(model).clone(), torch.random.get_rng_state()
    fresh = reinitialized(model, seed=9)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(vector(model), before, rtol=0, atol=0)
    assert not torch.equal(vector(fresh), before)


def test_running_statistics_are_fresh_too() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model(torch.rand(8, 1, 8, 8) + 5)
    fresh = reinitialized(model, seed=0)
    torch.testing.assert_close(fresh.get_buffer("1.running_mean"), torch.zeros(2))


def test_parameters_that_would_stay_trained_are_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))
            self.classifier = nn.Linear(64, 6)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.classifier(images.flatten(1)) * self.scale
            return logits

    with pytest.raises(TypeError, match=r"`reset_parameters` of `Scaled`, which holds \['scale'\]"):
        reinitialized(Scaled(), seed=0)
    with pytest.raises(TypeError, match="Add that method to its class"):
        make_dumb(model=Scaled()).train(make_benchmark().train_stream[0])


def test_no_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="`student_epochs` of at least 1, got 0"):
        make_dumb(student_epochs=0)


def test_a_student_that_diverges_is_noticed() -> None:
    model = make_model()
    memory = DistilledMemory(per_class=2, exemplars="random", labels="hard")
    strategy = make_dumb(model=model, memory=memory, loss="ce", train_epochs=0)
    strategy.optimizer.param_groups[0]["lr"] = 1e30
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        strategy.train(make_benchmark().train_stream[0])
