"""Images whose folder names their class, in folders and zips of users."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_layouts import make_pixels, save_image, write_folder, zip_folder

from gift_cl import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.real_data import load_real_data, load_split

PETS = ["apple", "bear"]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pets", PETS, {"train": 3, "test": 2})
    return tmp_path / "pets"


def test_a_folder_gives_its_images_with_the_sorted_names_as_labels(tmp_path: Path) -> None:
    written = write_folder(tmp_path / "pets", ["bear", "apple"], {"train": 3, "val": 2})
    data = load_real_data(tmp_path / "pets", root=tmp_path)
    assert (data.name, data.class_names, data.num_classes) == ("pets", ("apple", "bear"), 2)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for split, dataset in (("train", data.train), ("val", data.test)):
        expected = [written[name] for name in sorted(written) if name.startswith(split)]
        np.testing.assert_array_equal(dataset.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_files_are_those_of_torchvisions_image_folder_in_its_order(pets: Path) -> None:
    from torchvision.datasets import ImageFolder

    for index, name in enumerate(
        ("Z.JPG", "a.webp", "deep/er/b.bmp", "deep.png", "README.txt", "deep/c.jpeg")
    ):
        path = pets / "train" / "bear" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            path.write_text("no image")
        else:
            save_image(path, make_pixels(8, 8, 3, seed=50 + index))
    oracle = ImageFolder(pets / "train")
    train = load_split(pets, "train", cache=pets.parent / "cache")
    assert train.labels.tolist() == oracle.targets
    expected = {np.asarray(image).tobytes() for image, _ in oracle}
    assert {image.tobytes() for image in train.images.permute(0, 2, 3, 1).numpy()} == expected
    assert len(expected) == len(train) == 11


@pytest.mark.parametrize("inside", ["", "pets", "a/b"])
def test_a_zip_gives_what_its_folder_gives(pets: Path, inside: str) -> None:
    (pets / "train" / "bear" / "deep").mkdir()
    save_image(pets / "train" / "bear" / "deep" / "x.png", make_pixels(8, 8, 3, seed=70))
    save_image(pets / "train" / "bear" / "deep-1.png", make_pixels(8, 8, 3, seed=71))
    (pets / ".hidden").mkdir()
    (pets / "train" / ".DS_Store").write_bytes(b"")
    zipped = zip_folder(pets, pets.parent / "pets.zip", inside=inside)
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("__MACOSX/train/cat/._0.png", b"no image")
        archive.writestr("README.md", b"Pets.")
    cache = pets.parent / "cache"
    a, b = load_real_data(pets, cache=cache), load_real_data(zipped, cache=cache)
    assert (a.name, a.class_names) == (b.name, b.class_names) == ("pets", ("apple", "bear"))
    for one, other in ((a.train, b.train), (a.test, b.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_a_zip_may_hold_one_split_only(pets: Path) -> None:
    for name in PETS:
        shutil.rmtree(pets / "test" / name)
    zipped = zip_folder(pets, pets.parent / "pets.zip")
    assert len(load_split(zipped, "train", cache=pets.parent / "cache")) == 6


def test_a_folder_below_the_root_is_found_by_its_name(pets: Path) -> None:
    assert load_real_data("pets", root=pets.parent).name == "pets"


def test_a_zip_below_the_root_is_found_by_its_name(pets: Path) -> None:
    zip_folder(pets, pets.parent / "zoo.zip")
    assert len(load_real_data("zoo", root=pets.parent).test) == 4


def test_the_root_comes_from_the_environment_if_it_is_not_given(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIFT_CL_DATA", str(pets.parent))
    load_real_data("pets")
    assert (pets.parent / ".gift-cl-cache").is_dir()


def test_the_root_is_the_folder_data_otherwise(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIFT_CL_DATA", raising=False)
    monkeypatch.chdir(pets.parent)
    (pets.parent / "data").mkdir()
    pets.rename(pets.parent / "data" / "pets")
    load_real_data("pets")
    assert (pets.parent / "data" / ".gift-cl-cache").is_dir()


def test_the_root_may_be_the_zip_of_a_named_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from real_layouts import shrink

    shrink(monkeypatch, "imagenet-100", num_classes=2)
    write_folder(tmp_path / "any", PETS, {"train": 1, "val": 1})
    zipped = zip_folder(tmp_path / "any", tmp_path / "download.zip", inside="any")
    assert load_real_data("imagenet-100", root=zipped).name == "imagenet-100"
    assert (tmp_path / ".gift-cl-cache").is_dir()
    assert load_real_data("imagenet-100", root=tmp_path / "any").name == "imagenet-100"


def test_a_list_of_classes_chooses_and_orders_them(pets: Path) -> None:
    write_folder(pets, ["cat"], {"train": 1, "test": 1})
    (pets / "classes.txt").write_text("cat\n apple \n\n")
    data = load_real_data(pets, cache=pets.parent / "cache")
    assert data.class_names == ("cat", "apple")
    assert data.train.labels.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apple\ndog\n", "found none for `dog`"),
        ("apple\napple\n", "each once, got apple, apple"),
        ("\n", "each once, got none"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_refused(pets: Path, text: str, message: str) -> None:
    (pets / "classes.txt").write_text(text)
    with pytest.raises(LayoutError, match=message):
        load_real_data(pets, cache=pets.parent / "cache")


def test_a_test_folder_comes_before_a_val_folder(pets: Path) -> None:
    write_folder(pets, PETS, {"val": 5})
    assert len(load_split(pets, "test", cache=pets.parent / "cache")) == 4


def test_a_test_folder_without_the_training_classes_is_passed_over_for_val(pets: Path) -> None:
    (pets / "test").rename(pets / "val")
    save_image(pets / "test" / "unlabelled" / "0.png", make_pixels(8, 8, 3))
    assert len(load_split(pets, "test", cache=pets.parent / "cache")) == 4


def test_one_split_can_be_read_without_the_other(pets: Path) -> None:
    cache = pets.parent / "cache"
    (pets / "train").rename(pets / "elsewhere")
    test = load_split(pets, "test", cache=cache)
    assert (test.class_names, len(test)) == (("apple", "bear"), 4)
    with pytest.raises(LayoutError, match=r"training images of every class .* none of `apple`"):
        load_real_data(pets, cache=cache)
    (pets / "elsewhere").rename(pets / "train")
    (pets / "test").rename(pets / "elsewhere")
    assert len(load_split(pets, "train", cache=cache)) == 6
    with pytest.raises(LayoutError, match="there are no such folders"):
        load_split(pets, "test", cache=cache)


def test_a_split_of_another_name_is_refused(pets: Path) -> None:
    with pytest.raises(ValueError, match="`split` train or test, got 'val'. For validation images"):
        load_split(pets, "val", cache=pets.parent / "cache")  # type: ignore[arg-type]


def test_a_test_class_without_training_images_is_named(pets: Path) -> None:
    write_folder(pets, ["cat"], {"test": 1})
    with pytest.raises(LayoutError, match=r"test/ holds apple, bear, cat\)"):
        load_real_data(pets, cache=pets.parent / "cache")


def test_a_class_without_training_images_is_named(pets: Path) -> None:
    (pets / "train" / "cat").mkdir()
    with pytest.raises(LayoutError, match="none of `cat`"):
        load_real_data(pets, cache=pets.parent / "cache")


def test_a_class_may_lack_test_images(pets: Path) -> None:
    for file in (pets / "test" / "apple").iterdir():
        file.unlink()
    data = load_real_data(pets, cache=pets.parent / "cache")
    assert (data.num_classes, data.test.labels.tolist()) == (2, [1, 1])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes" / "a").mkdir(parents=True)
    with pytest.raises(LayoutError, match=r"notes` to hold train/<class>/<image>.*found no such folders"):
        load_real_data(tmp_path / "notes", cache=tmp_path / "cache")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(DamagedFileError, match=r"pets.zip` is no readable zip"):
        load_real_data(tmp_path / "pets.zip", cache=tmp_path / "cache")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown data set `cifar-100`. Known: cifar10, cifar100, .*digits"):
        load_real_data("cifar-100", root=tmp_path)


def test_a_missing_path_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at `some/pets`, .*/some/pets.zip`"):
        load_real_data("some/pets", root=tmp_path)


def test_a_missing_published_data_set_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_real_data("cifar100", root=tmp_path)
    for words in (
        str(tmp_path),
        "cifar-100-python/",
        "cifar100, a folder or zip with train/<class>/",
        "GIFT_CL",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["000.png", "001.png"])
@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n\0\0"])
def test_an_unreadable_image_is_named(pets: Path, name: str, data: bytes) -> None:
    (pets / "train" / "apple" / name).write_bytes(data)
    with pytest.raises(DamagedFileError, match=f"pets/train/apple/{name}`.*remove it"):
        load_real_data(pets, cache=pets.parent / "cache")


def test_a_jpeg_that_is_cut_short_is_named(pets: Path) -> None:
    path = pets / "test" / "bear" / "x.jpg"
    save_image(path, make_pixels(8, 8, 3))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedFileError, match="bear/x.jpg"):
        load_real_data(pets, cache=pets.parent / "cache")


def test_a_damaged_entry_of_a_zip_is_named(pets: Path) -> None:
    zipped = zip_folder(pets, pets.parent / "pets.zip")
    data = bytearray(zipped.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    zipped.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"pets.zip/test/apple/000.png`: Bad CRC-32"):
        load_split(zipped, "test", cache=pets.parent / "cache")


def test_a_huge_file_is_not_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gift_cl.real_data import image_tree

    zipped = zip_folder(pets, pets.parent / "pets.zip")
    monkeypatch.setattr(image_tree, "MAX_FILE_BYTES", 100)
    for path in (pets, zipped):
        with pytest.raises(UnsafeFileError, match=r"train/apple/000.png` has \d+ bytes.*may have 100"):
            load_real_data(path, cache=pets.parent / "cache")


def test_images_of_several_sizes_ask_for_one(pets: Path) -> None:
    save_image(pets / "train" / "bear" / "002.png", make_pixels(9, 8, 3))
    with pytest.raises(
        LayoutError, match=r"8 x 8 pixels in `train/apple/000.png` and 9 x 8 pixels in `train/bea"
    ):
        load_real_data(pets, cache=pets.parent / "cache")
    assert load_real_data(pets, image_size=6, cache=pets.parent / "cache").image_shape == (3, 6, 6)


def test_splits_of_different_sizes_ask_for_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", PETS, {"train": 1}, size=8)
    write_folder(tmp_path / "pets", PETS, {"test": 1}, size=9)
    with pytest.raises(
        LayoutError, match=r"same channels, height and width, got \(3, 8, 8\) and \(3, 9, 9\)"
    ):
        load_real_data(tmp_path / "pets", cache=tmp_path / "cache")


def test_images_of_any_mode_become_rgb(pets: Path) -> None:
    gray, cmyk = make_pixels(8, 8, seed=90), make_pixels(8, 8, 4, seed=91)
    Image.fromarray(gray).save(pets / "test" / "apple" / "000.png")
    Image.fromarray(cmyk, mode=None).convert("CMYK").save(pets / "test" / "apple" / "001.jpg")
    test = load_split(pets, "test", cache=pets.parent / "cache")
    assert test.encoded.image_shape == (3, 8, 8)
    np.testing.assert_array_equal(test.images[0].numpy(), np.stack([gray] * 3))


def test_linked_folders_are_followed(pets: Path) -> None:
    (pets.parent / "far").mkdir()
    (pets / "train" / "bear").rename(pets.parent / "far" / "bear")
    (pets / "train" / "bear").symlink_to(pets.parent / "far" / "bear")
    assert len(load_split(pets, "train", cache=pets.parent / "cache")) == 6


def test_more_than_the_memory_is_refused(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gift_cl.real_data import decoding

    monkeypatch.setattr(decoding, "_memory", lambda: 1000)
    with pytest.raises(
        UnsafeFileError, match=r"take 1,152 bytes, .* 1,000 bytes of memory. Choose a smaller"
    ):
        load_split(pets, "train", cache=pets.parent / "cache")
    monkeypatch.setattr(decoding, "_memory", lambda: None)  # a system that does not say
    assert len(load_split(pets, "train", cache=pets.parent / "cache")) == 6
