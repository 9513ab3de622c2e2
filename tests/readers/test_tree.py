"""Folders are listed without leaving them, files are read whole, and a shell can check the digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.readers.tree import Limits, find_roots, read_file, scan, subfolders, tree_digest


def fill(root: Path, *names: str) -> Path:
    """Files whose content is their name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_files_are_listed_with_their_sizes_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "b/x", "a", "b/c/yy", "B")
    assert scan(tmp_path) == [("B", 1), ("a", 1), ("b/c/yy", 6), ("b/x", 3)]


def test_hidden_files_and_what_systems_leave_behind_are_no_part_of_it(tmp_path: Path) -> None:
    fill(tmp_path, "a", ".hidden", ".git/x", "b/Thumbs.db", "b/.DS_Store", "__MACOSX/b/._a")
    assert scan(tmp_path) == [("a", 1)]


def test_an_empty_folder_holds_no_files(tmp_path: Path) -> None:
    assert scan(tmp_path) == []


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "file")
    with pytest.raises(LayoutError, match=f"Expected a folder at `.*{name}`"):
        scan(tmp_path / name)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    fill(tmp_path, "a/x")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "y").symlink_to("a/x")
    assert scan(tmp_path) == [("a/x", 3), ("b/x", 3), ("y", 3)]


def test_a_folder_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    fill(tmp_path, "real/a")
    (tmp_path / "link").symlink_to("real")
    assert scan(tmp_path / "link") == [("a", 6)]


@pytest.mark.parametrize("target", ["..", ".", "../b"])
def test_a_loop_of_links_ends(tmp_path: Path, target: str) -> None:
    fill(tmp_path, "a/x", "b/y")
    (tmp_path / "a" / "loop").symlink_to(target)
    (tmp_path / "b" / "loop").symlink_to("../a")
    assert {"a/x", "b/y"} <= {name for name, _ in scan(tmp_path)}


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret", "../../", "/"])
def test_a_link_that_leads_out_is_named_and_not_followed(tmp_path: Path, target: str) -> None:
    root = fill(tmp_path / "set", "a/x")
    fill(tmp_path, "secret")
    (root / "link").symlink_to(target)
    with pytest.raises(UnsafeFileError, match="The link `.*/set/link` leads out of") as error:
        scan(root)
    assert "Put a copy in its place" in str(error.value)


def test_a_link_to_a_folder_of_a_similar_name_leads_out(tmp_path: Path) -> None:
    fill(tmp_path, "set/x", "set2/secret")
    (tmp_path / "set" / "link").symlink_to("../set2")
    with pytest.raises(UnsafeFileError, match="leads out"):
        scan(tmp_path / "set")


@pytest.mark.parametrize("target", ["nothing", "link"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(DamagedFileError, match="The link `.*/link` leads nowhere"):
        scan(tmp_path)


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnsafeFileError, match="`.*/pipe.jpg` is no file, but a pipe, socket or device"):
        scan(tmp_path)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets have to be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(UnsafeFileError, match="socket"):
            scan(tmp_path)


@pytest.mark.parametrize("name", [b"a\nb", b"a\rb", b"a\\b", b"\xff\xfe.jpg"])
def test_a_name_that_no_list_of_hashes_can_hold_is_refused(tmp_path: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        pass
    with pytest.raises(LayoutError, match="line break or backslash, or is no text. Rename it"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["ä b.jpg", "日本.jpg", "tab\t.jpg", "'quoted\".jpg"])
def test_other_names_are_fine(tmp_path: Path, name: str) -> None:
    assert scan(fill(tmp_path, name))[0][0] == name


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(num_files=3), "more than 3 files and folders"),
        (Limits(total_bytes=5), "more than 5 bytes of files"),
        (Limits(depth=2), "folders 2 deep"),
    ],
)
def test_too_much_is_refused(tmp_path: Path, limits: Limits, message: str) -> None:
    fill(tmp_path, "a/b/c", "x")
    assert len(scan(tmp_path, Limits(num_files=4, total_bytes=6, depth=3))) == 2
    with pytest.raises(UnsafeFileError, match=message):
        scan(tmp_path, limits)


