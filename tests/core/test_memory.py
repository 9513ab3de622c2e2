import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from gift_cl.dataset_file import save_dataset
from gift_cl.ledger import BudgetError, Ledger
from gift_cl.memory import ExemplarMemory
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher, UnseenClassError

CODECS = ("raw", "quantize:4", "webp:75", "jpeg:75")
REGIMES = ("hard", "stored", "stored:views=3", "stored:views=2,refresh=true", "online")
NORMALIZATION = Normalization((0.4,), (0.3,))
NUM_CLASSES = 6


def make_images(classes: Sequence[int], per_class: int = 40, *, side: int = 8) -> tuple[Tensor, Tensor]:
    """Blurred noise, so that codecs that predict have something to save."""
    generator = torch.Generator().manual_seed(100 + classes[0])
    labels = torch.tensor([c for c in classes for _ in range(per_class)])
    coarse = torch.rand(len(labels), 1, side // 2, side // 2, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    noise = 0.2 * torch.rand(images.shape, generator=generator)
    return ((0.8 * images + noise) * 255).round().to(torch.uint8), labels


def make_teacher(
    classes: Sequence[int],
    *,
    side: int = 8,
    seed: int = 0,
    scale: float = 1.0,
    bits: Literal[16, 32] = 16,
) -> Teacher:
    torch.manual_seed(seed)
    model = build_model("mlp:hidden=8", in_channels=1, image_size=side, num_classes=NUM_CLASSES)
    with torch.no_grad():
        model.get_parameter("classifier.weight").mul_(scale)
    return Teacher(model, classes=classes, normalization=NORMALIZATION, bits=bits)


def make_memory(**options: Any) -> ExemplarMemory:
    defaults: dict[str, Any] = {"exemplars": "random", "num_classes": NUM_CLASSES}
    if "budget_bytes" not in options:
        defaults["per_class"] = 4
    return ExemplarMemory(**(defaults | options))


def feed(memory: ExemplarMemory, classes: Sequence[int], per_class: int = 40, **options: Any) -> None:
    """One experience, with a teacher that knows the stream so far."""
    images, labels = make_images(classes, per_class, side=options.get("side", 8))
    teacher = make_teacher((*memory.classes, *classes), **options) if memory.needs_teacher else None
    memory.update(images, labels, teacher)


def stream(memory: ExemplarMemory, **options: Any) -> ExemplarMemory:
    for classes in ((3, 1), (0, 5), (4, 2)):
        feed(memory, classes, **options)
    return memory


def state(memory: ExemplarMemory) -> tuple[object, ...]:
    """What has to stay when an update fails; data sets and teachers are compared as objects."""
    return memory.dataset, memory.classes, memory.teacher, memory.num_classes, memory.ledger


def counts(memory: ExemplarMemory) -> list[int]:
    assert memory.dataset is not None
    return list(memory.dataset.images_per_class.values())


# Budget and balance


MEMORIES = [("random", codec, labels) for codec in CODECS for labels in REGIMES]
# Crops are smoother than the images that they are cut from, and take fewer bytes.
MEMORIES += [("rded:crops=2", codec, "stored:views=3") for codec in CODECS]


@pytest.mark.parametrize(("exemplars", "codec", "labels"), MEMORIES)
def test_a_budget_is_kept_and_used_by_balanced_classes(exemplars: str, codec: str, labels: str) -> None:
    budget = 9_000 + (make_teacher([0], side=16).nbytes if labels == "online" else 0)
    memory = make_memory(
        budget_bytes=budget, exemplars=exemplars, codec=codec, labels=labels, augmentation="crop"
    )
    for classes in ((3, 1), (0, 5), (4, 2)):
        feed(memory, classes, 130, side=16)
        assert 0.95 * budget <= memory.ledger.total <= budget
        assert max(counts(memory)) - min(counts(memory)) <= 1
        assert memory.dataset is not None
        assert sorted(memory.classes) == memory.dataset.classes


def test_what_a_small_class_leaves_is_shared_by_the_others() -> None:
    memory = make_memory(budget_bytes=65 * 60)
    images, labels = make_images((0, 1))
    few = torch.cat([torch.arange(3), torch.arange(40, 80)])  # three images of class 0
    memory.update(images[few], labels[few], None)
    assert counts(memory) == [3, 40]  # all there is
    feed(memory, (2, 3))
    assert counts(memory) == [3, 19, 19, 19]
    assert memory.ledger.total == 65 * 60


def test_no_more_is_kept_than_there_is() -> None:
    memory = make_memory(budget_bytes=1_000_000, codec="webp:75")
    feed(memory, (0, 1))
    assert counts(memory) == [40, 40]


def test_a_number_of_exemplars_is_kept_of_each_class() -> None:
    memory = stream(make_memory(per_class=7, labels="stored"))
    assert counts(memory) == [7] * 6


def test_a_smaller_class_gives_fewer_exemplars() -> None:
    memory = make_memory(per_class=7)
    images, labels = make_images((0, 1))
    memory.update(images[35:], labels[35:], None)
    assert counts(memory) == [5, 7]


@pytest.mark.parametrize("exemplars", ["herding", "rded"])
def test_the_least_valuable_exemplars_leave_first(exemplars: str) -> None:
    memory = make_memory(budget_bytes=65 * 60, exemplars=exemplars)
    feed(memory, (0, 1))
    assert memory.dataset is not None
    before = [memory.dataset.images[memory.dataset.labels == c] for c in (0, 1)]
    feed(memory, (2, 3))
    for c in (0, 1):
        after = memory.dataset.images[memory.dataset.labels == c]
        assert len(after) == 15
        assert torch.equal(after, before[c][:15])


# Ledger


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("labels", REGIMES)
def test_the_ledger_is_what_a_file_of_the_memory_holds(tmp_path: Path, codec: str, labels: str) -> None:
    memory = stream(make_memory(codec=codec, labels=labels, augmentation="crop"))
    assert memory.dataset is not None
    save_dataset(memory.dataset, tmp_path / "file")
    with safe_open(tmp_path / "file", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    soft = 0
    if labels.startswith("stored"):  # and one byte for each of six classes says what the logits cover
        soft = sizes["soft_labels"] + sizes["views"] + 6
    assert memory.ledger == Ledger(
        pixels=sizes["pixels"] + sizes["shared"] + sizes.get("lengths", 0),
        labels=sizes["labels"],
        soft_labels=soft,
        teacher=make_teacher([0]).nbytes if labels == "online" else 0,
    )


@pytest.mark.parametrize(
    ("labels", "soft"),
    [
        ("hard", 0),
        # 2 bytes for each of 2, 4 and 6 classes, 3 bytes for a view, 6 table entries of 1 byte
        ("stored:views=2", 2 * 8 * (2 * 2 + 3 + 2 * 4 + 3 + 2 * 6 + 3) + 6),
        ("stored:views=2,refresh=true", 2 * 24 * (2 * 6 + 3) + 6),
    ],
)
def test_the_ledger_counts_each_part_by_hand(labels: str, soft: int) -> None:
    memory = stream(make_memory(labels=labels, augmentation="crop"))
    assert memory.ledger == Ledger(pixels=24 * 64, labels=24, soft_labels=soft)


def test_an_online_memory_is_charged_its_teacher() -> None:
    memory = stream(make_memory(labels="online"))
    assert memory.teacher is not None
    # (64 + 1) * 8 weights of the hidden layer and (8 + 1) * 6 of the classifier, in half precision
    assert memory.ledger == Ledger(pixels=24 * 64, labels=24, teacher=2 * (65 * 8 + 9 * 6))


def test_only_an_online_memory_keeps_its_teacher() -> None:
    for labels in ("hard", "stored"):
        assert stream(make_memory(labels=labels, exemplars="herding")).teacher is None


def test_an_empty_memory_costs_nothing() -> None:
    memory = make_memory()
    assert (memory.ledger, len(memory), memory.classes) == (Ledger(), 0, ())


def test_labels_grow_with_the_number_of_classes() -> None:
    memory = make_memory(num_classes=None, per_class=2)
    feed(memory, (0, 1))
    assert memory.ledger.labels == 4
    images, labels = make_images((2, 300))
    memory.update(images, labels, None)
    assert (memory.num_classes, memory.ledger.labels) == (301, 8 * 2)


# Drawing


def test_each_exemplar_is_drawn_once_in_a_pass() -> None:
    memory = stream(make_memory())
    memory.open(memory.classes, "cpu")
    assert memory.dataset is not None
    stored = memory.dataset.images.flatten(1)
    drawn = torch.cat([memory.draw(n).pixels for n in (7, 1, 24, 16)]).mul(255).round().to(torch.uint8)
    for start in (0, 24):
        one_pass = drawn[start : start + 24].flatten(1)
        assert torch.equal(one_pass.unique(dim=0), stored.unique(dim=0))
    assert not torch.equal(drawn[:24], drawn[24:])


@pytest.mark.parametrize("count", [0, 1, 24, 25, 100])
@pytest.mark.parametrize("labels", ["hard", "stored:views=3"])
def test_exactly_as_many_are_drawn_as_were_asked_for(count: int, labels: str) -> None:
    memory = stream(make_memory(labels=labels, augmentation="crop"))
    memory.open((0, 1, 2, 3, 4, 5), "cpu")
    batch = memory.draw(count)
    assert batch.pixels.shape == (count, 1, 8, 8)
    assert batch.labels.shape == (count,)
    assert (batch.soft_labels is None) == (labels == "hard")
    if batch.soft_labels is not None:
        assert batch.soft_labels.shape == (count, 6)
        assert not batch.soft_labels.isnan().any()
    assert batch.pixels.dtype == torch.float32
    assert count == 0 or 0 <= float(batch.pixels.min()) <= float(batch.pixels.max()) <= 1


@pytest.mark.parametrize("labels", ["hard", "stored:views=3"])
def test_the_seed_decides_the_draws(labels: str) -> None:
    def drawn(seed: int) -> Tensor:
        memory = stream(make_memory(labels=labels, augmentation="crop", seed=seed))
        memory.open(memory.classes, "cpu")
        return torch.cat([memory.draw(5).pixels for _ in range(4)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_drawing_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    memory = make_memory(augmentation="crop")
    images, labels = make_images((0, 1))
    memory.update(images, labels, None)
    memory.open((0, 1), "cpu")
    memory.draw(3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("augmentation", ["none", "crop:pad=2", "crop_flip:pad=1"])
@pytest.mark.parametrize("codec", ["raw", "webp:50"])
def test_drawn_views_are_those_whose_logits_are_drawn(augmentation: str, codec: str) -> None:
    memory = make_memory(labels="stored:views=4", augmentation=augmentation, codec=codec)
    images, labels = make_images((3, 1))
    teacher = make_teacher((1, 3))
    memory.update(images, labels, teacher)
    memory.open((3, 1), "cpu")
    for _ in range(5):
        batch = memory.draw(6)
        expected = teacher.label(batch.pixels, batch.labels, classes=(3, 1))
        # The drawn logits were rounded to half precision; the views of one image differ by far more.
        torch.testing.assert_close(batch.soft_labels, expected, rtol=2e-3, atol=1e-3)


def test_soft_labels_follow_the_order_of_the_classes() -> None:
    memory = make_memory(labels="stored")
    images, labels = make_images((3, 1))
    teacher = make_teacher((1, 3))
    memory.update(images, labels, teacher)
    for order in ((1, 3), (3, 1), (3,)):
        memory.open(order, "cpu")
        batch = memory.draw(8)
        expected = teacher.logits(batch.pixels)[:, list(order)]
        torch.testing.assert_close(batch.soft_labels, expected, rtol=2e-3, atol=1e-3)  # half precision


def test_classes_unknown_to_a_label_are_filled_in() -> None:
    memory = stream(make_memory(labels="stored"))
    memory.open((0, 1, 2, 3, 4, 5), "cpu", extension="zero")
    batch = memory.draw(24)
    assert batch.soft_labels is not None
    known = {3: {1, 3}, 1: {1, 3}, 0: {0, 1, 3, 5}, 5: {0, 1, 3, 5}}
    for label, row in zip(batch.labels.tolist(), batch.soft_labels, strict=True):
        zeros = {c for c in range(6) if float(row[c]) == 0}
        assert zeros == set(range(6)) - known.get(label, set(range(6)))


def test_refreshing_labels_old_exemplars_again() -> None:
    def widths(labels: str) -> dict[int, int]:
        memory = stream(make_memory(labels=labels))
        assert memory.dataset is not None
        assert memory.dataset.soft_labels is not None
        return {label: len(c) for label, c in memory.dataset.soft_labels.covered.items()}

    assert widths("stored:refresh=true") == dict.fromkeys(range(6), 6)
    assert widths("stored:refresh=false") == {3: 2, 1: 2, 0: 4, 5: 4, 4: 6, 2: 6}


def test_labels_that_are_not_refreshed_stay_as_they_were() -> None:
    memory = make_memory(labels="stored:views=2", augmentation="crop", budget_bytes=4_000)
    feed(memory, (3, 1))
    first = memory.dataset
    feed(memory, (0, 5), seed=1)
    assert first is not None
    assert memory.dataset is not None
    for c in (3, 1):
        old, now = (d.select((d.labels == c).nonzero().flatten()) for d in (first, memory.dataset))
        assert old.soft_labels is not None
        assert now.soft_labels is not None
        kept = old.soft_labels.dense(old.labels, (3, 1))[: len(now)]
        assert 0 < len(now) < len(old)
        torch.testing.assert_close(now.soft_labels.dense(now.labels, (3, 1)), kept, rtol=0, atol=0)
        assert old.soft_labels.views is not None
        assert now.soft_labels.views is not None
        assert torch.equal(now.soft_labels.views, old.soft_labels.views[: len(now)])


def test_an_update_closes_the_memory() -> None:
    memory = make_memory()
    feed(memory, (0, 1))
    with pytest.raises(RuntimeError, match="not open. Call `open` after each `update`"):
        memory.draw(1)
    memory.open((0, 1), "cpu")
    memory.draw(3)
    feed(memory, (2,))
    assert not memory.is_open
    with pytest.raises(RuntimeError, match="not open"):
        memory.draw(1)


def test_an_empty_memory_cannot_be_opened() -> None:
    with pytest.raises(ValueError, match="The memory is empty. Call `update`"):
        make_memory().open((0,), "cpu")


def test_a_checkpoint_holds_what_is_stored_and_draws_on() -> None:
    memory = stream(make_memory(labels="stored:views=2", augmentation="crop"))
    memory.open((0, 1, 2, 3, 4, 5), "cpu")
    memory.draw(5)
    copy = pickle.loads(pickle.dumps(memory))
    assert memory.is_open
    assert not copy.is_open
    copy.open((0, 1, 2, 3, 4, 5), "cpu")
    torch.testing.assert_close(copy.draw(30).pixels, memory.draw(30).pixels, rtol=0, atol=0)
    assert copy.ledger == memory.ledger


# Classes that come back


@pytest.mark.parametrize("labels", ["hard", "stored", "stored:refresh=true"])
def test_old_and_new_exemplars_of_a_returning_class_take_turns(labels: str) -> None:
    memory = make_memory(per_class=5, labels=labels)
    feed(memory, (0, 1))
    assert memory.dataset is not None
    old = memory.dataset.images[memory.dataset.labels == 1]
    with pytest.warns(UserWarning, match=r"Classes \[1\] came back"):
        feed(memory, (1, 2))
    assert memory.classes == (0, 1, 2)
    assert counts(memory) == [5, 5, 5]
    mixed = memory.dataset.images[memory.dataset.labels == 1]
    assert torch.equal(mixed[::2], old[:3])
    pool = make_images((1, 2))[0].flatten(1).tolist()
    assert all(image in pool for image in mixed[1::2].flatten(1).tolist())
    soft = memory.dataset.soft_labels
    if soft is not None:
        assert set(soft.covered[1]) == {0, 1, 2}  # one teacher labels all exemplars of a class
        assert set(soft.covered[0]) == ({0, 1, 2} if "refresh" in labels else {0, 1})


def test_a_budget_is_kept_when_classes_come_back() -> None:
    memory = make_memory(budget_bytes=3_000, codec="webp:75", labels="stored:views=2", augmentation="crop")
    feed(memory, (0, 1))
    with pytest.warns(UserWarning, match="came back"):
        feed(memory, (0, 1, 2))
    assert 0.95 * 3_000 <= memory.ledger.total <= 3_000
    assert max(counts(memory)) - min(counts(memory)) <= 1


# Errors


@pytest.mark.parametrize("budget", [{}, {"budget_bytes": 100, "per_class": 3}])
def test_one_budget_has_to_be_given(budget: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either `budget_bytes` or `per_class`"):
        ExemplarMemory(**budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["budget_bytes", "per_class"])
def test_a_budget_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of at least 1, got 0"):
        ExemplarMemory(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("axis", "match"),
    [
        ("exemplars", "Unknown distiller `x`. Known: random, herding, coverage, rded"),
        ("codec", "Unknown codec `x`"),
        ("labels", "Unknown label regime `x`"),
        ("augmentation", "Unknown augmentation `x`"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(axis: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_memory(**{axis: "x"})


@pytest.mark.parametrize("codec", ["raw", "webp:75"])
def test_a_budget_error_tells_the_least_budget(codec: str) -> None:
    def run(budget: int) -> ExemplarMemory:
        memory = make_memory(budget_bytes=budget, codec=codec, labels="online", exemplars="herding")
        feed(memory, (0, 1))
        return memory

    with pytest.raises(
        BudgetError, match=r"one exemplar of each of 2 classes .* a teacher\), got 900"
    ) as error:
        run(900)
    least = int(str(error.value).partition("at least ")[2].split()[0])
    assert run(least).ledger.total == least
    with pytest.raises(BudgetError, match=f"at least {least} .*Raise the budget, or choose a smaller codec"):
        run(least - 1)


def nothing() -> tuple[Tensor, Tensor]:
    return torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)


BAD_DATA: dict[str, tuple[Tensor, Tensor, str]] = {
    "float images": (torch.rand(4, 1, 8, 8), torch.full((4,), 5), "`images` of uint8"),
    "flat images": (torch.zeros(4, 64).byte(), torch.full((4,), 5), r"uint8 \(N, C, H, W\)"),
    "other shape": (torch.zeros(4, 1, 8, 9).byte(), torch.full((4,), 5), r"shape \(1, 8, 8\), as those kept"),
    "int labels": (torch.zeros(4, 1, 8, 8).byte(), torch.full((4,), 5).int(), "`labels` of int64"),
    "few labels": (torch.zeros(4, 1, 8, 8).byte(), torch.full((3,), 5), r"`labels` of int64 \(4,\)"),
    "nothing": (*nothing(), "at least one image"),
}


@pytest.mark.parametrize(("images", "labels", "match"), BAD_DATA.values(), ids=BAD_DATA)
@pytest.mark.parametrize("budget", [{"per_class": 3}, {"budget_bytes": 2_000}])
def test_unusable_data_are_refused_and_change_nothing(
    images: Tensor, labels: Tensor, match: str, budget: dict[str, int]
) -> None:
    memory = make_memory(**budget)
    feed(memory, (0, 1))
    before = state(memory)
    with pytest.raises(ValueError, match=match):
        memory.update(images, labels, None)
    assert state(memory) == before


def test_an_update_that_fails_changes_nothing() -> None:
    memory = make_memory(budget_bytes=1_800, labels="stored", exemplars="herding")
    feed(memory, (3, 1))
    memory.open((3, 1), "cpu")
    before = state(memory)
    images, labels = make_images((0, 5))
    teacher = make_teacher((0, 1, 3, 5))
    with pytest.raises(ValueError, match="Expected a teacher"):
        memory.update(images, labels, None)
    with pytest.raises(UnseenClassError, match=r"not \[5\]"):
        memory.update(images, labels, make_teacher((0, 1, 3)))
    with pytest.raises(UnseenClassError, match="leak the future"):
        memory.update(images, labels, make_teacher((0, 1, 2, 3, 5)))
    memory.budget_bytes = 50
    with pytest.raises(BudgetError, match="Raise the budget"):
        memory.update(images, labels, teacher)
    memory.budget_bytes = 1_800
    assert state(memory) == before
    assert memory.is_open
    memory.draw(3)
    memory.update(images, labels, teacher)
    assert memory.classes == (1, 3, 0, 5)


@pytest.mark.parametrize("scale", [1e6, 3e38])  # beyond half precision, and beyond single precision
def test_stored_logits_have_to_be_finite(scale: float) -> None:
    memory = make_memory(labels="stored")
    with pytest.raises(ValueError, match="NaN or infinite logits.*may have diverged"):
        feed(memory, (0, 1), scale=scale, bits=32)
    assert memory.dataset is None


@pytest.mark.parametrize("exemplars", ["random", "rded"])
def test_an_online_teacher_has_to_answer_with_finite_logits(exemplars: str) -> None:
    memory = make_memory(labels="online", exemplars=exemplars)
    images, labels = make_images((0, 1))
    teacher = make_teacher((0, 1))
    teacher.model.get_parameter("classifier.weight").fill_(float("inf"))
    with pytest.raises(ValueError, match="NaN or infinite .*may have diverged"):
        memory.update(images, labels, teacher)
    assert (memory.dataset, memory.teacher) == (None, None)


def test_an_online_teacher_has_to_know_the_old_classes_too() -> None:
    memory = make_memory(labels="online")
    feed(memory, (0, 1))
    images, labels = make_images((2, 3))
    with pytest.raises(UnseenClassError, match=r"not \[0, 1\]"):
        memory.update(images, labels, make_teacher((2, 3)))


def test_an_online_teacher_needs_an_output_for_each_class() -> None:
    memory = make_memory(labels="online", num_classes=8)
    images, labels = make_images((0, 1))
    with pytest.raises(UnseenClassError, match="an output for each"):
        memory.update(images, labels + 5, make_teacher((5, 6)))


# A budget that changes


def test_a_smaller_budget_drops_the_least_valuable() -> None:
    memory = stream(make_memory(budget_bytes=6_000, labels="stored:views=2", augmentation="crop"))
    assert memory.dataset is not None
    before = {c: memory.dataset.images[memory.dataset.labels == c] for c in range(6)}
    memory.resize(3_000)
    assert 0.95 * 3_000 <= memory.ledger.total <= 3_000
    assert max(counts(memory)) - min(counts(memory)) <= 1
    for c in range(6):
        after = memory.dataset.images[memory.dataset.labels == c]
        assert torch.equal(after, before[c][: len(after)])


def test_a_number_of_exemplars_can_be_made_smaller() -> None:
    memory = stream(make_memory(per_class=7))
    memory.resize(2)
    assert counts(memory) == [2] * 6
    memory.resize(9)  # what is gone is gone
    assert counts(memory) == [2] * 6


def test_a_memory_that_was_made_smaller_has_to_be_opened_again() -> None:
    memory = stream(make_memory())
    memory.open(memory.classes, "cpu")
    memory.resize(1)
    assert not memory.is_open
    memory.open(memory.classes, "cpu")
    assert sorted(memory.draw(6).labels.tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_budget_that_holds_too_little_changes_nothing() -> None:
    memory = stream(make_memory(budget_bytes=6_000, labels="online", exemplars="herding"))
    before = state(memory)
    memory.open(memory.classes, "cpu")
    for size, error in ((1_200, BudgetError), (0, ValueError)):
        with pytest.raises(error):
            memory.resize(size)
        assert memory.budget_bytes == 6_000
    assert state(memory) == before
    assert memory.is_open


def test_an_empty_memory_can_be_resized() -> None:
    memory = make_memory(per_class=3)
    memory.resize(2)
    feed(memory, (0, 1))
    assert counts(memory) == [2, 2]


def test_nothing_is_said_when_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream(make_memory(labels="stored"))


@pytest.mark.parametrize("is_oracle", [False, True])
def test_exemplars_say_whether_an_oracle_labelled_them(is_oracle: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    classes = range(4) if is_oracle else range(2)
    memory = ExemplarMemory(per_class=2, exemplars="random", labels="stored")
    images = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8)
    memory.update(images, torch.arange(8) % 2, Teacher(model, classes=classes, oracle=is_oracle))
    assert memory.dataset is not None
    assert memory.dataset.provenance.oracle is is_oracle
    assert memory.dataset.provenance.teacher_classes == tuple(classes)
