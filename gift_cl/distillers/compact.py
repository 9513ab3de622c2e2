"""Compact: real images, or crops of them, that show most of their class for the bytes that they take."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gift_cl.codecs import Webp, concat
from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.coverage import cover
from gift_cl.distillers.feature_selection import directions
from gift_cl.distillers.protocol import provenance_of, require_input, require_teacher
from gift_cl.distillers.rded import crop, draw_boxes
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, as_float
from gift_cl.views.view import check_number, check_whole


@dataclass(frozen=True)
class Compact:
    """`Coverage` by what is stored: each choice adds the most similarity for its bytes.

    Candidates are the images as they come back from the codec, and crops of them, enlarged to full size.
    What a teacher no longer recognises after the codec covers nothing, and what the codec stores in few bytes
    is cheap.

    Args:
        quality: Of the codec ``webp``, in which the exemplars come.
        crops: Random crops of each image, beside the image itself.
        min_scale: Least share of the area of an image that a crop shows, in (0, 1].

    Raises:
        ValueError: If an option is out of range.

    Source:
        Coverage as in `Coverage`; gains for costs: Leskovec et al., Cost-effective outbreak detection, KDD
        2007. Crops as candidates: Sun et al., RDED, CVPR 2024. That the two meet in the codec is ours.
    """

    quality: int = 20
    crops: int = 0
    min_scale: float = 0.5

    def __post_init__(self) -> None:
        check_whole("crops", self.crops, low=0)
        check_number("min_scale", self.min_scale, low_too=False, high=1)
        _ = self._codec  # it checks its option

    @property
    def spec(self) -> str:
        """Name and options."""
        return "compact:" + ",".join(f"{option.name}={getattr(self, option.name)}" for option in fields(self))

    @property
    def needs_teacher(self) -> bool:
        """Its features say what is alike."""
        return True

    @property
    def classes_at_once(self) -> int:
        """Each class is made on its own."""
        return 1

    @property
    def codec(self) -> str:
        """The codec for which the exemplars are chosen."""
        return self._codec.spec

    @property
    def _codec(self) -> Webp:
        return Webp(self.quality)

    def distill(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> DistilledDataset:
        """See `Distiller.distill`."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="compact")
        done, total = 0, (2 + self.crops) * len(images)
        parts, sizes = [], count_labels(labels)
        for label, size in sizes.items():
            own = images[labels == label]
            seen = directions(teacher, own, method="compact")
            encoded = self._codec.encode(self._candidates(own, generator))
            shown = directions(teacher, encoded.decode(), method="compact")
            done += len(seen) + len(shown)
            progress(done, total)
            costs = encoded.nbytes_each.float()
            parts.append(encoded.select(cover(seen @ shown.T, min(per_class, size), costs)))
        return DistilledDataset(
            encoded=concat(parts),
            labels=torch.tensor(list(sizes)).repeat_interleave(torch.tensor([len(part) for part in parts])),
            num_classes=num_classes,
            normalization=teacher.normalization,
            provenance=provenance_of(self, teacher),
        )

    def _candidates(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images and their crops, uint8."""
        source = as_float(images)
        boxes = [draw_boxes(len(images), self.min_scale, generator) for _ in range(self.crops)]
        crops = [crop(source, box.to(images.device), 1).mul(255).round().to(torch.uint8) for box in boxes]
        return torch.cat([images, *crops])
