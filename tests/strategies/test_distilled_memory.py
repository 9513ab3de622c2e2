# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.models import SimpleMLP, SlimResNet18
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn
from toys import Spy, make_benchmark, make_images, make_model, make_strategy, make_stream

from gift_cl.ledger import BudgetError
from gift_cl.models import penultimate
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher, UnseenClassError, as_float
from strategies import DistilledMemory, GIFTPlugin, with_growing_head
from strategies.experience import read_images


def agent(model: nn.Module) -> SimpleNamespace:
    """All that a memory needs of whoever trains."""
    return SimpleNamespace(model=model)


def filled(*, experiences: int = 3, **settings: Any) -> Any:
    memory = DistilledMemory(num_classes=6, **settings)
    for experience in make_benchmark().train_stream[:experiences]:
        memory.post_adapt(agent(make_model()), experience)
    return memory


def counts_of(memory: DistilledMemory) -> dict[int, int]:
    assert memory.exemplars.dataset is not None
    return memory.exemplars.dataset.images_per_class


# Budget


@pytest.mark.parametrize("labels", ["hard", "stored", "stored:views=2", "online"])
@pytest.mark.parametrize("codec", ["raw", "webp:75", "quantize:4"])
@pytest.mark.parametrize("exemplars", ["random", "herding", "rded"])
def test_the_budget_is_kept_at_every_experience(exemplars: str, codec: str, labels: str) -> None:
    budget = 2500
    memory = DistilledMemory(
        budget_bytes=budget, exemplars=exemplars, codec=codec, labels=labels, num_classes=6
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    for number, experience in enumerate(make_benchmark(per_class=40).train_stream):
        memory.post_adapt(agent(model), experience)
        assert 0 < memory.ledger.total <= budget
        counts = counts_of(memory)
        assert set(counts) == set(range(2 * number + 2))
        assert max(counts.values()) - min(counts.values()) <= 1
        assert memory.ledger.total > 0.8 * budget or min(counts.values()) == 40


def test_exemplars_of_each_class_can_be_counted_instead() -> None:
    assert counts_of(filled(per_class=5)) == dict.fromkeys(range(6), 5)


def test_a_budget_that_is_too_small_names_the_cure_and_changes_nothing() -> None:
    memory = DistilledMemory(budget_bytes=300, labels="hard", num_classes=6)
    stream = make_benchmark().train_stream
    for experience in stream[:2]:
        memory.post_adapt(agent(make_model()), experience)
    before, updates, ledger = memory.exemplars.dataset, memory.num_updates, memory.ledger
    with pytest.raises(BudgetError, match="at least 390 for one exemplar of each of 6.*Raise the budget"):
        memory.post_adapt(agent(make_model()), stream[2])
    assert memory.exemplars.dataset is before
    assert memory.exemplars.classes == (0, 1, 2, 3)
    assert (memory.num_updates, memory.ledger) == (updates, ledger)


def test_a_teacher_that_does_not_fit_is_a_budget_error() -> None:
    memory = DistilledMemory(budget_bytes=2000, labels="online", num_classes=6)
    with pytest.raises(BudgetError, match="of that a teacher"):
        memory.post_adapt(agent(make_model()), make_benchmark().train_stream[0])
    assert len(memory) == 0
    assert memory.ledger.total == 0


def test_resizing_shrinks_and_keeps_the_balance() -> None:
    memory = filled(budget_bytes=3000, labels="stored")
    assert memory.exemplars.dataset is not None
    first = memory.exemplars.dataset
    memory.resize(None, 1000)
    assert memory.max_size == memory.exemplars.budget_bytes == 1000
    assert memory.ledger.total <= 1000
    counts = counts_of(memory)
    assert max(counts.values()) - min(counts.values()) <= 1
    kept = memory.exemplars.dataset
    for label, count in counts.items():  # the most valuable exemplars stay, with their soft labels
        torch.testing.assert_close(
            kept.images[kept.labels == label], first.images[first.labels == label][:count]
        )
        dense, before = (d.soft_labels.dense(d.labels, range(6)) for d in (kept, first))
        torch.testing.assert_close(
            dense[kept.labels == label], before[first.labels == label][:count], equal_nan=True
        )


def test_resizing_counts_exemplars_when_the_budget_does() -> None:
    memory = filled(per_class=5)
    memory.resize(None, 2)
    assert counts_of(memory) == dict.fromkeys(range(6), 2)


def test_resizing_to_too_little_changes_nothing() -> None:
    memory = filled(budget_bytes=3000)
    before = memory.exemplars.dataset
    with pytest.raises(BudgetError, match="Raise the budget"):
        memory.resize(None, 100)
    assert memory.max_size == memory.exemplars.budget_bytes == 3000
    assert memory.exemplars.dataset is before
    with pytest.raises(ValueError, match="`budget_bytes` of at least 1, got 0"):
        memory.resize(None, 0)
    assert memory.max_size == memory.exemplars.budget_bytes == 3000


def test_resizing_an_empty_memory_sets_the_budget_of_the_next_update() -> None:
    memory = DistilledMemory(per_class=5)
    memory.resize(None, 2)
    memory.post_adapt(agent(make_model()), make_benchmark().train_stream[0])
    assert counts_of(memory) == {0: 2, 1: 2}


@pytest.mark.parametrize("sizes", [{}, {"budget_bytes": 1000, "per_class": 2}])
def test_exactly_one_budget_has_to_be_given(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either `budget_bytes` or `per_class`"):
        DistilledMemory(**sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_class": 0}, "`per_class` of at least 1, got 0"),
        ({"exemplars": "heading"}, "Unknown distiller `heading`. Known: .*herding"),
        ({"codec": "gif"}, "Unknown codec `gif`"),
        ({"labels": "soft"}, "Unknown label regime `soft`. Known: hard, stored, online"),
        ({"augmentation": "flop"}, "Unknown augmentation `flop`"),
    ],
)
def test_unusable_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistilledMemory(**({"per_class": 1} | settings))


# Images


def test_images_are_stored_as_they_were_before_the_transform() -> None:
    normalization = Normalization((0.4,), (0.25,))
    memory = DistilledMemory(per_class=12, exemplars="random", normalization=normalization)
    experience = make_benchmark(normalization=normalization).train_stream[0]
    memory.post_adapt(agent(make_model()), experience)
    assert memory.exemplars.dataset is not None
    originals = make_images()
    own = originals.tensors[1] < 2
    expected = (originals.tensors[0][own] * 255).round().to(torch.uint8).flatten(1).tolist()
    assert sorted(memory.exemplars.dataset.images.flatten(1).tolist()) == sorted(expected)


def test_a_normalisation_that_does_not_fit_is_noticed() -> None:
    memory = DistilledMemory(per_class=2)
    experience = make_benchmark(normalization=Normalization((0.5,), (0.25,))).train_stream[0]
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\].*Pass as `normalization`"):
        memory.post_adapt(agent(make_model()), experience)
    assert len(memory) == 0


