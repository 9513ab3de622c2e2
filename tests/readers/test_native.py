import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.dataset_file import save_dataset
from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.progress import silent
from gift_cl.readers.native import NativeReader

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])


def make(method: str = "herding", factor: int = 1) -> DistilledDataset:
    images = torch.arange(9 * 3 * 8 * 8).view(9, 3, 8, 8).to(torch.uint8)
    return DistilledDataset.from_images(
        images, LABELS, num_classes=3, codec="png", factor=factor, provenance=Provenance(method=method)
    )


def read(path: Path, ipc: int | None = None) -> DistilledDataset:
    return NativeReader().read(path, ipc=ipc, progress=silent)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.safetensors"


def test_data_set_comes_back_as_it_was_saved(path: Path) -> None:
    save_dataset(make(), path)
    found = read(path)
    assert found.images.tolist() == make().images.tolist()
    assert found.labels.tolist() == LABELS.tolist()
    assert (found.encoded.codec, found.provenance) == ("png", make().provenance)


def test_progress_reaches_all_images(path: Path) -> None:
    save_dataset(make(), path)
    calls: list[tuple[int, int]] = []
    NativeReader().read(path, ipc=None, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (9, 9)


def test_own_file_is_recognized(path: Path) -> None:
    save_dataset(make(), path)
    assert NativeReader().recognizes(path)


def test_empty_data_set_is_recognized(path: Path) -> None:
    save_dataset(make().select(torch.zeros(0, dtype=torch.int64)), path)
    assert NativeReader().recognizes(path)
    assert len(read(path)) == 0


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"gift": "{}"}])
def test_file_of_another_program_is_not_recognized(path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"gift_cl": torch.ones(2)}, path, metadata=metadata)
    assert not NativeReader().recognizes(path)


def test_own_file_of_another_ending_is_not_recognized(tmp_path: Path) -> None:
    save_dataset(make(), tmp_path / "memory.bin")
    assert not NativeReader().recognizes(tmp_path / "memory.bin")


def test_folders_and_missing_files_are_not_recognized(tmp_path: Path, path: Path) -> None:
    path.mkdir()
    assert not NativeReader().recognizes(path)
    assert not NativeReader().recognizes(tmp_path / "missing.safetensors")


def test_header_that_announces_exabytes_is_not_read(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 60) + b'{"__metadata__":{"gift_cl":')
    assert NativeReader().recognizes(path)
    with pytest.raises(DamagedFileError, match=r"Cannot read `.*memory\.safetensors`"):
        read(path)


@pytest.mark.parametrize(
    "method",
    ["random", "herding", "sre2l", "cda", "rded:factor=1,crops=5,min_scale=0.08,sources=300"],
)
def test_first_images_of_each_class_are_a_data_set_of_their_own(path: Path, method: str) -> None:
    save_dataset(make(method), path)
    found = read(path, ipc=2)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.images.tolist() == make().images[:6].tolist()
    assert found.provenance.method == method


@pytest.mark.parametrize(
    ("method", "factor"), [("rded:factor=2", 2), ("rded", 1), ("datm", 1), ("unknown", 1), ("herding2", 1)]
)
def test_fewer_images_are_refused_where_they_are_no_data_set(path: Path, method: str, factor: int) -> None:
    save_dataset(make(method, factor), path)
    with pytest.raises(
        LayoutError, match=r"to be all images of each class in `.*memory\.safetensors`, got 2"
    ):
        read(path, ipc=2)


def test_all_images_of_each_class_may_be_asked_for(path: Path) -> None:
    save_dataset(make("datm"), path)
    assert len(read(path, ipc=3)) == 9


def test_more_images_than_there_are_are_refused(path: Path) -> None:
    save_dataset(make(), path)
    with pytest.raises(LayoutError, match="at least `ipc` = 4 images of each class"):
        read(path, ipc=4)


def test_fewer_images_than_one_class_has_are_refused(path: Path) -> None:
    save_dataset(replace(make(), labels=LABELS.clamp(max=1)), path)
    assert read(path, ipc=3).images_per_class == {0: 3, 1: 3}
    with pytest.raises(LayoutError, match="got 3 of class 0"):
        read(path, ipc=4)


@pytest.mark.parametrize("ipc", [0, -1])
def test_no_images_of_each_class_are_refused(path: Path, ipc: int) -> None:
    save_dataset(make(), path)
    with pytest.raises(ValueError, match="`ipc` of at least 1"):
        read(path, ipc=ipc)


def test_changed_file_is_refused(path: Path) -> None:
    save_dataset(make(), path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match="does not agree"):
        read(path)


def test_missing_file_is_a_plain_file_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"memory\.safetensors"):
        read(path)


def test_spec_is_the_name() -> None:
    assert NativeReader().spec == "gift-cl"
