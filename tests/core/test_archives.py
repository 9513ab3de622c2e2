"""Archives unpack into one folder, whole or not at all, whatever is in them."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gift_cl import archives
from gift_cl.archives import UnpackLimits, is_archive, unpack
from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError

FILES = {"a/b.jpg": b"hello" * 100, "a/c/d.txt": b"", "e": bytes(range(256))}
SUFFIXES = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
each_kind = pytest.mark.parametrize("suffix", SUFFIXES)
NAME_PART = st.text("abcäöé日 -_.0", min_size=1, max_size=5).filter(lambda name: name.strip(" ."))


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip_archive:
            for name, data in files.items():
                zip_archive.writestr(name, data)
        return path
    mode: Any = f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w"
    with tarfile.open(path, mode) as tar_archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar_archive.addfile(info, io.BytesIO(data))
    return path


def tar_with(path: Path, **fields: Any) -> Path:
    """A tar archive with one entry whose header has these fields."""
    info = tarfile.TarInfo("entry")
    for field, value in fields.items():
        setattr(info, field, value)
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    return path


def zip_with(path: Path, data: bytes = b"x", **fields: Any) -> Path:
    """A zip archive with one entry whose header has these fields."""
    info = zipfile.ZipInfo("entry")
    for field, value in fields.items():
        setattr(info, field, value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def require_refusal(path: Path, error: type[Exception], message: str, **options: Any) -> None:
    """Unpacking raises, names the archive, and leaves nothing."""
    folder = path.parent / "out"
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(error, match=message) as raised:
        unpack(path, folder, **options)
    assert str(path) in str(raised.value)
    assert sorted(path.parent.rglob("*")) == before


@each_kind
def test_what_is_packed_is_unpacked(tmp_path: Path, suffix: str) -> None:
    unpack(pack(tmp_path / f"x.{suffix}", FILES), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", f"x.{suffix}"]


@each_kind
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.lists(NAME_PART, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=5
    )
)
def test_any_files_with_usable_names_are_unpacked(
    suffix: str, files: dict[str, bytes], tmp_path_factory: Any
) -> None:
    folded = [name.casefold() for name in files]
    if any(
        a == b or b.startswith(a + "/") for i, a in enumerate(folded) for j, b in enumerate(folded) if i != j
    ):
        return
    folder = tmp_path_factory.mktemp("archive")
    unpack(pack(folder / f"x.{suffix}", files), folder / "out")
    assert contents(folder / "out") == files


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_folders_are_made_and_an_empty_folder_may_be_there(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "source" / "empty" / "inside"
    source.mkdir(parents=True)
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("empty/", b"")
            archive.writestr("empty/inside/", b"")
    else:
        with tarfile.open(path, "w") as tar_archive:
            tar_archive.add(tmp_path / "source", arcname=".")  # every name starts with "./"
    (tmp_path / "out").mkdir()
    unpack(path, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in sorted((tmp_path / "out").rglob("*"))] == [
        "empty",
        "empty/inside",
    ]


def test_permissions_are_those_of_new_files(tmp_path: Path) -> None:
    unpack(tar_with(tmp_path / "x.tar", mode=0o4777), tmp_path / "out")
    (tmp_path / "new").write_bytes(b"")
    mode = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "out" / "entry").stat().st_mode) == mode
    (tmp_path / "new folder").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "new folder").stat().st_mode


def test_the_content_says_what_an_archive_is(tmp_path: Path) -> None:
    pack(tmp_path / "x.tar.gz", FILES).rename(tmp_path / "x.zip")
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


@each_kind
def test_progress_is_told_of_the_bytes_of_the_archive(tmp_path: Path, suffix: str) -> None:
    path, told = pack(tmp_path / f"x.{suffix}", FILES), []
    unpack(path, tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert [total for _, total in told] == [size] * len(told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (size, size)


@pytest.mark.parametrize("name", ["a.zip", "b.TAR", "c.tar.gz", "d.tgz", "e.tar.xz", "f.tbz2"])
def test_archives_are_known_by_their_endings(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert is_archive(tmp_path / name)
    assert not is_archive(tmp_path / "missing.zip")


@pytest.mark.parametrize("name", ["data.pt", "a.safetensors", "b.gz", "zip", "c.zip.part"])
def test_other_files_and_folders_are_no_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4")
    (tmp_path / "folder.zip").mkdir()
    assert not is_archive(tmp_path / name)
    assert not is_archive(tmp_path / "folder.zip")


ESCAPES = (
    "../x",
    "/x",
    "a/../../x",
    "a/./x",
    "a//x",
    "..",
    ".",
    "C:\\x",
    "c:/x",
    "..\\x",
    "a\nb",
    "a/b\x7f",
)


@each_kind
@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_lead_out_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    path = pack(tmp_path / f"x.{suffix}", {"good": b"1", name: b"2"})
    require_refusal(path, UnsafeFileError, "leads out of its folder, or has no usable name")


def test_a_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"good.jpg/evil": b"1"})
    path.write_bytes(path.read_bytes().replace(b"good.jpg/evil", b"good.jpg\0evil"))
    require_refusal(path, UnsafeFileError, r"good.jpg\\x00evil")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", {"abc": b"1"})
    data = path.read_bytes().replace(b"abc", b"ab\xff", 1)
    path.write_bytes(with_checksum(data))
    require_refusal(path, UnsafeFileError, "no usable name")


def with_checksum(data: bytes) -> bytes:
    """A tar archive whose first header has been changed, with the checksum made right."""
    head = data[:148] + b" " * 8 + data[156:512]
    return data[:148] + f"{sum(head):06o}\0 ".encode() + data[156:]


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "a"},
        {"type": tarfile.LNKTYPE, "linkname": "../x"},
        {"type": tarfile.CHRTYPE},
        {"type": tarfile.BLKTYPE},
        {"type": tarfile.FIFOTYPE},
    ],
)
def test_links_and_devices_in_tar_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tar_with(tmp_path / "x.tar", **fields)
    require_refusal(path, UnsafeFileError, "holds a link, device or pipe, 'entry'")


def test_a_file_below_a_link_does_not_follow_it(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("a/evil"))
    require_refusal(path, UnsafeFileError, "link")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zip_are_refused(tmp_path: Path, kind: int) -> None:
    path = zip_with(tmp_path / "x.zip", b"/etc/passwd", external_attr=(kind | 0o777) << 16)
    require_refusal(path, UnsafeFileError, "holds a link, device or pipe, 'entry'")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("dir/a", "DIR/b"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301"), ("ß", "SS")],
)
def test_names_that_some_file_system_takes_for_one_are_refused(
    tmp_path: Path, suffix: str, names: tuple[str, str]
) -> None:
    path = pack(tmp_path / f"x.{suffix}", {names[0]: b"1"})
    if suffix == "zip":
        with zipfile.ZipFile(path, "a") as archive, pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # of a name used twice
            archive.writestr(names[1], b"2")
    else:
        with tarfile.open(path, "a") as tar_archive:
            tar_archive.addfile(tarfile.TarInfo(names[1]))
    require_refusal(path, UnsafeFileError, "has two entries of one name")


def test_folders_may_be_named_again(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a/", "a/x", "a/b/y"):
            archive.writestr(name, b"")
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"a/x", "a/b/y"}


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused_by_the_bytes_that_come_out(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"x.{suffix}", {"bomb": bytes(20 << 20)})
    assert path.stat().st_size < 100_000
    require_refusal(path, UnsafeFileError, "unpacks to more than 16777216 bytes")


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"bomb": bytes(20 << 20)})
    data = path.read_bytes().replace(struct.pack("<I", 20 << 20), struct.pack("<I", 10))
    path.write_bytes(data)
    require_refusal(path, (UnsafeFileError, DamagedFileError), ".")  # type: ignore[arg-type]


def test_zeros_after_a_tar_archive_count_as_well(tmp_path: Path) -> None:
    import gzip

    inside = pack(tmp_path / "x.tar", FILES).read_bytes()
    (tmp_path / "x.tar").unlink()
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(inside + bytes(20 << 20)))
    require_refusal(path, UnsafeFileError, "unpacks to more than")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "x.tar", type=tarfile.XHDTYPE, size=1 << 32)
    require_refusal(path, DamagedFileError, "a header of 4294967296 bytes")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UnpackLimits(num_files=2), "holds more than 2 entries"),
        (UnpackLimits(total_bytes=100), "unpacks to more than 100 bytes"),
        (UnpackLimits(depth=2), "nests folders more than 2 deep"),
    ],
)
def test_limits_are_kept(tmp_path: Path, suffix: str, limits: UnpackLimits, message: str) -> None:
    require_refusal(pack(tmp_path / f"x.{suffix}", FILES), UnsafeFileError, message, limits=limits)


def test_a_large_archive_may_unpack_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ALLOWANCE", 10)
    path = pack(tmp_path / "x.zip", {"a": bytes(10_000)})
    size = path.stat().st_size
    require_refusal(path, UnsafeFileError, "out of proportion", limits=UnpackLimits(ratio=9_999 / size))
    unpack(path, tmp_path / "out", limits=UnpackLimits(ratio=10_001 / size))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    require_refusal(path, LayoutError, "is encrypted")


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        data[data.index(signature) + offset] = 9  # deflate64
    path.write_bytes(data)
    require_refusal(path, LayoutError, "packed in an unknown way")


def test_a_file_of_torch_is_no_archive(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "batch_0.tar")
    require_refusal(tmp_path / "batch_0.tar", LayoutError, "is a file of `torch.save`")


@each_kind
def test_every_archive_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"x.{suffix}", {"a": b"1" * 600, "b": b"2"})
    data = path.read_bytes()
    lengths = range(0, len(data) - 1, 1 if suffix != "tar" else 256)
    for length in lengths:
        if suffix == "tar" and length > 2048 + 512:  # only zeros are missing
            break
        path.write_bytes(data[:length])
        require_refusal(path, DamagedFileError, "no readable archive|is cut short")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_changed_byte_of_a_content_is_noticed(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"x.{suffix}", {"a": os.urandom(2000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    require_refusal(path, DamagedFileError, "no readable archive")


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html>", bytes(100), b"PK\3\4", b"\x1f\x8b", b"BZh", b"x" * 2000]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    require_refusal(tmp_path / "x.zip", DamagedFileError, "no readable archive .* get it again")


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("x"), lambda path: (path / "a").mkdir(parents=True)]
)
def test_nothing_is_overwritten(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = pack(tmp_path / "x.zip", FILES)
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LayoutError, match="`.*/out` to be new or an empty folder"):
        unpack(path, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_archive_or_folder_is_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.zip"):
        unpack(tmp_path / "missing.zip", tmp_path / "out")
    path = pack(tmp_path / "x.zip", FILES)
    with pytest.raises(OSError, match="Cannot write into `.*/no`.* Choose a folder"):
        unpack(path, tmp_path / "no" / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "x.tar", FILES)
    full = OSError(28, "No space left on device")

    def fail(self: Any, num_bytes: int) -> None:
        raise full

    monkeypatch.setattr("gift_cl.archive_entries.Budget.spend", fail)
    monkeypatch.setattr("gift_cl.archive_entries._Metered.read", lambda self, size: self.stream.read(size))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="No space left") as raised:
        unpack(path, tmp_path / "out")
    assert raised.value is full
    assert sorted(tmp_path.rglob("*")) == before
