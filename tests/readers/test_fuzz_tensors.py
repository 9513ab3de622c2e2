import io
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensor_layouts import pixels, whitened, write_datm, write_gift
from torch import Tensor

from gift_cl.dataset_file import save_dataset
from gift_cl.errors import ReadError
from gift_cl.progress import silent
from gift_cl.readers.datm import DATMReader
from gift_cl.readers.gift_pt import GIFTReader
from gift_cl.readers.native import NativeReader
from gift_cl.readers.protocol import Reader
from gift_cl.readers.tensors import LARGEST_VALUE

NUM_CASES = 150  # of each test and layout
torch_layouts = pytest.mark.parametrize("layout", ["datm", "gift", "gift-soft"], indirect=True)
LAYOUTS: dict[str, list[Reader]] = {
    "datm": [DATMReader(), DATMReader(space="pixels")],
    "gift": [GIFTReader(), GIFTReader(space="zca")],
    "gift-soft": [GIFTReader(), GIFTReader(space="pixels")],
    "native": [NativeReader()],
    "native-soft": [NativeReader()],
}


def write(layout: str, folder: Path) -> Path:
    """A sound data set; what to give to its reader."""
    made, labels = whitened(), whitened().labels
    match layout:
        case "datm":
            return write_datm(folder, made.images, made.logits)
        case "gift":
            return write_gift(folder / "rded/cifar10_conv3/ipc3", pixels() / 255, labels[:, None])
        case "gift-soft":
            return write_gift(folder / "datm/cifar10_conv3/ipc3", made.images, made.logits)
    sound = write("gift" if layout == "native" else "gift-soft", folder)
    save_dataset(GIFTReader().read(sound, ipc=None, progress=silent), folder / "own.safetensors")
    shutil.rmtree(sound.parents[2])
    return folder / "own.safetensors"


