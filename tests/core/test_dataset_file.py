import contextlib
import hashlib
import json
import os
import pickle
import random
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.dataset_file import load_dataset, open_dataset, save_dataset
from gift_cl.errors import DamagedFileError
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels

CODECS = (
    "raw",
    "png",
    "jpeg:75",
    "webp:75",
    "webp:lossless",
    "quantize:3",
    "downscale:2",
    "downscale:4,bits=5",
)
PROVENANCE = Provenance(
    method="rded:factor=2",
    source='ten "digits" and Ziffern',
    teacher="ConvNet",
    teacher_classes=(2, 0, 1),
    oracle=True,
    hashes={"train.bin": "ab" * 32},
)
Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def make(
    codec: str = "webp:75",
    *,
    shape: tuple[int, int, int] = (1, 8, 8),
    count: int = 5,
    num_classes: int = 4,
    num_views: int = 2,
    has_soft: bool = True,
    has_views: bool = True,
    is_described: bool = True,
    seed: int = 0,
) -> DistilledDataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    dataset = DistilledDataset.from_images(
        images,
        labels,
        num_classes=num_classes,
        codec=codec,
        factor=2 if is_described else 1,
        normalization=Normalization((0.1, 1 / 3), (0.2, 1e-7)) if is_described else None,
        provenance=PROVENANCE if is_described else None,
    )
    if not has_soft:
        return dataset
    logits = torch.randn(count, num_views, num_classes, generator=generator)
    covered = {int(c): tuple(range(num_classes - 1, int(c) - 1, -1)) for c in labels}
    views = torch.randint(-128, 128, (count, num_views, 3), generator=generator).to(torch.int8)
    soft = SoftLabels.from_logits(logits, labels, covered, views=views if has_views else None)
    return replace(dataset, soft_labels=soft)


def is_same(first: DistilledDataset, second: DistilledDataset) -> bool:
    """Whether every bit is equal; compared here, because the class compares objects."""

    def parts(dataset: DistilledDataset) -> tuple[list[Tensor | None], list[object]]:
        encoded, soft = dataset.encoded, dataset.soft_labels
        tensors = [encoded.payload, encoded.lengths, encoded.shared, dataset.labels]
        facts: list[object] = [encoded.codec, encoded.image_shape, len(encoded), dataset.num_classes]
        facts += [dataset.factor, dataset.normalization, dataset.provenance, soft is None]
        facts += [dataset.space, dataset.learned_lr, dataset.class_names]
        if soft is not None:
            tensors += [soft.values, soft.views]
            facts += [dict(soft.covered), soft.num_views]
        return tensors, facts

    (tensors, facts), (others, other_facts) = parts(first), parts(second)
    if facts != other_facts or len(tensors) != len(others):
        return False
    for a, b in zip(tensors, others, strict=True):
        if (a is None) != (b is None):
            return False
        if a is not None and b is not None and not (a.dtype == b.dtype and torch.equal(a, b)):
            return False
    return True


