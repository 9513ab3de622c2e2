"""CDA: SRe2L whose crops become smaller, so that it goes from what is common to what is particular."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from gift_cl.distillers.crop_schedule import CropSchedule, Curriculum
from gift_cl.distillers.sre2l import Crop, SRe2L


@dataclass(frozen=True)
class CDA(SRe2L):
    """`SRe2L` with a curriculum: random crops begin as whole images, and may be small at the end.

    None of the published settings is for small images. The defaults have the crops and weights of
    ImageNet-1K, the jitter of Tiny-ImageNet, and a quarter of their iterations. The published settings, of
    ImageNet-1K: ``cda:iterations=4000,jitter=32``; of Tiny-ImageNet:
    ``cda:iterations=4000,lr=0.4,bn_weight=0.05``; of ImageNet-21K:
    ``cda:iterations=2000,lr=0.05,bn_weight=0.25,jitter=32``.

    Args:
        curriculum: How the smallest share falls from 1 to ``min_scale``, see `CropSchedule`.
        milestone: Share of the iterations after which it has fallen, in (0, 1].

    The other arguments are those of `SRe2L`.

    Source:
        Yin and Shen, CDA, TMLR 2024; VILA-Lab/SRe2L@8d00cba, CDA. Deliberate differences: those of `SRe2L`.
    """

    name: ClassVar[str] = "cda"

    crop: Crop = field(default="rrc", init=False)
    flip: bool = True
    curriculum: Curriculum = "cosine"
    milestone: float = 1.0

    @property
    def crops(self) -> CropSchedule:
        """How small crops may be."""
        return CropSchedule(self.curriculum, self.min_scale, self.milestone)
