"""A thousand damaged folders and archives: each is read, or refused by name, and nothing else happens."""

from __future__ import annotations

import io
import os
import random
import resource
import string
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from layouts import image_bytes, read, write_image_folder, write_rded, write_sre2l

from gift_cl.archives import unpack
from gift_cl.errors import ReadError
from gift_cl.readers.image_folder import ImageFolderReader
from gift_cl.readers.rded import RDEDReader
from gift_cl.readers.sre2l import SRe2LReader

Tree = dict[str, bytes]
Change = Callable[[Tree, random.Random], None]

LAYOUTS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "sre2l of jpg": (write_sre2l, SRe2LReader(method="sre2l")),
    "sre2l of png": (lambda root: write_sre2l(root, suffix="png"), SRe2LReader(method="sre2l")),
    "rded": (write_rded, RDEDReader(factor=2)),
    "folder of jpg": (lambda root: write_image_folder(root, {"a": 2, "b": 1}), ImageFolderReader()),
    "folder of webp": (
        lambda root: write_image_folder(root, {"a": 2, "b": 2}, suffix="webp"),
        ImageFolderReader(),
    ),
}
CASES = 160  # of each layout
ARCHIVES = ("zip", "tar", "tar.gz", "tar.xz")
ARCHIVE_CASES = 80  # of each kind
MEMORY_MB = 400