def read_raw(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header: dict[str, Any] = json.loads(file.metadata()["gift_cl"])
        del header["sha256"]
        return header, tensors


def write_header(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    save_file(tensors, path, metadata={"gift_cl": json.dumps({"sha256": digest, **header})})


def write_raw(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a file with correct hashes, whatever it says: an independent writer of the format."""
    header["tensors"] = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(
                bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
            ).hexdigest(),
        }
        for name, tensor in tensors.items()
    }
    write_header(path, header, tensors)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "memory.safetensors"
    save_dataset(make(), path)
    return path


@settings(max_examples=80, deadline=None)
@given(
    codec=st.sampled_from(CODECS),
    shape=st.tuples(st.sampled_from([1, 3]), st.sampled_from([4, 8, 12]), st.sampled_from([4, 8])),
    count=st.integers(0, 6),
    num_classes=st.sampled_from([1, 2, 5, 256, 257, 300]),
    num_views=st.integers(1, 3),
    has_soft=st.booleans(),
    has_views=st.booleans(),
    is_described=st.booleans(),
    seed=st.integers(0, 100),
)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, **options: Any) -> None:
    dataset = make(options.pop("codec"), **options)
    path = tmp_path_factory.mktemp("saved") / "memory.safetensors"
    save_dataset(dataset, path)
    loaded = load_dataset(path)
    assert is_same(dataset, loaded)
    assert torch.equal(dataset.images, loaded.images)
    assert dataset.ledger() == loaded.ledger()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_classes", [4, 256, 257])
def test_a_file_holds_as_many_bytes_as_the_ledger_says(tmp_path: Path, codec: str, num_classes: int) -> None:
    dataset = make(codec, num_classes=num_classes)
    save_dataset(dataset, tmp_path / "file")
    _, tensors = read_raw(tmp_path / "file")
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    ledger = dataset.ledger()
    assert sizes["pixels"] + sizes["shared"] + sizes.get("lengths", 0) == ledger.pixels
    assert sizes["labels"] == ledger.labels
    table = len(dataset.classes) * -(-num_classes // 8)  # a list in the metadata
    assert sizes["soft_labels"] + sizes["views"] + table == ledger.soft_labels


def test_what_is_loaded_is_saved_as_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_dataset(load_dataset(saved), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_the_format_is_what_an_independent_writer_writes(saved: Path, tmp_path: Path) -> None:
    header, tensors = read_raw(saved)
    assert header["format"] == "gift-cl/2"
    assert {name: str(tensor.dtype) for name, tensor in tensors.items()} == {
        "pixels": "torch.uint8",
        "shared": "torch.uint8",
        "lengths": "torch.uint16",
        "labels": "torch.uint8",
        "soft_labels": "torch.float16",
        "views": "torch.int8",
    }
    write_raw(tmp_path / "other", header, tensors)
    assert is_same(load_dataset(tmp_path / "other"), make())


def test_what_is_loaded_does_not_depend_on_the_file(saved: Path) -> None:
    dataset = load_dataset(saved)
    saved.write_bytes(bytes(saved.stat().st_size))
    assert is_same(dataset, make())


def test_loading_writes_nothing(saved: Path) -> None:
    before = saved.read_bytes(), saved.stat().st_mtime_ns
    load_dataset(saved)
    assert (saved.read_bytes(), saved.stat().st_mtime_ns) == before
    assert os.listdir(saved.parent) == [saved.name]


def test_ten_thousand_images_are_saved_and_loaded_in_seconds(tmp_path: Path) -> None:
    dataset = DistilledDataset.from_images(
        torch.zeros(10_000, 3, 32, 32, dtype=torch.uint8), torch.arange(10_000) % 100, num_classes=100
    )
    start = time.perf_counter()
    save_dataset(dataset, tmp_path / "large")
    load_dataset(tmp_path / "large")
    assert time.perf_counter() - start < 10  # 0.2 s on two idle cores


def refused(path: Path, match: str) -> None:
    before = sorted(os.listdir(path.parent))
    with pytest.raises(DamagedFileError, match=match) as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)
    assert "write it again with `save_dataset`" in str(caught.value)
    assert sorted(os.listdir(path.parent)) == before


@pytest.mark.parametrize("start", [0, 1])
def test_flipped_bytes_are_noticed_wherever_they_are(saved: Path, start: int) -> None:
    data, dataset = saved.read_bytes(), make()
    harmless = 0
    for position in range(start, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0x01
        saved.write_bytes(changed)
        try:
            assert is_same(load_dataset(saved), dataset), position
            harmless += 1
        except DamagedFileError:
            pass
    assert harmless < 8  # white space that pads the header


def test_random_damage_is_noticed_or_harmless(saved: Path) -> None:
    data, dataset = saved.read_bytes(), make()
    chooser = random.Random(0)
    for _ in range(600):
        changed, position = bytearray(data), chooser.randrange(len(data))
        length = chooser.choice([1, 2, 8, 64])
        match chooser.randrange(6):
            case 0:
                changed[position : position + length] = chooser.randbytes(length)
            case 1:
                del changed[position : position + length]
            case 2:
                changed[position:position] = chooser.randbytes(length)
            case 3:
                del changed[position:]
            case 4:  # digits of shapes, offsets and numbers
                digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
                changed[chooser.choice(digits)] = chooser.randrange(48, 58)
            case _:
                other = chooser.randrange(len(data) - length)
                changed[position : position + length] = data[other : other + length]
        saved.write_bytes(changed)
        with contextlib.suppress(DamagedFileError):
            assert is_same(load_dataset(saved), dataset)
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    refused(saved, "Cannot read")


class Explosive:
    """What a pickle could do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "memory.safetensors"
    path.write_bytes(pickle.dumps(Explosive(tmp_path / "exploded")))
    refused(path, "Cannot read")
    torch.save({"pixels": torch.zeros(3)}, path)
    refused(path, "Cannot read")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"PK\x03\x04", b"{}", b"\x02" + bytes(7) + b"{}"])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    refused(path, "Cannot read")


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"gift_cl": ""}, {"gift_cl": "[]"}, {"gift_cl": '{"format": 1}'}, {"gift_cl": "[" * 100_000}],
)
def test_tensors_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"pixels": torch.zeros(3)}, tmp_path / "file", metadata=metadata)
    refused(tmp_path / "file", "Cannot read")


def test_another_version_of_the_format_is_refused(saved: Path) -> None:
    header, tensors = read_raw(saved)
    write_raw(saved, header | {"format": "gift-cl/3"}, tensors)
    refused(saved, "its metadata do not say `gift-cl/2`")


