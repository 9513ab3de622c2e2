import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_layouts import pixels, whitened, write_gift
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset, save_dataset
from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.progress import silent
from gift_cl.readers.gift_pt import GIFTReader

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
LABELS = torch.arange(12) // 3


def read(path: Path, reader: GIFTReader | None = None, ipc: int | None = None) -> DistilledDataset:
    return (reader or GIFTReader()).read(path, ipc=ipc, progress=silent)


def published(
    root: Path, method: str, *, dataset: str = "cifar10", model: str = "conv3", ipc: int = 3
) -> Path:
    return root / "syn_data" / method / f"{dataset}_{model}" / f"ipc{ipc}"


def bits(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


@settings(max_examples=40, deadline=None)
@given(
    num_classes=st.integers(1, 12),
    ipc=st.integers(1, 4),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(2, 9)),
    kind=st.sampled_from(["grey", "uint8", "float"]),
    column=st.booleans(),
    is_sorted=st.booleans(),
    seed=st.integers(0, 999),
)
def test_pixels_written_are_those_read(
    tmp_path_factory: pytest.TempPathFactory,
    num_classes: int,
    ipc: int,
    shape: tuple[int, int, int],
    kind: str,
    column: bool,
    is_sorted: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = pixels(num_classes, ipc, shape=shape, seed=seed)
    expected: Tensor = torch.rand(images.shape, generator=generator) if kind == "float" else images
    stored = images / 255 if kind == "grey" else expected
    labels = torch.arange(len(images)) // ipc
    if not is_sorted:
        labels = labels[torch.randperm(len(labels), generator=generator)]
    file = write_gift(tmp_path_factory.mktemp("gift"), stored, labels[:, None] if column else labels)
    first = read(file)
    save_dataset(first, file.with_name("own.safetensors"))
    for dataset in (first, load_dataset(file.with_name("own.safetensors"))):
        assert dataset.images.dtype == expected.dtype
        assert bits(dataset.images) == bits(expected)
        assert dataset.labels.tolist() == labels.tolist()
        assert dataset.soft_labels is None
        assert (dataset.space, dataset.num_classes) == ("pixels", num_classes)
        assert dataset.encoded.codec == ("float32" if kind == "float" else "raw")


@settings(max_examples=30, deadline=None)
@given(num_classes=st.integers(1, 12), ipc=st.integers(1, 4), seed=st.integers(0, 999))
def test_whitened_images_with_soft_labels_are_kept_exactly(
    tmp_path_factory: pytest.TempPathFactory, num_classes: int, ipc: int, seed: int
) -> None:
    made = whitened(num_classes, ipc, seed=seed)
    logits = made.logits.clone()
    logits[torch.arange(len(logits)), made.labels] += 4
    file = write_gift(tmp_path_factory.mktemp("gift"), made.images, logits)
    first = read(file)
    save_dataset(first, file.with_name("own.safetensors"))
    for dataset in (first, load_dataset(file.with_name("own.safetensors"))):
        assert bits(dataset.images) == bits(made.images)
        assert dataset.labels.tolist() == [row // ipc for row in range(num_classes * ipc)]
        assert dataset.soft_labels is not None
        assert bits(dataset.soft_labels.dense(dataset.labels, range(num_classes))) == bits(logits)
        assert (dataset.space, dataset.num_classes) == ("zca", num_classes)
        assert dataset.provenance.teacher_classes == tuple(range(num_classes))


def test_undone_normalisation_gives_the_grey_levels_back(tmp_path: Path) -> None:
    images = pixels()
    normalised = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
    file = write_gift(tmp_path, normalised * IMAGENET_STD + IMAGENET_MEAN, LABELS)
    assert bits(read(file).images) == bits(images)


def test_pixels_that_round_beyond_the_range_are_clamped(tmp_path: Path) -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, :2] = torch.tensor([-1e-6, 1 + 1e-6])
    found = read(write_gift(tmp_path, images, LABELS)).images
    assert found[0, 0, 0, :2].tolist() == [0, 1]
    assert bits(found[1:]) == bits(images[1:])


@pytest.mark.parametrize("far", [2e-4, -2e-4])
def test_one_pixel_off_the_grey_levels_keeps_all_as_floats(tmp_path: Path, far: float) -> None:
    images = pixels() / 255
    images[3, 2, 1, 0] = 0.2 + far
    dataset = read(write_gift(tmp_path, images, LABELS))
    assert dataset.encoded.codec == "float32"
    assert bits(dataset.images) == bits(images)


def test_pixels_near_grey_levels_are_grey_levels(tmp_path: Path) -> None:
    images = pixels()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 1.8e-4 - 9e-5
    assert bits(read(write_gift(tmp_path, images / 255 + noise, LABELS)).images) == bits(images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_grey_levels_are_found_in_any_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    file = write_gift(tmp_path, pixels().to(dtype) / 255, LABELS)
    assert bits(read(file).images) == bits(pixels())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_labels_of_any_whole_type_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    assert read(write_gift(tmp_path, pixels(), LABELS.to(dtype))).labels.tolist() == LABELS.tolist()


def test_parameter_is_read(tmp_path: Path) -> None:
    images = nn.Parameter(pixels() / 255)
    assert bits(read(write_gift(tmp_path, images, LABELS)).images) == bits(pixels())


def test_further_entries_are_ignored(tmp_path: Path) -> None:
    contents = {"dataset": "cifar10", "data": pixels(), "label": LABELS, "epoch": 3}
    torch.save(contents, tmp_path / "data.pt")
    assert len(read(tmp_path)) == 12


def test_progress_reaches_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gift_cl.readers.gift_pt._CHUNK", 5)
    calls: list[tuple[int, int]] = []
    file = write_gift(tmp_path, pixels() / 255, LABELS)
    dataset = GIFTReader().read(file, ipc=None, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 12), (5, 12), (10, 12), (12, 12)]
    assert bits(dataset.images) == bits(pixels())


# What the path says.


@pytest.mark.parametrize("model", ["conv3", "resnet18_modified"])
@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet", "imagenet-nette"])
def test_published_path_says_method_and_model(tmp_path: Path, dataset: str, model: str) -> None:
    folder = published(tmp_path, "sre2l", dataset=dataset, model=model)
    file = write_gift(folder, pixels(), LABELS, dataset)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for path in (tmp_path, folder, file):
        provenance = read(path).provenance
        assert (provenance.method, provenance.source, provenance.teacher) == ("sre2l", dataset, model)
        assert provenance.hashes == {"data.pt": digest}


@pytest.mark.parametrize(
    "where", ["data", "other/cifar10_conv3/ipc3", "rded/cifar10/ipc3", "rded/cifar10_conv3/three"]
)
def test_other_path_says_nothing(tmp_path: Path, where: str) -> None:
    dataset = read(write_gift(tmp_path / where, pixels(), LABELS))
    assert (dataset.provenance.method, dataset.provenance.teacher) == ("unknown", "none")
    assert dataset.provenance.source == "cifar10"


@pytest.mark.parametrize(
    ("in_path", "in_file"),
    [
        ("cifar10", "CIFAR-10"),
        ("tinyimagenet", "tiny"),
        ("imagenet-1k", "ImageNet"),
        ("imagenet-nette", "nette"),
    ],
)
def test_spellings_of_one_data_set_agree(tmp_path: Path, in_path: str, in_file: str) -> None:
    file = write_gift(published(tmp_path, "cda", dataset=in_path), pixels(), LABELS, in_file)
    assert read(file).provenance.source == in_file


@pytest.mark.parametrize(("in_path", "in_file"), [("cifar10", "cifar100"), ("imagenet-10", "imagenet-1k")])
def test_path_of_another_data_set_is_refused(tmp_path: Path, in_path: str, in_file: str) -> None:
    file = write_gift(published(tmp_path, "cda", dataset=in_path), pixels(), LABELS, in_file)
    with pytest.raises(LayoutError, match=rf"the data set `{in_path}` in .*its path says, got `{in_file}`"):
        read(file)


def test_path_of_another_number_of_images_is_refused(tmp_path: Path) -> None:
    file = write_gift(published(tmp_path, "cda", ipc=10), pixels(), LABELS)
    with pytest.raises(LayoutError, match="Expected 10 images of each class .* as its path says, got 3"):
        read(file)


@pytest.mark.parametrize(
    ("dataset", "factor"),
    [("cifar10", 1), ("cifar100", 1), ("tinyimagenet", 1), ("imagenet-nette", 2), ("imagenet-1k", 2)],
)
def test_mosaic_factor_of_rded_is_the_published_one(tmp_path: Path, dataset: str, factor: int) -> None:
    found = read(write_gift(published(tmp_path, "rded", dataset=dataset), pixels(), LABELS, dataset))
    assert found.factor == factor
    assert found.provenance.method == f"rded:factor={factor}"


def test_mosaic_factor_of_rded_on_other_data_is_unknown(tmp_path: Path) -> None:
    found = read(write_gift(published(tmp_path, "rded", dataset="digits"), pixels(), LABELS, "digits"))
    assert (found.factor, found.provenance.method) == (1, "rded")


# Fewer images of each class.


@pytest.mark.parametrize("method", ["sre2l", "cda", "rded"])
def test_first_images_of_each_class_are_a_data_set_of_their_own(tmp_path: Path, method: str) -> None:
    order = torch.tensor([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])
    file = write_gift(published(tmp_path, method), pixels()[order], LABELS[order])
    found = read(file, ipc=2)
    assert found.images_per_class == dict.fromkeys(range(4), 2)
    assert bits(found.images) == bits(pixels()[order[:8]])


@pytest.mark.parametrize(
    ("method", "dataset", "reason"),
    [
        ("rded", "imagenet-nette", "which patches share a mosaic"),
        ("rded", "digits", "which patches share a mosaic"),
        ("gvbsm", "cifar10", "G-VBSM optimises"),
        ("unknown", "cifar10", "it is not known"),
    ],
)
def test_fewer_images_are_refused_where_they_are_no_data_set(
    tmp_path: Path, method: str, dataset: str, reason: str
) -> None:
    file = write_gift(published(tmp_path, method, dataset=dataset), pixels(), LABELS, dataset)
    with pytest.raises(LayoutError, match=f"to be all images of each class.*got 2: {reason}"):
        read(file, ipc=2)


def test_fewer_images_of_datm_are_refused(tmp_path: Path) -> None:
    made = whitened()
    file = write_gift(published(tmp_path, "datm"), made.images, made.logits)
    assert len(read(file, ipc=3)) == 12
    with pytest.raises(LayoutError, match="DATM optimises all images together"):
        read(file, ipc=1)


def test_more_images_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="at least `ipc` = 4 images"):
        read(write_gift(published(tmp_path, "cda"), pixels(), LABELS), ipc=4)