def tree_of(root: Path) -> Tree:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, put in or cut off; more in the beginning, where headers are."""
    changed = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 4)):
        position = chance.randrange(chance.choice([len(changed), min(len(changed), 40)]))
        match chance.randrange(5):
            case 0 | 1:
                changed[position] = chance.randrange(256)
            case 2:
                changed[position : position + chance.randint(1, 9)] = b""
            case 3:
                changed[position:position] = chance.randbytes(chance.randint(1, 9))
            case 4:
                changed[position:] = b""
        changed = changed or bytearray(1)
    return bytes(changed)


def any_name(tree: Tree, chance: random.Random) -> str:
    """A name near those in the tree."""
    name = list(chance.choice(sorted(tree)))
    for _ in range(chance.randint(1, 3)):
        letters = string.digits + "/._" + "aZé \\\n"
        name[chance.randrange(len(name))] = chance.choice(letters)
    return "".join(name)


def change_bytes(tree: Tree, chance: random.Random) -> None:
    name = chance.choice(sorted(tree))
    tree[name] = mutated(tree[name], chance)


def cut(tree: Tree, chance: random.Random) -> None:
    name = chance.choice(sorted(tree))
    tree[name] = tree[name][: chance.choice([0, 1, chance.randrange(len(tree[name]) + 1)])]


def swap(tree: Tree, chance: random.Random) -> None:
    one, other = chance.choice(sorted(tree)), chance.choice(sorted(tree))
    tree[one], tree[other] = tree[other], tree[one]


def rename(tree: Tree, chance: random.Random) -> None:
    data = tree.pop(chance.choice(sorted(tree)))
    tree[any_name(tree, chance) if tree else "x"] = data


def duplicate(tree: Tree, chance: random.Random) -> None:
    tree[any_name(tree, chance)] = tree[chance.choice(sorted(tree))]


def delete(tree: Tree, chance: random.Random) -> None:
    if len(tree) > 1:
        del tree[chance.choice(sorted(tree))]


def put_another_kind(tree: Tree, chance: random.Random) -> None:
    shape = chance.choice([(8, 8), (8, 8, 4), (9, 8, 3), (1, 1, 3), (300, 8, 3)])
    suffix = "png" if shape[-1] == 4 else chance.choice(["png", "jpg"])
    tree[chance.choice(sorted(tree))] = image_bytes(7, *shape, suffix=suffix)


CHANGES: tuple[Change, ...] = (
    change_bytes,
    change_bytes,
    cut,
    swap,
    rename,
    duplicate,
    delete,
    put_another_kind,
)


def write(tree: Tree, root: Path) -> None:
    """The files that a file system can hold."""
    root.mkdir(parents=True)
    for name, data in tree.items():
        path = Path(os.path.normpath(root / name.lstrip("/")))
        if root not in path.parents or any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def put_special(root: Path, tree: Tree, chance: random.Random) -> None:
    """A link, pipe or folder where none belongs, now and then."""
    path = root / (chance.choice(sorted(tree)) if chance.random() < 0.5 else "new.jpg")
    if path.exists() or not path.parent.is_dir() or chance.random() < 0.8:
        return
    match chance.randrange(5):
        case 0:
            path.symlink_to("../../../beside.jpg")
        case 1:
            path.symlink_to(chance.choice([".", "..", "nothing", "/", path.name]))
        case 2:
            path.symlink_to(chance.choice(sorted(tree)))
        case 3:
            os.mkfifo(path)
        case 4:
            path.mkdir()


def refusal(action: Callable[[], object]) -> str | None:
    """What a refusal says; None if the action succeeds. Any other error is let through."""
    try:
        action()
    except ReadError as error:
        return str(error)
    return None


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_folder_is_read_or_refused_by_name(tmp_path: Path, layout: str) -> None:
    make, reader = LAYOUTS[layout]
    original = tree_of(make(tmp_path / "original"))
    (tmp_path / "beside.jpg").write_bytes(image_bytes(0))
    chance = random.Random(f"folders, {layout}")
    before_mb, outcomes = peak_mb(), {"read": 0, "refused": 0}
    for case in range(CASES):
        tree = dict(original)
        for _ in range(chance.randint(1, 3)):
            chance.choice(CHANGES)(tree, chance)
        root = tmp_path / "cases" / str(case)
        write(tree, root)
        put_special(root, tree, chance)
        state = sorted(os.walk(tmp_path / "cases" / str(case)))
        recognized = reader.recognizes(root)
        assert isinstance(recognized, bool)
        codec, ipc = chance.choice(["files", "raw"]), chance.choice([None, None, 1])
        message = refusal(partial(read, replace(reader, codec=codec), root, ipc=ipc))
        outcomes["refused" if message else "read"] += 1
        assert message is None or (str(root) in message and message.endswith((".", "?")))
        assert sorted(os.walk(root)) == state
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside.jpg", "cases", "original"]
    assert min(outcomes.values()) >= 5, outcomes
    assert peak_mb() - before_mb < MEMORY_MB


def pack(tree: Tree, suffix: str) -> bytes:
    file = io.BytesIO()
    if suffix == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in tree.items():
                archive.writestr(name, data)
        return file.getvalue()
    mode: Any = f"w:{suffix[4:]}"
    with tarfile.open(fileobj=file, mode=mode) as tar_archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar_archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_a_damaged_archive_is_unpacked_inside_or_refused_by_name(tmp_path: Path, suffix: str) -> None:
    original = tree_of(write_sre2l(tmp_path / "original"))
    chance = random.Random(f"archives, {suffix}")
    before_mb, outcomes = peak_mb(), {"unpacked": 0, "refused": 0}
    for case in range(ARCHIVE_CASES):
        tree = dict(original)
        if chance.random() < 0.5:
            for _ in range(chance.randint(1, 3)):
                chance.choice(CHANGES)(tree, chance)
            if chance.random() < 0.3:
                tree[chance.choice(["../x", "/tmp/x", "a/../../x", "NEW000/class000_id000.jpg"])] = b"x"
        data = pack(tree, suffix)
        data = mutated(data, chance) if chance.random() < 0.7 else data
        folder = tmp_path / "cases" / str(case)
        folder.mkdir(parents=True)
        path, out = folder / f"x.{suffix}", folder / "out"
        path.write_bytes(data)
        message = refusal(partial(unpack, path, out))
        outcomes["refused" if message else "unpacked"] += 1
        assert message is None or str(path) in message
        if message is None:
            assert not any(found.is_symlink() for found in out.rglob("*"))
            message = refusal(partial(read, SRe2LReader(method="sre2l"), out))
            assert message is None or str(out) in message
        assert {found.name for found in folder.iterdir()} <= {path.name, "out"}
    assert sorted(found.name for found in tmp_path.iterdir()) == ["cases", "original"]
    assert min(outcomes.values()) >= 5, outcomes
    assert peak_mb() - before_mb < MEMORY_MB