def test_a_file_of_the_first_version_is_read(saved: Path) -> None:
    header, tensors = read_raw(saved)
    for name in ("space", "learned_lr", "class_names"):
        del header[name]
    write_raw(saved, header | {"format": "gift-cl/1"}, tensors)
    assert is_same(load_dataset(saved), make())


def test_whitened_images_and_what_was_learned_with_them_are_kept(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images, logits = torch.randn(4, 3, 5, 7, generator=generator), torch.randn(4, 1, 2, generator=generator)
    labels = torch.tensor([0, 0, 1, 1])
    covered = {0: (0, 1), 1: (0, 1)}
    dataset = DistilledDataset(
        encoded=build_codec("float32").encode(images),
        labels=labels,
        num_classes=2,
        soft_labels=SoftLabels.from_logits(logits, labels, covered, dtype=torch.float32),
        space="zca",
        learned_lr=0.1 + 0.2,
        class_names=("chat", "chien \u00e9"),
    )
    save_dataset(dataset, tmp_path / "file")
    for loaded in (load_dataset(tmp_path / "file"), open_dataset(tmp_path / "file")):
        assert is_same(loaded, dataset)
        assert torch.equal(loaded.images, images)
        assert loaded.soft_labels is not None
        assert torch.equal(loaded.soft_labels.dense(labels, (0, 1)), logits)
        assert dataset.ledger() == loaded.ledger()


@pytest.mark.parametrize("codec", ["raw", "float32", "webp:75", "quantize:3"])
def test_an_opened_data_set_is_the_loaded_one(tmp_path: Path, codec: str) -> None:
    images = torch.arange(5 * 192, dtype=torch.float32).view(5, 3, 8, 8).div(1000)
    pixels = images if codec == "float32" else (images * 255).to(torch.uint8)
    dataset = DistilledDataset(
        encoded=build_codec(codec).encode(pixels), labels=torch.tensor([4, 0, 1, 1, 2]), num_classes=5
    )
    save_dataset(dataset, tmp_path / "file")
    opened, chosen = open_dataset(tmp_path / "file"), torch.tensor([3, 0, 3])
    assert is_same(opened, dataset)
    assert torch.equal(opened.select(chosen).images, dataset.images[chosen])


def test_opening_reads_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = DistilledDataset.from_images(
        torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), torch.arange(1000) % 10, num_classes=10
    )
    save_dataset(dataset, tmp_path / "file")
    hashed = 0

    def count(data: bytes | memoryview) -> str:
        nonlocal hashed
        hashed += len(data)
        return hashlib.sha256(data).hexdigest()

    monkeypatch.setattr("gift_cl.sealed.sha256", count)
    open_dataset(tmp_path / "file")
    assert hashed < 10_000  # of 3 MB
    load_dataset(tmp_path / "file")
    assert hashed > 3_000_000


def test_damage_outside_the_images_is_noticed_when_a_file_is_opened(saved: Path) -> None:
    header, tensors = read_raw(saved)
    tensors["labels"] = tensors["labels"].flip(0)
    write_header(saved, header, tensors)
    with pytest.raises(DamagedFileError, match="hash, shape or type of `labels`"):
        open_dataset(saved)


def test_metadata_without_their_hash_are_refused(saved: Path) -> None:
    header, tensors = read_raw(saved)
    save_file(tensors, saved, metadata={"gift_cl": json.dumps(header)})
    refused(saved, "the hash of its metadata does not agree")


def test_a_file_says_which_tensor_is_damaged(saved: Path) -> None:
    header, tensors = read_raw(saved)
    tensors["labels"] = tensors["labels"].flip(0)
    write_header(saved, header, tensors)
    refused(saved, "the hash, shape or type of `labels` does not agree")


def drop(name: str) -> Change:
    return lambda header, tensors: tensors.__delitem__(name)