# Spaces.


def test_whitened_images_under_datm_may_have_hard_labels(tmp_path: Path) -> None:
    made = whitened()
    dataset = read(write_gift(published(tmp_path, "datm"), made.images, made.labels))
    assert dataset.space == "zca"
    assert bits(dataset.images) == bits(made.images)


def test_pixels_may_have_soft_labels(tmp_path: Path) -> None:
    dataset = read(write_gift(tmp_path, pixels() / 255, whitened().logits))
    assert dataset.space == "pixels"
    assert bits(dataset.images) == bits(pixels())


def test_option_says_that_images_are_whitened(tmp_path: Path) -> None:
    made = whitened()
    file = write_gift(tmp_path, made.images, made.labels)
    assert read(file, GIFTReader(space="zca")).space == "zca"
    with pytest.raises(LayoutError, match=r"pixels in \[0, 1\] .*normalised .*undo it .*`space=zca`"):
        read(file)


def test_option_says_that_images_are_pixels(tmp_path: Path) -> None:
    made = whitened()
    file = write_gift(published(tmp_path, "datm"), made.images, made.logits)
    with pytest.raises(LayoutError, match=r"Expected pixels in \[0, 1\] in .*data\.pt`, got values from -"):
        read(file, GIFTReader(space="pixels"))


