import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data import hold_out, load_data, load_digits


def make_folder(root: Path, *, size: int = 8) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("apple", "bear"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root


def test_a_folder_and_its_zip_hold_the_same_images(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in root.rglob("*.png"):
            archive.write(file, Path("pets") / file.relative_to(root))
    folder, zipped = load_data(str(root)), load_data(str(tmp_path / "pets.zip"))
    assert folder.class_names == zipped.class_names == ("apple", "bear")
    assert folder.train_images.shape == (6, 3, 8, 8)
    assert folder.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(folder.train_images, zipped.train_images)
    torch.testing.assert_close(folder.test_images, zipped.test_images)
    first = np.array(Image.open(root / "train" / "apple" / "000.png"))
    torch.testing.assert_close(folder.train_images[0], torch.from_numpy(first).permute(2, 0, 1))


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = load_data(str(make_folder(tmp_path / "pets")))
    pixels = data.train_images.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean), pixels.mean((0, 2, 3)).float(), atol=1e-4, rtol=0)


def test_digits_are_split_once_for_all() -> None:
    data, again = load_digits(), load_digits()
    assert (len(data.train_labels), len(data.test_labels)) == (1437, 360)
    torch.testing.assert_close(data.test_images, again.test_images)


def test_a_held_out_part_comes_from_the_training_images_of_every_class() -> None:
    data = load_digits()
    held = hold_out(data, 0.2, seed=0)
    assert len(held.train_labels) + len(held.test_labels) == len(data.train_labels)
    assert torch.bincount(held.test_labels).min() > 0.15 * torch.bincount(data.train_labels).min()


def test_missing_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train/<class>/"):
        load_data(str(tmp_path / "nothing"))


def test_a_folder_without_a_test_split_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets")
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(ValueError, match=r"found nothing for \['test'\]"):
        load_data(str(root))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets")
    (root / "train" / "bear" / "001.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="train/bear/001.png"):
        load_data(str(root))


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets")
    Image.new("RGB", (9, 9)).save(root / "train" / "bear" / "001.png")
    with pytest.raises(ValueError, match="one size"):
        load_data(str(root))
