"""Hybrid exemplars: some distilled, the rest real."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_cl.codecs import build_codec, concat, recode
from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import REAL_IMAGES, Distiller, provenance_of, require_input, require_teacher
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher


@dataclass(frozen=True)
class Hybrid:
    """Distilled and real exemplars of each class take turns, so that a memory that shrinks keeps their share.

    The share is one of exemplars, and so of bytes under each codec that gives all images the same. Both kinds
    are stored alike: if the distiller has a codec of its own, the real images are encoded with it. A mosaic
    is an image like the others here, and labels that were learned with images are left behind.

    Args:
        p: Share of the distilled ones, in (0, 1), kept by each prefix up to one image; see `num_distilled`.
        distilled: Makes them.
        real: Chooses the real images.

    Raises:
        ValueError: If ``p`` is out of range, ``real`` does not choose real images, or ``distilled`` makes
            none whose values are pixels, or is a hybrid itself.

    Source:
        Kong et al., Hybrid Memory Replay, arXiv 2410.15372. Deliberate difference: their real images are
        chosen to complement the distilled ones, these as if there were no others.
    """

    p: float
    distilled: Distiller
    real: Distiller

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not (isinstance(self.p, int | float) and 0 < self.p < 1):
            raise ValueError(f"Expected `p` in (0, 1), got {self.p!r}. For one kind alone, name it alone.")
        if self.real.spec not in REAL_IMAGES:
            raise ValueError(
                f"Expected `real` to be one of {', '.join(REAL_IMAGES)}, got `{self.real.spec}`."
            )
        if self.codec == "float32":
            raise ValueError(
                f"Expected `distilled` exemplars that are pixels, as real images are, got "
                f"`{self.distilled.spec}`, which makes whitened ones. Turn its whitening off."
            )
        if isinstance(self.distilled, Hybrid):
            raise ValueError(f"Expected `distilled` to be one method, got `{self.distilled.spec}`.")

    @property
    def spec(self) -> str:
        """Name and options; the specs inside are written by `written_inside`."""
        distilled, real = written_inside(self.distilled.spec), written_inside(self.real.spec)
        return f"hybrid:p={self.p},distilled={distilled},real={real}"

    @property
    def needs_teacher(self) -> bool:
        """Whether a part does."""
        return self.distilled.needs_teacher or self.real.needs_teacher

    @property
    def classes_at_once(self) -> int | None:
        """Those of the distiller: each class has its own real images."""
        return self.distilled.classes_at_once

    @property
    def codec(self) -> str | None:
        """That of the distiller."""
        return self.distilled.codec

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
        """See `Distiller.distill`; progress is that of the distilled part."""
        require_input(images, labels, per_class=per_class)
        asked = require_teacher(teacher, labels, method=self.spec) if self.needs_teacher else None
        is_distilled = turns(per_class, self.p)
        parts, places = [], []
        for distiller, own, listener in (
            (self.real, ~is_distilled, silent),
            (self.distilled, is_distilled, progress),
        ):
            ranks = own.nonzero().flatten()
            if not len(ranks):
                continue
            made = distiller.distill(
                images,
                labels,
                per_class=len(ranks),
                num_classes=num_classes,
                teacher=teacher,
                generator=generator,
                progress=listener,
            )
            parts.append(made)
            places += [ranks[:count] for count in made.images_per_class.values()]
        codec = build_codec(self.codec or "raw")
        joined = DistilledDataset(
            encoded=concat([recode(part.encoded, codec) for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            num_classes=num_classes,
            normalization=asked.normalization if asked else None,
            provenance=provenance_of(self, asked),
        )
        return joined.select((joined.labels * per_class + torch.cat(places)).argsort())


def num_distilled(count: int, p: float) -> int:
    """How many of ``count`` exemplars are distilled: a share of ``p``, rounded half up.

    Of two or more, one at least is distilled, and one at least is real.
    """
    rounded = math.floor(count * p + 0.5)
    return rounded if count < 2 else min(max(rounded, 1), count - 1)


def turns(count: int, p: float) -> Tensor:
    """Which of ``count`` exemplars are distilled, so that the first n hold `num_distilled`, bool (count,).

    Example:
        >>> turns(6, 0.25).int()
        tensor([0, 1, 0, 0, 0, 1], dtype=torch.int32)
    """
    return torch.tensor([num_distilled(n, p) for n in range(count + 1)]).diff() > 0


def written_inside(spec: str) -> str:
    """A spec as an option of another one: ``/`` for ``:``, and ``;`` for ``,``.

    Example:
        >>> written_inside("rded:factor=1,crops=3")
        'rded/factor=1;crops=3'
    """
    return spec.replace(":", "/").replace(",", ";")


def hybrid_of(create: Callable[[str], Distiller]) -> Callable[..., Hybrid]:
    """A factory for hybrids whose parts are given by specs, as written by `written_inside`.

    Args:
        create: Builds a distiller from a spec; a registry that this factory is to be added to.
    """

    def hybrid(p: float = 0.5, distilled: str = "dm", real: str = "herding") -> Hybrid:
        parts = (str(part).replace("/", ":").replace(";", ",") for part in (distilled, real))
        return Hybrid(p, *map(create, parts))

    return hybrid
