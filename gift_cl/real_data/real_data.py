"""`RealData`: the training and test images of one data set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.normalization import Normalization

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class RealData:
    """Real images as two data sets of raw pixels.

    Args:
        name: Short name, for rows.
        train: Training images.
        test: Images that students are measured on.

    Raises:
        LayoutError: If the two have different classes, or images of different shapes.
    """

    name: str
    train: DistilledDataset
    test: DistilledDataset

    def __post_init__(self) -> None:
        for what, train, test in (
            ("classes", self.train.class_names, self.test.class_names),
            ("channels, height and width", self.train.encoded.image_shape, self.test.encoded.image_shape),
        ):
            if train != test:
                raise LayoutError(
                    f"Expected training and test images of {self.name} with the same {what}, got {train} and "
                    f"{test}. Pass `image_size` if it is the size."
                )

    @property
    def num_classes(self) -> int:
        """``C``."""
        return self.train.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, in the order of the labels."""
        return self.train.class_names or ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.encoded.image_shape

    @cached_property
    def channel_statistics(self) -> Normalization:
        """Mean and standard deviation of each channel over all training images, for pixels in [0, 1].

        Measured when it is first asked for.

        Raises:
            ValueError: If all pixels of a channel are equal.
        """
        channels = range(self.image_shape[0])
        counts = torch.zeros(len(channels), 256, dtype=torch.int64)  # of each channel's values
        for chunk in self.train.images.split(max(1, _CHUNK_BYTES // math.prod(self.image_shape))):
            counts += torch.stack([chunk[:, c].flatten().bincount(minlength=256) for c in channels])
        shares = counts.double() / counts.sum(1, keepdim=True)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = shares @ values
        deviation = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
        return Normalization(tuple(mean.tolist()), tuple(deviation.tolist()))


HOLD_OUT_SEED = 0
"""Seed with which every command holds out images, so that they are the same whatever it does."""


def hold_out(data: RealData, share: float, *, seed: int) -> RealData:
    """The same data with a part of the training images, class by class, in the place of the test images.

    Choices are made on this, so that the test images stay unseen.

    Args:
        data: Left as it is.
        share: Part of the images of each class that is held out, in (0, 1); at least one image.
        seed: Of the draw. It is the draw of the class-incremental experiments too.

    Returns:
        Copies of the images, in memory.

    Raises:
        ValueError: If ``share`` is out of range, or leaves no training image of a class.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected `share` in (0, 1), got {share}.")
    generator = torch.Generator().manual_seed(seed)
    labels = data.train.labels
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(data.num_classes):
        indices = (labels == label).nonzero().flatten()
        count = max(1, round(share * len(indices)))
        if count >= len(indices):
            raise ValueError(
                f"Expected a `share` that leaves training images of every class, got {share} of "
                f"{len(indices)} of `{data.class_names[label]}`."
            )
        held[indices[torch.randperm(len(indices), generator=generator)[:count]]] = True
    words = f"{share:g} of each class held out with seed {seed}"
    return replace(
        data,
        train=_part(data.train, ~held, f"without {words}"),
        test=_part(data.train, held, words),
    )


def _part(dataset: DistilledDataset, mask: torch.Tensor, words: str) -> DistilledDataset:
    provenance = replace(dataset.provenance, source=f"{dataset.provenance.source}, {words}")
    return replace(dataset.select(mask.nonzero().flatten()), provenance=provenance)