@pytest.mark.parametrize("images", [pixels(), pixels() / 255])
def test_pixels_are_refused_as_whitened(tmp_path: Path, images: Tensor) -> None:
    with pytest.raises(LayoutError, match="Expected whitened images, .* from 0 to 1. Leave out `space"):
        read(write_gift(tmp_path, images, LABELS), GIFTReader(space="zca"))


def test_normalised_images_are_refused(tmp_path: Path) -> None:
    normalised = (pixels() / 255 - IMAGENET_MEAN) / IMAGENET_STD
    file = write_gift(published(tmp_path, "rded"), normalised, LABELS)
    with pytest.raises(LayoutError, match=r"got values from -2\.\d+ to 2\.\d+\. If they are normalised"):
        read(file)


def test_grey_levels_up_to_255_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="got values from 0 to 255. If they reach to 255, divide by 255"):
        read(write_gift(tmp_path, pixels().float(), LABELS))


def test_images_far_from_zero_are_not_taken_for_whitened(tmp_path: Path) -> None:
    made = whitened()
    file = write_gift(tmp_path, made.images + 20 * (made.images > -1), made.logits)
    with pytest.raises(LayoutError, match=r"Expected pixels in \[0, 1\]"):
        read(file)


# What it looks for.


def test_file_is_recognized_by_name(tmp_path: Path) -> None:
    file = published(tmp_path, "rded") / "data.pt"
    file.parent.mkdir(parents=True)
    file.touch()
    assert GIFTReader().recognizes(file)
    assert GIFTReader().recognizes(tmp_path)
    file.rename(file.with_name("more_data.pt"))
    assert not GIFTReader().recognizes(file.with_name("more_data.pt"))
    assert not GIFTReader().recognizes(tmp_path)
    assert not GIFTReader().recognizes(file)


