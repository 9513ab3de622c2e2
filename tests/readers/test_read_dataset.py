import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from layouts import write_image_folder, write_rded, write_sre2l
from tensor_layouts import pixels, whitened, write_datm, write_gift

from gift_cl import LayoutError, save_dataset
from gift_cl.dataset import DistilledDataset
from gift_cl.readers import READERS, find_reader, read_dataset

LABELS = torch.arange(4).repeat_interleave(3)
RDED_FOLDER = "cifar10_conv3_f1_mipc300_ipc2_cr5"


def native(root: Path) -> Path:
    root.mkdir()
    dataset = DistilledDataset.from_images(pixels(), LABELS, num_classes=4)
    save_dataset(dataset, root / "memory.safetensors")
    return root / "memory.safetensors"


def datm(root: Path) -> Path:
    made = whitened()
    return write_datm(root / "Normal", made.images, made.logits)


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "gift-cl": native,
    "datm": datm,
    "gift": lambda root: write_gift(root, pixels().float() / 255, LABELS),
    "rded": lambda root: write_rded(root / RDED_FOLDER / "syn_data"),
    "sre2l": write_sre2l,
    "folder": lambda root: write_image_folder(root, {"cat": 2, "dog": 1}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_by_looking_and_by_name(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path / "set")
    looked, named = read_dataset(path), read_dataset(path, layout)
    assert find_reader(path).spec.partition(":")[0] == layout
    assert torch.equal(looked.images, named.images)
    assert torch.equal(looked.labels, named.labels)


@pytest.mark.parametrize("layout", ["datm", "gift", "rded", "sre2l"])
def test_folders_around_a_data_set_do_not_matter(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path / "outer" / "inner")
    assert torch.equal(read_dataset(tmp_path / "outer").images, read_dataset(path).images)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_one_layout_is_recognized(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path / "set")
    found = [name for name in READERS.names() if READERS.create(name).recognizes(path)]
    same_files = {"sre2l": ["sre2l", "cda", "gvbsm", "folder"], "rded": ["rded", "folder"]}
    assert found == same_files.get(layout, [layout])


@pytest.mark.parametrize("name", ["sre2l", "cda", "gvbsm"])
def test_the_method_is_what_the_user_says(tmp_path: Path, name: str) -> None:
    assert read_dataset(write_sre2l(tmp_path), name).provenance.method == name


def test_options_follow_the_name_of_a_layout(tmp_path: Path) -> None:
    path = write_rded(tmp_path / "set")
    assert read_dataset(path, "rded:factor=2,codec=raw").factor == 2
    with pytest.raises(LayoutError, match="The mosaic factor of the images"):
        read_dataset(path)


@pytest.mark.parametrize("kind", ["zip", "gztar", "xztar"])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, kind: str) -> None:
    root = write_sre2l(tmp_path / "set")
    path = Path(shutil.make_archive(str(root), kind, tmp_path, "set"))
    found, direct = read_dataset(path), read_dataset(root)
    assert torch.equal(found.images, direct.images)
    assert found.provenance.hashes == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest(),
        **direct.provenance.hashes,
    }
    assert str(path) in found.provenance.source


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    read_dataset(write_sre2l(tmp_path), progress=lambda *done: told.append(done))
    assert told[-1] == (6, 6)


def test_several_data_sets_in_a_folder_are_named(tmp_path: Path) -> None:
    datm(tmp_path / "a")
    write_sre2l(tmp_path / "b")
    with pytest.raises(LayoutError, match="some that look like datm and sre2l"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path, "datm")) == 12


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ((), "an empty folder"),
        (("a.txt", "b", "c", "d", "e", "f"), "it holds a.txt, b, c, d, e and more"),
        (("epoch_0/batch_0.tar",), "holds soft labels .* and no images"),
        (("run/epoch_0/batch_0.tar",), "holds soft labels .* and no images"),
    ],
)
def test_what_is_no_data_set_is_described(tmp_path: Path, names: tuple[str, ...], match: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
    with pytest.raises(LayoutError, match=match):
        read_dataset(tmp_path)


def test_a_folder_of_splits_is_explained(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_image_folder(tmp_path / split, {"cat": 1, "dog": 1})
    with pytest.raises(LayoutError, match=r"got test, train\. Give one of them: `.*test`"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "train")) == 2


def test_a_file_that_is_no_data_set_is_described(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(LayoutError, match=r"No known layout at `.*notes\.txt`: a file of 4 bytes"):
        read_dataset(tmp_path / "notes.txt")


def test_nothing_at_a_path_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No distilled data set at"):
        read_dataset(tmp_path / "nowhere")


def test_unusable_arguments_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected `ipc` of at least 1, got 0"):
        read_dataset(tmp_path / "nowhere", ipc=0)
    with pytest.raises(ValueError, match="Unknown layout `mtt`"):
        read_dataset(tmp_path, "mtt")