def put(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda header, tensors: tensors.update({name: change(tensors[name])})


def say(**values: Any) -> Change:
    return lambda header, tensors: header.update(values)


FORGERIES: dict[str, tuple[Change, str]] = {
    "no pixels": (drop("pixels"), "pixels"),
    "no shared": (drop("shared"), "shared"),
    "no labels": (drop("labels"), "labels"),
    "no soft labels": (drop("soft_labels"), "soft_labels"),
    "no lengths": (drop("lengths"), "equally long streams"),
    "short lengths": (put("lengths", lambda t: t[:-1]), "`lengths`"),
    "float lengths": (put("lengths", lambda t: t.float()), "torch.float32 in place of whole numbers"),
    "labels out of range": (put("labels", lambda t: t + 4), r"`labels` in \[0, 4\)"),
    "short labels": (put("labels", lambda t: t[:-1]), "`labels` of int64"),
    "float labels": (put("labels", lambda t: t.float()), "torch.float32 in place of whole numbers"),
    "flat views": (put("views", lambda t: t.flatten()), "views"),
    "other views": (put("views", lambda t: t[:2]), "`views` for 5 images"),
    "wide soft labels": (put("soft_labels", lambda t: t.double()), "float16"),
    "short soft labels": (put("soft_labels", lambda t: t[:-1]), "soft-label values"),
    "soft labels not finite": (put("soft_labels", lambda t: t * float("nan")), "NaN or infinite"),
    "wide pixels": (put("pixels", lambda t: t.int()), "`payload` of torch.uint8"),
    "other header of files": (put("shared", lambda t: t.flip(0)), "stored bytes are damaged"),
    "first image": (put("pixels", lambda t: t ^ 255), "stored bytes are damaged"),
    "unknown codec": (say(codec="gif"), "Unknown codec `gif`"),
    "other codec": (say(codec="png"), "stored bytes are damaged"),
    "other spelling": (say(codec="webp:quality=75"), "encoded by `webp:75`"),
    "no codec": (say(codec=None), "Unknown codec"),
    "other image shape": (say(image_shape=[1, 8, 9]), "stored bytes are damaged"),
    "flat image shape": (say(image_shape=[64]), "unpack"),
    "huge image shape": (say(image_shape=[3, 1 << 30, 1 << 30]), "stored bytes are damaged"),
    "image shape in words": (say(image_shape="188"), "'1' for a whole number"),
    "more images": (say(num_images=6), "`lengths`"),
    "infinitely many images": (say(num_images=float("inf")), "inf for a whole number"),
    "yes images": (say(num_images=True), "True for a whole number"),
    "few classes": (say(num_classes=1), r"in \[0, 1\)"),
    "no classes": (say(num_classes=0), "`num_classes` in"),
    "many classes": (say(num_classes=1 << 62), "`num_classes` in"),
    "no factor": (say(factor=0), "`factor` of at least 1"),
    "no covered classes": (say(covered={}), "soft labels for class"),
    "covered not said": (say(covered=None), "does not say of which classes"),
    "covered classes in a list": (say(covered=[1, 2]), "items"),
    "no views counted": (say(num_views=0), "`num_views` of at least 1"),
    "unusable normalisation": (say(normalization={"mean": [0.5], "std": [0]}), "positive `std`"),
    "normalisation in words": (say(normalization={"mean": ["a"], "std": [1]}), "could not convert"),
    "no normalisation": (say(normalization=3), "subscriptable"),
    "no provenance": (say(provenance=None), "subscriptable"),
    "provenance without method": (say(provenance={}), "method"),
}


@pytest.mark.parametrize(("change", "match"), FORGERIES.values(), ids=FORGERIES)
def test_a_file_whose_parts_do_not_fit_is_refused_though_its_hashes_agree(
    saved: Path, change: Change, match: str
) -> None:
    header, tensors = read_raw(saved)
    change(header, tensors)
    write_raw(saved, header, tensors)
    refused(saved, match)


def test_a_tensor_that_does_not_belong_is_refused(saved: Path) -> None:
    header, tensors = read_raw(saved)
    write_header(saved, header, tensors | {"more": torch.zeros(1)})
    refused(saved, "it should hold .* and holds .*'more'")


@pytest.mark.parametrize("name", ["format", "codec", "image_shape", "num_classes", "covered", "tensors"])
def test_a_missing_entry_is_refused(saved: Path, name: str) -> None:
    header, tensors = read_raw(saved)
    del header[name]
    if name == "tensors":
        write_header(saved, header, tensors)
    else:
        write_raw(saved, header, tensors)
    refused(saved, "Cannot read")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"No distilled data set at `{path}`"):
            load_dataset(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "regular").write_bytes(b"")
    with pytest.raises(OSError, match=f"Cannot write into `{tmp_path / 'regular'}`"):
        save_dataset(make(), tmp_path / "regular" / "memory.safetensors")


def test_a_save_that_fails_half_way_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        del tensors, metadata
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", write_half)
    with pytest.raises(OSError, match="No space left"):
        save_dataset(make("raw"), saved)
    assert os.listdir(saved.parent) == [saved.name]
    assert is_same(load_dataset(saved), make())


def test_a_disk_that_runs_full_is_said_and_the_old_file_stays(saved: Path) -> None:
    """The system's limit on the size of files stands for the disk."""
    before = saved.read_bytes()
    images = torch.zeros(40, 3, 64, 64, dtype=torch.uint8)
    large = DistilledDataset.from_images(images, torch.zeros(40, dtype=torch.int64), num_classes=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=rf"Cannot write `{saved}`: File too large\. Make space on its disk"
        ):
            save_dataset(large, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]
