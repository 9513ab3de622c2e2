"""Plain image folders: labels as torchvision numbers them, and what it would not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import read, write_image, write_image_folder
from torchvision.datasets import ImageFolder

from gift_cl.errors import LayoutError, UnsafeFileError
from gift_cl.readers.image_folder import ImageFolderReader

READER = ImageFolderReader()
NAMES = st.text("abcXYZ019-_ é", min_size=1, max_size=6).filter(lambda name: not name.isdigit())


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.dictionaries(NAMES, st.integers(1, 3), min_size=1, max_size=4),
    suffix=st.sampled_from(["jpg", "png", "webp"]),
    codec=st.sampled_from(["files", "raw"]),
)
def test_images_and_labels_are_torchvision_s(
    tmp_path_factory: Any, counts: dict[str, int], suffix: str, codec: str
) -> None:
    root = write_image_folder(tmp_path_factory.mktemp("set"), counts, suffix=suffix)
    dataset, reference = read(ImageFolderReader(codec), root), ImageFolder(str(root))
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in reference])
    assert torch.equal(dataset.images, pixels)
    assert dataset.labels.tolist() == reference.targets
    assert dataset.class_names == tuple(reference.classes)
    assert dataset.num_classes == len(counts)


def test_gray_images_keep_their_one_channel(tmp_path: Path) -> None:
    write_image(tmp_path / "a/1.png", 0, 8, 8)
    assert read(READER, tmp_path).images.shape == (1, 1, 8, 8)


def test_the_first_images_of_each_class_may_be_asked_for(tmp_path: Path) -> None:
    dataset = read(READER, write_image_folder(tmp_path, {"a": 3, "b": 2}), ipc=2)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(LayoutError, match="`ipc` = 3 images .* got 2 of class 1"):
        read(READER, tmp_path, ipc=3)


def test_other_files_are_ignored(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path, {"a": 1})
    (root / "LICENSE").write_text("x")
    (root / "a" / "labels.csv").write_text("x")
    assert len(read(READER, root)) == 1


@pytest.mark.parametrize(("names", "is_warned"), [(["0", "10", "2"], True), (["00", "02", "10"], False)])
def test_numbers_that_are_not_in_order_as_words_are_warned_of(
    tmp_path: Path, names: list[str], is_warned: bool
) -> None:
    root = write_image_folder(tmp_path, dict.fromkeys(names, 1))
    if is_warned:
        with pytest.warns(UserWarning, match="sorted as words, 0, 10, 2, .* pad the names"):
            dataset = read(READER, root)
    else:
        dataset = read(READER, root)
    assert dataset.class_names == tuple(names)


@pytest.mark.parametrize("names", [("train", "val"), ("Train",), ("training", "test", "notes")])
def test_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_image_folder(tmp_path / name, {"a": 1, "b": 1})
    with pytest.raises(
        LayoutError, match=f"Give one of them: `{tmp_path}/[Tt]est|Give one of them: `{tmp_path}/[Tt]rain"
    ):
        read(READER, tmp_path)


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    assert read(READER, write_image_folder(tmp_path, {"test": 1, "b": 1})).class_names == ("b", "test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "b").mkdir(), "no images in b of"),
        (lambda root: write_image(root / "x.jpg"), "got x.jpg. Put each image into the folder of its class"),
        (lambda root: write_image(root / "a/b/x.jpg"), "got `a/b/x.jpg`. Give the folder .*/a`"),
        (lambda root: (root / "a/x.gif").write_bytes(b"GIF89a"), "x.gif`: it is no JPEG, PNG or WebP image"),
        (lambda root: write_image(root / "a/x.jpg", 0, 9, 8, 3), "images of one size"),
    ],
)
def test_what_is_no_image_folder_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    root = write_image_folder(tmp_path, {"a": 1})
    spoil(root)
    with pytest.raises((LayoutError, ValueError), match=message):
        read(READER, root)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="got no images"):
        read(READER, tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "set", {"a": 1})
    write_image_folder(tmp_path / "elsewhere", {"b": 1})
    (root / "b").symlink_to("../elsewhere/b")
    with pytest.raises(UnsafeFileError, match="The link `.*/set/b` leads out of"):
        read(READER, root)


def test_folders_of_images_are_recognized(tmp_path: Path) -> None:
    assert READER.recognizes(write_image_folder(tmp_path / "yes", {"a": 1}))
    assert not READER.recognizes(tmp_path)
    assert not READER.recognizes(tmp_path / "yes/a")
    assert not READER.recognizes(tmp_path / "yes/a/img0.jpg")
    assert not READER.recognizes(tmp_path / "missing")


def test_a_reader_says_how_to_build_it() -> None:
    assert READER.spec == "folder"
    assert ImageFolderReader("raw").spec == "folder:codec=raw"


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="a `codec` of pixels, got float32"):
        ImageFolderReader("float32")
