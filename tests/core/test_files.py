import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gift_cl.files import check_writable, explaining_writes, replacing, sha256_of_file


def test_a_file_appears_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_path_may_be_text(tmp_path: Path) -> None:
    with replacing(f"{tmp_path}/file.bin") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "file.bin").read_bytes() == b"new"


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("half-way"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_others_may_read_the_file_as_far_as_the_mask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with replacing(tmp_path / "file.bin") as temporary:
            temporary.write_bytes(b"new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "regular"
    blocker.write_bytes(b"")
    for folder in (blocker, blocker / "below"):
        with pytest.raises(OSError, match=f"Cannot write into `{folder}`.*Choose a folder"):
            replacing(folder / "file.bin").__enter__()
    assert os.listdir(tmp_path) == ["regular"]


def test_a_place_can_be_checked_before_long_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "file.bin")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "regular").write_bytes(b"old")
    check_writable(tmp_path / "regular")
    assert (tmp_path / "regular").read_bytes() == b"old"
    with pytest.raises(OSError, match=r"Cannot write into `.*regular`: .*Choose a folder"):
        check_writable(tmp_path / "regular" / "file.bin")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("No space left on device"),
        SafetensorError("No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        SafetensorError('I/O error: No space left on device (os error 28) at path "/data/.tmpKbftp9"'),
    ],
)
def test_a_write_that_fails_names_the_file_the_reason_and_the_cure(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OSError, match="Cannot write") as caught, replacing(tmp_path / "file.bin"):
        raise error
    assert str(caught.value) == (
        f"Cannot write `{tmp_path / 'file.bin'}`: No space left on device. Make space on its disk, or choose "
        "another."
    )
    assert caught.value.__cause__ is error


@pytest.mark.usefixtures("tiny_files")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(1000)),
        lambda path: torch.save(torch.zeros(1000), path),
        lambda path: save_file({"a": torch.zeros(1000)}, path),
    ],
    ids=["bytes", "torch", "safetensors"],
)
def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with (
        pytest.raises(OSError, match=r"Cannot write `.*/file.bin`: .+\. Make space on its disk, or choose"),
        replacing(path) as temporary,
    ):
        write(temporary)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    "error",
    [ValueError("not finite"), RuntimeError("shapes do not fit"), BrokenPipeError(errno.EPIPE, "a terminal")],
)
def test_other_errors_of_a_write_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, replacing(tmp_path / "file.bin"):
        raise error
    assert caught.value is error


def test_a_file_that_is_read_meanwhile_is_named_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), replacing(tmp_path / "file.bin"):
        (tmp_path / "missing").read_bytes()
    assert not os.listdir(tmp_path)


def test_an_error_that_names_the_temporary_file_is_a_failed_write(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="Cannot write `.*/file.bin`: Not a directory"),
        replacing(tmp_path / "file.bin") as temporary,
    ):
        (temporary / "below").touch()


def test_a_folder_that_is_written_is_named(tmp_path: Path) -> None:
    inside = tmp_path / "scratch"
    with (
        pytest.raises(OSError, match="Cannot write `out`: No such file"),
        explaining_writes("out", at=inside),
    ):
        (inside / "file").touch()


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def write() -> None:
        with replacing(folder) as temporary:
            temporary.write_bytes(b"new")

    with pytest.raises(OSError, match="folder"):
        write()
    assert os.listdir(tmp_path) == ["folder"]


def test_the_hash_of_a_file_is_the_standard_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_of_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
