"""Files become images: as pillow decodes them, by any number of processes, and damage is named."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import by_pillow, image_bytes, write_image

from gift_cl.codecs import build_codec
from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.image_files import ImageHeader, decode_image
from gift_cl.readers import decoding
from gift_cl.readers.collecting import make_place
from gift_cl.readers.decoding import check_options, read_images
from gift_cl.readers.tree import Limits, TreeFile, scan, tree_digest

CODECS = ("files", "raw", "png", "webp:lossless", "quantize:4", "jpeg:50")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_CHUNK_FILES", 3)


def fill(root: Path, count: int, *shape: int, suffix: str = "jpg") -> list[TreeFile]:
    for seed in range(count):
        write_image(root / f"{seed:03d}.{suffix}", seed, *shape)
    return scan(root)


def pixels_of(root: Path, files: list[TreeFile]) -> torch.Tensor:
    return by_pillow([root / name for name, _ in files])


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 8),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    suffix=st.sampled_from(["jpg", "png", "webp"]),
    is_gray=st.booleans(),
)
def test_images_are_those_of_the_files_after_the_codec(
    codec: str, count: int, height: int, width: int, suffix: str, is_gray: bool, tmp_path_factory: Any
) -> None:
    root = tmp_path_factory.mktemp("set")
    shape = (height, width) if is_gray and suffix != "webp" else (height, width, 3)
    files = fill(root, count, *shape, suffix=suffix)
    encoded, _ = read_images(root, files, codec=codec)
    pixels = pixels_of(root, files)
    expected = pixels if codec == "files" else build_codec(codec).encode(pixels).decode()
    assert encoded.codec == codec
    assert torch.equal(encoded.decode(), expected)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("codec", CODECS)
def test_chunks_are_put_together_in_order(tmp_path: Path, codec: str) -> None:
    files = fill(tmp_path, 10)
    chunked, _ = read_images(tmp_path, files, codec=codec)
    whole = build_codec("raw").encode(pixels_of(tmp_path, files))
    expected = whole.decode() if codec == "files" else build_codec(codec).encode(whole.decode()).decode()
    assert torch.equal(chunked.decode(), expected)


def test_images_come_in_the_order_of_the_files_given(tmp_path: Path) -> None:
    files = fill(tmp_path, 4)[::-1]
    assert torch.equal(read_images(tmp_path, files, codec="raw")[0].decode(), pixels_of(tmp_path, files))


def test_files_are_kept_byte_by_byte(tmp_path: Path) -> None:
    files = fill(tmp_path, 3)
    encoded, _ = read_images(tmp_path, files)
    assert encoded.streams() == [(tmp_path / name).read_bytes() for name, _ in files]


def test_the_digest_is_that_of_the_tree(tmp_path: Path) -> None:
    files = fill(tmp_path, 3)
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name, _ in files}
    assert read_images(tmp_path, files[::-1])[1] == tree_digest(hashes)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("codec", ["files", "raw", "png"])
def test_any_number_of_processes_gives_the_same(tmp_path: Path, codec: str) -> None:
    files = fill(tmp_path, 8)
    alone, digest = read_images(tmp_path, files, codec=codec, workers=0)
    for workers in (1, 2):
        together, its_digest = read_images(tmp_path, files, codec=codec, workers=workers)
        assert torch.equal(together.payload, alone.payload)
        assert together.nbytes == alone.nbytes
        assert its_digest == digest


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_first_damaged_file_is_named_by_any_number_of_processes(tmp_path: Path, workers: int) -> None:
    files = fill(tmp_path, 8)
    for name, size in (files[4], files[7]):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9].ljust(size, b"x"))
    with pytest.raises(DamagedFileError, match="Cannot read `.*/004.jpg`: it is cut short"):
        read_images(tmp_path, files, workers=workers)


@pytest.mark.usefixtures("small_chunks")
def test_a_process_that_ends_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if multiprocessing.get_all_start_methods()[0] != "fork":
        pytest.skip("other processes do not see what is patched here")
    files = fill(tmp_path, 4)
    own = os.getpid()

    def decode_or_die(*args: Any) -> Any:
        assert os.getpid() != own
        os._exit(1)

    monkeypatch.setattr(decoding, "decode_image", decode_or_die)
    with pytest.raises(DamagedFileError, match="A process that read `.*` has ended.*`workers=0`"):
        read_images(tmp_path, files, workers=1)


@pytest.mark.usefixtures("small_chunks")
def test_the_global_random_state_stays_as_it_is(tmp_path: Path) -> None:
    files = fill(tmp_path, 4)
    before = torch.get_rng_state()
    read_images(tmp_path, files, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("small_chunks")
def test_progress_is_told_of_images(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    read_images(tmp_path, fill(tmp_path, 7), progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_chunks_are_bounded_by_the_bytes_of_files_and_of_pixels() -> None:
    files = [("a", 5 << 20), ("b", 1), ("c", 2 << 20), ("d", 2 << 20), ("e", 1)]
    divided = list(decoding._divide(files, (3, 8, 8)))
    assert [[name for name, _ in chunk] for chunk in divided] == [["a"], ["b", "c"], ["d", "e"]]
    assert [len(chunk) for chunk in decoding._divide([("a", 1)] * 5, (3, 1024, 1024))] == [1] * 5
    assert [len(chunk) for chunk in decoding._divide([("a", 1)] * 600, (3, 8, 8))] == [256, 256, 88]


@pytest.mark.parametrize("shape", [(8, 9, 3), (9, 8, 3), (8, 8)])
def test_images_of_several_shapes_are_refused_and_both_files_named(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    fill(tmp_path, 3)
    write_image(tmp_path / "002.jpg", 0, *shape)
    with pytest.raises(
        LayoutError, match=r"images of one size .* in `002.jpg` and 8 x 8 pixels in colour in `000"
    ):
        read_images(tmp_path, scan(tmp_path))


def test_a_shape_is_compared_before_pixels_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 1)
    write_image(tmp_path / "001.jpg", 0, 1000, 1000, 3)
    shapes: list[tuple[int, int, int]] = []

    def decode(data: bytes, header: ImageHeader) -> torch.Tensor:
        shapes.append(header.shape)
        return decode_image(data, header)

    monkeypatch.setattr(decoding, "decode_image", decode)
    with pytest.raises(LayoutError, match="1000 x 1000"):
        read_images(tmp_path, scan(tmp_path))
    assert (3, 1000, 1000) not in shapes


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda path: path.write_bytes(b""), DamagedFileError, "holds no bytes"),
        (lambda path: path.write_bytes(image_bytes(0)[:-30]), DamagedFileError, "cut short"),
        (lambda path: path.write_bytes(b"<html>"), DamagedFileError, "no JPEG, PNG or WebP image"),
        (lambda path: path.write_bytes(image_bytes(0, 8, 8, 4, suffix="png")), LayoutError, "transparency"),
        (_sparse, UnsafeFileError, "has 67108865 bytes"),
    ],
)
@pytest.mark.parametrize("index", [0, 1])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, spoil: Any, error: type[Exception], message: str, index: int
) -> None:
    fill(tmp_path, 2)
    spoil(tmp_path / f"00{index}.jpg")
    with pytest.raises(error, match=f"`{tmp_path}/00{index}.jpg`.* {message}"):
        read_images(tmp_path, scan(tmp_path))


def test_a_file_that_vanished_or_changed_since_it_was_listed_is_named(tmp_path: Path) -> None:
    files = fill(tmp_path, 3)
    (tmp_path / "001.jpg").write_bytes(b"shorter")
    with pytest.raises(DamagedFileError, match="`.*/001.jpg` changed"):
        read_images(tmp_path, files)
    (tmp_path / "001.jpg").unlink()
    with pytest.raises(DamagedFileError, match="`.*/001.jpg` vanished"):
        read_images(tmp_path, files)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    files = fill(tmp_path, 2)
    (tmp_path / "001.jpg").chmod(0)
    with pytest.raises(PermissionError, match=r"001.jpg"):
        read_images(tmp_path, files)


def test_pixels_beyond_the_limit_are_refused_with_the_cure(tmp_path: Path) -> None:
    files, limits = fill(tmp_path, 3), Limits(decoded_bytes=3 * 192 - 1)
    with pytest.raises(
        UnsafeFileError, match="take 576 bytes, over the limit of 575. Read it with the codec `files`"
    ):
        read_images(tmp_path, files, codec="raw", limits=limits)
    assert len(read_images(tmp_path, files, codec="files", limits=limits)[0]) == 3


def test_a_codec_that_does_not_suit_the_images_is_named(tmp_path: Path) -> None:
    files = fill(tmp_path, 2, 7, 7, 3)
    with pytest.raises(LayoutError, match="Cannot store the images of .* as `downscale:2`"):
        read_images(tmp_path, files, codec="downscale:2")


@pytest.mark.parametrize(
    ("codec", "workers", "message"),
    [
        ("nothing", None, "Unknown codec `nothing`"),
        ("float32", None, "a `codec` of pixels, got float32"),
        ("raw", -1, "`workers` as a number of at least 0, got -1"),
        ("raw", True, "got True"),
    ],
)
def test_options_are_checked(codec: str, workers: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(codec, workers)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_num_cores", lambda: 4)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")


@pytest.mark.usefixtures("four_cores")
def test_processes_are_started_for_many_files_where_that_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding._num_workers(None, 100_000) == 4
    assert decoding._num_workers(None, 100) == 0
    assert decoding._num_workers(3, 100) == 3
    assert decoding._num_workers(0, 100_000) == 0
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    assert decoding._num_workers(None, 100_000) == 0


def test_memory_that_cannot_be_had_is_said() -> None:
    with pytest.raises(UnsafeFileError, match="images of `set` do not fit into memory as `files`"):
        make_place("set", "files", (3, 8, 8), [1 << 60], Limits())
