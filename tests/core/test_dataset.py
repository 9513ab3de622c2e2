from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels

LABELS = torch.tensor([2, 0, 2, 5])
COVERED = {0: (0, 2), 2: (0, 2), 5: (0, 2, 5)}


def make_images(count: int = 4, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *(shape or (1, 8, 8))), dtype=torch.uint8, generator=generator)


def make_soft(*, views: bool = False) -> SoftLabels:
    """Two views of four exemplars."""
    logits = torch.arange(4 * 2 * 6, dtype=torch.float32).view(4, 2, 6)
    parameters = torch.arange(4 * 2 * 3, dtype=torch.int8).view(4, 2, 3) if views else None
    return SoftLabels.from_logits(logits, LABELS, COVERED, views=parameters)


def make(codec: str = "raw", *, soft: SoftLabels | None = None, num_classes: int = 6) -> DistilledDataset:
    dataset = DistilledDataset.from_images(make_images(), LABELS, num_classes=num_classes, codec=codec)
    return replace(dataset, soft_labels=soft)


def test_a_dataset_says_what_it_holds() -> None:
    dataset = make()
    assert len(dataset) == 4
    assert dataset.classes == [0, 2, 5]
    assert dataset.images_per_class == {0: 1, 2: 2, 5: 1}
    assert torch.equal(dataset.images, make_images())
    assert (dataset.factor, dataset.normalization, dataset.provenance) == (1, None, Provenance())


def test_images_are_what_the_codec_leaves_of_them() -> None:
    codec = build_codec("quantize:2")
    assert torch.equal(make("quantize:2").images, codec.decode(codec.encode(make_images())))


def test_what_is_said_of_the_images_is_kept() -> None:
    norm, provenance = Normalization((0.5,), (0.2,)), Provenance(method="rded:factor=2")
    dataset = DistilledDataset.from_images(
        make_images(), LABELS, num_classes=6, factor=2, normalization=norm, provenance=provenance
    )
    assert (dataset.factor, dataset.normalization, dataset.provenance) == (2, norm, provenance)


def test_a_dataset_may_be_empty() -> None:
    dataset = DistilledDataset.from_images(make_images(0), torch.zeros(0).long(), num_classes=3)
    assert (len(dataset), dataset.classes, dataset.images_per_class) == (0, [], {})
    assert dataset.images.shape == (0, 1, 8, 8)
    assert dataset.ledger().total == 0


