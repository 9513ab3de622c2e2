"""FKD folders exactly as SRe2L and G-VBSM publish them, of any size, and their replay image by image."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import RandomSampler
from torchvision.transforms.functional import normalize, resized_crop, to_tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.label_streams import Cutmix, LabelStream, StreamBatch

Kind = Literal["none", "mixup", "cutmix"]
Elements = list[Any]


def make_dataset(
    num_classes: int = 5,
    per_class: int = 4,
    *,
    shape: tuple[int, int, int] = (3, 8, 8),
    codec: str = "raw",
    seed: int = 0,
) -> DistilledDataset:
    """Noise, class by class, as an image folder lists it."""
    generator = torch.Generator().manual_seed(seed)
    count = num_classes * per_class
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    return DistilledDataset.from_images(images, labels, num_classes=num_classes, codec=codec)


def epoch_orders(count: int, *, seed: int, draws: int) -> Iterator[Tensor]:
    """What torch's sampler yields; of one draw an epoch, as an older torch did."""
    generator = torch.Generator().manual_seed(seed)
    sampler = RandomSampler(range(count), generator=generator)
    while True:
        yield torch.tensor(list(sampler)) if draws == 2 else torch.randperm(count, generator=generator)


def write_fkd(
    folder: Path,
    dataset: DistilledDataset,
    *,
    epochs: int = 2,
    batch_size: int = 8,
    kind: Kind = "cutmix",
    has_indices: bool = False,
    draws: int = 2,
    seed: int = 42,
    size: int | None = None,
) -> list[list[Elements]]:
    """Write a folder whose teacher is right about the larger part of each view; what the files hold."""
    rng = np.random.default_rng(7)
    height = dataset.encoded.image_shape[1]
    written: list[list[Elements]] = []
    for epoch, order in zip(range(epochs), epoch_orders(len(dataset), seed=seed, draws=draws), strict=False):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        written.append([])
        for number, indices in enumerate(order.split(batch_size)):
            elements = _elements(rng, dataset, indices, kind, size or height)
            if has_indices:
                elements.append(indices.clone())
            torch.save(elements, folder / f"epoch_{epoch}" / f"batch_{number}.tar")
            written[-1].append(elements)
    return written


def _elements(
    rng: np.random.Generator, dataset: DistilledDataset, indices: Tensor, kind: Kind, size: int
) -> Elements:
    rows, (_, height, width) = len(indices), dataset.encoded.image_shape
    extent = rng.integers((height // 3, width // 3), (height + 1, width + 1), (rows, 2))
    start = rng.integers(0, (height + 1, width + 1) - extent)
    sides = np.array([height, width])
    coords = torch.from_numpy(np.hstack([start / sides, extent / sides]).astype(np.float32))
    flips = torch.from_numpy(rng.random(rows) < 0.5)
    partner, lam, box, own = None, None, None, 1.0
    if kind != "none":
        partner = torch.from_numpy(rng.permutation(rows))
        lam = own = float(rng.beta(0.2, 0.2))
    if kind == "cutmix":
        half = int(size * np.sqrt(1 - own)) // 2
        row, column = np.int64(rng.integers(size)), np.int64(rng.integers(size))
        edges = (row - half, column - half, row + half, column + half)
        box = [np.clip(edge, 0, size) for edge in edges]  # four numpy.int64
        assert all(type(edge) is np.int64 for edge in box)
        own = 1 - float((box[2] - box[0]) * (box[3] - box[1])) / size**2
    labels = dataset.labels[indices]
    seen = labels if own >= 0.5 or partner is None else labels[partner]
    logits = rng.normal(size=(rows, dataset.num_classes))
    logits[np.arange(rows), seen.numpy()] += 9
    return [coords, flips, partner, lam, box, torch.from_numpy(logits).half()]


def batch_path(folder: Path, epoch: int = 0, number: int = 0) -> Path:
    return folder / f"epoch_{epoch}" / f"batch_{number}.tar"


def rewrite_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of the pickle in a file of `torch.save`; the archive stays sound."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records:
            is_pickle = name.endswith("data.pkl")
            assert old in data or not is_pickle
            archive.writestr(name, data.replace(old, new) if is_pickle else data)


def is_same(first: StreamBatch, second: StreamBatch) -> bool:
    """Whether two batches are equal to the last bit."""
    if type(first.mix) is not type(second.mix):
        return False
    for name in ("coords", "flips", "logits", "indices"):
        one, other = getattr(first, name), getattr(second, name)
        if one.dtype != other.dtype or not torch.equal(one, other):
            return False
    if first.mix is None or second.mix is None:
        return True
    if isinstance(first.mix, Cutmix) and first.mix.box != second.mix.box:  # type: ignore[union-attr]
        return False
    return first.mix.lam == second.mix.lam and torch.equal(first.mix.partner, second.mix.partner)


def all_batches(stream: LabelStream) -> list[StreamBatch]:
    shape = stream.shape
    return [stream.batch(e, b) for e in range(shape.num_epochs) for b in range(shape.num_batches)]


def replay_by_hand(
    dataset: DistilledDataset,
    elements: Elements,
    indices: Tensor,
    *,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """The published pipeline: PIL and torchvision, one image after another."""
    coords, flips, partner, lam, box, *_ = elements
    views = []
    for index, crop, flip in zip(indices.tolist(), coords, flips.tolist(), strict=True):
        pixels = dataset.images[index].permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        top, left = crop[0].item() * picture.height, crop[1].item() * picture.width
        height, width = crop[2].item() * picture.height, crop[3].item() * picture.width
        picture = resized_crop(picture, top, left, height, width, [size, size])
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        views.append(normalize(to_tensor(picture), mean, std))
    images = torch.stack(views)
    if partner is None:
        return images
    if box is None:
        return torch.stack([lam * images[i] + (1 - lam) * images[j] for i, j in enumerate(partner.tolist())])
    top, left, bottom, right = box
    mixed = images.clone()
    for row, other in enumerate(partner.tolist()):
        mixed[row, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    return mixed
