"""RDED: the factor is known or asked for, and a smaller set is read only where it is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layouts import by_pillow, read, write_image, write_image_folder, write_rded

from gift_cl.errors import LayoutError
from gift_cl.readers.protocol import Reader
from gift_cl.readers.rded import RDEDReader
from gift_cl.readers.tree import scan

EXPERIMENT = "imagenet-nette_resnet18_f2_mipc300_ipc2_cr5"


def published(root: Path, name: str = EXPERIMENT, *, ipc: int = 2, side: int = 8) -> Path:
    write_rded(root / "exp" / name / "syn_data", ipc=ipc, side=side)
    return root / "exp" / name


@pytest.mark.parametrize("codec", ["files", "raw", "png"])
def test_what_is_written_is_what_is_read(tmp_path: Path, codec: str) -> None:
    path = published(tmp_path)
    dataset = read(RDEDReader(codec=codec), path)
    files = [path / "syn_data" / name for name, _ in scan(path / "syn_data")]
    assert torch.equal(dataset.images, by_pillow(files))
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (dataset.num_classes, dataset.factor, dataset.encoded.codec) == (3, 2, codec)


def test_provenance_is_taken_from_the_name_of_the_experiment(tmp_path: Path) -> None:
    provenance = read(RDEDReader(), published(tmp_path)).provenance
    assert provenance.method == "rded:factor=2,crops=5"
    assert provenance.teacher == "resnet18"
    assert "(imagenet-nette, 300 images of each class scored)" in provenance.source
    assert set(provenance.hashes) == {"tree"}


def test_names_of_models_may_hold_underscores(tmp_path: Path) -> None:
    path = published(tmp_path, "cifar10_resnet18_modified_f1_mipc300_ipc2_cr5")
    assert read(RDEDReader(), path).provenance.teacher == "resnet18_modified"


@pytest.mark.parametrize("below", ["", "exp", f"exp/{EXPERIMENT}", f"exp/{EXPERIMENT}/syn_data"])
def test_the_folder_may_be_any_of_those_above(tmp_path: Path, below: str) -> None:
    published(tmp_path)
    assert RDEDReader().recognizes(tmp_path / below)
    assert read(RDEDReader(), tmp_path / below).factor == 2


def test_the_folder_may_be_given_relative_to_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published(tmp_path) / "syn_data")
    assert read(RDEDReader(), Path()).factor == 2


@pytest.mark.parametrize("name", ["x_f2_y", "mine_f2", "f2_x", "f2"])
def test_a_factor_in_any_name_is_enough(tmp_path: Path, name: str) -> None:
    dataset = read(RDEDReader(), write_rded(tmp_path / name))
    assert dataset.factor == 2
    assert dataset.provenance.method == "rded:factor=2"
    assert dataset.provenance.teacher == "unknown"


@pytest.mark.parametrize("name", ["syn_data", "off2_x", "f0_x", "x_f2y_z"])
def test_an_unknown_factor_has_to_be_given(tmp_path: Path, name: str) -> None:
    path = write_rded(tmp_path / "a" / "b" / name)
    with pytest.raises(LayoutError, match="mosaic factor of the images in .* is not known.*`rded:factor=1`"):
        read(RDEDReader(), path)
    assert read(RDEDReader(2), path).factor == 2


def test_a_factor_that_contradicts_the_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="Expected `factor` 2 .* got 1. Leave it out"):
        read(RDEDReader(1), published(tmp_path))


def test_fewer_mosaics_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        LayoutError, match="all images of each class .* got 1: which patches share a mosaic depends"
    ):
        read(RDEDReader(), published(tmp_path), ipc=1)
    assert len(read(RDEDReader(), tmp_path, ipc=2)) == 6


def test_fewer_images_of_factor_1_are_the_first(tmp_path: Path) -> None:
    path = published(tmp_path, "cifar10_conv3_f1_mipc300_ipc3_cr5", ipc=3)
    dataset = read(RDEDReader(), path, ipc=2)
    kept = [name for name, _ in scan(path / "syn_data") if "id00002" not in name]
    assert torch.equal(dataset.images, by_pillow([path / "syn_data" / name for name in kept]))
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_images_that_do_not_divide_into_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="divide into 2 x 2 patches, got 9 x 9 pixels"):
        read(RDEDReader(), published(tmp_path, side=9))


def test_a_count_that_contradicts_the_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"2 images of each class .* the folder {EXPERIMENT} says, got 1"):
        read(RDEDReader(), published(tmp_path, ipc=1))


def test_missing_images_are_said(tmp_path: Path) -> None:
    path = published(tmp_path)
    (path / "syn_data/00001/class00001_id00000.jpg").unlink()
    with pytest.raises(LayoutError, match="images 0 to 1 of class 1 .* number 0 is missing"):
        read(RDEDReader(), path)


def test_real_images_in_numbered_folders_are_not_recognized(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"00000": 2, "00001": 2})
    assert not RDEDReader().recognizes(tmp_path)
    with pytest.raises(LayoutError, match="named like 00000/class00000_id00000.jpg"):
        read(RDEDReader(1), tmp_path)


def test_folders_of_other_layouts_are_not_recognized(tmp_path: Path) -> None:
    write_image(tmp_path / "new00000/class00000_id000.jpg")
    assert not RDEDReader().recognizes(tmp_path)
    assert not RDEDReader().recognizes(tmp_path / "missing")


@pytest.mark.parametrize(
    ("reader", "spec"),
    [
        (RDEDReader(), "rded"),
        (RDEDReader(2), "rded:factor=2"),
        (RDEDReader(1, "raw"), "rded:factor=1,codec=raw"),
    ],
)
def test_a_reader_says_how_to_build_it(reader: Reader, spec: str) -> None:
    assert reader.spec == spec


@pytest.mark.parametrize("factor", [0, -1, True, 1.5])
def test_a_factor_is_a_number_of_at_least_1(factor: int) -> None:
    with pytest.raises(ValueError, match="Expected `factor` as a number of at least 1"):
        RDEDReader(factor)
