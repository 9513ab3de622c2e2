"""The codec that keeps files as their authors wrote them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_cl import DistilledDataset, load_dataset, save_dataset
from gift_cl.codecs import EncodedImages, WholeFiles, build_codec, concat, recode

OPTIONS: tuple[dict[str, Any], ...] = ({"format": "JPEG"}, {"format": "PNG"}, {"format": "WEBP"})


def file_of(seed: int, shape: tuple[int, ...] = (8, 8, 3), **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **(options or {"format": "JPEG"}))
    return file.getvalue()


def by_pillow(data: bytes) -> torch.Tensor:
    pixels = np.array(Image.open(io.BytesIO(data)))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


@settings(deadline=None, max_examples=30)
@given(
    kinds=st.lists(st.sampled_from(OPTIONS), max_size=5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_files_of_several_formats_decode_as_pillow_decodes_them(
    kinds: list[dict[str, Any]], height: int, width: int
) -> None:
    files = [file_of(seed, (height, width, 3), **options) for seed, options in enumerate(kinds)]
    encoded = WholeFiles.from_files(files, (3, height, width))
    expected = [by_pillow(file) for file in files]
    assert torch.equal(encoded.decode(), torch.stack(expected) if files else torch.empty(0, 3, height, width))


def test_streams_are_the_files_and_nothing_is_shared() -> None:
    files = [file_of(seed) for seed in range(3)]
    encoded = WholeFiles.from_files(files, (3, 8, 8))
    assert encoded.codec == "files"
    assert encoded.streams() == files
    assert len(encoded.shared) == 0


def test_files_are_charged_at_their_size_and_their_lengths() -> None:
    files = [file_of(seed) for seed in range(3)]
    assert WholeFiles.from_files(files, (3, 8, 8)).nbytes == sum(map(len, files)) + 3 * 2


def test_selection_and_joining_keep_the_files() -> None:
    files = [file_of(seed) for seed in range(4)]
    encoded = WholeFiles.from_files(files, (3, 8, 8))
    assert encoded.select([3, 1]).streams() == [files[3], files[1]]
    halves = [WholeFiles.from_files(files[a:b], (3, 8, 8)) for a, b in ((0, 2), (2, 4))]
    assert concat(halves).streams() == files


def test_gray_files_have_one_channel() -> None:
    assert WholeFiles.from_files([file_of(0, (8, 8))], (1, 8, 8)).decode().shape == (1, 1, 8, 8)


def test_files_go_to_another_codec() -> None:
    encoded = WholeFiles.from_files([file_of(seed) for seed in range(3)], (3, 8, 8))
    assert torch.equal(recode(encoded, build_codec("raw")).decode(), encoded.decode())


def test_files_survive_the_file_format(tmp_path: Path) -> None:
    encoded = WholeFiles.from_files([file_of(seed) for seed in range(3)], (3, 8, 8))
    dataset = DistilledDataset(encoded=encoded, labels=torch.tensor([0, 0, 1]), num_classes=2)
    save_dataset(dataset, tmp_path / "a.safetensors")
    assert load_dataset(tmp_path / "a.safetensors").encoded.streams() == encoded.streams()


def test_new_images_are_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="Choose `png`"):
        build_codec("files").encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_file_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width \(3, 8, 8\), got \(1, 8, 8\) at 1"):
        WholeFiles.from_files([file_of(0), file_of(1, (8, 8))], (3, 8, 8))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="Cannot use file 0 of `files`: it is no JPEG"):
        WholeFiles.from_files([b"hello"], (3, 8, 8))


def test_a_damaged_file_is_named_by_its_place() -> None:
    files = [file_of(0), file_of(1)[:-9]]
    with pytest.raises(ValueError, match="Cannot decode file 1 of `files`: it is cut short"):
        WholeFiles.from_files(files, (3, 8, 8)).decode()


def test_memory_for_a_shape_that_no_file_has_is_not_taken() -> None:
    encoded = EncodedImages.from_streams("files", (3, 1_000_000, 1_000_000), [file_of(0)])
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\) at 0"):
        encoded.decode()


def test_images_of_another_codec_are_refused() -> None:
    encoded = build_codec("raw").encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="Expected images encoded by `files`, got `raw`"):
        WholeFiles().decode(encoded)
