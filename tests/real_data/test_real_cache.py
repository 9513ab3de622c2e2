"""Images are decoded once, and what is cached is never trusted blindly."""

import errno
import json
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from real_layouts import make_pixels, save_image, write_folder, zip_folder
from safetensors import SafetensorError

from gift_cl import DistilledDataset, load_dataset, save_dataset
from gift_cl.real_data import cache as cache_module
from gift_cl.real_data import load_real_data, load_split


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pets", ["apple", "bear"], {"train": 3, "test": 2})
    return tmp_path / "pets"


def load(pets: Path) -> DistilledDataset:
    return load_split(pets, "train", cache=pets.parent / "cache")


def cached_file(pets: Path) -> Path:
    (path,) = (pets.parent / "cache").glob("pets-*-train-native.safetensors")
    return path


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("An image was decoded.")

    monkeypatch.setattr(Image, "open", fail)


def pixel_span(path: Path) -> tuple[int, int]:
    """Where the pixels of a safetensors file begin and end."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])["pixels"]["data_offsets"]
    return 8 + length + begin, 8 + length + end


def flip(path: Path, position: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def test_images_are_decoded_once(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    first = load_real_data(pets, cache=pets.parent / "cache", progress=lambda *now: told.append(now))
    assert told == [(6, 6), (4, 4)]
    forbid_decoding(monkeypatch)
    again = load_real_data(pets, cache=pets.parent / "cache", progress=lambda *now: told.append(now))
    assert len(told) == 2
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.test.labels, again.test.labels)
    assert first.train.class_names == again.train.class_names == ("apple", "bear")


def test_progress_is_told_of_every_image_when_there_are_many() -> None:
    told: list[tuple[int, int]] = []
    load_split("digits", "test", progress=lambda *now: told.append(now))
    assert [done for done, _ in told] == [64, 128, 192, 256, 320, 360]
    assert {total for _, total in told} == {360}


def test_a_cached_file_is_an_ordinary_data_set(pets: Path) -> None:
    dataset = load(pets)
    stored = load_dataset(cached_file(pets))
    assert torch.equal(stored.images, dataset.images)
    assert stored.provenance.method == "real"
    assert stored.provenance.source == f"train images of {pets}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_images_stay_in_the_file_until_they_are_used(pets: Path) -> None:
    dataset = load(pets)
    assert str(cached_file(pets)) in Path("/proc/self/maps").read_text()
    assert len(dataset) == 6


def test_another_size_has_another_file(pets: Path) -> None:
    load(pets)
    resized = load_split(pets, "train", image_size=4, cache=pets.parent / "cache")
    assert resized.encoded.image_shape == (3, 4, 4)
    assert load(pets).encoded.image_shape == (3, 8, 8)
    assert len(list((pets.parent / "cache").iterdir())) == 2


def test_folders_of_one_name_have_files_of_their_own(pets: Path) -> None:
    other = pets.parent / "other" / "pets"
    write_folder(other, ["cat"], {"train": 1, "test": 1})
    cache = pets.parent / "cache"
    load(pets)
    assert load_split(other, "train", cache=cache).class_names == ("cat",)
    assert load_split(pets, "train", cache=cache).class_names == ("apple", "bear")


@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_a_flipped_pixel_is_noticed_and_the_file_made_again(pets: Path, where: float) -> None:
    expected = load(pets).images.clone()
    path = cached_file(pets)
    begin, end = pixel_span(path)
    whole = path.read_bytes()
    flip(path, begin + int(where * (end - 1 - begin)))
    with pytest.warns(
        UserWarning, match=r"made again. The images in .* are damaged: their hash does not agree"
    ):
        assert torch.equal(load(pets).images, expected)
    assert path.read_bytes() == whole


def test_a_flipped_pixel_is_noticed_by_another_process_even_if_size_and_time_are_the_same(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(pets).images.clone()
    path = cached_file(pets)
    info = path.stat()
    flip(path, pixel_span(path)[0])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    monkeypatch.setattr(cache_module, "_VERIFIED", set())
    with pytest.warns(UserWarning, match="their hash does not agree"):
        assert torch.equal(load(pets).images, expected)


def test_the_images_of_a_file_are_hashed_once_in_a_process(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(pets)

    def fail(_: DistilledDataset) -> str:
        raise AssertionError("The images were read.")

    monkeypatch.setattr(cache_module, "_hash_pixels", fail)
    load(pets)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_damaged_byte_changes_what_is_loaded(pets: Path, share: float, bit: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = load(pets)
        images = expected.images.clone()  # they are in the file that is damaged now
        path = cached_file(pets)
        flip(path, int(share * path.stat().st_size), 1 << bit)
        found = load(pets)
    assert torch.equal(found.images, images)
    assert torch.equal(found.labels, expected.labels)
    assert (found.class_names, found.provenance) == (expected.class_names, expected.provenance)


@pytest.mark.parametrize("content", [b"", b"no data set", None])
def test_a_file_of_something_else_is_made_again(pets: Path, content: bytes | None) -> None:
    expected = load(pets).images.clone()
    path = cached_file(pets)
    if content is None:
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="The cached images cannot be used and are made again"):
        assert torch.equal(load(pets).images, expected)
    load(pets)  # without a warning


def test_a_whole_data_set_of_other_images_is_not_taken_for_these(pets: Path) -> None:
    expected = load(pets).images.clone()
    other = DistilledDataset.from_images(255 - expected, load(pets).labels, num_classes=2)
    save_dataset(other, cached_file(pets))
    with pytest.warns(UserWarning, match="was made of other files"):
        assert torch.equal(load(pets).images, expected)


def test_changed_images_are_read_again(pets: Path) -> None:
    load(pets)
    pixels = make_pixels(8, 8, 3, seed=99)
    path = pets / "train" / "apple" / "000.png"
    time = path.stat().st_mtime_ns
    save_image(path, pixels)
    os.utime(path, ns=(time, time + 1))
    with pytest.warns(UserWarning, match="made of other files, or of these before they changed"):
        assert torch.equal(load(pets).images[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_a_changed_zip_is_read_again_whatever_its_time(pets: Path) -> None:
    zipped = zip_folder(pets, pets.parent / "pets.zip")
    info = zipped.stat()
    load(zipped)
    pixels = make_pixels(8, 8, 3, seed=99)
    save_image(pets / "train" / "apple" / "000.png", pixels)
    zip_folder(pets, zipped)
    os.utime(zipped, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.warns(UserWarning, match="made of other files"):
        assert torch.equal(load(zipped).images[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_another_order_of_classes_is_another_data_set(pets: Path) -> None:
    load(pets)
    (pets / "classes.txt").write_text("bear\napple\n")
    with pytest.warns(UserWarning, match="made of other files"):
        assert load(pets).class_names == ("bear", "apple")


def test_a_new_training_class_is_a_class_of_the_cached_test_images_too(pets: Path) -> None:
    load_real_data(pets, cache=pets.parent / "cache")
    write_folder(pets, ["zebra"], {"train": 1})
    with pytest.warns(UserWarning, match="made of other files"):
        assert load_real_data(pets, cache=pets.parent / "cache").test.num_classes == 3


def test_a_folder_that_cannot_be_written_is_warned_about_and_the_images_stay_in_memory(pets: Path) -> None:
    (pets.parent / "cache").write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="not cached and stay in memory. Cannot write into"):
        assert len(load(pets)) == 6


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_is_warned_about_and_the_images_stay_in_memory(
    pets: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.warns(UserWarning, match="stay in memory. .*No space left on device"):
        dataset = load(pets)
    assert len(dataset.images) == 6
    assert not list((pets.parent / "cache").glob("*"))


def test_a_folder_in_the_place_of_the_file_is_not_fatal(pets: Path) -> None:
    load(pets)
    path = cached_file(pets)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="stay in memory"):
        assert len(load(pets)) == 6
