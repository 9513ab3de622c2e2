"""What a stream of soft labels is: batches for each of many epochs, in the order they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.label_streams.batch import Cutmix, StreamBatch

Order = Literal["given", "two draws", "one draw", "either"]
"""How rows were matched with images: the files say it, or torch's sampler drew this often an epoch."""

_MOST = (1 << 31) - 1  # images, and whatever else is counted; their numbers fit four bytes
_LARGEST_SIDE = (1 << 15) - 1  # so that a box fits two bytes a number
_CHUNK = 1024  # images decoded at a time


@dataclass(frozen=True)
class StreamShape:
    """How many of everything a stream has.

    Args:
        num_epochs: Epochs stored.
        num_images: ``N``, images of the data set, and rows of every epoch.
        num_classes: ``C``, width of the logits.
        batch_size: Rows of every batch but the last one of an epoch, which has what is left.
        size: Side of the views that the teacher saw, in pixels.

    Raises:
        ValueError: If one is less than 1 or too large for the formats.
    """

    num_epochs: int
    num_images: int
    num_classes: int
    batch_size: int
    size: int

    def __post_init__(self) -> None:
        most = {"batch_size": self.num_images, "size": _LARGEST_SIDE}
        for name, value in vars(self).items():
            if not 1 <= value <= most.get(name, _MOST):
                raise ValueError(f"Expected `{name}` in [1, {most.get(name, _MOST)}], got {value}.")

    @property
    def num_batches(self) -> int:
        """Batches of every epoch.

        Example:
            >>> StreamShape(300, 50_000, 1000, batch_size=1024, size=224).num_batches
            49
        """
        return -(-self.num_images // self.batch_size)

    def rows(self, number: int) -> slice:
        """Rows of its epoch that batch ``number`` has."""
        start = number * self.batch_size
        return slice(start, min(start + self.batch_size, self.num_images))

    def check_position(self, epoch: int, number: int) -> None:
        """Raise ``ValueError`` unless there is such a batch."""
        if not 0 <= epoch < self.num_epochs:
            raise ValueError(f"Expected `epoch` in [0, {self.num_epochs}), the epochs stored, got {epoch}.")
        if not 0 <= number < self.num_batches:
            raise ValueError(f"Expected `number` of a batch in [0, {self.num_batches}), got {number}.")

    def check_batch(self, number: int, batch: StreamBatch) -> None:
        """Raise ``ValueError`` unless ``batch`` can be number ``number`` of an epoch."""
        rows = self.rows(number)
        expected = (rows.stop - rows.start, self.num_classes)
        if batch.logits.shape != expected:
            raise ValueError(f"Expected `logits` of shape {expected}, got {tuple(batch.logits.shape)}.")
        if (last := int(batch.indices.max())) >= self.num_images:
            raise ValueError(f"Expected `indices` in [0, {self.num_images}), got {last}.")
        if isinstance(batch.mix, Cutmix) and max(batch.mix.box) > self.size:
            raise ValueError(
                f"Expected `box` inside views of {self.size} x {self.size} pixels, got {batch.mix.box}. "
                "Open the stream with the `size` that its teacher saw."
            )


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """Where a stream comes from, and how well it fits the images it was opened with.

    Args:
        source: In words.
        order: How rows were matched with images.
        seed: Of the sampler, unless the order is given.
        agreement: Share of rows where the teacher's answer is the label of the image, or that of its
            partner, each counted by its part of the view.
        chance: The same share if images were matched at random.
        rows_compared: Rows that both were measured on.
        labels_sha256: `labels_sha256` of the data set.
        pixels_sha256: `pixels_sha256` of the data set, if it was computed.
    """

    source: str
    order: Order
    seed: int | None
    agreement: float
    chance: float
    rows_compared: int
    labels_sha256: str
    pixels_sha256: str | None = None


class LabelStream(Protocol):
    """Soft labels of every image in every epoch."""

    @property
    def shape(self) -> StreamShape:
        """How many of everything there are."""

    @property
    def facts(self) -> StreamFacts:
        """Where it comes from."""

    @property
    def nbytes(self) -> int:
        """Bytes of the labels as stored."""

    def batch(self, epoch: int, number: int) -> StreamBatch:
        """One batch, read and checked.

        Raises:
            ValueError: If there is no such batch.
            ReadError: If it cannot be used; the message names the file and the cure.
        """

    def source_sha256(self, epoch: int, number: int) -> bytes:
        """SHA-256 of the published file that the batch comes from, 32 bytes."""


def labels_sha256(dataset: DistilledDataset) -> str:
    """SHA-256 of the hard labels as little-endian int64."""
    return hashlib.sha256(dataset.labels.numpy().astype("<i8").tobytes()).hexdigest()


def pixels_sha256(dataset: DistilledDataset) -> str:
    """SHA-256 of the decoded images, uint8 (N, C, H, W) in row-major order, whatever their codec."""
    digest = hashlib.sha256()
    for start in range(0, len(dataset), _CHUNK):
        chunk = torch.arange(start, min(start + _CHUNK, len(dataset)))
        digest.update(dataset.select(chunk).images.contiguous().numpy().data)
    return digest.hexdigest()


def check_epoch(indices: Iterable[Tensor], *, num_images: int) -> None:
    """Raise ``ValueError`` unless the batches of an epoch have every image once."""
    seen = torch.cat(list(indices)).bincount(minlength=num_images)
    if len(seen) != num_images or bool((seen != 1).any()):
        wrong = int((seen != 1).nonzero()[0])
        raise ValueError(
            "Expected `indices` with every image once in an epoch, got image "
            f"{wrong} {int(seen[wrong])} times."
        )