def test_file_of_another_name_may_be_given(tmp_path: Path) -> None:
    file = write_gift(tmp_path, pixels(), LABELS).rename(tmp_path / "mine.pt")
    assert list(read(file).provenance.hashes) == ["mine.pt"]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    write_gift(tmp_path / "outside", pixels(), LABELS)
    (tmp_path / "inside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "inside/link")
    assert not GIFTReader().recognizes(tmp_path / "inside")


def test_folder_of_very_many_files_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gift(tmp_path, pixels(), LABELS)
    monkeypatch.setattr("gift_cl.readers.tensors._MOST_ENTRIES", 0)
    assert not GIFTReader().recognizes(tmp_path)


@pytest.mark.parametrize(
    ("names", "got"), [([], "got 0"), (["a", "b"], r"got 2\. .*a/data\.pt, .*b/data\.pt")]
)
def test_folder_has_to_hold_one_file(tmp_path: Path, names: list[str], got: str) -> None:
    for name in names:
        write_gift(tmp_path / name, pixels(), LABELS)
    with pytest.raises(LayoutError, match=rf"Expected one data\.pt below .*{got}"):
        read(tmp_path)


# What it refuses.


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([pixels(), LABELS], "dictionary of dataset, data and label in .*, got list"),
        ({}, "got one of nothing"),
        ({"data": pixels(), "labels": LABELS}, "got one of data, labels"),
        ({str(n): n for n in range(9)}, "got one of 0, 1, 2, 3, 4, 5 and 3 more"),
        ({"dataset": 10, "data": pixels(), "label": LABELS}, "the name of a data set"),
        ({"dataset": "a" * 101, "data": pixels(), "label": LABELS}, "the name of a data set"),
        ({"dataset": "a", "data": [pixels()], "label": LABELS}, "as a tensor .* got list"),
        ({"dataset": "a", "data": pixels(), "label": LABELS.tolist()}, "`label` .* 12 rows, .* got list"),
        ({"dataset": "a", "data": pixels(), "label": LABELS[:9]}, r"12 rows, .* got \(9,\)"),
        ({"dataset": "a", "data": pixels(), "label": torch.tensor(1)}, r"12 rows, .* got \(\)"),
        ({"dataset": "a", "data": pixels()[:0], "label": LABELS[:0]}, r"got \(0, 3, 8, 8\)"),
    ],
)
def test_contents_of_another_kind_are_refused(tmp_path: Path, contents: object, message: str) -> None:
    torch.save(contents, tmp_path / "data.pt")
    with pytest.raises(LayoutError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, "every class from 0 to 4 .* no image of 0"),
        (LABELS * 3, r"every class from 0 to 9 .* no image of 1, 2, 4, 5, 7, 8\. Number"),
        (LABELS * 2**60, r"every class .* no image of 1, 2, 3, 4, 5, 6 and \d+ more"),
        (LABELS - 1, "classes of at least 0 .* got -1"),
        (torch.tensor([0] * 4 + [1] * 5 + [2] * 3), r"got 3 to 5 \(class 0: 4, class 2: 3\)"),
        (LABELS > 1, "as whole numbers .* of torch.bool"),
        (LABELS.view(12, 1, 1), r"whole numbers .* got \(12, 1, 1\)"),
        (LABELS[:, None].expand(12, 2).clone(), r"whole numbers .* got \(12, 2\)"),
        (LABELS.float(), r"soft labels .* of shape \(12, C\).* got \(12,\)"),
        (whitened().logits.softmax(1), "rows that sum to 1"),
        (whitened().logits.flip(0), "sorted by class"),
        (torch.zeros(12, 5), "got 12 images for 5 classes"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, labels: Tensor, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        read(write_gift(tmp_path, pixels(), labels))


IMAGES: dict[str, tuple[Callable[[Tensor], Tensor], type[Exception], str]] = {
    "nan": (lambda i: i.where(i < 0.9, torch.nan), DamagedFileError, "images in .* from nan to nan"),
    "inf": (lambda i: i.where(i < 0.9, -torch.inf), DamagedFileError, "from -inf"),
    "huge": (lambda i: i * 1e5, DamagedFileError, r"to 1e\+05"),
    "whole numbers": (lambda i: (i * 0).int(), LayoutError, "floating-point numbers .* got int32"),
    "rounded": (lambda i: i.double() / 3, LayoutError, "float32 holds exactly, got float64"),
    "two channels": (lambda i: i[:, :2], LayoutError, r"1 or 3 channels, got \(12, 2, 8, 8\)"),
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_images_that_cannot_be_are_refused(tmp_path: Path, kind: str) -> None:
    change, error, message = IMAGES[kind]
    with pytest.raises(error, match=message):
        read(write_gift(tmp_path, change(pixels() / 255), LABELS))


def test_spec_spells_the_option_out() -> None:
    assert GIFTReader().spec == "gift"
    assert GIFTReader(space="zca").spec == "gift:space=zca"


def test_impossible_option_is_refused() -> None:
    with pytest.raises(ValueError, match="`space` auto, pixels or zca, got 'rgb'"):
        GIFTReader(space="rgb")  # type: ignore[arg-type]