def test_images_of_another_shape_are_refused() -> None:
    memory = DistilledMemory(per_class=2, exemplars="random", labels="hard")
    memory.post_adapt(agent(nn.Flatten()), make_benchmark().train_stream[0])
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), as those kept, got \(3, 8, 8\)"):
        memory.post_adapt(agent(nn.Flatten()), make_benchmark(channels=3).train_stream[1])


def test_reading_leaves_the_global_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    images, labels = read_images(make_benchmark().train_stream[0], Normalization(), batch_size=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (24, 1, 8, 8), torch.int64)


def test_no_reference_to_the_original_data_is_kept() -> None:
    images = make_images()
    stream = make_stream(images)
    memory = DistilledMemory(per_class=2)
    memory.post_adapt(agent(make_model()), stream[0])
    inputs = weakref.ref(images.tensors[0])
    del stream, images
    gc.collect()
    assert inputs() is None
    assert len(memory) == 12


# Teachers


def test_a_teacher_that_has_seen_the_future_is_refused() -> None:
    teacher = Teacher(make_model(), classes=range(6))
    memory = DistilledMemory(per_class=2, teacher=teacher)
    with pytest.raises(UnseenClassError, match=r"classes \[2, 3, 4, 5\], which the stream has not reached"):
        memory.post_adapt(agent(make_model(seed=1)), make_benchmark().train_stream[0])
    assert len(memory) == 0


