"""The batches a student trains on: views made again exactly as the teacher saw them, with its answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.label_streams.stream import LabelStream, labels_sha256
from gift_cl.label_streams.views import cut_views, mix_views
from gift_cl.normalization import Normalization


class ReplayedBatch(NamedTuple):
    """A batch as published.

    Args:
        images: Mixed views, normalised if asked for, float (B, channels, size, size).
        logits: Answers of the teacher on them, float (B, C).
        labels: Hard labels of the views before mixing, int64 (B,).
    """

    images: Tensor
    logits: Tensor
    labels: Tensor


class StreamedBatches(Dataset[ReplayedBatch]):
    """All batches of a stream, by their number counted through all epochs.

    Args:
        stream: Soft labels.
        dataset: The images they were made from, uint8 with 1 or 3 channels.
        normalization: What the student's inputs are normalised with; pixels in [0, 1] without one.
        in_memory: Decode all images once and keep them. Otherwise every batch decodes its own, which suits
            a data set that is mapped from a file.

    Raises:
        TypeError: If the images are of another kind.
        LayoutError: If stream and data set do not belong together.
    """

    def __init__(
        self,
        stream: LabelStream,
        dataset: DistilledDataset,
        *,
        normalization: Normalization | None,
        in_memory: bool = True,
    ) -> None:
        same_classes = dataset.num_classes == stream.shape.num_classes
        if not same_classes or labels_sha256(dataset) != stream.facts.labels_sha256:
            raise LayoutError(
                f"Expected the data set that the stream was opened or packed with ({stream.facts.source}), "
                "got one with other labels. Use those images, all of them and in that order."
            )
        first = dataset.select(torch.arange(1)).images
        if first.dtype != torch.uint8 or first.shape[1] not in (1, 3):
            raise TypeError(
                f"Expected images of uint8 and 1 or 3 channels, got {first.dtype} and {first.shape[1]}. "
                "Streams are made from pictures."
            )
        self.stream = stream
        self.dataset = dataset
        self.normalization = normalization
        self._images = dataset.images if in_memory else None

    def __len__(self) -> int:
        return self.stream.shape.num_epochs * self.stream.shape.num_batches

    def __getitem__(self, index: int) -> ReplayedBatch:
        epoch, number = divmod(index, self.stream.shape.num_batches)
        batch = self.stream.batch(epoch, number)
        if self._images is None:
            images = self.dataset.select(batch.indices).images
        else:
            images = self._images[batch.indices]
        try:
            views = cut_views(images, batch.coords, batch.flips, size=self.stream.shape.size)
        except ValueError as error:
            raise LayoutError(f"Batch {number} of epoch {epoch} does not fit the images. {error}") from error
        pixels = views.to(torch.float32).div_(255)
        inputs = pixels if self.normalization is None else self.normalization.apply(pixels)
        return ReplayedBatch(
            mix_views(inputs, batch.mix), batch.logits.to(torch.float32), self.dataset.labels[batch.indices]
        )

    def loader(
        self, epochs: Iterable[int], *, workers: int = 0, wrap: bool = False
    ) -> DataLoader[ReplayedBatch]:
        """All batches of some epochs, in the published order.

        Args:
            epochs: Which ones, counted from 0.
            workers: Processes that make batches ahead; none by default.
            wrap: Begin again at the first epoch after the last one stored.

        Raises:
            ValueError: If an epoch is not stored and ``wrap`` is not set.
        """
        stored, num_batches = self.stream.shape.num_epochs, self.stream.shape.num_batches
        chosen = [epoch % stored if wrap else epoch for epoch in epochs]
        if beyond := [epoch for epoch in chosen if not 0 <= epoch < stored]:
            raise ValueError(
                f"Expected `epochs` in [0, {stored}), since {stored} are stored, got {beyond[0]}. Train for "
                "fewer, or begin again with `wrap=True`."
            )
        order = [epoch * num_batches + number for epoch in chosen for number in range(num_batches)]
        return DataLoader(
            self,
            batch_size=None,
            sampler=order,
            num_workers=workers,
            # Torch's global generator is not touched.
            generator=torch.Generator(),
        )
