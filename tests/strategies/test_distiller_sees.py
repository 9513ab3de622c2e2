"""A distiller is given the images of the experience and a teacher of the classes seen, and nothing else."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from reachable import reachable_buffers
from torch import Tensor, nn
from toys import Images, make_strategy, weights

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS, Distiller, herding
from gift_cl.models import MLP, build_model
from gift_cl.normalization import Normalization
from gift_cl.real_data import load_real_data, subset
from gift_cl.registry import Entry
from gift_cl.teacher import Teacher, as_float
from strategies import DistilledMemory, GIFTReplay, with_growing_head

ORDER = [3, 8, 0, 5, 1, 9, 2, 7, 4, 6]
NORMALIZATION = Normalization((0.3,), (0.375,))
REGIMES = ["hard", "stored", "stored:views=2,refresh=true", "online"]
TINY = (
    "random",
    "herding",
    "coverage",
    "rded:crops=2",
    "sre2l:iterations=2",
    "cda:iterations=2",
    "gvbsm:backbones=none,iterations=2",
    "dm:iterations=2,width=4",
    "dm:iterations=2,width=4,embedding=trained,networks=1,epochs=1",
    "dm:iterations=2,pool=2,init=coverage,embedding=teacher",
    "idc:iterations=2,width=4",
    "idc:factor=1,webp=50,iterations=2,init=herding,embedding=teacher,match=ridge",
    "idc:factor=1,bits=2,iterations=2,width=4,match=gradient",
    "datm:experts=1,epochs=3,matched_epochs=1,early_start=1,max_start=2,expansion=0,iterations=2,steps=2,width=4,"
    "threshold=9",
    "hybrid:distilled=dm/iterations=2;width=4",
)
every_distiller = pytest.mark.parametrize("exemplars", TINY)


@cache
def digits() -> DistilledDataset:
    return subset(load_real_data("digits"), per_class=20).train


def make_stream(*, poisoned_from: int | None = None) -> Any:
    """Five experiences of two digits each; from one of them on, fewer images, and those of noise."""
    images, labels = digits().images.clone(), digits().labels
    if poisoned_from is not None:
        poisoned = torch.isin(labels, torch.tensor(ORDER[2 * poisoned_from :]))
        noise = torch.Generator().manual_seed(9)
        images[poisoned] = torch.randint(0, 256, images[poisoned].shape, generator=noise, dtype=torch.uint8)
        kept = ~poisoned | (torch.arange(len(labels)) % 3 > 0)
        images, labels = images[kept], labels[kept]
    data = Images(NORMALIZATION.apply(as_float(images)), labels)
    return nc_benchmark(data, data, 5, task_labels=False, fixed_class_order=ORDER).train_stream


def make_learner(*, growing: bool = False, model: nn.Module | None = None, **memory: Any) -> Any:
    torch.manual_seed(0)
    model = model or MLP(1, 8, 10, hidden=12)
    settings: dict[str, Any] = {"num_classes": 10, "normalization": NORMALIZATION} | memory
    return make_strategy(
        GIFTReplay,
        model=with_growing_head(model) if growing else model,
        memory=DistilledMemory(**settings),
        train_mb_size=16,
        train_epochs=1,
    )


def make_learner_of(exemplars: str, **memory: Any) -> Any:
    """With a network that every distiller can use, and the codec that this one wants."""
    torch.manual_seed(0)
    model = build_model("conv3:width=4", in_channels=1, image_size=8, num_classes=10)
    codec = DISTILLERS.create(exemplars).codec or "raw"
    return make_learner(model=model, exemplars=exemplars, codec=codec, **memory)


def own_images(experience: int) -> list[bytes]:
    """The images of an experience as the data set has them."""
    return [image.numpy().tobytes() for image in digits().images[_is_in(experience)]]


def other_images(experience: int) -> list[bytes]:
    """The images of all other experiences: as bytes, as pixels in [0, 1], and as a network sees them."""
    images = digits().images[~_is_in(experience)]
    forms = (images, as_float(images), NORMALIZATION.apply(as_float(images)))
    return [image.numpy().tobytes() for form in forms for image in form]


def _is_in(experience: int) -> Tensor:
    return torch.isin(digits().labels, torch.tensor(ORDER[2 * experience : 2 * experience + 2]))


def holds(buffers: list[bytes], images: list[bytes]) -> bool:
    return any(image in buffer for buffer in buffers for image in images)


@dataclass(frozen=True)
class Call:
    images: list[bytes]
    labels: list[int]
    classes_of_teacher: tuple[int, ...] | None
    buffers: list[bytes]


class Recorder:
    """A distiller that writes down what it is given, and can reach, and lets another one do the work."""

    def __init__(self, distiller: Distiller) -> None:
        self._distiller = distiller
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._distiller, name)

    def distill(self, images: Tensor, labels: Tensor, **others: Any) -> DistilledDataset:
        teacher: Teacher | None = others["teacher"]
        self.calls.append(
            Call(
                images=[image.numpy().tobytes() for image in images],
                labels=labels.tolist(),
                classes_of_teacher=None if teacher is None else teacher.classes,
                buffers=reachable_buffers((images, labels, others)),
            )
        )
        return self._distiller.distill(images, labels, **others)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Herding, recorded, under the name ``recorder``."""
    made = Recorder(DISTILLERS.create("herding"))
    entry: Entry[Any] = Entry("recorder", lambda: made, "a test")
    monkeypatch.setitem(DISTILLERS._entries, "recorder", entry)
    return made


