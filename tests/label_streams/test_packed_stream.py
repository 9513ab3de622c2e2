import contextlib
import hashlib
import json
import os
import pickle
import random
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fkd_folders import Kind, all_batches, batch_path, is_same, make_dataset, write_fkd
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gift_cl.codecs import build_codec
from gift_cl.errors import DamagedFileError, LayoutError, ReadError
from gift_cl.label_streams import (
    Cutmix,
    FKDStream,
    LabelStream,
    Mixup,
    StreamBatch,
    StreamFacts,
    StreamShape,
    open_stream,
    pack_stream,
    verify_stream,
)
from gift_cl.label_streams.stream import labels_sha256

DATASET = make_dataset()
Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.fixture
def stream(tmp_path: Path) -> FKDStream:
    write_fkd(tmp_path / "labels", DATASET)
    return FKDStream.open(tmp_path / "labels", DATASET)


@pytest.fixture
def packed(tmp_path: Path, stream: FKDStream) -> Path:
    pack_stream(stream, tmp_path / "out" / "packed", dataset=DATASET)
    return tmp_path / "out" / "packed"


def is_equal(first: LabelStream, second: LabelStream) -> bool:
    pairs = zip(all_batches(first), all_batches(second), strict=True)
    return first.shape == second.shape and all(is_same(*pair) for pair in pairs)


def refused(path: Path, message: str, *, when_opened: bool = True) -> None:
    """The file is refused with an error that names it and the cure, and nothing is written."""
    before = sorted(os.listdir(path.parent))
    with pytest.raises(DamagedFileError, match=message) as caught:
        open_stream(path) if when_opened else verify_stream(path)
    assert str(caught.value).startswith(f"Cannot read `{path}` as a packed stream of soft labels: ")
    assert str(caught.value).endswith(". Get the file again, or write it again with `pack_stream`.")
    assert sorted(os.listdir(path.parent)) == before


# What is in a packed stream


