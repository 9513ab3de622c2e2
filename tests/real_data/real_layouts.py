"""Small data sets in exactly the layouts in which large ones are published."""

from __future__ import annotations

import copyreg
import gzip
import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gift_cl.real_data import PUBLISHED


def make_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Let a published data set have fewer classes or images."""
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], **changes))


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_folder(
    root: Path, classes: Sequence[str], counts: Mapping[str, int], *, size: int = 8
) -> dict[str, np.ndarray]:
    """PNGs in ``<split>/<class>/<nnn>.png``; their pixels by that name."""
    written: dict[str, np.ndarray] = {}
    for split, count in counts.items():
        for name in classes:
            for index in range(count):
                file = f"{split}/{name}/{index:03d}.png"
                written[file] = make_pixels(size, size, 3, seed=len(written))
                save_image(root / file, written[file])
    return written


def zip_folder(folder: Path, path: Path, *, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(inside) / file.relative_to(folder))
    return path


def dump_as_python2(path: Path, entry: Mapping[str, Any]) -> None:
    """A pickle like CIFAR's: of protocol 2, with array types as old versions of numpy wrote them."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=2)
    old_dtype = (np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0))
    pickler.dispatch_table = {**copyreg.dispatch_table, type(np.dtype(np.uint8)): lambda _: old_dtype}
    pickler.dump(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Six and four images of three classes; torchvision is told their checksums. Arrays (N, 3072), labels."""
    from torchvision.datasets import CIFAR100

    folder = root / "cifar-100-python"
    parts = {
        "train": (make_pixels(6, 3072, seed=1), [2, 0, 1, 1, 0, 2]),
        "test": (make_pixels(4, 3072, seed=2), [1, 0, 2, 1]),
    }
    for split, (data, labels) in parts.items():
        dump_as_python2(folder / split, {"data": data, "fine_labels": labels, "coarse_labels": labels})
        sums = [[split, hashlib.md5((folder / split).read_bytes()).hexdigest()]]
        monkeypatch.setattr(CIFAR100, f"{split}_list", sums)
    dump_as_python2(folder / "meta", {"fine_label_names": ["apple", "bear", "cattle"]})
    md5 = hashlib.md5((folder / "meta").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5})
    return parts


def write_idx(path: Path, values: np.ndarray) -> None:
    """An idx file of bytes, packed if its name says so."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(header + values.tobytes())


def write_mnist(folder: Path, *, end: str = "") -> dict[str, np.ndarray]:
    """Five and three images, by split."""
    images = {"train": make_pixels(5, 28, 28, seed=1), "test": make_pixels(3, 28, 28, seed=2)}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", images[split])
        labels = np.arange(9, 9 - len(images[split]), -1, dtype=np.uint8)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", labels)
    return images


def write_tiny_imagenet(folder: Path) -> dict[str, np.ndarray]:
    """Three classes, two training images each, four validation images; pixels by file name."""
    written: dict[str, np.ndarray] = {}
    (folder / "wnids.txt").parent.mkdir(parents=True)
    (folder / "wnids.txt").write_text("n03\nn01\nn02\n")
    for name in ("n03", "n01", "n02"):
        for index in range(2):
            file = f"{name}_{index}.JPEG"
            written[file] = make_pixels(64, 64, 3, seed=len(written))
            save_lossless(folder / "train" / name / "images" / file, written[file])
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t9\t9\n")
    lines = []
    for index, name in enumerate(("n02", "n03", "n01", "n03")):
        file = f"val_{index}.JPEG"
        written[file] = make_pixels(64, 64, 3, seed=10 + index)
        save_lossless(folder / "val" / "images" / file, written[file])
        lines.append(f"{file}\t{name}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    save_lossless(folder / "test" / "images" / "test_0.JPEG", make_pixels(64, 64, 3))
    return written


def save_lossless(path: Path, pixels: np.ndarray) -> None:
    """A PNG under any name, as one of ImageNet's files is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
