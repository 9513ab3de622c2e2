"""RDED: the crops of real images that the teacher finds easiest, stitched to mosaics."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import Selection, require_input, require_teacher
from gift_cl.teacher import Teacher, as_float

_SMALLEST_PATCH = 8


@dataclass(frozen=True)
class RDED:
    """Selects and stitches; no pixel is optimised.

    Args:
        factor: Patches along a side of a mosaic; 1 keeps whole crops.
        crops: Random crops of each source image.
        min_scale: Smallest share of the image's area that a crop covers, in (0, 1].
        sources: Source images of each class, at random, at most.

    Source:
        Sun et al., RDED, CVPR 2024; LINs-lab/RDED@3f6453d, synthesize/main.py. Deliberate differences:
        the draws are seeded, crops keep their aspect ratio by construction, and when more patches are
        asked for than there are source images, their second-best crops follow (the released code fails).
    """

    factor: int = 1
    crops: int = 5
    min_scale: float = 0.08
    sources: int = 300
    needs_teacher: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for name in ("factor", "crops", "sources"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"Expected `{name}` to be an integer of at least 1, got {value!r}.")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"Expected `min_scale` in (0, 1], got {self.min_scale!r}.")

    @property
    def spec(self) -> str:
        """Name and options."""
        return (
            f"rded:factor={self.factor},crops={self.crops},min_scale={self.min_scale},sources={self.sources}"
        )

    def distill(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        generator: torch.Generator,
    ) -> DistilledDataset:
        """See `Distiller.distill`."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="rded")
        size = images.shape[2]
        if self.factor > 1 and size // self.factor < _SMALLEST_PATCH:
            raise ValueError(
                f"Expected patches of at least {_SMALLEST_PATCH} pixels, got {size // self.factor} "
                f"({size} pixels, `factor` {self.factor}). Use `rded:factor=1`."
            )
        parts = []
        for label in labels.unique():
            own = (labels == label).nonzero().flatten()
            own = own[torch.randperm(len(own), generator=generator)[: self.sources]]
            patches = self._best_patches(images[own], int(label), teacher, generator)
            made = stitch(patches, per_class, self.factor)
            parts.append(Selection(made.cpu(), label.expand(len(made)).clone()))
        return Selection.join(parts).as_dataset(
            self, num_classes=num_classes, teacher=teacher, factor=self.factor
        )

    def _best_patches(
        self, images: Tensor, label: int, teacher: Teacher, generator: torch.Generator
    ) -> Tensor:
        """Crops of all images, uint8, the best crop of each image first, easiest first."""
        device = next(teacher.model.parameters()).device
        source = as_float(images.to(device))
        boxes = [draw_boxes(len(images), self.min_scale, generator) for _ in range(self.crops)]
        patches = torch.stack([crop(source, box.to(device), self.factor) for box in boxes])
        patches = (patches * 255).round().to(torch.uint8)  # what is scored is what is kept
        scores = score(patches.flatten(0, 1), label, teacher, size=images.shape[2])
        scores = scores.view(self.crops, len(images))
        order = scores.argsort(0)  # rank of crops within an image
        ranked = scores.gather(0, order)
        patches = patches[order, torch.arange(len(images), device=device)]
        by_image = ranked.argsort(dim=1, stable=True)  # easiest images first, within each rank
        return torch.cat([patches[rank, by_image[rank]] for rank in range(self.crops)])


def draw_boxes(count: int, min_scale: float, generator: torch.Generator) -> Tensor:
    """Square crops in relative coordinates: side, top, left, float (count, 3), all in [0, 1]."""
    area, top, left = torch.rand(3, count, generator=generator)
    side = (min_scale + (1 - min_scale) * area).sqrt()
    return torch.stack([side, top * (1 - side), left * (1 - side)], 1)


def crop(images: Tensor, boxes: Tensor, factor: int) -> Tensor:
    """Bilinear crops of ``images`` (N, C, H, W) in [0, 1], of H // factor by W // factor pixels."""
    side, top, left = boxes.unbind(1)
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2] = 2 * left + side - 1
    theta[:, 1, 2] = 2 * top + side - 1
    height, width = images.shape[2] // factor * factor, images.shape[3] // factor * factor
    grid = nn.functional.affine_grid(
        theta, [len(images), images.shape[1], height, width], align_corners=False
    )
    crops = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return crops if factor == 1 else nn.functional.avg_pool2d(crops, factor)


def score(patches: Tensor, label: int, teacher: Teacher, *, size: int) -> Tensor:
    """The teacher's cross-entropy on each patch, float (N,); low is easy, or "realistic".

    A patch smaller than ``size`` is centred on the teacher's mean colour.
    """
    height, width = patches.shape[2:]
    images = as_float(patches)
    if height < size:
        mean = torch.tensor(teacher.normalization.mean, device=patches.device).view(1, -1, 1, 1)
        canvas = mean.expand(len(patches), patches.shape[1], size, size).clone()
        top, left = (size - height) // 2, (size - width) // 2
        canvas[:, :, top : top + height, left : left + width] = images
        images = canvas
    columns = list(dict.fromkeys((label, *teacher.classes)))
    logits = teacher.logits(images)[:, columns]
    target = torch.zeros(len(patches), dtype=torch.int64, device=logits.device)
    return nn.functional.cross_entropy(logits, target, reduction="none")


def stitch(patches: Tensor, count: int, factor: int) -> Tensor:
    """Mosaics of ``factor``² patches, (at most count, C, H, W).

    Mosaic k takes patches k, k + count, k + 2 count, … for its cells in row-major order.
    """
    count = min(count, len(patches) // factor**2)
    cells = patches[: count * factor**2].view(factor, factor, count, *patches.shape[1:])
    rows, columns, n, channels, height, width = cells.shape
    mosaic = cells.permute(2, 3, 0, 4, 1, 5)
    return mosaic.reshape(n, channels, rows * height, columns * width)
