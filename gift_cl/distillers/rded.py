"""RDED: the crops of real images that the teacher finds easiest, stitched to mosaics."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.embeddings import pixel_box
from gift_cl.distillers.protocol import Selection, require_finite, require_input, require_teacher
from gift_cl.memory_format import in_fastest_format
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, UnseenClassError, as_float
from gift_cl.views.view import check_number, check_whole

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
        the draws are seeded; crops are not bound to whole pixels, have the shape of the images, and are
        rounded to grey levels before they are scored, as they are kept; with a ``factor`` they are sampled
        at full size and averaged, not resized with a filter; scores are among the classes that the teacher
        has seen; and when more patches are asked for than there are source images, their second-best crops
        follow (the released code fails).
    """

    factor: int = 1
    crops: int = 5
    min_scale: float = 0.08
    sources: int = 300
    needs_teacher: bool = field(default=True, init=False)
    classes_at_once: int = field(default=1, init=False)
    codec: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("factor", "crops", "sources"):
            check_whole(name, getattr(self, name))
        check_number("min_scale", self.min_scale, high=1, low_too=False)

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
        progress: Progress = silent,
    ) -> DistilledDataset:
        """See `Distiller.distill`."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="rded")
        self._check_size(*images.shape[2:])
        teacher = copy.copy(teacher)  # the caller keeps its model as it is
        example = pixel_box(images, teacher).from_uint8(images[:2])
        teacher.model, _ = in_fastest_format(teacher.model, example)
        parts, done = [], 0
        total = self.crops * sum(min(n, self.sources) for n in count_labels(labels).values())
        for label in labels.unique():
            own = (labels == label).nonzero().flatten()
            own = own[torch.randperm(len(own), generator=generator)[: self.sources]]
            patches = self._best_patches(images[own], int(label), teacher, generator)
            made = stitch(patches, per_class, self.factor)
            done += self.crops * len(own)
            progress(done, total)
            parts.append(Selection(made.cpu(), label.expand(len(made)).clone()))
        return Selection.join(parts).as_dataset(
            self, num_classes=num_classes, teacher=teacher, factor=self.factor
        )

    def _check_size(self, height: int, width: int) -> None:
        if self.factor == 1:
            return
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Expected images whose height and width are multiples of `factor` {self.factor}, got "
                f"{height} x {width}. Use `rded:factor=1`."
            )
        if (smallest := min(height, width) // self.factor) < _SMALLEST_PATCH:
            raise ValueError(
                f"Expected patches of at least {_SMALLEST_PATCH} pixels, got {smallest} "
                f"({height} x {width} pixels, `factor` {self.factor}). Use `rded:factor=1`."
            )

    def _best_patches(
        self, images: Tensor, label: int, teacher: Teacher, generator: torch.Generator
    ) -> Tensor:
        """Crops of all images, uint8, the best crop of each image first, easiest first."""
        device = teacher.device
        source = as_float(images.to(device))
        boxes = [draw_boxes(len(images), self.min_scale, generator) for _ in range(self.crops)]
        patches = torch.stack([crop(source, box.to(device), self.factor) for box in boxes])
        patches = (patches * 255).round().to(torch.uint8)  # what is scored is what is kept
        scores = score(patches.flatten(0, 1), label, teacher, factor=self.factor)
        require_finite(scores, method="rded")
        scores = scores.view(self.crops, len(images))
        order = scores.argsort(0)  # rank of crops within an image
        ranked = scores.gather(0, order)
        patches = patches[order, torch.arange(len(images), device=device)]
        by_image = ranked.argsort(dim=1, stable=True)  # easiest images first, within each rank
        return torch.cat([patches[rank, by_image[rank]] for rank in range(self.crops)])


def draw_boxes(count: int, min_scale: float, generator: torch.Generator) -> Tensor:
    """Crops of the images' shape in relative coordinates: side, top, left, float (count, 3), in [0, 1]."""
    area, top, left = torch.rand(3, count, generator=generator)
    side = (min_scale + (1 - min_scale) * area).sqrt()
    return torch.stack([side, top * (1 - side), left * (1 - side)], 1)


def crop(images: Tensor, boxes: Tensor, factor: int) -> Tensor:
    """Bilinear crops of ``images`` (N, C, H, W) in [0, 1], of H // factor by W // factor pixels.

    A crop is sampled at H by W points, none of which looks beyond its box, and then averaged.
    """
    side, top, left = boxes.to(images.dtype).unbind(1)
    height, width = images.shape[2:]
    rows = _sampled(top, side, height)[:, :, None].expand(-1, -1, width)
    columns = _sampled(left, side, width)[:, None, :].expand(-1, height, -1)
    grid = torch.stack([columns, rows], -1)
    crops = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return crops if factor == 1 else nn.functional.avg_pool2d(crops, factor)


def _sampled(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Where crops are sampled along one axis, (N, size), from -1 to 1 over the image."""
    middles = (torch.arange(size, device=side.device, dtype=side.dtype) + 0.5) / size
    points = start[:, None] + side[:, None] * middles
    half = torch.minimum(side / 2, side.new_tensor(0.5 / size))  # half a pixel
    points = points.clamp((start + half)[:, None], (start + side - half)[:, None])
    return 2 * points - 1


def score(patches: Tensor, label: int, teacher: Teacher, *, factor: int = 1) -> Tensor:
    """The teacher's cross-entropy on each patch, float (N,); low is easy, or "realistic".

    With a ``factor`` above 1, a patch is centred on the teacher's mean colour, in an image as large as
    the mosaic.
    """
    images = as_float(patches)
    if factor > 1:
        height, width = patches.shape[2:]
        mean = torch.tensor(teacher.normalization.mean, device=patches.device).view(1, -1, 1, 1)
        canvas = mean.expand(*patches.shape[:2], height * factor, width * factor).clone()
        top, left = height * (factor - 1) // 2, width * (factor - 1) // 2
        canvas[:, :, top : top + height, left : left + width] = images
        images = canvas
    columns = list(dict.fromkeys((label, *teacher.classes)))
    logits = teacher.logits(images)
    if logits.shape[1] <= max(columns):
        raise UnseenClassError(
            f"Expected a teacher with an output for each of the classes {sorted(columns)}, got "
            f"{logits.shape[1]} outputs. Pass the classes that the model was trained on."
        )
    target = torch.zeros(len(patches), dtype=torch.int64, device=logits.device)
    return nn.functional.cross_entropy(logits[:, columns], target, reduction="none")


def stitch(patches: Tensor, count: int, factor: int) -> Tensor:
    """Mosaics of ``factor``² patches, (at most count, C, H, W).

    Mosaic k takes patches k, k + count, k + 2 count, … for its cells in row-major order.
    """
    count = min(count, len(patches) // factor**2)
    cells = patches[: count * factor**2].view(factor, factor, count, *patches.shape[1:])
    rows, columns, n, channels, height, width = cells.shape
    mosaic = cells.permute(2, 3, 0, 4, 1, 5)
    return mosaic.reshape(n, channels, rows * height, columns * width)
