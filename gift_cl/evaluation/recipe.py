"""`Recipe`: every number of a training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from gift_cl.evaluation.optimizers import find_optimizer
from gift_cl.evaluation.precision import Precision
from gift_cl.evaluation.schedules import build_schedule
from gift_cl.losses import build_loss
from gift_cl.normalization import build_normalization
from gift_cl.views import MIXES, build_view

Labels = Literal["online", "stored", "stream", "hard"]
"""Where soft labels come from: a teacher at each step, the data set, an FKD stream, or nowhere."""

HardLabel = Literal["mixed", "own"]
"""The hard label of a mixed image: those of both images, by their shares, or that of its own image."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is trained, and when it is measured.

    Args:
        epochs: Passes over the exemplars.
        normalization: Name or numbers, as `gift_cl.normalization.build_normalization` takes them; ``none``
            for whitened images.
        batch_size: Exemplars a step, or ``auto`` for the rule of GIFT by their number.
        optimizer: Class of torch.optim with options, as `gift_cl.evaluation.optimizers` builds it.
        lr: First learning rate.
        weight_decay: At least 0.
        momentum: For optimisers that have an option of this name; others ignore it.
        decay_all: Weight decay on all parameters, or only on those with at least two dimensions.
        schedule: Spec of `gift_cl.evaluation.schedules.build_schedule`.
        view: Spec of `gift_cl.views.build_view`; teacher and student see the same view.
        mix: Spec of `gift_cl.views.MIXES`.
        hard_label: Of a mixed image. ``mixed``: the loss is the mean of the losses with either image's hard
            label, weighted by their shares; ``own``: the label of its own image alone, as G-VBSM does.
            Losses that use soft labels only are not affected. A stream has the labels of own images.
        loss: Spec of `gift_cl.losses.build_loss`.
        labels: Where soft labels come from. A ``stream`` holds the views and mixes that it belongs to, and
            its batches: ``view`` and ``mix`` have to be none, and ``batch_size`` is not used.
        precision: ``bfloat16`` runs forward passes under autocast; weights and losses stay in float32.
        compile: Compile student and teacher with torch.compile.
        evaluations: How often the student is measured, evenly spaced; the last time is the end. No more than
            once an epoch.
        seed: Of the initial weights, the order of exemplars, the views and dropout; at least 0.

    Raises:
        ValueError: If a value is out of range, or a spec cannot be built.
    """

    epochs: int
    normalization: str
    batch_size: int | Literal["auto"] = "auto"
    optimizer: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    decay_all: bool = True
    schedule: str = "multistep"
    view: str = "dsa"
    mix: str = "none"
    hard_label: HardLabel = "mixed"
    loss: str = "gift"
    labels: Labels = "online"
    precision: Precision = "float32"
    compile: bool = False
    evaluations: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _check_whole("epochs", self.epochs)
        if self.batch_size != "auto":
            _check_whole("batch_size", self.batch_size, cure=" Or write auto.")
        _check_whole("evaluations", self.evaluations)
        _check_whole("seed", self.seed, least=0)
        for name, most in (("lr", math.inf), ("weight_decay", math.inf), ("momentum", 1.0)):
            _check_number(name, getattr(self, name), most)
        for name, kind in (("labels", Labels), ("precision", Precision), ("hard_label", HardLabel)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(f"Expected `{name}` to be one of {known}, got {getattr(self, name)!r}.")
        for name in ("decay_all", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Expected `{name}` to be true or false, got {getattr(self, name)!r}.")
        self._check_specs()

    def _check_specs(self) -> None:
        find_optimizer(self.optimizer)
        build_schedule(self.schedule)
        build_normalization(self.normalization)
        build_view(self.view)
        MIXES.create(self.mix)
        loss = build_loss(self.loss)
        if self.labels == "hard" and not loss.accepts_hard:
            raise ValueError(
                f"Expected a loss that does without soft labels for `labels` hard, got `{self.loss}`. "
                "Choose ce, gift, cosine or gift_ce, or another source of labels."
            )
        if self.labels == "stream" and (self.view, self.mix) != ("none", "none"):
            raise ValueError(
                f"Expected `view` and `mix` none for `labels` stream, got `{self.view}` and `{self.mix}`. "
                "A stream holds the views that its labels belong to."
            )

    def override(self, **values: Any) -> Recipe:
        """The same recipe with other values.

        Raises:
            ValueError: If a name is none of a recipe's, or a value cannot be used.

        Example:
            >>> Recipe(epochs=300, normalization="cifar").override(optimizer="SGD", lr=0.01).epochs
            300
        """
        known = [field.name for field in fields(self)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"Unknown setting `{unknown[0]}` of a recipe. Known: {', '.join(known)}.")
        return replace(self, **values)

    def batch_size_for(self, num_images: int) -> int:
        """Exemplars a step when there are ``num_images``; no more than that.

        Source:
            The rule of ``auto``: LINs-lab/GIFT@38db552.

        Example:
            >>> recipe = Recipe(epochs=1, normalization="cifar")
            >>> [recipe.batch_size_for(num_images) for num_images in (10, 500, 20_000, 50_000)]
            [10, 50, 100, 200]
        """
        by_number = next((size for most, size in _BATCH_SIZES if num_images <= most), 200)
        return min(by_number if self.batch_size == "auto" else self.batch_size, num_images)

    def evaluation_epochs(self) -> list[int]:
        """After how many epochs the student is measured, ascending; the last is ``epochs``.

        Example:
            >>> Recipe(epochs=1000, normalization="cifar").evaluation_epochs()
            [250, 500, 750, 1000]
        """
        steps = range(1, self.evaluations + 1)
        return sorted({-(-self.epochs * step // self.evaluations) for step in steps})

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, for rows."""
        return asdict(self)


_BATCH_SIZES = ((10, 10), (500, 50), (20_000, 100))


def _check_whole(name: str, value: object, *, least: int = 1, cure: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"Expected `{name}` as an integer of at least {least}, got {value!r}.{cure}")


def _check_number(name: str, value: object, most: float) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number < most:
        raise ValueError(f"Expected `{name}` in [0, {most:g}), got {value!r}.")