@pytest.mark.parametrize("labels", ["stored", "online"])
def test_an_oracle_may_label(labels: str) -> None:
    teacher = Teacher(make_model(), classes=range(6), oracle=True)
    memory = filled(per_class=2, teacher=teacher, labels=labels)
    assert memory.exemplars.dataset is not None
    assert memory.exemplars.dataset.provenance.oracle
    assert memory.exemplars.classes == tuple(range(6))


@pytest.mark.parametrize("labels", ["stored", "online"])
@pytest.mark.parametrize("exemplars", ["random", "herding"])
def test_a_teacher_that_does_not_know_the_new_classes_is_refused(exemplars: str, labels: str) -> None:
    teacher = Teacher(make_model(), classes=[0, 1])
    memory = DistilledMemory(per_class=2, teacher=teacher, exemplars=exemplars, labels=labels)
    stream = make_benchmark().train_stream
    memory.post_adapt(agent(make_model()), stream[0])
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 1\], not \[2, 3\]"):
        memory.post_adapt(agent(make_model()), stream[1])
    assert counts_of(memory) == {0: 2, 1: 2}


def test_the_stored_labels_are_those_of_the_model_after_the_experience() -> None:
    model = make_model()
    memory = DistilledMemory(per_class=3, num_classes=6)
    memory.post_adapt(agent(model), make_benchmark().train_stream[0])
    dataset = memory.exemplars.dataset
    assert dataset is not None
    assert dataset.soft_labels is not None
    with torch.no_grad():
        expected = model(as_float(dataset.images))[:, :2].half()
    torch.testing.assert_close(dataset.soft_labels.dense(dataset.labels, [0, 1])[:, 0], expected)


def test_the_accuracy_of_the_teacher_is_its_share_of_right_answers() -> None:
    memory = DistilledMemory(per_class=2)
    strategy = make_strategy(plugins=[GIFTPlugin(memory)])
    stream = make_benchmark().train_stream
    for experience in stream[:2]:
        strategy.train(experience)
    inputs = torch.stack([image for image, *_ in stream[1].dataset])
    labels = torch.tensor([label for _, label, *_ in stream[1].dataset])
    with torch.no_grad():
        guesses = strategy.model(inputs)[:, :4].argmax(1)
    assert memory.teacher_accuracy == pytest.approx(float((guesses == labels).float().mean()))


def test_no_teacher_is_made_where_none_is_needed() -> None:
    memory = DistilledMemory(per_class=2, exemplars="random", labels="hard")
    memory.post_adapt(agent(nn.Flatten()), make_benchmark().train_stream[0])
    assert memory.teacher_accuracy is None
    assert len(memory) == 4


