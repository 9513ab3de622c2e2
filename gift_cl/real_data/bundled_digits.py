"""scikit-learn's digits: 1,797 real images of 8x8 that come with the package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gift_cl.real_data.published import PublishedData
from gift_cl.real_data.source import Split, SplitName


@dataclass(frozen=True)
class DigitsSource:
    """A fixed, stratified fifth is the test set; the others are the training images."""

    card: PublishedData
    where: str = "scikit-learn"

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.card.name

    def fingerprint(self, split: SplitName) -> None:
        """They are read faster than a cache."""

    def open(self, split: SplitName) -> Split:
        """See `Source.open`."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        raw = load_digits()
        images = np.round(raw.images * 255 / 16).astype(np.uint8)
        parts = train_test_split(np.arange(len(images)), test_size=0.2, random_state=0, stratify=raw.target)
        chosen = parts[0 if split == "train" else 1]
        return Split.of_arrays(images[chosen], raw.target[chosen].tolist(), self.card.classes or ())
