"""SRe2L, CDA and G-VBSM: what is published is what is read, and what is missing is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import by_pillow, read, write_image, write_sre2l

from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.readers.protocol import Reader
from gift_cl.readers.sre2l import SRe2LReader
from gift_cl.readers.tree import scan

READER = SRe2LReader()


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(1, 12),
    ipc=st.integers(1, 4),
    digits=st.sampled_from([3, 5]),
    suffix=st.sampled_from(["jpg", "jpeg", "png"]),
    codec=st.sampled_from(["files", "raw", "png", "webp:lossless"]),
    wanted=st.none() | st.integers(1, 4),
)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: Any, classes: int, ipc: int, digits: int, suffix: str, codec: str, wanted: int | None
) -> None:
    root = write_sre2l(tmp_path_factory.mktemp("set"), classes=classes, ipc=ipc, digits=digits, suffix=suffix)
    wanted = None if wanted is None else min(wanted, ipc)
    dataset = read(SRe2LReader(codec, "cda"), root, ipc=wanted)
    kept = [(label, number) for label in range(classes) for number in range(wanted or ipc)]
    names = [
        f"new{label:0{digits}d}/class{label:0{digits}d}_id{number:03d}.{suffix}" for label, number in kept
    ]
    assert torch.equal(dataset.images, by_pillow([root / name for name in names]))
    assert dataset.labels.tolist() == [label for label, _ in kept]
    assert dataset.num_classes == classes
    assert dataset.encoded.codec == codec
    assert (dataset.factor, dataset.space, dataset.normalization) == (1, "pixels", None)


def test_files_are_kept_byte_by_byte(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path)
    assert read(READER, root).encoded.streams() == [(root / name).read_bytes() for name, _ in scan(root)]


@pytest.mark.parametrize("above", [".", "sets", "a/b/c/d"])
def test_the_folders_of_the_classes_are_found_at_any_depth(tmp_path: Path, above: str) -> None:
    write_sre2l(tmp_path / above)
    (tmp_path / "README.txt").write_text("hello")
    assert READER.recognizes(tmp_path)
    assert len(read(READER, tmp_path)) == 6


def test_numbers_beyond_the_padding_are_in_order(tmp_path: Path) -> None:
    for number in range(1002):
        path = tmp_path / "new000" / f"class000_id{number:03d}.png"
        write_image(path, number, 1, 1)
    dataset = read(SRe2LReader("raw"), tmp_path)
    assert torch.equal(
        dataset.images[1000:], by_pillow([path.with_stem(f"class000_id{k}") for k in (1000, 1001)])
    )


def test_files_that_are_no_images_are_ignored(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path)
    for name in ("log.txt", "new000/.DS_Store", "new000/class000_id000.jpg.part", "new001/notes.md"):
        (root / name).write_text("x")
    assert len(read(READER, root)) == 6


def test_endings_may_be_upper_case(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path, classes=1, ipc=1)
    (root / "new000/class000_id000.jpg").rename(root / "new000/class000_id000.JPG")
    assert len(read(READER, root)) == 1


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path, classes=1, ipc=1)
    (root / "new000/class000_id001.jpg").symlink_to("class000_id000.jpg")
    assert len(read(READER, root)) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "new001"), "no images of class 1. Get the files again"),
        (lambda root: shutil.rmtree(root / "new000"), "no images of class 0. Get the files again"),
        (lambda root: (root / "new003").mkdir(), "no images in new003 of"),
        (lambda root: (root / "new001/class001_id001.jpg").unlink(), "2 images of each .* got 1 of class 1"),
        (
            lambda root: (root / "new001/class001_id000.jpg").unlink(),
            "images 0 to 1 of class 1 .* number 0 is missing",
        ),
        (
            lambda root: (root / "new001/class001_id001.jpg").rename(root / "new001/class002_id001.jpg"),
            "`.*/new001/class002_id001.jpg` is of class 002 by its name, and of class 001 by its folder",
        ),
        (
            lambda root: write_image(root / "new001/class001_id001.png", 5),
            "one image of each number in .*, got `new001/class001_id001.jpg` and `new001/class001_id001.png`",
        ),
        (lambda root: write_image(root / "preview.png"), "got preview.png. Remove them"),
        (
            lambda root: write_image(root / "new001/more/class001_id002.jpg"),
            "got new001/more/class001_id002.jpg",
        ),
        (lambda root: write_image(root / "new001/class001_id02.jpg"), "got new001/class001_id02.jpg"),
        (lambda root: write_image(root / "new001/class001_id0002.jpg"), "got new001/class001_id0002.jpg"),
        (lambda root: (root / "new001/a.gif").write_bytes(b"GIF"), "got new001/a.gif"),
        (
            lambda root: write_sre2l(root, digits=5),
            "with 3 or 5 digits each, got 000, 00000|one image of each number",
        ),
        (lambda root: write_image(root / "new001/class001_id001.jpg", 0, 9, 9, 3), "images of one size"),
        (lambda root: write_image(root / "new001/class001_id001.jpg", 0, 8, 8), "8 x 8 pixels in gray"),
    ],
)
def test_what_does_not_fit_the_layout_is_said(tmp_path: Path, spoil: Any, message: str) -> None:
    root = write_sre2l(tmp_path)
    spoil(root)
    with pytest.raises(LayoutError, match=message):
        read(READER, root)


def test_many_missing_classes_are_listed_in_part(tmp_path: Path) -> None:
    write_image(tmp_path / "new020/class020_id000.jpg")
    with pytest.raises(LayoutError, match="no images of class 0, 1, 2, 3, 4, 5 and 14 more"):
        read(READER, tmp_path)


def test_numbers_of_four_digits_are_those_beyond_999(tmp_path: Path) -> None:
    write_image(tmp_path / "new0001/class0001_id000.jpg")
    with pytest.raises(LayoutError, match="3 or 5 digits each, got 0001"):
        read(READER, tmp_path)


def test_a_folder_of_something_else_is_refused_with_what_is_there(tmp_path: Path) -> None:
    write_image(tmp_path / "cats/1.jpg")
    assert not READER.recognizes(tmp_path)
    with pytest.raises(
        LayoutError, match="named like new000/class000_id000.jpg below `.*`, got folders cats"
    ):
        read(READER, tmp_path)


def test_a_file_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert not READER.recognizes(tmp_path / "a.txt")
    with pytest.raises(LayoutError, match="got no folders"):
        read(READER, tmp_path / "a.txt")


def test_several_sets_in_one_folder_are_listed(tmp_path: Path) -> None:
    write_sre2l(tmp_path / "ipc10")
    write_sre2l(tmp_path / "ipc50")
    assert READER.recognizes(tmp_path)
    with pytest.raises(
        LayoutError, match="one data set below .*, got 2. Give one of them: .*/ipc10, .*/ipc50"
    ):
        read(READER, tmp_path)


def test_more_images_than_there_are_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="`ipc` = 3 images of each class in .*, got 2 of class 0"):
        read(READER, write_sre2l(tmp_path), ipc=3)


def test_a_link_out_of_the_set_is_refused(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path / "set")
    write_image(tmp_path / "secret.jpg")
    (root / "new000/class000_id002.jpg").symlink_to("../../secret.jpg")
    with pytest.raises(UnsafeFileError, match="`.*/new000/class000_id002.jpg` leads out of"):
        read(READER, root)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = write_sre2l(tmp_path)
    path = root / "new002/class002_id001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match=f"Cannot read `{path}`: .*Get the file again"):
        read(READER, root)


@pytest.mark.parametrize(
    ("names", "method"),
    [
        ("downloads/sre2l_tiny_rn18_4k_ipc100", "sre2l"),
        ("cda/cda_tiny_rn18_4k_ipc100", "cda"),
        ("CDA/x/y", "cda"),
        ("G_VBSM/syn_data/exp", "gvbsm"),
        ("x/y/g-vbsm", "gvbsm"),
        ("sre2l/cda/x", "cda"),
        ("sre2l-vs-cda/x/y", "sre2l/cda/gvbsm"),
        ("decade/x/y", "sre2l/cda/gvbsm"),
        ("cda/x/y/z", "sre2l/cda/gvbsm"),
    ],
)
def test_the_method_is_taken_from_the_names_of_the_nearest_folders(
    tmp_path: Path, names: str, method: str
) -> None:
    provenance = read(READER, write_sre2l(tmp_path / names)).provenance
    assert provenance.method == method
    assert ("method unknown" in provenance.source) == (method == "sre2l/cda/gvbsm")


def test_the_method_may_be_given(tmp_path: Path) -> None:
    provenance = read(SRe2LReader(method="cda"), write_sre2l(tmp_path / "sre2l")).provenance
    assert provenance.method == "cda"
    assert provenance.source.endswith("sre2l (method as given)")


def test_the_hash_is_that_of_the_images_that_are_read(tmp_path: Path) -> None:
    dataset, same = (
        read(READER, write_sre2l(tmp_path / "sre2l" / "a"), ipc=1),
        read(READER, write_sre2l(tmp_path / "sre2l" / "b", ipc=1)),
    )
    assert dataset.provenance.hashes == same.provenance.hashes
    assert set(dataset.provenance.hashes) == {"tree"}
    assert dataset.provenance.hashes != read(READER, tmp_path / "sre2l" / "a").provenance.hashes


@pytest.mark.parametrize(
    ("reader", "spec"),
    [
        (SRe2LReader(), "sre2l"),
        (SRe2LReader("raw"), "sre2l:codec=raw"),
        (SRe2LReader("webp:75", method="cda", workers=2), "cda:codec=webp:75"),
    ],
)
def test_a_reader_says_how_to_build_it(reader: Reader, spec: str) -> None:
    assert reader.spec == spec


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="Unknown codec"):
        SRe2LReader("jpg")
    with pytest.raises(ValueError, match="`method` sre2l, cda or gvbsm, got 'dm'"):
        SRe2LReader(method="dm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "reason"),
    [("gvbsm", "G-VBSM optimises the images of a class together"), (None, "say so by the layout `sre2l`")],
)
def test_fewer_images_are_refused_where_they_are_no_data_set(
    tmp_path: Path, method: Literal["gvbsm"] | None, reason: str
) -> None:
    root, reader = write_sre2l(tmp_path, ipc=2), SRe2LReader(method=method)
    assert len(read(reader, root, ipc=2)) == len(read(reader, root))
    with pytest.raises(LayoutError, match=f"all images of each class .* got 1: .*{reason}"):
        read(reader, root, ipc=1)


def test_a_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`ipc` of at least 1"):
        read(READER, write_sre2l(tmp_path), ipc=0)