def test_images_are_distilled_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``meta`` stands for an accelerator."""
    memory = DistilledMemory(per_class=2, exemplars="dm:iterations=1,width=4", labels="hard")
    devices: list[torch.device] = []

    def update(images: Tensor, labels: Tensor, teacher: object) -> None:
        devices.append(images.device)

    monkeypatch.setattr(memory.exemplars, "update", update)
    memory.post_adapt(agent(nn.Linear(1, 1, device="meta")), make_benchmark().train_stream[0])
    assert [device.type for device in devices] == ["meta"]


# Models of others


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda: SimpleMLP(num_classes=6, input_size=192, hidden_size=16),
        lambda: SlimResNet18(6, nf=2),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 6)),
    ],
    ids=["SimpleMLP", "SlimResNet18", "Sequential"],
)
def test_herding_works_with_models_whatever_the_name_of_their_last_layer(
    build: Callable[[], nn.Module], growing: bool
) -> None:
    torch.manual_seed(0)
    model = with_growing_head(build()) if growing else build()
    # The last stage of SlimResNet18 would pool 4x4 positions: it is made for images of 32 pixels.
    if hasattr(model, "layer4"):
        model = nn.Sequential(nn.Upsample(scale_factor=4), model)
    memory = DistilledMemory(per_class=2, exemplars="herding", num_classes=6)
    strategy = make_strategy(model=model, plugins=[GIFTPlugin(memory)], train_epochs=1)
    for experience in make_benchmark(channels=3).train_stream[:2]:
        strategy.train(experience)
    assert counts_of(memory) == dict.fromkeys(range(4), 2)


def test_features_of_avalanches_models_are_the_inputs_of_their_last_layer() -> None:
    mlp = SimpleMLP(num_classes=6, input_size=64, hidden_size=16).eval()
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(penultimate(mlp, images), mlp.get_features(images))
    resnet = SlimResNet18(6, nf=2).eval()
    features = penultimate(resnet, torch.rand(2, 3, 32, 32))
    assert features.shape == (2, 16)


def test_a_growing_head_takes_the_place_of_the_last_layer() -> None:
    for model in (SimpleMLP(), SlimResNet18(10), nn.Sequential(nn.Flatten(), nn.Linear(4, 2))):
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        with_growing_head(model)
        heads: list[Any] = [m for m in model.modules() if type(m).__name__ == "IncrementalClassifier"]
        assert [head.classifier.in_features for head in heads] == [linear.in_features]
        assert linear not in list(model.modules())


def test_a_head_that_grows_is_not_replaced_again() -> None:
    with pytest.raises(TypeError, match="fixed head, got a SimpleMLP that can grow"):
        with_growing_head(with_growing_head(SimpleMLP()))


def test_a_head_that_is_not_linear_is_not_replaced() -> None:
    model = nn.Module()
    model.classifier = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    with pytest.raises(TypeError, match=r"`classifier.1` to be a Linear layer, got ReLU"):
        with_growing_head(model)


# Avalanche's conventions


def test_the_buffer_is_a_view_as_a_data_set() -> None:
    normalization = Normalization((0.4,), (0.25,))
    memory = DistilledMemory(per_class=2, normalization=normalization)
    assert len(memory.buffer) == 0
    experience = make_benchmark(normalization=normalization).train_stream[0]
    memory.post_adapt(agent(make_model()), experience)
    buffer = memory.buffer
    assert isinstance(buffer, AvalancheDataset)
    assert len(buffer) == len(memory) == 4
    assert sorted(buffer.targets) == [0, 0, 1, 1]
    originals = [image for image, *_ in experience.dataset]
    for image, *_ in buffer:
        assert min(float((image - original).abs().max()) for original in originals) < 1e-5


def test_it_is_a_storage_policy_for_avalanches_replay() -> None:
    spy = Spy()

    class Replay(ReplayPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            # Avalanche's own warns of a deprecated call, past all filters.
            self.storage_policy.post_adapt(strategy, strategy.experience)

    memory = DistilledMemory(budget_bytes=2000)
    replay = Replay(mem_size=2000, batch_size_mem=3, storage_policy=memory)
    strategy = make_strategy(plugins=[replay, spy])
    for experience in make_benchmark("classification").train_stream[:2]:
        strategy.train(experience)
    assert [len(i) for i in spy.inputs] == [8] * 6 + [11] * 6
    assert memory.exemplars.classes == (0, 1, 2, 3)


def test_the_same_seed_gives_the_same_memory() -> None:
    images = []
    for seed in (0, 0, 1):
        memory = filled(per_class=3, exemplars="random", seed=seed)
        images.append(memory.exemplars.dataset.images)
    torch.testing.assert_close(images[0], images[1])
    assert not torch.equal(images[0], images[2])