@pytest.fixture(params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(layout: str, tmp_path: Path) -> Path:
    """A folder of sound files, to be damaged."""
    return tmp_path / layout


@pytest.fixture
def path(layout: str, folder: Path) -> Path:
    """What to give to a reader."""
    return write(layout, folder)


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def read_or_refuse(reader: Reader, path: Path, folder: Path, ipc: int | None) -> bool:
    """Whether the files are usable; nothing but a `ReadError` comes out, soon, and nothing is written."""
    before, start, is_read = contents(folder), time.monotonic(), True
    reader.recognizes(path)
    try:
        dataset = reader.read(path, ipc=ipc, progress=silent)
    except (ReadError, FileNotFoundError):
        is_read = False
    else:
        images = dataset.images
        assert len(images) == len(dataset)
        if images.is_floating_point():
            assert float(images.abs().max()) <= LARGEST_VALUE
    assert time.monotonic() - start < 2
    assert contents(folder) == before
    return is_read


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """One of many ways in which a file is damaged."""
    at, length = draw.randrange(len(data)), draw.randrange(1, 64)
    flipped = bytearray(data)
    for _ in range(draw.randrange(1, 9)):
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    ways = [
        data[:at],
        data[:at] + draw.randbytes(length) + data[at:],
        data[:at] + data[at + length :],
        data[:at] + bytes(length) + data[at + length :],
        data[at:] + data[:at],
        data + data[:at],
        draw.randbytes(length),
    ]
    return draw.choice([*ways, bytes(flipped), bytes(flipped)])


def change_record(data: bytes, draw: random.Random) -> bytes:
    """A torch file whose archive is sound, and one of whose records is damaged."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([name for name in records if name.endswith(("data.pkl", "data/0", "byteorder"))])
    records[name] = change_bytes(records[name], draw)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for record, value in records.items():
            archive.writestr(record, value)
    return stream.getvalue()


def damage(
    layout: str, folder: Path, path: Path, change: Callable[[bytes, random.Random], bytes]
) -> Iterator[bool]:
    """Whether a data set was still usable after a change to one of its files; again and again."""
    originals, draw = contents(folder), random.Random(layout)
    for _ in range(NUM_CASES):
        file = draw.choice(list(originals))
        file.write_bytes(change(originals[file], draw))
        yield read_or_refuse(draw.choice(LAYOUTS[layout]), path, folder, draw.choice([None, None, 1, 3, 4]))
        file.write_bytes(originals[file])


def test_sound_files_are_read(layout: str, folder: Path, path: Path) -> None:
    assert read_or_refuse(LAYOUTS[layout][0], path, folder, None)


def test_damaged_files_are_read_or_refused(layout: str, folder: Path, path: Path) -> None:
    assert sum(damage(layout, folder, path, change_bytes)) < NUM_CASES / 4


@torch_layouts
def test_damaged_records_are_read_or_refused(layout: str, folder: Path, path: Path) -> None:
    assert sum(damage(layout, folder, path, change_record)) < NUM_CASES / 2


def random_tensor(draw: random.Random) -> Tensor:
    """Of any type, and of a shape that suits images, labels or neither."""
    shape = [draw.choice([0, 1, 4, 12]), draw.choice([1, 3, 4, 12]), draw.choice([1, 8]), draw.choice([1, 8])]
    dtype = draw.choice([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
    scale = draw.choice([0.0, 1e-3, 1.0, 255.0, 1e30])
    generator = torch.Generator().manual_seed(draw.randrange(1000))
    values = torch.randn(shape[: draw.randrange(5)], generator=generator) * scale
    return values.to(dtype)


def change_value(value: Any, draw: random.Random) -> Any:
    """Another value in place of a tensor, a name or a dictionary."""
    if isinstance(value, dict) and draw.random() < 0.9:
        key = draw.choice(list(value))
        return value | {key: change_value(value[key], draw)}
    if isinstance(value, Tensor) and draw.random() < 0.6:
        extreme = draw.choice([torch.nan, torch.inf, -1.0, 0.0, 1e9])
        changes: list[Callable[[Tensor], Tensor]] = [
            lambda t: t.double() * 1.1,
            lambda t: t.half(),
            lambda t: t.long(),
            lambda t: t.flip(0),
            lambda t: t[:-1] if t.ndim else t,
            lambda t: t.unsqueeze(draw.randrange(t.ndim + 1)),
            lambda t: t.flatten(),
            lambda t: t.masked_fill(t == t.flatten()[0], extreme) if t.is_floating_point() else -t,
            lambda t: t.expand(2, *t.shape),
            lambda t: t.to_sparse() if t.ndim else t,
            lambda t: t.sigmoid(),
        ]
        return draw.choice(changes)(value)
    return draw.choice([None, 7, "cifar100", [value], {"data": value}, (), random_tensor(draw), 1e400])


def change_contents(data: bytes, draw: random.Random) -> bytes:
    """A sound torch file of other contents."""
    stream = io.BytesIO()
    torch.save(change_value(torch.load(io.BytesIO(data), weights_only=True), draw), stream)
    return stream.getvalue()


@torch_layouts
def test_other_contents_are_read_or_refused(layout: str, folder: Path, path: Path) -> None:
    assert sum(damage(layout, folder, path, change_contents)) < NUM_CASES / 2


def test_files_that_changed_places_are_refused(tmp_path: Path) -> None:
    path = write("datm", tmp_path)
    names = ["images_best.pt", "labels_best.pt", "lr_best.pt"]
    originals = {name: (path / name).read_bytes() for name in names}
    for order in ([1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1], [0, 0, 2], [0, 1, 1], [1, 1, 2]):
        for name, index in zip(names, order, strict=True):
            (path / name).write_bytes(originals[names[index]])
        assert not read_or_refuse(DATMReader(), path, tmp_path, None)


def test_readers_refuse_the_files_of_each_other(tmp_path: Path) -> None:
    paths = {layout: write(layout, tmp_path / layout) for layout in LAYOUTS}
    for layout, readers in LAYOUTS.items():
        for other, path in paths.items():
            if layout.partition("-")[0] != other.partition("-")[0]:
                assert not read_or_refuse(readers[0], path, tmp_path, None)


def test_missing_files_are_refused(layout: str, folder: Path, path: Path) -> None:
    for file, data in contents(folder).items():
        file.unlink()
        for target in (path, file, folder):
            assert not read_or_refuse(LAYOUTS[layout][0], target, folder, None)
        file.write_bytes(data)