class Memory:
    """A stream of batches in memory."""

    def __init__(self, batches: list[list[StreamBatch]], num_classes: int, size: int) -> None:
        images = sum(len(batch) for batch in batches[0])
        self.dataset = make_dataset(num_classes=num_classes, per_class=-(-images // num_classes))
        self.dataset = self.dataset.select(torch.arange(images))
        self.batches = batches
        self.shape = StreamShape(len(batches), images, num_classes, len(batches[0][0]), size)
        self.facts = StreamFacts(
            source='made for a "test" über Nacht',
            order="given",
            seed=None,
            agreement=0.75,
            chance=1 / 3,
            rows_compared=images,
            labels_sha256=labels_sha256(self.dataset),
        )
        self.nbytes = 0

    def batch(self, epoch: int, number: int) -> StreamBatch:
        return self.batches[epoch][number]

    def source_sha256(self, epoch: int, number: int) -> bytes:
        return hashlib.sha256(f"{epoch} {number}".encode()).digest()


@st.composite
def streams(draw: st.DrawFn) -> Memory:
    """Streams of all shapes and values, the extreme ones too."""
    num_images, num_classes = draw(st.integers(1, 20)), draw(st.integers(1, 7))
    batch_size, size = draw(st.integers(1, num_images)), draw(st.sampled_from([1, 8, 224, 32767]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    halves = st.floats(-65504, 65504, width=16)
    unit = st.floats(0, 1)
    epochs = []
    for _ in range(draw(st.integers(1, 3))):
        order, batches = torch.from_numpy(rng.permutation(num_images)), []
        for indices in order.split(batch_size):
            rows = len(indices)
            partner = torch.from_numpy(rng.integers(0, rows, rows))
            top, bottom = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            box = (top, 0, bottom, draw(st.integers(0, size)))
            mix = draw(st.sampled_from([None, Mixup(partner, draw(unit)), Cutmix(partner, draw(unit), box)]))
            start = rng.random((rows, 2), dtype=np.float32) * np.float32(0.5)
            coords = np.hstack([start, np.float32(0.5) * (1 - rng.random((rows, 2), dtype=np.float32))])
            logits = rng.normal(size=(rows, num_classes))
            logits.flat[0] = draw(halves)
            batches.append(
                StreamBatch(
                    torch.from_numpy(coords),
                    torch.from_numpy(rng.random(rows) < 0.5),
                    mix,
                    torch.from_numpy(logits).half(),
                    indices,
                )
            )
        epochs.append(batches)
    return Memory(epochs, num_classes, size)


@given(streams())
@settings(max_examples=60, deadline=None)
def test_every_stream_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, stream: Memory) -> None:
    path = tmp_path_factory.mktemp("round") / "packed"
    pack_stream(stream, path, dataset=stream.dataset)
    found = open_stream(path)
    assert is_equal(found, stream)
    assert replace(found.facts, pixels_sha256=None) == stream.facts
    for epoch, batches in enumerate(stream.batches):
        for number in range(len(batches)):
            assert found.source_sha256(epoch, number) == stream.source_sha256(epoch, number)
    verify_stream(path, dataset=stream.dataset)


@given(
    kind=st.sampled_from(["none", "mixup", "cutmix"]),
    has_indices=st.booleans(),
    draws=st.sampled_from([1, 2]),
    epochs=st.integers(1, 3),
    batch_size=st.integers(7, 60),
    num_classes=st.integers(4, 7),
)
@settings(max_examples=15, deadline=None)
def test_published_folders_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Kind,
    has_indices: bool,
    draws: int,
    epochs: int,
    batch_size: int,
    num_classes: int,
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    dataset = make_dataset(num_classes=num_classes, per_class=12)
    write_fkd(
        folder / "labels",
        dataset,
        epochs=epochs,
        batch_size=batch_size,
        kind=kind,
        has_indices=has_indices,
        draws=draws,
    )
    stream = FKDStream.open(folder / "labels", dataset)
    pack_stream(stream, folder / "packed", dataset=dataset)
    found = open_stream(folder / "packed")
    assert is_equal(found, stream)
    assert replace(found.facts, pixels_sha256=None) == stream.facts


def test_a_packed_stream_knows_its_images_and_its_files(stream: FKDStream, packed: Path) -> None:
    found = open_stream(packed)
    assert found.facts.labels_sha256 == stream.facts.labels_sha256
    assert found.facts.pixels_sha256 == hashlib.sha256(DATASET.images.numpy().tobytes()).hexdigest()
    published = batch_path(stream.files.root, 1, 2).read_bytes()
    assert found.source_sha256(1, 2) == hashlib.sha256(published).digest()
    assert found.nbytes == packed.stat().st_size


def test_hash_of_pixels_does_not_depend_on_a_codec_without_loss(stream: FKDStream, packed: Path) -> None:
    encoded = build_codec("png").encode(DATASET.images)
    verify_stream(packed, dataset=replace(DATASET, encoded=encoded))


def test_equal_streams_are_equal_bytes(stream: FKDStream, packed: Path) -> None:
    data = packed.read_bytes()
    pack_stream(stream, packed, dataset=DATASET)
    assert packed.read_bytes() == data


def test_a_packed_stream_packs_to_itself(packed: Path, tmp_path: Path) -> None:
    pack_stream(open_stream(packed), tmp_path / "again", dataset=DATASET)
    assert (tmp_path / "again").read_bytes() == packed.read_bytes()


def test_only_the_first_epochs_are_packed_if_asked(stream: FKDStream, tmp_path: Path) -> None:
    pack_stream(stream, tmp_path / "one", dataset=DATASET, epochs=1)
    found = open_stream(tmp_path / "one")
    assert found.shape == replace(stream.shape, num_epochs=1)
    assert all(is_same(found.batch(0, number), stream.batch(0, number)) for number in range(3))
    for epochs in (0, 3):
        with pytest.raises(ValueError, match=rf"`epochs` in \[1, 2\], got {epochs}"):
            pack_stream(stream, tmp_path / "none", dataset=DATASET, epochs=epochs)
    assert not (tmp_path / "none").exists()


def test_progress_counts_batches_and_epochs(stream: FKDStream, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = tmp_path / "packed"
    pack_stream(stream, path, dataset=DATASET, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
    calls.clear()
    verify_stream(path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_a_packed_stream_goes_to_another_process_by_its_name(packed: Path) -> None:
    stream = open_stream(packed)
    data = pickle.dumps(stream)
    assert len(data) < 500
    assert is_equal(pickle.loads(data), stream)


def test_a_batch_does_not_depend_on_the_file(packed: Path) -> None:
    batch = open_stream(packed).batch(0, 0)
    before = batch.logits.clone()
    with open(packed, "r+b") as file:
        file.write(bytes(packed.stat().st_size))
    assert torch.equal(batch.logits, before)


@pytest.mark.parametrize(("epoch", "number", "name"), [(2, 0, "epoch"), (0, 3, "number"), (0, -1, "number")])
def test_a_batch_that_is_not_there_is_named(packed: Path, epoch: int, number: int, name: str) -> None:
    stream = open_stream(packed)
    for ask in (stream.batch, stream.source_sha256):
        with pytest.raises(ValueError, match=f"Expected `{name}`"):
            ask(epoch, number)


# How a packed stream is written


class Endless:
    """A stream of any size that makes its batches as they are asked for, and sees whether they are kept."""

    def __init__(self, epochs: int, num_images: int, num_classes: int, batch_size: int) -> None:
        self.dataset = make_dataset(num_classes=num_classes, per_class=num_images // num_classes)
        self.shape = StreamShape(epochs, num_images, num_classes, batch_size, 8)
        self.facts = StreamFacts(
            source="nowhere",
            order="given",
            seed=None,
            agreement=1.0,
            chance=0.0,
            rows_compared=0,
            labels_sha256=labels_sha256(self.dataset),
        )
        self.nbytes = 0
        self.alive: list[weakref.ref[StreamBatch]] = []

    def batch(self, epoch: int, number: int) -> StreamBatch:
        self.alive = [ref for ref in self.alive if ref() is not None]
        assert len(self.alive) <= 1
        rows = self.shape.rows(number)
        indices = torch.arange(rows.start, rows.stop)
        batch = StreamBatch(
            coords=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(indices), 1),
            flips=torch.zeros(len(indices), dtype=torch.bool),
            mix=None,
            logits=torch.full((len(indices), self.shape.num_classes), float(epoch)).half(),
            indices=indices,
        )
        self.alive.append(weakref.ref(batch))
        return batch

    def source_sha256(self, epoch: int, number: int) -> bytes:
        return bytes(32)


def test_packing_holds_one_batch_at_a_time(tmp_path: Path) -> None:
    stream = Endless(epochs=20, num_images=1000, num_classes=500, batch_size=100)
    tracemalloc.start()
    try:
        pack_stream(stream, tmp_path / "packed", dataset=stream.dataset)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "packed").stat().st_size > 20_000_000
    assert peak < 2_000_000  # Python's and numpy's; torch's batches are counted by the stream itself
    assert float(open_stream(tmp_path / "packed").batch(13, 7).logits.mean()) == 13


def test_opening_and_reading_a_batch_leave_the_rest_in_the_file(tmp_path: Path) -> None:
    stream = Endless(epochs=20, num_images=1000, num_classes=500, batch_size=100)
    path = tmp_path / "packed"
    pack_stream(stream, path, dataset=stream.dataset)
    before = resident_bytes()
    opened = open_stream(path)
    opened.batch(13, 7)
    assert resident_bytes() - before < 5_000_000
    assert opened.tensors["logits"].numel() == 10_000_000


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stream_that_fails_half_way_leaves_the_old_file(
    tmp_path: Path, stream: FKDStream, packed: Path
) -> None:
    data = packed.read_bytes()
    batch_path(stream.files.root, 1, 2).write_bytes(b"damaged")
    with pytest.raises(DamagedFileError, match="epoch_1/batch_2.tar"):
        pack_stream(stream, packed, dataset=DATASET)
    assert packed.read_bytes() == data
    assert os.listdir(packed.parent) == [packed.name]


def test_an_epoch_with_an_image_twice_is_not_packed(tmp_path: Path) -> None:
    (_, files) = write_fkd(tmp_path / "labels", DATASET, has_indices=True)
    stream = FKDStream.open(tmp_path / "labels", DATASET)
    files[1][6] = files[0][6]
    torch.save(files[1], batch_path(tmp_path / "labels", 1, 1))
    with pytest.raises(LayoutError, match=r"Epoch 1 of FKD files of `labels` does not fit together"):
        pack_stream(stream, tmp_path / "packed", dataset=DATASET)
    assert not (tmp_path / "packed").exists()


def test_another_data_set_is_not_packed_with_it(tmp_path: Path, stream: FKDStream) -> None:
    with pytest.raises(ValueError, match="got one with other labels"):
        pack_stream(stream, tmp_path / "packed", dataset=make_dataset(per_class=5))


# The format, as another program writes and reads it


def read_raw(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["gift_cl"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    del header["sha256"]
    return header, tensors


def seal(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    metadata = {"gift_cl": json.dumps(header | {"sha256": digest})}
    save_file(tensors, path, metadata=metadata)


def write_raw(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    described = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(tensor.numpy().tobytes()).hexdigest(),
        }
        for name, tensor in tensors.items()
    }
    seal(path, header | {"tensors": described}, tensors)


def test_the_file_is_what_its_format_says(stream: FKDStream, packed: Path) -> None:
    header, tensors = read_raw(packed)
    assert header["format"] == "gift-cl-stream/1"
    assert header["shape"] == {
        "num_epochs": 2,
        "num_images": 20,
        "num_classes": 5,
        "batch_size": 8,
        "size": 8,
    }
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "lam": (torch.float64, (2, 3)),
        "coords": (torch.float32, (2, 20, 4)),
        "indices": (torch.int32, (2, 20)),
        "partners": (torch.int32, (2, 20)),
        "logits": (torch.float16, (2, 20, 5)),
        "boxes": (torch.int16, (2, 3, 4)),
        "flips": (torch.uint8, (2, 20)),
        "kinds": (torch.uint8, (2, 3)),
        "sources": (torch.uint8, (2, 3, 32)),
    }
    batch = stream.batch(1, 2)  # the last four rows
    assert torch.equal(tensors["logits"][1, 16:], batch.logits)
    assert torch.equal(tensors["indices"][1, 16:].long(), batch.indices)
    assert isinstance(batch.mix, Cutmix)
    assert (int(tensors["kinds"][1, 2]), float(tensors["lam"][1, 2])) == (2, batch.mix.lam)
    assert tuple(tensors["boxes"][1, 2].tolist()) == batch.mix.box
    assert torch.equal(tensors["partners"][1, 16:].long(), batch.mix.partner)


def test_tensors_are_aligned_in_the_file(packed: Path) -> None:
    data = packed.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    width = {"F64": 8, "F32": 4, "I32": 4, "F16": 2, "I16": 2, "U8": 1}
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    assert all(entry["data_offsets"][0] % width[entry["dtype"]] == 0 for entry in entries)
    assert max(entry["data_offsets"][1] for entry in entries) == len(data) - 8 - length


def test_a_file_of_another_program_is_read(stream: FKDStream, packed: Path) -> None:
    header, tensors = read_raw(packed)
    write_raw(packed, header, tensors)
    assert is_equal(open_stream(packed), stream)
    verify_stream(packed, dataset=DATASET)


def test_values_of_unmixed_batches_are_not_read(tmp_path: Path) -> None:
    write_fkd(tmp_path / "labels", DATASET, kind="none")
    stream, path = FKDStream.open(tmp_path / "labels", DATASET), tmp_path / "packed"
    pack_stream(stream, path, dataset=DATASET)
    header, tensors = read_raw(path)
    tensors["lam"][:], tensors["partners"][:], tensors["boxes"][:] = float("nan"), -1, -1
    write_raw(path, header, tensors)
    assert is_equal(open_stream(path), stream)


# Damage


def test_flipped_bytes_are_noticed_wherever_they_are(packed: Path, stream: FKDStream) -> None:
    data = packed.read_bytes()
    harmless = 0
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x01
        packed.write_bytes(changed)
        try:
            verify_stream(packed, dataset=DATASET)
            assert is_equal(open_stream(packed), stream), place
            harmless += 1
        except DamagedFileError:
            pass
    assert harmless < 3  # white space that pads the header


def test_random_damage_is_noticed_or_harmless(packed: Path, stream: FKDStream) -> None:
    data, chooser = packed.read_bytes(), random.Random(0)
    for _ in range(300):
        changed, place = bytearray(data), chooser.randrange(len(data))
        length = chooser.choice([1, 2, 8, 64])
        match chooser.randrange(6):
            case 0:
                changed[place : place + length] = chooser.randbytes(length)
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = chooser.randbytes(length)
            case 3:
                del changed[place:]
            case 4:  # digits of shapes, offsets and numbers
                digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
                changed[chooser.choice(digits)] = chooser.randrange(48, 58)
            case _:
                other = chooser.randrange(len(data) - length)
                changed[place : place + length] = data[other : other + length]
        packed.write_bytes(changed)
        with contextlib.suppress(DamagedFileError):
            verify_stream(packed)
            assert is_equal(open_stream(packed), stream)
        with contextlib.suppress(ReadError):
            all_batches(open_stream(packed))
    assert os.listdir(packed.parent) == [packed.name]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_at_once(packed: Path, share: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(share * len(data))])
    refused(packed, "Cannot read")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"PK\x03\x04", b"{}", b"\x02" + bytes(7) + b"{}"])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    refused(tmp_path / "file", "Cannot read")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=f"No packed stream of soft labels at `{path}`"):
            open_stream(path)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"gift_cl": ""}, {"gift_cl": "[]"}, {"gift_cl": '{"format": 1}'}, {"gift_cl": "[" * 100_000}],
)
def test_tensors_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"logits": torch.zeros(3)}, tmp_path / "file", metadata=metadata)
    refused(tmp_path / "file", "Cannot read")