def calls_by_experience(recorder: Recorder, strategy: Any) -> Iterator[tuple[int, list[Call]]]:
    """Trains through the stream, and gives what the distiller was told after each experience."""
    for number, experience in enumerate(make_stream()):
        before = len(recorder.calls)
        strategy.train(experience)
        assert len(recorder.calls) > before
        yield number, recorder.calls[before:]


# What it is given


@pytest.mark.parametrize("labels", REGIMES)
def test_a_distiller_is_given_exactly_the_images_of_the_experience(recorder: Recorder, labels: str) -> None:
    strategy = make_learner(per_class=3, exemplars="recorder", labels=labels)
    for number, calls in calls_by_experience(recorder, strategy):
        for call in calls:
            assert sorted(call.images) == sorted(own_images(number))
            assert sorted(set(call.labels)) == sorted(ORDER[2 * number : 2 * number + 2])


@pytest.mark.parametrize("labels", REGIMES)
def test_its_teacher_has_seen_the_classes_so_far_and_no_others(recorder: Recorder, labels: str) -> None:
    strategy = make_learner(per_class=3, exemplars="recorder", labels=labels)
    for number, calls in calls_by_experience(recorder, strategy):
        for call in calls:
            assert call.classes_of_teacher is not None
            assert sorted(call.classes_of_teacher) == sorted(ORDER[: 2 * number + 2])


@pytest.mark.parametrize("labels", REGIMES)
@pytest.mark.parametrize("growing", [False, True])
def test_no_image_of_another_experience_can_be_reached_from_its_arguments(
    recorder: Recorder, growing: bool, labels: str
) -> None:
    strategy = make_learner(growing=growing, budget_bytes=8000, exemplars="recorder", labels=labels)
    for number, calls in calls_by_experience(recorder, strategy):
        assert set(own_images(number)).isdisjoint(other_images(number))
        for call in calls:
            assert len(call.buffers) > 4  # images, labels, and the weights of the teacher
            assert all(holds(call.buffers, [image]) for image in own_images(number))
            assert not holds(call.buffers, other_images(number))


def _with_hook(images: Tensor) -> nn.Module:
    model = nn.Linear(1, 1)
    model.register_forward_hook(lambda *_: images)
    return model


def _with_graph(images: Tensor) -> Tensor:
    weight = torch.ones(1, requires_grad=True)
    return (weight * as_float(images)).sum()