def test_datasets_are_compared_as_objects() -> None:
    dataset = make(soft=make_soft())
    assert dataset == dataset  # noqa: PLR0124  # tensors have no truth value, so fields cannot be compared
    assert dataset != make(soft=make_soft())
    assert len({dataset, dataset}) == 1


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("labels", LABELS.int(), r"`labels` of int64 \(4,\) on the CPU.* got torch.int32 \(4,\)"),
        ("labels", LABELS[:3], r"`labels` of int64 \(4,\) .* got torch.int64 \(3,\)"),
        ("labels", LABELS[:, None], r"`labels` of int64 \(4,\) .* got torch.int64 \(4, 1\)"),
        ("labels", LABELS.to("meta"), r"on the CPU, .* on meta"),
        ("labels", LABELS - 1, r"`labels` in \[0, 6\), got \[-1, 4\]. Check `num_classes`"),
        ("num_classes", 5, r"`labels` in \[0, 5\), got \[0, 5\]"),
        ("num_classes", 0, r"`num_classes` in \[1, 2147483648\], got 0"),
        ("num_classes", 1 << 40, r"`num_classes` in \[1, 2147483648\]"),
        ("factor", 0, "`factor` of at least 1, got 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(field: str, value: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(make(), **{field: value})


def test_soft_labels_of_every_class_are_asked_for() -> None:
    soft = make_soft()
    covered = {label: columns for label, columns in soft.covered.items() if label != 2}
    with pytest.raises(ValueError, match=r"soft labels for class 2, got none\. Relabel it"):
        make(soft=replace(soft, covered=covered))


def test_soft_labels_of_other_exemplars_are_refused() -> None:
    soft = make_soft()
    with pytest.raises(ValueError, match="Expected 18 soft-label values for these exemplars, got 17"):
        make(soft=replace(soft, values=soft.values[1:]))
    with pytest.raises(ValueError, match="Expected 27 soft-label values for these exemplars, got 18"):
        make(soft=replace(soft, num_views=3))


@pytest.mark.parametrize("column", [6, -1])
def test_soft_labels_of_classes_out_of_range_are_refused(column: int) -> None:
    soft = make_soft()
    covered = {label: (*columns[:-1], column) for label, columns in soft.covered.items()}
    with pytest.raises(ValueError, match=r"soft labels of classes in \[0, 6\)"):
        make(soft=replace(soft, covered=covered))


@pytest.mark.parametrize("shape", [(3, 2, 3), (4, 1, 3)])
def test_views_of_other_exemplars_are_refused(shape: tuple[int, ...]) -> None:
    views = torch.zeros(shape, dtype=torch.int8)
    with pytest.raises(ValueError, match="`views` for 4 images and 2 views, got"):
        make(soft=replace(make_soft(), views=views))


def test_many_classes_take_no_memory() -> None:
    covered = {0: (0,), 2: (0,), 5: (0,)}
    soft = SoftLabels.from_logits(torch.zeros(4, 1, 1), LABELS, covered)
    assert len(make(soft=soft, num_classes=1 << 31)) == 4  # a table of them would take gigabytes


def test_the_ledger_counts_each_part_by_hand() -> None:
    ledger = make(soft=make_soft(views=True)).ledger(teacher_bytes=1000)
    assert ledger.by_part() == {
        "pixels": 4 * 64,
        "labels": 4,
        # fp16 logits of 2 views, int8 parameters, and one byte for 6 classes in each of 3 rows
        "soft_labels": 2 * 2 * (2 + 2 + 2 + 3) + 4 * 2 * 3 + 3,
        "teacher": 1000,
    }


def test_the_ledger_without_soft_labels_counts_pixels_and_labels() -> None:
    assert make("quantize:4").ledger().by_part() == {
        "pixels": 4 * 32,
        "labels": 4,
        "soft_labels": 0,
        "teacher": 0,
    }


def test_labels_among_many_classes_take_two_bytes() -> None:
    assert make(num_classes=257).ledger().labels == 8


def test_the_ledger_counts_headers_once_and_a_length_for_each_file() -> None:
    dataset = make("webp:75")
    streams = dataset.encoded.streams()
    assert dataset.ledger().pixels == sum(map(len, streams)) + 2 * 4 + 19


@pytest.mark.parametrize("codec", ["raw", "webp:75", "quantize:3"])
@pytest.mark.parametrize("indices", [[3], [2, 0, 2, 1], []])
def test_selection_keeps_images_labels_and_soft_labels_together(codec: str, indices: list[int]) -> None:
    dataset = make(codec, soft=make_soft(views=True))
    chosen = torch.tensor(indices, dtype=torch.int64)
    selected = dataset.select(chosen)
    assert torch.equal(selected.images, dataset.images[chosen])
    assert torch.equal(selected.labels, LABELS[chosen])
    assert dataset.soft_labels is not None
    assert selected.soft_labels is not None
    torch.testing.assert_close(
        selected.soft_labels.dense(selected.labels, range(6)),
        dataset.soft_labels.dense(LABELS, range(6))[chosen],
        equal_nan=True,
    )
    assert dataset.soft_labels.views is not None
    assert selected.soft_labels.views is not None
    assert torch.equal(selected.soft_labels.views, dataset.soft_labels.views[chosen])


def test_selection_keeps_what_is_said_of_the_images() -> None:
    norm, provenance = Normalization((0.5,), (0.2,)), Provenance(method="rded")
    dataset = replace(make(), normalization=norm, provenance=provenance, factor=2)
    selected = dataset.select(torch.tensor([1]))
    assert (selected.normalization, selected.provenance, selected.factor) == (norm, provenance, 2)
    assert selected.num_classes == 6


@pytest.mark.parametrize("has_soft", [False, True])
@pytest.mark.parametrize("index", [4, -1])
def test_indices_out_of_range_are_refused(has_soft: bool, index: int) -> None:
    dataset = make(soft=make_soft() if has_soft else None)
    with pytest.raises(ValueError, match=r"`indices` in \[0, 4\)"):
        dataset.select(torch.tensor([index]))


def test_a_mask_is_refused_with_the_cure() -> None:
    with pytest.raises(TypeError, match="mask.nonzero"):
        make(soft=make_soft()).select(LABELS == 2)


def test_floating_images_are_refused_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"`images` of torch.uint8.*round"):
        DistilledDataset.from_images(torch.rand(1, 1, 8, 8), LABELS[:1], num_classes=6)


def test_whitened_images_have_to_be_floats() -> None:
    with pytest.raises(ValueError, match="Expected the codec float32 for whitened images, got `raw`"):
        replace(make(), space="zca")


@pytest.mark.parametrize("change", [{"space": "lab"}, {"learned_lr": 0.0}, {"class_names": ("a", "b")}])
def test_what_is_said_of_the_images_has_to_make_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Expected .*{next(iter(change))}"):
        replace(make(), **change)


def test_reordering_renames_classes_and_keeps_their_logits() -> None:
    names = tuple("abcdef")
    dataset = replace(make(soft=make_soft()), class_names=names)
    permutation = (2, 0, 1, 3, 5, 4)
    other = dataset.reordered(permutation)
    assert other.labels.tolist() == [1, 2, 1, 4]
    assert torch.equal(other.images, dataset.images)
    assert other.class_names is not None
    assert all(other.class_names[permutation[c]] == names[c] for c in range(6))
    assert dataset.soft_labels is not None
    assert other.soft_labels is not None
    before = dataset.soft_labels.dense(dataset.labels, range(6))
    after = other.soft_labels.dense(other.labels, range(6))
    torch.testing.assert_close(after[:, :, list(permutation)], before, rtol=0, atol=0, equal_nan=True)


def test_reordering_there_and_back_changes_nothing() -> None:
    dataset = make(soft=make_soft())
    permutation = (3, 0, 5, 1, 2, 4)
    back = [permutation.index(c) for c in range(6)]
    again = dataset.reordered(permutation).reordered(back)
    assert torch.equal(again.labels, dataset.labels)
    assert again.soft_labels is not None
    assert again.soft_labels.covered == COVERED


@pytest.mark.parametrize("permutation", [(0, 1, 2, 3, 4), (0, 0, 1, 2, 3, 4), (1, 2, 3, 4, 5, 6)])
def test_only_permutations_reorder_classes(permutation: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected `permutation` to hold each of 6 classes once"):
        make().reordered(permutation)