def drop(name: str) -> Change:
    return lambda header, tensors: tensors.pop(name)


def put(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda header, tensors: tensors.update({name: change(tensors[name])})


def say(part: str, **values: Any) -> Change:
    return lambda header, tensors: header[part].update(values)


AT_ONCE: dict[str, tuple[Change, str]] = {
    "another version": (lambda h, t: h.update(format="gift-cl-stream/2"), "do not say `gift-cl-stream/1`"),
    "no shape": (lambda h, t: h.pop("shape"), "'shape'"),
    "no facts": (lambda h, t: h.pop("facts"), "'facts'"),
    "facts in words": (lambda h, t: h.update(facts="none"), "string indices"),
    "more epochs": (say("shape", num_epochs=3), "the shape or type of `lam` does not agree"),
    "infinitely many epochs": (say("shape", num_epochs=float("inf")), "not of whole numbers"),
    "yes images": (say("shape", num_images=True), "not of whole numbers"),
    "no classes": (say("shape", num_classes=0), "`num_classes` in"),
    "other batches": (say("shape", batch_size=5), "the shape or type of `lam` does not agree"),
    "no batches": (say("shape", batch_size=0), "`batch_size` in"),
    "enormous": (say("shape", num_epochs=2**31 - 1, num_images=2**31 - 1), "the shape or type of"),
    "another order": (say("facts", order="by name"), "its order is 'by name'"),
    "seed in words": (say("facts", seed="s"), "invalid literal"),
    "agreement in words": (say("facts", agreement="all"), "could not convert"),
    "no logits": (drop("logits"), "it should hold .*'logits'.* and holds"),
    "more tensors": (lambda h, t: t.update(more=torch.zeros(1)), "and holds .*'more'"),
    "wide logits": (put("logits", lambda t: t.float()), "the shape or type of `logits`"),
    "flips as bool": (put("flips", lambda t: t.bool()), "the shape or type of `flips`"),
    "flat coords": (put("coords", lambda t: t.flatten()), "the shape or type of `coords`"),
}


@pytest.mark.parametrize(("change", "message"), AT_ONCE.values(), ids=AT_ONCE)
def test_a_file_whose_parts_do_not_fit_is_refused_at_once(packed: Path, change: Change, message: str) -> None:
    header, tensors = read_raw(packed)
    change(header, tensors)
    write_raw(packed, header, tensors)
    refused(packed, message)


@pytest.mark.parametrize("name", ["lam", "boxes", "kinds", "sources"])
def test_changed_entries_of_batches_are_noticed_at_once(packed: Path, name: str) -> None:
    header, tensors = read_raw(packed)
    tensors[name] += 1
    seal(packed, header, tensors)
    refused(packed, f"the hash of `{name}` does not agree")


@pytest.mark.parametrize("name", ["coords", "indices", "partners", "logits", "flips"])
def test_changed_entries_of_rows_are_noticed_when_all_is_verified(packed: Path, name: str) -> None:
    header, tensors = read_raw(packed)
    tensors[name] = tensors[name].flip(0)
    seal(packed, header, tensors)
    open_stream(packed)
    refused(packed, f"the hash of `{name}` does not agree|batch|epoch", when_opened=False)


def test_metadata_without_their_hash_are_refused(packed: Path) -> None:
    header, tensors = read_raw(packed)
    save_file(tensors, packed, metadata={"gift_cl": json.dumps(header)})
    refused(packed, "the hash of its metadata does not agree")


def fill(name: str, value: float) -> Change:
    return put(name, lambda t: t.index_fill(0, torch.tensor([1]), value))


WHEN_READ: dict[str, tuple[Change, str]] = {
    "coords NaN": (fill("coords", float("nan")), "batch 0 of epoch 1: Expected `coords` in"),
    "crops outside": (fill("coords", 0.75), "ends at 1.5"),
    "images beyond": (
        put("indices", lambda t: t + 20),
        r"batch 0 of epoch 0: Expected `indices` in \[0, 20\)",
    ),
    "an image twice": (fill("indices", 3), "batch 0 of epoch 1: .*one twice"),
    "images below": (fill("indices", -1), "batch 0 of epoch 1: .*one twice or a negative"),
    "partners beyond": (put("partners", lambda t: t + 8), r"`mix.partner` in \[0, 8\)"),
    "logits NaN": (fill("logits", float("nan")), "finite `logits`"),
    "flips of 2": (fill("flips", 2), "`flips` of 0 and 1"),
    "kinds of 3": (fill("kinds", 3), "`kinds` of 0, 1 or 2, got 3"),
    "lam NaN": (fill("lam", float("nan")), r"`lam` in \[0, 1\]"),
    "boxes inverted": (put("boxes", lambda t: t.flip(2) + torch.tensor([0, 1, 0, 0]).short()), "`box` as"),
    "boxes beyond": (fill("boxes", 9), "`box` inside views of 8 x 8"),
}


@pytest.mark.parametrize(("change", "message"), WHEN_READ.values(), ids=WHEN_READ)
def test_values_that_cannot_be_are_refused_when_they_are_read(
    packed: Path, change: Change, message: str
) -> None:
    header, tensors = read_raw(packed)
    change(header, tensors)
    write_raw(packed, header, tensors)
    stream = open_stream(packed)
    with pytest.raises(DamagedFileError, match=message):
        all_batches(stream)
    refused(packed, message, when_opened=False)


def test_an_image_in_two_batches_of_an_epoch_is_refused_when_all_is_verified(packed: Path) -> None:
    header, tensors = read_raw(packed)
    tensors["indices"][1, :8] = tensors["indices"][1, 8:16]
    write_raw(packed, header, tensors)
    refused(packed, r"epoch 1: Expected `indices` with every image once", when_opened=False)


@pytest.mark.parametrize(
    "other", [make_dataset(seed=1), DATASET.reordered([1, 0, 2, 3, 4])], ids=["pixels", "labels"]
)
def test_other_images_are_refused_when_all_is_verified(packed: Path, other: Any) -> None:
    with pytest.raises(LayoutError, match="Expected the images that .* was packed for, got others"):
        verify_stream(packed, dataset=other)
