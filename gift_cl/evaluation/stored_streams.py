"""Published streams of soft labels as what a student trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.evaluation.labelling import Stream
from gift_cl.label_streams import FKDStream, LabelStream, StreamedBatches, open_stream
from gift_cl.label_streams.stream import pixels_sha256
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent


def open_label_stream(
    path: Path, dataset: DistilledDataset, *, normalization: Normalization, progress: Progress = silent
) -> Stream:
    """The soft labels at a path, played again from the first epoch on when all are used.

    Args:
        path: A folder of FKD files (epoch_0/batch_0.tar), or one file that `pack_stream` wrote.
        dataset: The images they were made from.
        normalization: Of the student's inputs.
        progress: Told of files that are looked at.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ReadError: If something is wrong with the files, or they do not belong to these images.
    """
    if not path.exists():
        raise FileNotFoundError(f"No stream of soft labels at `{path}`.")
    stream = open_stream(path) if path.is_file() else FKDStream.open(path, dataset, progress=progress)
    packed_for = stream.facts.pixels_sha256
    if packed_for is not None and packed_for != pixels_sha256(dataset):
        raise LayoutError(
            f"Expected the images that `{path}` was packed for, got others. Give those images, all of them."
        )
    batches = StreamedBatches(stream, dataset, normalization=normalization)

    def epoch(number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield from batches.loader([number], wrap=True)

    return Stream(epoch=epoch, nbytes=stream.nbytes, digest=_digest(stream))


def _digest(stream: LabelStream) -> str:
    """Of shape and images, and of the published files of the first and the last epoch: there are many."""
    digest = hashlib.sha256(f"{stream.shape} {stream.facts.labels_sha256}".encode())
    for epoch in sorted({0, stream.shape.num_epochs - 1}):
        for number in range(stream.shape.num_batches):
            digest.update(stream.source_sha256(epoch, number))
    return digest.hexdigest()
