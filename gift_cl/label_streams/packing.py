"""Writing a packed stream, batch by batch, so that a stream of any size passes through little memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.files import replacing
from gift_cl.label_streams.batch import Cutmix, StreamBatch
from gift_cl.label_streams.packed_layout import (
    CUTMIX,
    FORMAT,
    MIXUP,
    UNMIXED,
    TensorLayout,
    tensor_layouts,
)
from gift_cl.label_streams.stream import (
    LabelStream,
    StreamFacts,
    StreamShape,
    check_epoch,
    labels_sha256,
    pixels_sha256,
)
from gift_cl.progress import Progress, silent
from gift_cl.sealed import METADATA, seal


def pack_stream(
    stream: LabelStream,
    path: str | os.PathLike[str],
    *,
    dataset: DistilledDataset,
    epochs: int | None = None,
    progress: Progress = silent,
) -> None:
    """Write a stream into one file; an old file is replaced when the new one is complete.

    Equal streams give equal bytes. Memory of a few batches is taken.

    Args:
        stream: Read from its first to its last batch.
        path: File to write.
        dataset: The images that the stream belongs to; the file holds hashes of them and of their labels.
        epochs: Only the first ones; all by default.
        progress: Told of the batches.

    Raises:
        ValueError: If there are not so many epochs, or the data set has other labels.
        OSError: If the file cannot be written, as on a full disk; the message names it.
        LayoutError: If an epoch has not every image once.
        ReadError: If a batch of the stream cannot be used.
    """
    epochs = stream.shape.num_epochs if epochs is None else epochs
    if not 1 <= epochs <= stream.shape.num_epochs:
        raise ValueError(f"Expected `epochs` in [1, {stream.shape.num_epochs}], got {epochs}.")
    if labels_sha256(dataset) != stream.facts.labels_sha256:
        raise ValueError("Expected the `dataset` that the stream was opened with, got one with other labels.")
    shape = replace(stream.shape, num_epochs=epochs)
    facts = replace(stream.facts, pixels_sha256=pixels_sha256(dataset))
    with replacing(path) as temporary, open(temporary, "r+b") as file:
        writer = _Writer(file, shape, facts)
        for epoch in range(epochs):
            indices = []
            for number in range(shape.num_batches):
                batch = stream.batch(epoch, number)
                indices.append(batch.indices)
                writer.append(batch, stream.source_sha256(epoch, number))
                progress(epoch * shape.num_batches + number + 1, epochs * shape.num_batches)
            try:
                check_epoch(indices, num_images=shape.num_images)
            except ValueError as error:
                raise LayoutError(
                    f"Epoch {epoch} of {facts.source} does not fit together. {error} Check that no file has "
                    "another's name, and get the epoch again."
                ) from error
        writer.finish()


class _Writer:
    """Writes the parts of each batch to where their tensors have got to."""

    def __init__(self, file: BinaryIO, shape: StreamShape, facts: StreamFacts) -> None:
        self._file, self._shape, self._facts = file, shape, facts
        self._layouts = tensor_layouts(shape)
        self._digests = {name: hashlib.sha256() for name in self._layouts}
        # Hashes are all of one length, so the header's is known before they are.
        start = len(self._header())
        self._places, end = {}, start
        for name, layout in self._layouts.items():
            self._places[name] = end
            end += _nbytes(layout)
        file.truncate(end)

    def append(self, batch: StreamBatch, source: bytes) -> None:
        mix = batch.mix
        kind = UNMIXED if mix is None else CUTMIX if isinstance(mix, Cutmix) else MIXUP
        box = mix.box if isinstance(mix, Cutmix) else (0, 0, 0, 0)
        partners = np.zeros(len(batch)) if mix is None else mix.partner.numpy()
        parts: dict[str, npt.ArrayLike] = {
            "lam": 1.0 if mix is None else mix.lam,
            "coords": batch.coords.numpy(),
            "indices": batch.indices.numpy(),
            "partners": partners,
            "logits": batch.logits.numpy(),
            "boxes": box,
            "flips": batch.flips.numpy(),
            "kinds": kind,
            "sources": np.frombuffer(source, dtype=np.uint8),
        }
        for name, part in parts.items():
            data = np.asarray(part).astype(self._layouts[name].stored_dtype).tobytes()
            self._digests[name].update(data)
            self._file.seek(self._places[name])
            self._file.write(data)
            self._places[name] += len(data)

    def finish(self) -> None:
        self._file.seek(0)
        self._file.write(self._header())

    def _header(self) -> bytes:
        """All of the file before the tensors, with their hashes so far."""
        metadata: dict[str, Any] = {
            "format": FORMAT,
            "shape": asdict(self._shape),
            "facts": asdict(self._facts),
            "tensors": {
                name: {
                    "dtype": layout.dtype,
                    "shape": list(layout.shape),
                    "sha256": self._digests[name].hexdigest(),
                }
                for name, layout in self._layouts.items()
            },
        }
        entries: dict[str, Any] = {"__metadata__": {METADATA: seal(metadata)}}
        offset = 0
        for name, layout in self._layouts.items():
            end = offset + _nbytes(layout)
            entries[name] = {
                "dtype": layout.tag,
                "shape": list(layout.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def _nbytes(layout: TensorLayout) -> int:
    return math.prod(layout.shape) * np.dtype(layout.stored_dtype).itemsize