def test_a_folder_that_vanishes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/x", "b/y")
    listed = os.scandir

    def and_remove(path: str) -> object:
        entries = listed(path)
        if os.path.samefile(path, tmp_path):
            found = list(entries)
            shutil.rmtree(tmp_path / "a")
            return _Listing(found)
        return entries

    monkeypatch.setattr(os, "scandir", and_remove)
    with pytest.raises(DamagedFileError, match="`.*/a` vanished"):
        scan(tmp_path)


class _Listing(list[os.DirEntry[str]]):
    """What `os.scandir` gives, when it was read before."""

    def __enter__(self) -> _Listing:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a/x")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(PermissionError, match="/a/?'"):
            scan(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert read_file(str(tmp_path / "a"), len(data)) == data


@pytest.mark.parametrize("size", [0, 3, 5])
def test_a_file_of_another_size_than_before_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(bytes(4))
    with pytest.raises(DamagedFileError, match="`.*/a` changed while it was read"):
        read_file(str(tmp_path / "a"), size)


def test_a_file_that_has_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="`.*/a` vanished"):
        read_file(str(tmp_path / "a"), 4)


def test_a_file_that_has_become_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(DamagedFileError, match="changed while it was read"):
        read_file(str(tmp_path / "a"), 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError, match="/a'"):
        read_file(str(tmp_path / "a"), 1)


def test_the_digest_is_that_of_the_lines_that_sha256sum_prints() -> None:
    a, b = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    assert tree_digest({"b": b, "a/c": a}) == hashlib.sha256(f"{a}  a/c\n{b}  b\n".encode()).hexdigest()
    assert tree_digest({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.dictionaries(st.text(min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64)))
def test_the_digest_does_not_depend_on_the_order(hashes: dict[str, str]) -> None:
    assert tree_digest(hashes) == tree_digest(dict(reversed(hashes.items())))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_a_shell_prints_the_digest(tmp_path: Path) -> None:
    fill(tmp_path, "new000/b c.jpg", "new000/a.jpg", "new001/ä.jpg", "new-1/x", "B", "a")
    command = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    assert command in (tree_digest.__doc__ or "")
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name, _ in scan(tmp_path)}
    assert printed.stdout.split()[0] == tree_digest(hashes)


def test_subfolders_are_sorted_and_no_files_or_links(tmp_path: Path) -> None:
    fill(tmp_path, "b/x", "a/x", "file", ".hidden/x", "__MACOSX/x")
    (tmp_path / "link").symlink_to("a")
    assert subfolders(tmp_path) == ["a", "b"]


def test_the_folder_of_the_classes_is_found_at_any_depth(tmp_path: Path) -> None:
    fill(tmp_path, "x/y/z/new0/a", "x/other/b")
    assert find_roots(tmp_path, "new0".__eq__) == [tmp_path / "x/y/z"]
    assert find_roots(tmp_path / "x/y/z", "new0".__eq__) == [tmp_path / "x/y/z"]


def test_several_folders_of_classes_are_found_nearest_first(tmp_path: Path) -> None:
    fill(tmp_path, "b/new0/x", "a/c/new0/x", "a/new1/x")
    assert find_roots(tmp_path, "new0".__eq__) == [tmp_path / "b", tmp_path / "a/c"]


def test_the_search_does_not_look_below_what_it_has_found(tmp_path: Path) -> None:
    fill(tmp_path, "new0/new0/x")
    assert find_roots(tmp_path, "new0".__eq__) == [tmp_path]


def test_the_search_follows_no_links_and_ends(tmp_path: Path) -> None:
    fill(tmp_path, "set/a/x", "elsewhere/new0/x", *(f"many/{k:03d}/new0/x" for k in range(100)))
    (tmp_path / "set" / "link").symlink_to("../elsewhere")
    assert find_roots(tmp_path / "set", "new0".__eq__) == []
    assert len(find_roots(tmp_path / "many", "new0".__eq__)) == 63  # of 64 folders looked into


def test_a_path_that_is_no_folder_holds_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, "new0")
    assert find_roots(tmp_path / "new0", "new0".__eq__) == []
    assert find_roots(tmp_path / "missing", "new0".__eq__) == []