LEAKS: dict[str, Callable[[Tensor], Any]] = {
    "a view of the whole data set": lambda images: images[:1, :, :2],
    "a dictionary": lambda images: {"others": [{"deep": images}]},
    "a hook of a model": _with_hook,
    "a graph of gradients": _with_graph,
    "an iterator": lambda images: iter(zip(images, [1], strict=False)),
    "a default of a function": lambda images: lambda others=images: others,
    "a weak reference": weakref.ref,
    "a slice of an array": lambda images: np.asarray(images.numpy())[:1, 0, 0],
    "a view of a memory": lambda images: images.numpy().data[:1],
    "bytes": lambda images: (b"some" + images.numpy().tobytes(),),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_what_looks_for_images_finds_them_in(leak: str) -> None:
    images, others = digits().images[:20].clone(), digits().images[20:40].clone()
    hidden = [images[7].numpy().tobytes(), as_float(images[7]).numpy().tobytes()]
    assert holds(reachable_buffers(LEAKS[leak](images)), hidden)
    assert not holds(reachable_buffers(LEAKS[leak](others)), hidden)


# What it keeps


def state_of_code() -> list[object]:
    """What modules and classes of the project hold, and what functions of theirs keep."""
    modules = [
        module for name, module in sys.modules.items() if name.partition(".")[0] in ("gift_cl", "strategies")
    ]
    values = [value for module in modules for value in vars(module).values()]
    own = [value for value in values if isinstance(value, type) and value.__module__.startswith("gift_cl")]
    return [*values, *(value for kind in own for value in vars(kind).values())]


@every_distiller
def test_no_image_stays_behind_in_a_distiller_or_its_code(exemplars: str) -> None:
    strategy = make_learner_of(exemplars, per_class=2)
    for experience in make_stream()[:2]:
        strategy.train(experience)
    assert len(strategy.memory.exemplars) == 8
    buffers = reachable_buffers([strategy.memory.exemplars.distiller, state_of_code()])
    assert not holds(buffers, other_images(4))  # all but those of the last experience, in all forms


@pytest.mark.parametrize("place", [herding, herding.Herding])
def test_an_image_that_stays_behind_is_found(monkeypatch: pytest.MonkeyPatch, place: object) -> None:
    monkeypatch.setattr(place, "_kept", [], raising=False)
    assert not holds(reachable_buffers(state_of_code()), own_images(0))
    monkeypatch.setattr(place, "_kept", [{"deep": digits().images}])
    assert holds(reachable_buffers(state_of_code()), own_images(0))


# What becomes of old exemplars


def streams_by_class(memory: DistilledMemory) -> dict[int, list[bytes]]:
    """The stored bytes of the exemplars of each class, in their order."""
    dataset = memory.exemplars.dataset
    assert dataset is not None
    return {
        label: dataset.encoded.select((dataset.labels == label).nonzero().flatten()).streams()
        for label in dataset.classes
    }


@pytest.mark.parametrize("labels", REGIMES)
@pytest.mark.parametrize("codec", ["raw", "webp:75", "quantize:4"])
def test_old_exemplars_stay_as_they_were_stored(codec: str, labels: str) -> None:
    strategy = make_learner(budget_bytes=6000, exemplars="herding", codec=codec, labels=labels)
    kept: dict[int, list[bytes]] = {}
    has_shrunk = False
    for experience in make_stream():
        strategy.train(experience)
        now = streams_by_class(strategy.memory)
        for label, before in kept.items():
            assert 0 < len(now[label]) <= len(before)
            assert now[label] == before[: len(now[label])]
            has_shrunk |= len(now[label]) < len(before)
        kept = now
    assert set(kept) == set(ORDER)
    assert has_shrunk


@pytest.mark.parametrize("labels", REGIMES)
def test_a_distiller_is_never_given_exemplars_of_the_memory(recorder: Recorder, labels: str) -> None:
    """With a lossy codec, what the memory holds is no image of the data set."""
    strategy = make_learner(per_class=3, exemplars="recorder", codec="quantize:3", labels=labels)
    held: set[bytes] = set()
    for _, calls in calls_by_experience(recorder, strategy):
        for call in calls:
            assert held.isdisjoint(call.images)
        dataset = strategy.memory.exemplars.dataset
        held = {image.numpy().tobytes() for image in dataset.images}
        assert len(held) == len(dataset)


# What the future does


def state_of(strategy: Any) -> list[Any]:
    """Everything that a memory keeps, and the model, as plain values that are equal only bit for bit."""
    memory: DistilledMemory = strategy.memory
    exemplars = memory.exemplars
    dataset = exemplars.dataset
    assert dataset is not None
    soft = dataset.soft_labels
    tensors = [dataset.encoded.payload, dataset.encoded.lengths, dataset.encoded.shared, dataset.labels]
    tensors += [] if soft is None else [soft.values, soft.views]
    tensors += [] if exemplars.teacher is None else list(exemplars.teacher.model.state_dict().values())
    tensors += [exemplars.generator.get_state(), weights(strategy)]
    return [
        *(None if tensor is None else tensor.numpy().tobytes() for tensor in tensors),
        None if soft is None else dict(soft.covered),
        exemplars.classes,
        memory.ledger,
        memory.teacher_accuracy,
    ]


def states_after_each(experiences: Any, **memory: Any) -> list[list[Any]]:
    return states_of(make_learner(budget_bytes=6000, **memory), experiences)


def states_of(strategy: Any, experiences: Any) -> list[list[Any]]:
    states = []
    for experience in experiences:
        strategy.train(experience)
        states.append(state_of(strategy))
    return states


@pytest.mark.parametrize("labels", REGIMES)
@pytest.mark.parametrize("exemplars", ["random", "herding", "rded"])
def test_garbage_in_the_future_does_not_change_the_memory(exemplars: str, labels: str) -> None:
    settings = {"exemplars": exemplars, "codec": "webp:75", "labels": labels, "augmentation": "crop:pad=1"}
    clean = states_after_each(make_stream()[:3], **settings)
    for number in (1, 3):
        poisoned = states_after_each(make_stream(poisoned_from=number)[:number], **settings)
        assert poisoned == clean[:number]


@every_distiller
def test_garbage_in_the_future_does_not_change_what_any_distiller_makes(exemplars: str) -> None:
    clean = states_of(make_learner_of(exemplars, per_class=2), make_stream()[:2])
    poisoned = states_of(make_learner_of(exemplars, per_class=2), make_stream(poisoned_from=1)[:1])
    assert poisoned == clean[:1]


def test_garbage_in_the_present_does() -> None:
    clean = states_after_each(make_stream()[:2])
    poisoned = states_after_each(make_stream(poisoned_from=1)[:2])
    assert [a == b for a, b in zip(clean, poisoned, strict=True)] == [True, False]
