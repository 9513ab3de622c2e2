from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.layout_writers import LAYOUTS, write_layout
from gift_cl.readers import READERS, read_dataset
from gift_cl.soft_labels import SoftLabels

SPECS = {
    "sre2l": "sre2l:iterations=10",
    "cda": "cda:iterations=10",
    "gvbsm": "gvbsm",
    "rded": "rded:factor=2,crops=3,min_scale=0.08,sources=20",
    "random": "random",
}


def make(method: str = "sre2l", *, classes: int = 3, ipc: int = 2, side: int = 16, **options: Any) -> Any:
    """Random images; a mosaic for RDED."""
    labels = torch.arange(classes).repeat_interleave(ipc)
    shape = (len(labels), options.pop("channels", 3), side, side)
    generator = torch.Generator().manual_seed(0)
    return DistilledDataset.from_images(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        labels,
        num_classes=classes,
        factor=2 if method == "rded" else 1,
        provenance=Provenance(method=SPECS[method]),
        **options,
    )


def make_datm(*, lr: float | None = 0.25, space: str = "zca") -> DistilledDataset:
    """Whitened images, or pixels in [0, 1], with logits that mostly agree."""
    labels = torch.arange(3).repeat_interleave(2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    if space == "pixels":
        images = torch.rand(6, 3, 8, 8, generator=generator)
    logits = torch.randn(6, 1, 3, generator=generator)
    logits[torch.arange(6), 0, labels] += 5
    return DistilledDataset(
        encoded=build_codec("float32").encode(images),
        labels=labels,
        num_classes=3,
        soft_labels=SoftLabels.from_logits(
            logits, labels, dict.fromkeys(range(3), (0, 1, 2)), dtype=torch.float32
        ),
        space=space,  # type: ignore[arg-type]
        learned_lr=lr,
        provenance=Provenance(method=f"datm:iterations=5,zca={str(space == 'zca').lower()}"),
    )


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def by_pillow(folder: Path) -> torch.Tensor:
    """Pixels of all files in the order of their names, uint8 (N, C, H, W)."""
    pixels = [np.array(Image.open(folder / name)) for name in files(folder)]
    return torch.stack([torch.from_numpy(p.reshape(*p.shape[:2], -1)).permute(2, 0, 1) for p in pixels])


@pytest.mark.parametrize("layout", ["sre2l", "cda"])
def test_images_of_sre2l_and_cda_are_jpeg_files_of_quality_75(layout: str, tmp_path: Path) -> None:
    dataset = make(layout)
    write_layout(dataset, tmp_path / "out", layout, data="cifar10")
    assert files(tmp_path / "out") == [
        f"{layout}/new{label:03d}/class{label:03d}_id{number:03d}.jpg"
        for label in range(3)
        for number in range(2)
    ]
    for name, image in zip(files(tmp_path / "out"), dataset.images, strict=True):
        expected = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(expected, format="JPEG", quality=75)
        assert (tmp_path / "out" / name).read_bytes() == expected.getvalue()


@pytest.mark.parametrize(
    ("layout", "side", "suffix"), [("gvbsm", 64, "png"), ("gvbsm", 65, "jpg"), ("sre2l", 64, "jpg")]
)
def test_small_images_of_gvbsm_are_png_files(layout: str, side: int, suffix: str, tmp_path: Path) -> None:
    write_layout(make(layout, side=side, classes=1, ipc=1), tmp_path / "out", layout, data="cifar10")
    assert files(tmp_path / "out") == [f"{layout}/new000/class000_id000.{suffix}"]


@pytest.mark.parametrize("layout", ["sre2l", "cda", "gvbsm", "rded"])
def test_png_files_come_back_as_they_were(layout: str, tmp_path: Path) -> None:
    dataset = make(layout)
    write_layout(dataset, tmp_path / "out", f"{layout}:png", data="cifar10", model="conv3:width=64")
    for read in (read_dataset(tmp_path / "out"), read_dataset(tmp_path / "out", layout)):
        assert torch.equal(read.images, dataset.images)
        assert torch.equal(read.labels, dataset.labels)
        assert read.provenance.method.partition(":")[0] == layout
        assert (read.num_classes, read.factor) == (3, dataset.factor)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("codec", ["jpeg:30", "png"])
def test_stored_files_are_not_encoded_again(codec: str, channels: int, tmp_path: Path) -> None:
    dataset = make(codec=codec, channels=channels)
    kind = "jpg" if codec.startswith("jpeg") else "png"
    write_layout(dataset, tmp_path / "out", f"sre2l:{kind}", data="cifar10")
    assert torch.equal(by_pillow(tmp_path / "out"), dataset.images)
    assert torch.equal(read_dataset(tmp_path / "out").images, dataset.images)


def test_images_of_other_codecs_are_written_as_a_student_sees_them(tmp_path: Path) -> None:
    dataset = make(codec="downscale:2")
    write_layout(dataset, tmp_path / "out", "sre2l:png", data="cifar10")
    assert torch.equal(by_pillow(tmp_path / "out"), dataset.images)


def test_pixels_between_grey_levels_are_rounded(tmp_path: Path) -> None:
    dataset = make_datm(space="pixels")
    write_layout(dataset, tmp_path / "out", "sre2l:png", data="cifar10")
    assert torch.equal(by_pillow(tmp_path / "out"), (dataset.images * 255).round().to(torch.uint8))


def test_images_of_another_method_are_not_called_sre2l(tmp_path: Path) -> None:
    write_layout(make("random"), tmp_path / "out", "sre2l", data="cifar10")
    assert files(tmp_path / "out")[0] == "random/new000/class000_id000.jpg"
    assert read_dataset(tmp_path / "out").provenance.method == "sre2l/cda/gvbsm"


def test_more_than_a_thousand_classes_have_five_digits(tmp_path: Path) -> None:
    write_layout(make(classes=1001, ipc=1, side=1), tmp_path / "out", "cda", data="imagenet-21k")
    assert files(tmp_path / "out")[-1] == "sre2l/new01000/class01000_id000.jpg"
    assert read_dataset(tmp_path / "out").num_classes == 1001


def test_the_folder_of_rded_says_how_it_was_made(tmp_path: Path) -> None:
    write_layout(
        make("rded"), tmp_path / "out", "rded", data="my_data/gray_levels.zip", model="conv3:width=8"
    )
    root = "gray-levels_conv3_f2_mipc20_ipc2_cr3/syn_data"
    assert files(tmp_path / "out")[0] == f"{root}/00000/class00000_id00000.jpg"
    assert len(files(tmp_path / "out")) == 6
    read = read_dataset(tmp_path / "out")
    assert read.provenance.method == "rded:factor=2,crops=3"
    assert read.provenance.teacher == "conv3"
    assert read.provenance.source.endswith("(gray-levels, 20 images of each class scored)")


def test_the_three_files_of_datm_come_back_as_they_were(tmp_path: Path) -> None:
    dataset = make_datm()
    write_layout(dataset, tmp_path / "out", "datm", data="cifar10", model="conv3")
    place = "cifar10/2/conv3/run/Normal"
    assert files(tmp_path / "out") == [f"{place}/{name}_best.pt" for name in ("images", "labels", "lr")]
    assert torch.load(tmp_path / "out" / place / "lr_best.pt", weights_only=True).dtype == torch.float32
    read = read_dataset(tmp_path / "out")
    assert torch.equal(read.images, dataset.images)
    assert torch.equal(read.labels, dataset.labels)
    assert (read.space, read.learned_lr, read.provenance.source) == ("zca", 0.25, "cifar10")
    assert read.soft_labels is not None
    assert dataset.soft_labels is not None
    assert torch.equal(read.soft_labels.values, dataset.soft_labels.values)


@pytest.mark.parametrize("method", ["rded", "random"])
def test_the_file_of_gift_comes_back_as_it_was(method: str, tmp_path: Path) -> None:
    dataset = make(method)
    write_layout(dataset, tmp_path / "out", "gift", data="cifar10", model="conv3")
    assert files(tmp_path / "out") == [f"{method}/cifar10_conv3/ipc2/data.pt"]
    contents = torch.load(tmp_path / "out" / files(tmp_path / "out")[0], weights_only=True)
    assert (contents["dataset"], contents["data"].dtype) == ("cifar10", torch.float32)
    torch.testing.assert_close(contents["data"], dataset.images / 255)
    assert torch.equal(contents["label"], dataset.labels)
    read = read_dataset(tmp_path / "out")
    assert torch.equal(read.images, dataset.images)
    assert torch.equal(read.labels, dataset.labels)


def test_the_file_of_gift_has_soft_labels_of_datm(tmp_path: Path) -> None:
    dataset = make_datm()
    write_layout(dataset, tmp_path / "out", "gift", data="cifar10", model="conv3")
    read = read_dataset(tmp_path / "out")
    assert torch.equal(read.images, dataset.images)
    assert read.space == "zca"
    assert read.soft_labels is not None
    assert dataset.soft_labels is not None
    assert torch.equal(read.soft_labels.values, dataset.soft_labels.values)


def test_progress_tells_images(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_layout(
        make(), tmp_path / "out", "sre2l", data="cifar10", progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(number, 6) for number in range(1, 7)]


def test_a_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(FileExistsError, match="`.*out` is there already"):
        write_layout(make(), tmp_path / "out", "sre2l", data="cifar10")
    assert files(tmp_path) == ["out/precious"]
    write_layout(make(classes=1, ipc=1), tmp_path / "out", "sre2l", data="cifar10", overwrite=True)
    assert files(tmp_path) == ["out/sre2l/new000/class000_id000.jpg"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_layout(make(), tmp_path / "out", "sre2l", data="a", overwrite=True, progress=fail)
    assert files(tmp_path) == ["out/precious"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write into `.*file`.*Choose a folder"):
        write_layout(make(), tmp_path / "file" / "out", "sre2l", data="cifar10")


@pytest.mark.usefixtures("tiny_files")
@pytest.mark.parametrize("layout", ["sre2l", "gift"])
def test_a_full_disk_is_named_and_leaves_nothing(layout: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Cannot write `.*out`: .*\. Make space on its disk"):
        write_layout(make(), tmp_path / "out", layout, data="cifar10")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dataset", "layout", "message"),
    [
        (make(), "nothing", "Unknown layout to write `nothing`. Known: sre2l, cda, gvbsm, rded, datm, gift"),
        (make(), "sre2l:gif", "Expected `files` jpg or png, got 'gif'"),
        (make(), "rded:files=webp", "Expected `files` jpg or png, got 'webp'"),
        (make(), "rded", "Expected images of `rded` for its layout, got some of `sre2l:iterations=10`"),
        (make(), "datm", "Expected images of `datm` for its layout"),
        (make_datm(space="pixels"), "datm", "Expected whitened images for the layout `datm`, got pixels of"),
        (make_datm(), "sre2l", "Expected pixels for image files, got whitened images"),
        (make_datm(lr=None), "datm", "Expected a `learned_lr` for the layout `datm`, got none"),
        (make().select([0, 1, 2, 3]), "sre2l", "equally many images of each of 3 classes.*got {0: 2, 1: 2}"),
        (make().select([0, 2, 4, 1, 3, 5]), "gift", "class after class"),
        (make().select([]), "sre2l", "equally many"),
        (replace(make_datm(), soft_labels=None), "datm", "Expected a data set with soft labels"),
    ],
)
def test_what_does_not_fit_is_refused(dataset: Any, layout: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_layout(dataset, tmp_path / "out", layout, data="cifar10")
    assert not list(tmp_path.iterdir())


def test_each_layout_has_a_reader() -> None:
    assert set(LAYOUTS.names()) <= set(READERS.names())
