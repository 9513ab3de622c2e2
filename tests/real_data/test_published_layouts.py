"""Each published layout is read: images, labels and the order of classes."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from real_layouts import (
    make_pixels,
    save_image,
    shrink,
    write_cifar100,
    write_folder,
    write_idx,
    write_mnist,
    write_tiny_imagenet,
)

from gift_cl import DamagedFileError, LayoutError
from gift_cl.real_data import PUBLISHED, load_real_data, load_split

NETTE = """n01440764 n02102040 n02979186 n03000684 n03028079
    n03394916 n03417042 n03425413 n03445777 n03888257""".split()  # noqa: SIM905
WOOF = """n02096294 n02093754 n02111889 n02088364 n02086240
    n02089973 n02087394 n02115641 n02099601 n02105641""".split()  # noqa: SIM905


class RunsCode:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_cifars_batches_are_read_as_they_were_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = write_cifar100(tmp_path, monkeypatch)
    data = load_real_data("cifar100", root=tmp_path)
    assert (data.name, data.class_names) == ("cifar100", ("apple", "bear", "cattle"))
    for split, (rows, labels) in parts.items():
        dataset = getattr(data, split)
        np.testing.assert_array_equal(dataset.images.numpy(), rows.reshape(-1, 3, 32, 32))
        assert dataset.labels.tolist() == labels
        assert (dataset.encoded.codec, dataset.provenance.method) == ("raw", "real")


@pytest.mark.parametrize("folder", ["cifar100/cifar-100-python", "cifar-100-python"])
def test_cifar_is_found_in_its_own_folder_and_when_the_root_is_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    write_cifar100((tmp_path / folder).parent, monkeypatch)
    root = tmp_path if "/" in folder else tmp_path / folder
    assert len(load_split("cifar100", "train", root=root, cache=tmp_path / "cache")) == 6


def test_a_changed_cifar_batch_is_refused_before_its_pickle_can_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    write_cifar100(tmp_path, monkeypatch)
    trap = tmp_path / "ran"
    for name in ("train", "test", "meta"):
        (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(RunsCode(trap)))
    with pytest.raises(DamagedFileError, match=r"not the published ones.*cifar-100-python.tar.gz again"):
        load_real_data("cifar100", root=tmp_path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(RunsCode(trap)))
    assert trap.exists()  # the trap works


def test_a_changed_list_of_cifars_classes_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    write_cifar100(tmp_path, monkeypatch)
    trap = tmp_path / "ran"
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps(RunsCode(trap)))
    with pytest.raises(DamagedFileError, match="not the published ones"):
        load_real_data("cifar100", root=tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(("folder", "end"), [("MNIST/raw", ""), ("mnist/MNIST/raw", ".gz"), ("mnist", ".gz")])
def test_mnists_files_are_read_packed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, end: str
) -> None:
    shrink(monkeypatch, "mnist", num_images=(5, 3))
    images = write_mnist(tmp_path / folder, end=end)
    data = load_real_data("mnist", root=tmp_path)
    np.testing.assert_array_equal(data.train.images.numpy(), images["train"][:, None])
    np.testing.assert_array_equal(data.test.images.numpy(), images["test"][:, None])
    assert data.train.labels.tolist() == [9, 8, 7, 6, 5]
    assert (data.num_classes, data.image_shape) == (10, (1, 28, 28))


def test_fashion_mnist_has_names_and_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "fashion-mnist", num_images=(5, 3))
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    data = load_real_data("fashion-mnist", root=tmp_path)
    assert (data.class_names[0], data.class_names[9]) == ("T-shirt/top", "Ankle boot")
    with pytest.raises(FileNotFoundError, match=r"MNIST/raw/train-images-idx3-ubyte"):
        load_real_data("mnist", root=tmp_path)


def test_a_damaged_idx_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "mnist", num_images=(5, 3))
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    file = folder / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for data, message in (
        (b"<html>", "no idx file of bytes in 3 dimensions"),
        (whole[:-1], "not as long as its header says"),
        (whole + b"\0", "not as long as its header says"),
        (whole[:7] + b"\x06" + whole[8:], r"Expected \(5, 28, 28\) values .* got \(6, 28, 28\)"),
    ):
        file.write_bytes(data)
        with pytest.raises((DamagedFileError, LayoutError), match=message) as caught:
            load_real_data("mnist", root=tmp_path)
        assert str(file) in str(caught.value)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        load_real_data("mnist", root=tmp_path)


def test_a_packed_idx_file_that_is_cut_short_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "mnist", num_images=(5, 3))
    write_mnist(tmp_path / "mnist", end=".gz")
    file = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:], b"no gzip"):
        file.write_bytes(data)
        with pytest.raises(DamagedFileError, match=r"t10k-images-idx3-ubyte\.gz"):
            load_split("mnist", "test", root=tmp_path)


def test_mnist_labels_beyond_the_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "mnist", num_images=(5, 3))
    write_mnist(tmp_path / "mnist")
    write_idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte", np.array([0, 10, 1], dtype=np.uint8))
    with pytest.raises(DamagedFileError, match="labels below 10 in .*t10k-labels-idx1-ubyte.*, got 10"):
        load_split("mnist", "test", root=tmp_path)


def test_tiny_imagenets_annotations_give_the_labels_of_its_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "tinyimagenet", num_classes=3, num_images=(6, 4))
    written = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = load_real_data("tinyimagenet", root=tmp_path)
    assert data.class_names == ("n01", "n02", "n03")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2, 2]
    train = ["n01_0", "n01_1", "n02_0", "n02_1", "n03_0", "n03_1"]
    for dataset, names in ((data.train, train), (data.test, ["val_2", "val_0", "val_1", "val_3"])):
        expected = np.stack([written[f"{name}.JPEG"] for name in names])
        np.testing.assert_array_equal(dataset.images.permute(0, 2, 3, 1).numpy(), expected)


def test_tiny_imagenets_own_folder_is_known_without_its_name(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = load_real_data(tmp_path / "tiny-imagenet-200", cache=tmp_path / "cache")
    assert (data.name, data.test.labels.tolist()) == ("tiny-imagenet-200", [0, 1, 2, 2])


def test_tiny_imagenets_validation_images_can_be_read_without_the_others(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny" / "train")
    test = load_split(tmp_path / "tiny", "test", cache=tmp_path / "cache")
    assert (test.class_names, test.labels.tolist()) == (("n01", "n02", "n03"), [0, 1, 2, 2])


def test_tiny_imagenet_with_validation_images_in_folders_is_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "tinyimagenet", num_classes=2, num_images=(4, 2))
    write_folder(tmp_path / "tinyimagenet", ["n01", "n02"], {"train": 2, "val": 1}, size=64)
    assert load_real_data("tinyimagenet", root=tmp_path).test.labels.tolist() == [0, 1]


def test_tiny_imagenets_annotations_have_to_fit_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "tinyimagenet", num_classes=3, num_images=(6, 4))
    folder = tmp_path / "tiny-imagenet-200"
    write_tiny_imagenet(folder)
    annotations = folder / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("val_1.JPEG", "val_9.JPEG"))
    with pytest.raises(LayoutError, match=r"`val_1.JPEG` is in one of them only"):
        load_real_data("tinyimagenet", root=tmp_path)
    annotations.write_text("val_0.JPEG n02\n")
    with pytest.raises(LayoutError, match="a file name, a tab and a class on each line"):
        load_real_data("tinyimagenet", root=tmp_path)
    annotations.write_text(text.replace("n03", "n09"))
    with pytest.raises(LayoutError, match="holds 2 test images of tinyimagenet, not 4"):
        load_real_data("tinyimagenet", root=tmp_path)
    os.remove(folder / "train" / "n01" / "images" / "n01_0.JPEG")
    annotations.write_text(text)
    with pytest.raises(LayoutError, match=r"holds 5 train images of tinyimagenet, not 6. Unpack"):
        load_real_data("tinyimagenet", root=tmp_path)


@pytest.mark.parametrize(("name", "order"), [("imagenet-nette", NETTE), ("imagenet-woof", WOOF)])
def test_parts_of_imagenet_number_their_classes_as_published_teachers_do(
    tmp_path: Path, name: str, order: list[str]
) -> None:
    for split in ("train", "val"):
        for label, wnid in enumerate(order):
            save_image(tmp_path / name / split / wnid / "0.png", np.full((8, 8, 3), 20 * label, np.uint8))
    data = load_real_data(name, root=tmp_path)
    assert list(data.class_names) == order
    for dataset in (data.train, data.test):
        assert dataset.labels.tolist() == list(range(10))
        assert dataset.images[:, 0, 0, 0].tolist() == [20 * label for label in range(10)]


def test_woof_is_not_in_sorted_order_and_nette_is() -> None:
    assert sorted(WOOF) != WOOF
    assert PUBLISHED["imagenet-woof"].classes == tuple(WOOF)
    assert PUBLISHED["imagenet-nette"].classes == tuple(sorted(NETTE))


def test_a_part_of_imagenet_is_taken_out_of_the_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "imagenet-1k", [*NETTE, *WOOF], {"train": 1, "val": 1})
    data = load_real_data("imagenet-woof", root=tmp_path)
    assert data.class_names == tuple(WOOF)
    assert (len(data.train), len(data.test)) == (10, 10)
    other = load_real_data("imagenet-nette", root=tmp_path)
    assert other.class_names == tuple(NETTE)
    assert not torch.equal(data.train.images, other.train.images)


def test_imagenet_10_follows_a_list_of_classes_or_the_names_of_its_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "imagenet-1k", [*NETTE, *WOOF], {"train": 1, "val": 1})
    with pytest.raises(FileNotFoundError, match=r"imagenet-1k, whole with a list .* imagenet-10/classes.txt"):
        load_real_data("imagenet-10", root=tmp_path)
    listed = [*WOOF[:5], *NETTE[:5]]
    (tmp_path / "imagenet-10").mkdir()
    (tmp_path / "imagenet-10" / "classes.txt").write_text("\n".join(listed) + "\n\n")
    assert list(load_real_data("imagenet-10", root=tmp_path).class_names) == listed
    write_folder(tmp_path / "imagenet-10", WOOF, {"train": 1, "val": 1})
    (tmp_path / "imagenet-10" / "classes.txt").unlink()
    with pytest.warns(UserWarning, match="other files, or of these before they changed"):
        assert list(load_real_data("imagenet-10", root=tmp_path).class_names) == sorted(WOOF)


def test_cifar_in_folders_has_to_have_its_classes_and_says_how_many_images_there_are(tmp_path: Path) -> None:
    names = PUBLISHED["cifar10"].classes or ()
    write_folder(tmp_path / "cifar10", names[:9], {"train": 1, "test": 1})
    with pytest.raises(
        LayoutError, match=r"Expected 10 classes of cifar10 .*, found 9: airplane, automobile"
    ):
        load_real_data("cifar10", root=tmp_path)
    write_folder(tmp_path / "cifar10", names[9:], {"train": 1, "test": 1})
    with pytest.warns(UserWarning, match="images of cifar10, not") as caught:
        data = load_real_data("cifar10", root=tmp_path)
    assert [str(warning.message).partition("holds ")[2] for warning in caught] == [
        "10 train images of cifar10, not 50,000.",
        "10 test images of cifar10, not 10,000.",
    ]
    assert data.class_names == names


def test_classes_under_other_names_are_followed_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "cifar10", num_images=(10, 10))
    names = [f"{label:05d}" for label in range(10)]
    write_folder(tmp_path / "cifar10", names, {"train": 1, "test": 1})
    with pytest.warns(UserWarning, match=r"not named as they were published: 00000, 00001.*classes.txt"):
        assert list(load_real_data("cifar10", root=tmp_path).class_names) == names


def test_a_gray_data_set_stays_gray_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "mnist", num_images=(10, 10))
    pixels = make_pixels(28, 28)
    for split in ("train", "test"):
        for label in range(10):
            save_image(tmp_path / "mnist" / split / str(label) / "0.png", pixels)
    data = load_real_data("mnist", root=tmp_path)
    assert data.image_shape == (1, 28, 28)
    np.testing.assert_array_equal(data.test.images[3, 0].numpy(), pixels)


def test_digits_are_real_images_that_come_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = load_real_data("digits", root=tmp_path)
    assert (len(data.train), len(data.test), data.image_shape) == (1437, 360, (1, 8, 8))
    assert data.test.images_per_class == dict(enumerate([36, 36, 35, 37, 36, 37, 36, 36, 35, 36]))
    seen = sorted(row.tobytes() for part in (data.train, data.test) for row in part.images.numpy())
    expected = sorted(np.round(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images)
    assert seen == expected
    assert not list(tmp_path.iterdir())  # nothing to cache


def test_digits_are_split_once_for_all() -> None:
    data = load_real_data("digits")
    hashes = [
        hashlib.sha256(part.images.numpy().tobytes() + part.labels.numpy().tobytes()).hexdigest()[:16]
        for part in (data.train, data.test)
    ]
    assert hashes == ["7531db42dd3ff2d2", "a2fc2790f951761e"]


def test_published_cifar_names_are_in_the_order_of_the_alphabet() -> None:
    for name, first, last in (("cifar10", "airplane", "truck"), ("cifar100", "apple", "worm")):
        card = PUBLISHED[name]
        assert card.classes is not None
        assert len(set(card.classes)) == card.num_classes
        assert list(card.classes) == sorted(card.classes)
        assert (card.classes[0], card.classes[-1]) == (first, last)
