import copy
import math
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_data import NORMALIZATION, make_dataset, make_images, make_model, make_recipe, make_teacher
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.accuracy import Accuracy, measure
from gift_cl.evaluation.labelling import DrawnBatches, Stream
from gift_cl.evaluation.memory_limits import TooLargeError
from gift_cl.evaluation.optimizers import optimizer_names
from gift_cl.evaluation.training import DivergedError, History, train
from gift_cl.losses import build_loss
from gift_cl.normalization import build_normalization
from gift_cl.teacher import Teacher

CPU = torch.device("cpu")
TEACHER_WEIGHTS = make_teacher().model.state_dict()["1.weight"]
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


class Hungry(nn.Module):
    """A network without batch norms that takes few images at a time."""

    def __init__(self, limit: int, error: Exception = NO_MEMORY) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.limit:
            raise self.error
        self.sizes.append(len(inputs))
        logits: Tensor = self.layers(inputs)
        return logits


class Syncs(TorchDispatchMode):
    """Counts how often a value is read from a tensor, for which a device would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def fit(student: nn.Module, dataset: DistilledDataset | None = None, **values: Any) -> History:
    options = {
        name: values.pop(name) for name in ("measure", "progress", "stream", "history") if name in values
    }
    recipe = make_recipe(**values)
    teacher = make_teacher() if recipe.labels == "online" else None
    return train(student, dataset or make_dataset(), recipe, teacher=teacher, **options)


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def accuracy_of(student: nn.Module) -> Accuracy:
    images, labels = make_images(60, seed=5)
    return measure(student, images, labels, normalization=NORMALIZATION)


@pytest.mark.parametrize("loss", ["gift", "kl:temperature=4,t2=true", "mse_ce"])
def test_training_is_a_plain_loop_over_the_same_batches(loss: str) -> None:
    student, plain = make_model(), make_model()
    values: dict[str, Any] = {"epochs": 6, "loss": loss, "optimizer": "SGD", "lr": 0.2, "weight_decay": 0.01}
    history = fit(student, **values)

    recipe, teacher = make_recipe(**values), make_teacher()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 5], gamma=0.2)
    drawn = DrawnBatches(make_dataset(), recipe, device=CPU, keep_single=True)
    for epoch in range(6):
        losses = []
        for batch in drawn.batches(epoch):
            soft = teacher.logits(batch.inputs * 0.25 + 0.5)
            value = build_loss(loss)(plain(batch.inputs), soft, batch.targets[0].labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        schedule.step()
    for ours, theirs in zip(weights(student), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert history.train_loss_last == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_the_loss_of_an_epoch_is_the_mean_over_images_not_over_batches() -> None:
    student = make_model()
    history = fit(student, make_dataset(10), epochs=1, lr=0.0, loss="ce", labels="hard", weight_decay=0.0)
    images, labels = make_images(10)
    expected = F.cross_entropy(student(NORMALIZATION.apply(images.float() / 255)), labels)
    assert history.train_loss_last == pytest.approx(float(expected.detach()), rel=1e-5)


def test_teacher_and_student_see_the_same_views() -> None:
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}

    class Spy(nn.Sequential):
        name = "teacher"

        def forward(self, inputs: Tensor) -> Tensor:
            seen[self.name].append(inputs.clone())
            answers: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
            return answers

    model = Spy(nn.Flatten(), nn.Linear(64, 3, bias=False))
    model.load_state_dict({"1.weight": TEACHER_WEIGHTS})
    teacher = Teacher(model, classes=range(3), normalization=NORMALIZATION)
    student = copy.deepcopy(model)
    student.name = "student"
    train(student, make_dataset(), make_recipe(view="dsa", mix="cutmix"), teacher=teacher)
    assert len(seen["student"]) == 6
    for ours, theirs in zip(seen["student"], seen["teacher"][-6:], strict=True):
        assert torch.equal(ours, theirs)


def test_a_mixed_batch_has_the_loss_of_both_images_by_their_shares() -> None:
    recipe = make_recipe(epochs=1, mix="mixup", loss="ce", labels="hard", lr=0.0, batch_size=12)
    student = make_model()
    history = train(student, make_dataset(), recipe)
    (batch,) = DrawnBatches(make_dataset(), recipe, device=CPU, keep_single=True).batches(0)
    logits, (own, partner) = student(batch.inputs), batch.targets
    expected = own.weight * F.cross_entropy(logits, own.labels)
    expected += partner.weight * F.cross_entropy(logits, partner.labels)
    assert 0 < own.weight < 1
    assert history.train_loss_last == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("spec", ["mlp:hidden=8", "conv3:width=4"])
@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(spec: str, mix: str) -> None:
    runs = []
    for seed in (1, 1, 2):
        student = make_model(spec)
        history = fit(
            student, seed=seed, epochs=4, evaluations=4, view="dsa", mix=mix, lr=0.01, measure=accuracy_of
        )
        runs.append((history.curve, history.train_loss_last, weights(student)))
    assert runs[0][:2] == runs[1][:2]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(runs[0][2], runs[1][2], strict=True))
    assert runs[0][1] != runs[2][1]


def test_dropout_follows_the_seed_and_global_random_states_are_restored() -> None:
    losses = []
    for state in (0, 1):
        student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
        student[2].load_state_dict({"weight": TEACHER_WEIGHTS / 8, "bias": torch.zeros(3)})
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        losses.append(fit(student, seed=3).train_loss_last)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert losses[0] == losses[1]


def test_a_student_is_measured_when_the_recipe_says_so_and_at_the_end() -> None:
    measured: list[int] = []

    def note(student: nn.Module) -> Accuracy:
        measured.append(len(measured))
        return Accuracy(len(measured) / 10, 1.0, 5)

    history = fit(make_model(), epochs=6, evaluations=3, measure=note)
    assert history.curve == [
        (2, Accuracy(0.1, 1.0, 5)),
        (4, Accuracy(0.2, 1.0, 5)),
        (6, Accuracy(0.3, 1.0, 5)),
    ]


def test_measuring_does_not_change_what_is_learned() -> None:
    students = make_model("conv3:width=4"), make_model("conv3:width=4")
    fit(students[0], epochs=4, evaluations=4, measure=accuracy_of)
    fit(students[1], epochs=4, evaluations=1)
    for ours, theirs in zip(*map(weights, students), strict=True):
        assert torch.equal(ours, theirs)


def test_measuring_does_not_count_as_training_time() -> None:
    def slow(student: nn.Module) -> Accuracy:
        time.sleep(0.5)
        return Accuracy(0.0, 0.0, 1)

    history = fit(make_model(), measure=slow)
    assert 0 < history.seconds < 0.5
    assert history.images_per_second == pytest.approx(24 / history.seconds)


def test_progress_counts_the_images_of_all_epochs() -> None:
    calls: list[tuple[int, int]] = []
    history = fit(make_model(), make_dataset(10), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 20), (8, 20), (10, 20), (14, 20), (18, 20), (20, 20)]
    assert history.num_images == 20


def test_a_last_batch_of_one_image_is_left_out_only_with_batch_norm() -> None:
    assert fit(make_model("conv3:width=4"), make_dataset(9)).num_images == 16
    assert fit(make_model("conv3:width=4,norm=instance"), make_dataset(9)).num_images == 18


@pytest.mark.parametrize("loss", ["gift", "mse_ce", "kl"])
def test_no_value_is_read_from_the_device_but_once_an_epoch(loss: str) -> None:
    counts = []
    for num_images in (12, 48):
        recipe = make_recipe(epochs=3, loss=loss, labels="stored", optimizer="AdamW")
        student, dataset = make_model("conv3:width=4"), make_dataset(num_images, soft=True)
        with Syncs() as syncs:
            train(student, dataset, recipe)
        counts.append(syncs.count)
    assert counts[0] == counts[1]  # four times as many steps


def test_a_loss_that_is_not_finite_stops_the_training_at_the_end_of_the_epoch() -> None:
    history = History()
    with pytest.raises(DivergedError, match="NaN or infinite in epoch 2. Lower the learning rate") as error:
        fit(
            make_model(),
            epochs=8,
            evaluations=8,
            optimizer="SGD",
            lr=1e19,
            loss="mse",
            momentum=0.0,
            measure=lambda _: Accuracy(0.5, 1.0, 1),
            history=history,
            batch_size=12,
        )
    assert isinstance(error.value, FloatingPointError)
    assert error.value.epoch == 2
    assert history.curve == [(1, Accuracy(0.5, 1.0, 1))]
    assert not math.isfinite(history.train_loss_last)


@pytest.mark.parametrize(
    "error", [NO_MEMORY, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.")]
)
def test_a_batch_that_does_not_fit_is_cut_until_it_does_with_the_same_gradient(error: Exception) -> None:
    roomy, hungry = Hungry(100), Hungry(3, error)
    values: dict[str, Any] = {"batch_size": 10, "epochs": 3, "view": "crop_flip", "mix": "mixup"}
    expected = fit(roomy, make_dataset(25), **values)
    with pytest.warns(UserWarning, match="does not fit the memory") as caught:
        history = fit(hungry, make_dataset(25), **values)
    assert [str(warning.message) for warning in caught] == [
        "A batch of 10 images does not fit the memory: from now on its gradient is summed over pieces of "
        f"{size}, and batch norms see pieces."
        for size in (5, 3)
    ]
    assert {warning.filename for warning in caught} == {__file__}
    assert (history.microbatches, expected.microbatches) == (4, 1)
    assert set(hungry.sizes) <= {1, 2, 3}
    assert history.train_loss_last == pytest.approx(expected.train_loss_last, rel=1e-5)
    for ours, theirs in zip(weights(hungry), weights(roomy), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_memory_that_runs_out_within_a_batch_leaves_no_part_of_its_gradient() -> None:
    class Late(Hungry):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(self.sizes) == 3 and self.limit < 100:  # in the second piece of the second step
                self.limit = 100
                raise NO_MEMORY
            return super().forward(inputs)

    late, roomy = Late(2), Hungry(100)
    with pytest.warns(UserWarning, match="does not fit"):
        fit(late, batch_size=4, optimizer="SGD", lr=0.5)
    fit(roomy, batch_size=4, optimizer="SGD", lr=0.5)
    for ours, theirs in zip(weights(late), weights(roomy), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_does_not_fit_gets_smaller_batches_too() -> None:
    model = Hungry(32)
    model.layers[1].load_state_dict({"weight": TEACHER_WEIGHTS, "bias": torch.zeros(3)})
    teacher = Teacher(model, classes=range(3))
    with pytest.warns(UserWarning, match="pieces of 20"):
        history = train(make_model(), make_dataset(40), make_recipe(batch_size=40), teacher=teacher)
    assert history.microbatches == 2


@pytest.mark.filterwarnings("ignore:A batch of")
def test_a_single_image_that_does_not_fit_is_an_error_with_a_name() -> None:
    with pytest.raises(TooLargeError, match="A single image does not fit the memory"):
        fit(Hungry(0))


def test_other_errors_of_a_student_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fit(Hungry(1, RuntimeError("shapes")))


def test_bfloat16_is_used_in_the_forward_pass_alone() -> None:
    types = []
    student = make_model()
    student.get_submodule("classifier").register_forward_hook(
        lambda _m, _i, output: types.append(output.dtype)
    )
    history = fit(student, precision="bfloat16", labels="hard", loss="ce")
    assert set(types) == {torch.bfloat16}
    assert {value.dtype for value in weights(student)} == {torch.float32}
    assert math.isfinite(history.train_loss_last)
    full = fit(make_model(), labels="hard", loss="ce")
    assert history.train_loss_last == pytest.approx(full.train_loss_last, rel=0.05)  # 8 bits of mantissa


def test_student_and_teacher_are_compiled_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def fake(model: nn.Module, *, dynamic: bool) -> nn.Module:
        assert not dynamic  # a smaller last batch would make all others slower
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", fake)
    student = make_model()
    fit(student)
    assert compiled == []
    fit(student, compile=True)
    teacher, model = compiled
    assert model is student
    assert torch.equal(teacher.state_dict()["1.weight"], TEACHER_WEIGHTS)


def test_a_loss_without_soft_labels_does_not_ask_the_teacher() -> None:
    asked = []

    class Counted(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            asked.append(len(inputs))
            return super().forward(inputs)

    model = nn.Sequential(nn.Flatten(), Counted(64, 3, bias=False))
    model.load_state_dict({"1.weight": TEACHER_WEIGHTS})
    counts = []
    for loss in ("ce", "gift"):
        asked.clear()
        train(make_model(), make_dataset(), make_recipe(loss=loss), teacher=Teacher(model, classes=range(3)))
        counts.append(len(asked))
    assert counts[1] - counts[0] == 6  # steps


def test_a_stream_of_labels_is_followed_epoch_by_epoch() -> None:
    asked = []

    def epoch(number: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        asked.append(number)
        images, labels = make_images(6, seed=number)
        return [(NORMALIZATION.apply(images.float() / 255), 4 * F.one_hot(labels, 3).float(), labels)] * 2

    stream = Stream(epoch=epoch, nbytes=10, digest="")
    history = fit(make_model(), labels="stream", epochs=30, lr=0.01, stream=stream, measure=accuracy_of)
    assert asked == list(range(30))
    assert history.num_images == 30 * 12
    assert history.curve[0][1].top1 > 0.9


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ("online", "none", "a teacher for `labels` online and for these alone, got none for `labels` online"),
        ("hard", "teacher", "a teacher for `labels` online and for these alone, got one for `labels` hard"),
        ("stream", "none", "a stream for `labels` stream and for these alone, got none for `labels` stream"),
        ("hard", "stream", "a stream for `labels` stream and for these alone, got one for `labels` hard"),
    ],
)
def test_what_labels_need_is_given_and_nothing_else(labels: str, given: str, message: str) -> None:
    teacher = make_teacher() if given == "teacher" else None
    stream = Stream(epoch=lambda epoch: [], nbytes=0, digest="") if given == "stream" else None
    with pytest.raises(ValueError, match=message):
        train(make_model(), make_dataset(), make_recipe(labels=labels), teacher=teacher, stream=stream)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one exemplar, got none"):
        train(make_model(), make_dataset().select(torch.zeros(0).long()), make_recipe(labels="hard"))


def test_a_normalisation_for_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected images with 3 channels"):
        fit(make_model(), labels="hard", normalization="cifar")
    assert len(build_normalization("cifar").mean) == 3


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name not in ("Muon", "Rprop")])
def test_a_student_learns_with_any_optimizer(name: str) -> None:
    lr = {"SGD": 0.1, "ASGD": 0.1, "Adadelta": 1.0, "Adagrad": 0.05}.get(name, 0.01)
    first = fit(make_model(), epochs=1, loss="ce", labels="hard", optimizer=name, lr=lr, momentum=0.5)
    last = fit(make_model(), epochs=30, loss="ce", labels="hard", optimizer=name, lr=lr, momentum=0.5)
    assert last.train_loss_last < 0.7 * first.train_loss_last
