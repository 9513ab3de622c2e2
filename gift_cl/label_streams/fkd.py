"""Soft labels as published: a folder of FKD files, read batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.label_streams.agreement import Answers
from gift_cl.label_streams.batch import StreamBatch
from gift_cl.label_streams.fkd_file import damaged, read_fkd_file
from gift_cl.label_streams.fkd_folder import FKDFolder
from gift_cl.label_streams.matching import Evidence, match
from gift_cl.label_streams.order import SamplerOrder
from gift_cl.label_streams.stream import StreamFacts, StreamShape, check_epoch, labels_sha256
from gift_cl.progress import Progress, silent

_PART_ROWS = 2048  # compared after epoch 0, and at the end
_PART_FILES = 64
_WHOLE = (
    "Use all the images that the stream was made from: labels of 50 images a class serve no data set of 10, "
    "since views are mixed with partners from all images."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FKDStream:
    """A stream whose files stay where they are, and are read and checked when they are asked for.

    Args:
        files: Where they are.
        shape: How many of everything there are.
        facts: Where it comes from, and how well it fits its images.
        sampler: Image of each row; None if the files say it.
    """

    files: FKDFolder
    shape: StreamShape
    facts: StreamFacts
    sampler: SamplerOrder | None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        dataset: DistilledDataset,
        *,
        size: int | None = None,
        seed: int = 42,
        progress: Progress = silent,
    ) -> FKDStream:
        """The stream in ``folder``, matched with the images that it was made from.

        All files of epoch 0, some after it and the last ones are read, and the names of the rest.

        Args:
            folder: Holds ``epoch_{e}/batch_{b}.tar``, perhaps inside folders that hold nothing else.
            dataset: All the images, in the order in which the layout's folders name them. A part of them,
                such as fewer images a class, has no use for the labels: views are mixed with views of all.
            size: Side of the views that the teacher saw, in pixels; the height of the images by default.
            seed: Of the sampler, for files that do not say their images. The authors' is 42.
            progress: Told of the files that are read.

        Raises:
            OSError: If the folder or a file is missing or may not be read.
            LayoutError: If files are missing, do not fit together, or do not fit the images.
            DamagedFileError: If a file is damaged.
            UnsafeFileError: If a file wants to run code, is far too large or is a link.
        """
        files = FKDFolder.find(folder)
        shape, has_indices = _shape(files, dataset, size)
        evidence, places = [], _places_compared(shape)
        for done, (part, place) in enumerate(places, start=1):
            epoch, number = divmod(place, shape.num_batches)
            batch = _read(files, shape, epoch, number, has_indices=has_indices)
            answers = Answers(batch.logits.float().argmax(1), batch.mix, shape.size)
            indices = batch.indices if has_indices else None
            evidence.append(Evidence(part, epoch, shape.rows(number), answers, indices))
            progress(done, len(places))
        if has_indices:
            _check_first_epoch(evidence, shape, files)
        found = match(
            evidence, dataset.labels, num_classes=shape.num_classes, seed=seed, where=os.fspath(folder)
        )
        facts = StreamFacts(
            source=f"FKD files of `{files.root.resolve().name}`",
            order=found.order,
            seed=None if has_indices else seed,
            agreement=found.agreement.share,
            chance=found.agreement.chance,
            rows_compared=found.agreement.rows,
            labels_sha256=labels_sha256(dataset),
        )
        return cls(files=files, shape=shape, facts=facts, sampler=found.sampler)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self.files.nbytes

    def batch(self, epoch: int, number: int) -> StreamBatch:
        """One batch; its file is read and checked.

        Raises:
            ValueError: If there is no such batch.
            OSError: If the file is gone or may not be read.
            ReadError: If it is damaged, unsafe, or does not fit the others.
        """
        self.shape.check_position(epoch, number)
        batch = _read(self.files, self.shape, epoch, number, has_indices=self.sampler is None)
        if self.sampler is None:
            return batch
        return replace(batch, indices=self.sampler.epoch(epoch)[self.shape.rows(number)])

    def source_sha256(self, epoch: int, number: int) -> bytes:
        """SHA-256 of a batch's file, 32 bytes."""
        self.shape.check_position(epoch, number)
        with open(self.files.path(epoch, number), "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


def _shape(files: FKDFolder, dataset: DistilledDataset, size: int | None) -> tuple[StreamShape, bool]:
    """What the first file says of all of them, and whether it says its images."""
    path = files.path(0, 0)
    first = read_fkd_file(path)
    rows, num_classes = first.batch.logits.shape
    if num_classes != dataset.num_classes:
        raise LayoutError(
            f"Expected logits of {dataset.num_classes} classes, as the data set has, in `{path}`, got "
            f"{num_classes}. Use the images that the stream was made from."
        )
    most = files.num_batches * rows
    if not most - rows < len(dataset) <= most:
        raise LayoutError(
            f"Expected soft labels of {len(dataset)} images, one row for each image of the data set, in "
            f"`{files.root}`, got {files.num_batches} files of {rows} rows in an epoch. {_WHOLE}"
        )
    if size is None:
        size = dataset.encoded.image_shape[1]
    return StreamShape(files.num_epochs, len(dataset), num_classes, rows, size), first.has_indices


def _places_compared(shape: StreamShape) -> list[tuple[int, int]]:
    """Files that are read at the opening: the part that each belongs to, and its number in all epochs."""
    first, total = shape.num_batches, shape.num_epochs * shape.num_batches
    later = min(_PART_FILES, -(-_PART_ROWS // shape.batch_size))
    if total <= first + 2 * later:
        return [(int(place >= first), place) for place in range(total)]
    start = [(int(place >= first), place) for place in range(first + later)]
    return start + [(2, place) for place in range(total - later, total)]


def _read(files: FKDFolder, shape: StreamShape, epoch: int, number: int, *, has_indices: bool) -> StreamBatch:
    """One batch that fits the others; its images are counted from 0 where the files do not say them."""
    path = files.path(epoch, number)
    batch, says_images = read_fkd_file(path)
    rows = shape.rows(number)
    if len(batch) != rows.stop - rows.start:
        raise LayoutError(
            f"Expected {rows.stop - rows.start} rows in `{path}`, got {len(batch)}: an epoch has every image "
            f"once, in files of {shape.batch_size} rows and a last one. Check that no file has another's "
            f"name. {_WHOLE}"
        )
    if says_images != has_indices:
        raise LayoutError(
            f"Expected {7 if has_indices else 6} elements in `{path}`, as in `{files.path(0, 0)}`, got "
            f"{7 if says_images else 6}. Keep files of different streams apart."
        )
    try:
        shape.check_batch(number, batch)
    except ValueError as error:
        raise damaged(path, error) from error
    return batch


def _check_first_epoch(evidence: Sequence[Evidence], shape: StreamShape, files: FKDFolder) -> None:
    try:
        check_epoch(
            (item.indices for item in evidence if item.epoch == 0 and item.indices is not None),
            num_images=shape.num_images,
        )
    except ValueError as error:
        raise LayoutError(
            f"The files in `{files.root / 'epoch_0'}` do not fit together. {error} Check that no file has "
            "another's name, and get the folder again."
        ) from error
