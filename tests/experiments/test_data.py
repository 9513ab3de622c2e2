from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.data import DataChoice
from gift_cl.real_data import RealData, hold_out, load_real_data, subset


@pytest.fixture(scope="module")
def digits() -> RealData:
    return load_real_data("digits")


def make_folder(root: Path) -> Path:
    for split in ("train", "test"):
        for gray, name in enumerate(("apple", "bear")):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (gray, gray, gray)).save(root / split / name / "0.png")
    return root


def test_the_images_of_a_folder_are_found_by_path_and_below_the_root(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    by_path = DataChoice(data=str(folder), root=str(tmp_path)).load()
    by_name = DataChoice(data="pets", root=str(tmp_path)).load()
    for data in (by_path, by_name):
        assert data.name == "pets"
        assert data.train.images[:, 0, 0, 0].tolist() == data.test.images[:, 0, 0, 0].tolist() == [0, 1]


def test_images_are_resized_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    choice = DataChoice(data=str(folder), root=str(tmp_path), image_size=4)
    assert choice.load().image_shape == (3, 4, 4)


def test_a_published_data_set_is_looked_for_below_the_documented_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIFT_CL_DATA", str(tmp_path / "all"))
    with pytest.raises(FileNotFoundError, match=f"No data set `cifar100` in `{tmp_path / 'all'}`"):
        DataChoice(data="cifar100").load()


def test_without_a_choice_all_images_are_taken(digits: RealData) -> None:
    assert DataChoice().choose(digits) is digits


def test_validation_images_come_from_the_training_images(digits: RealData) -> None:
    data = DataChoice(evaluate_on="validation", validation_share=0.1).choose(digits)
    expected = hold_out(digits, 0.1, seed=0)
    assert torch.equal(data.train.images, expected.train.images)
    assert torch.equal(data.test.images, expected.test.images)


def test_a_few_classes_and_images_are_the_first_ones(digits: RealData) -> None:
    data = DataChoice(classes=3, images_per_class=20).choose(digits)
    assert data.name == "digits-3classes-20each"
    assert data.train.images_per_class == {0: 20, 1: 20, 2: 20}
    assert torch.equal(data.train.images, subset(digits, classes=range(3), per_class=20).train.images)
    assert len(data.test) == int((digits.test.labels < 3).sum())


def test_fewer_images_leave_the_validation_images_as_they_are(digits: RealData) -> None:
    choices = [DataChoice(evaluate_on="validation", images_per_class=n) for n in (None, 20)]
    many, few = (choice.choose(digits) for choice in choices)
    assert torch.equal(many.test.images, few.test.images)
    assert set(few.train.images_per_class.values()) == {20}
    held = {image.tobytes() for image in few.test.images.numpy()}
    assert held.isdisjoint(image.tobytes() for image in few.train.images.numpy())


def test_fewer_classes_leave_their_validation_images_as_they_are(digits: RealData) -> None:
    choices = [DataChoice(evaluate_on="validation", classes=n) for n in (None, 4)]
    many, few = (choice.choose(digits) for choice in choices)
    assert torch.equal(many.test.images[many.test.labels < 4], few.test.images)


@pytest.mark.parametrize("classes", [0, 11])
def test_classes_that_there_are_not_are_refused(digits: RealData, classes: int) -> None:
    with pytest.raises(ValueError, match=rf"`classes` in \[1, 10\], the classes of digits, got {classes}"):
        DataChoice(classes=classes).choose(digits)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_is_no_part_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"`validation_share` in \(0, 1\)"):
        DataChoice(validation_share=share)
