"""Damaged and forged files of every kind: nothing comes out but errors of ours, and nothing is written."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fkd_folders import Elements, batch_path, make_dataset, write_fkd

from gift_cl.errors import ReadError
from gift_cl.label_streams import FKDStream, LabelStream, StreamedBatches

DATASET = make_dataset()
FIRST = [(0, number) for number in range(3)]
FILES = [*FIRST, *((1, number) for number in range(3))]


def use_all(stream: LabelStream) -> None:
    batches = StreamedBatches(stream, DATASET, normalization=None)
    for batch in batches.loader(range(stream.shape.num_epochs)):
        assert torch.isfinite(batch.images).all()
        assert torch.isfinite(batch.logits).all()
        assert 0 <= int(batch.labels.min()) <= int(batch.labels.max()) < 5


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def attack(folder: Path, tries: int, damage: Callable[[random.Random, Path], None]) -> int:
    """Damage copies of a folder in turn; how many of them were refused."""
    chooser, refused = random.Random(0), 0
    for _ in range(tries):
        copy = folder.parent / "copy"
        shutil.copytree(folder, copy)
        damage(chooser, copy)
        before = snapshot(folder.parent)
        try:
            use_all(FKDStream.open(copy, DATASET))
        except ReadError:
            refused += 1
        assert snapshot(folder.parent) == before
        shutil.rmtree(copy)
    return refused


def damage_bytes(chooser: random.Random, folder: Path) -> None:
    path = batch_path(folder, *chooser.choice(FIRST))
    data = bytearray(path.read_bytes())
    place, length = chooser.randrange(len(data)), chooser.choice([1, 2, 8, 64])
    match chooser.randrange(6):
        case 0:
            data[place] ^= 1 << chooser.randrange(8)
        case 1:
            data[place : place + length] = chooser.randbytes(length)
        case 2:
            del data[place : place + length]
        case 3:
            del data[place:]
        case 4:
            data[place:place] = chooser.randbytes(length)
        case _:
            other = chooser.randrange(len(data) - length)
            data[place : place + length] = data[other : other + length]
    path.write_bytes(data)


def test_damaged_bytes(tmp_path: Path) -> None:
    write_fkd(tmp_path / "labels", DATASET, epochs=1)
    assert 200 < attack(tmp_path / "labels", 300, damage_bytes) < 300


def damage_names(chooser: random.Random, folder: Path) -> None:
    path, other = (batch_path(folder, *place) for place in chooser.sample(FILES, 2))
    number = chooser.choice(["0", "1", "2", "3", "00", "01", "-1", "99999999", "9" * 30, "x"])
    match chooser.randrange(9):
        case 0:
            shutil.rmtree(path.parent)
        case 1:
            path.unlink()
        case 2:
            path.rename(folder / "spare")
            other.rename(path)
            (folder / "spare").rename(other)
        case 3:
            path.parent.rename(folder / f"epoch_{number}.")
        case 4:
            path.replace(path.with_name(f"batch_{number}.tar"))
        case 5:
            path.unlink()
            path.mkdir()
        case 6:
            (folder / f"epoch_{number}").mkdir(exist_ok=True)
        case 7:
            path.unlink()
            path.symlink_to(chooser.choice([other, path, folder]))
        case _:
            shutil.copytree(path.parent, folder / f"epoch_{chooser.choice('23x')}")


def test_damaged_names(tmp_path: Path) -> None:
    write_fkd(tmp_path / "labels", DATASET)
    assert 100 < attack(tmp_path / "labels", 200, damage_names) < 200


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    0.5,
    float("inf"),
    1 << 62,
    "text",
    [],
    [0, 0, 4, 4],
    [0, 0, 1 << 62, 4],
    (1, 2),
    {},
    np.int64(3),
    torch.zeros(0),
    torch.zeros(8),
    torch.zeros(8, 4),
    torch.zeros(8, 5).half(),
    torch.full((8, 5), float("inf")).half(),
    torch.full((8,), 3),
    torch.arange(8),
    torch.arange(8).flip(0) + 12,
    torch.zeros(8, dtype=torch.bool),
    torch.tensor(1e-30).expand(8, 4).contiguous(),
]


def forge(elements: Elements, chooser: random.Random) -> Any:
    place = chooser.randrange(len(elements))
    match chooser.randrange(6):
        case 0 | 1 | 2:
            elements[place] = chooser.choice(VALUES)
        case 3 if isinstance(elements[place], torch.Tensor):
            flat = elements[place].view(-1)
            flat[chooser.randrange(len(flat))] = chooser.choice([0, 1, -1, 7, 1e4, 1e-6])
        case 4:
            other = chooser.randrange(len(elements))
            elements[place], elements[other] = elements[other], elements[place]
        case _:
            return chooser.choice([elements[:place], elements * 2, tuple(elements), elements[place], {}])
    return elements


def test_forged_values(tmp_path: Path) -> None:
    written = {}
    for name, has_indices in (("six", False), ("seven", True)):
        written[name] = write_fkd(tmp_path / name / "labels", DATASET, epochs=1, has_indices=has_indices)

    def damage(name: str) -> Callable[[random.Random, Path], None]:
        def change(chooser: random.Random, folder: Path) -> None:
            epoch, number = chooser.choice(FIRST)
            elements = [
                value.clone() if isinstance(value, torch.Tensor) else value
                for value in written[name][epoch][number]
            ]
            with contextlib.suppress(RuntimeError):  # values that the type cannot hold
                torch.save(forge(elements, chooser), batch_path(folder, epoch, number))

        return change

    for name in written:
        assert 60 < attack(tmp_path / name / "labels", 120, damage(name)) < 120
