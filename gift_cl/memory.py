"""A memory of exemplars with a budget: what is kept, what it costs, and what is drawn from it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gift_cl.augmentations import AUGMENTATIONS
from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers import DISTILLERS
from gift_cl.distillers.protocol import provenance_of, require_input
from gift_cl.labels import LABELS
from gift_cl.ledger import BudgetError, Ledger
from gift_cl.memory_plan import Plan
from gift_cl.soft_labels import Extension, extend
from gift_cl.teacher import Teacher

_NUM_CHECKED = 256  # exemplars on which a teacher that will label on line is tried


@dataclass(frozen=True)
class MemoryBatch:
    """Exemplars drawn for one step, on the device of the memory.

    Args:
        pixels: Augmented views, float (n, C, H, W) in [0, 1].
        labels: Hard labels, int64 (n,).
        soft_labels: float (n, K), columns in the order of the classes given to `open`, without NaN.
            None without stored labels.
    """

    pixels: Tensor
    labels: Tensor
    soft_labels: Tensor | None


class ExemplarMemory:
    """Keeps exemplars of every class seen, within a budget, balanced over classes.

    Args:
        budget_bytes: Bytes for everything that is kept: images as stored, labels, teacher.
        per_class: Exemplars of each class, instead of a budget in bytes.
        exemplars: Distiller, as a spec.
        codec: Codec, as a spec.
        labels: Label regime, as a spec.
        augmentation: Views that are drawn and labelled, as a spec.
        num_classes: Classes in all, if known; it sets the size of a hard label.
        seed: For all draws.

    Raises:
        ValueError: If not exactly one of ``budget_bytes`` and ``per_class`` is given, or a name is unknown.
    """

    def __init__(
        self,
        *,
        budget_bytes: int | None = None,
        per_class: int | None = None,
        exemplars: str = "herding",
        codec: str = "raw",
        labels: str = "hard",
        augmentation: str = "none",
        num_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        if (budget_bytes is None) == (per_class is None):
            raise ValueError(
                f"Expected either `budget_bytes` or `per_class`, got {budget_bytes} and {per_class}."
            )
        self.budget_bytes = _require_positive("budget_bytes", budget_bytes)
        self.per_class = _require_positive("per_class", per_class)
        self.distiller = DISTILLERS.create(exemplars)
        self.codec = build_codec(codec)
        if self.distiller.codec not in (None, self.codec.spec):
            raise ValueError(
                f"Expected the `codec` {self.distiller.codec} that `{exemplars}` makes exemplars for, "
                f"got {codec}. Choose that codec, or other exemplars."
            )
        self.regime = LABELS.create(labels)
        self.augmentation = AUGMENTATIONS.create(augmentation)
        self.num_classes = num_classes or 1
        self.generator = torch.Generator().manual_seed(seed)
        self.classes: tuple[int, ...] = ()
        self.dataset: DistilledDataset | None = None
        self.teacher: Teacher | None = None
        self._open: _OpenMemory | None = None
        self._queue = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return 0 if self.dataset is None else len(self.dataset)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": None}  # a checkpoint holds what is stored, not the decoded copy

    @property
    def needs_teacher(self) -> bool:
        """Whether `update` has to be given a teacher."""
        return self.distiller.needs_teacher or self.regime.needs_teacher

    @property
    def ledger(self) -> Ledger:
        """Bytes of everything that is kept now."""
        teacher_bytes = 0 if self.teacher is None else self.teacher.nbytes
        if self.dataset is None:
            return Ledger(teacher=teacher_bytes)
        return self.dataset.ledger(teacher_bytes=teacher_bytes)

    def update(self, images: Tensor, labels: Tensor, teacher: Teacher | None) -> None:
        """Condense the images of an experience, label them, and shrink the rest to the budget.

        When it raises, the memory is as it was before, but for its generator.

        Args:
            images: uint8 (N, C, H, W), all of the experience.
            labels: int64 (N,).
            teacher: Trained on the stream so far; None if no axis of this memory needs one.

        Raises:
            BudgetError: If not even one exemplar of each class fits.
            UnseenClassError: If the teacher has not seen a class that it has to label, or has seen the
                future.
            ValueError: If there is no teacher and one is needed, its logits are not finite, the images are
                not like those kept, or a class has too few of them for the distiller.
        """
        require_input(images, labels, per_class=1)
        if self.dataset is not None and tuple(images.shape[1:]) != self.dataset.encoded.image_shape:
            raise ValueError(
                f"Expected images of shape {self.dataset.encoded.image_shape}, as those kept, got "
                f"{tuple(images.shape[1:])}."
            )
        new = [int(c) for c in labels.unique()]
        classes = tuple(dict.fromkeys((*self.classes, *new)))
        if returning := sorted(set(new) & set(self.classes)):
            warnings.warn(
                f"Classes {returning} came back; their old and new exemplars share their place.",
                stacklevel=2,
            )
        if self.needs_teacher and teacher is None:
            raise ValueError("Expected a teacher for these exemplars and labels, got none.")
        if teacher is not None:
            teacher.require_no_future(classes)
            if self.regime.name == "online":  # it answers for all exemplars from now on
                teacher.require_seen(classes)
        num_classes = max(self.num_classes, max(classes) + 1)
        plan = Plan(self, classes, num_classes, teacher, new=new)
        made = self._condense(images, labels, plan)
        if missing := sorted(set(new) - set(made.classes)):
            raise ValueError(
                f"`{self.distiller.spec}` made no exemplar of classes {missing}: they have too few images. "
                "Choose other exemplars, or a smaller mosaic factor."
            )
        provenance = provenance_of(self.distiller, teacher)  # it may label what it did not choose
        if self.dataset is not None and self.dataset.provenance.oracle:
            provenance = replace(provenance, oracle=True)  # old exemplars keep their labels
        dataset = replace(plan.merge(self.dataset, made), provenance=provenance)
        if self.budget_bytes is not None:
            dataset.ledger(teacher_bytes=plan.teacher_bytes).require_within(self.budget_bytes)
        if self.regime.name == "online" and teacher is not None:
            few = dataset.select(torch.arange(0, len(dataset), -(-len(dataset) // _NUM_CHECKED)))
            teacher.label(few.images, few.labels, classes=classes)  # raises now, not while drawing
        self.classes, self.num_classes, self.dataset = classes, num_classes, dataset
        self.teacher = teacher if self.regime.name == "online" else None
        self._open, self._queue = None, torch.zeros(0, dtype=torch.int64)

    def _condense(self, images: Tensor, labels: Tensor, plan: Plan) -> DistilledDataset:
        """Exemplars of the new classes: as many as the budget holds, or as there are."""
        wanted, supply = self.per_class or 0, count_labels(labels)
        if self.per_class is None:
            _, wanted = plan.estimate_per_class(images, supply)
        while True:
            made = self.distiller.distill(
                images,
                labels,
                per_class=wanted,
                num_classes=plan.num_classes,
                teacher=plan.teacher,
                generator=self.generator,
            )
            short = {c: n for c in supply if (n := made.images_per_class.get(c, 0)) < wanted}
            if self.per_class is not None or len(short) == len(supply):
                return made
            # Exemplars can take fewer bytes than the images that they were made of.
            least, more = plan.estimate_per_class(made.images, short)
            if wanted >= least:
                return made
            wanted = more

    def resize(self, size: int) -> None:
        """Change the budget, in its own unit (bytes, or exemplars of each class), and shrink to it.

        Raises:
            BudgetError: If not even one exemplar of each class fits; nothing is changed then.
        """
        name = "per_class" if self.budget_bytes is None else "budget_bytes"
        previous = getattr(self, name)
        setattr(self, name, _require_positive(name, size))
        if self.dataset is None:
            return
        try:
            plan = Plan(self, self.classes, self.num_classes, self.teacher, new=())
            keep = plan.fit(self.dataset.encoded, self.dataset.labels)
        except BudgetError:
            setattr(self, name, previous)
            raise
        self.dataset = self.dataset.select(keep)
        self._open, self._queue = None, torch.zeros(0, dtype=torch.int64)

    @property
    def is_open(self) -> bool:
        """Whether `draw` can be called."""
        return self._open is not None

    def open(
        self,
        classes: Sequence[int],
        device: torch.device | str,
        *,
        extension: Extension = "row_min",
    ) -> None:
        """Decode the exemplars once, onto a device, for drawing.

        The decoded copy is working memory, like a batch; it is dropped at the next `update`.

        Args:
            classes: Order of the columns of the soft labels that will be drawn.
            device: Where batches are wanted.
            extension: What stored labels say of classes that their teacher did not know.
        """
        if self.dataset is None or not len(self.dataset):
            raise ValueError("The memory is empty. Call `update` with the data of an experience first.")
        soft, views = self.dataset.soft_labels, None
        dense = None
        if soft is not None:
            dense = extend(soft.dense(self.dataset.labels, classes), extension).to(device)
            views = soft.views
        self._open = _OpenMemory(self.dataset.images.to(device), self.dataset.labels.to(device), dense, views)

    def draw(self, count: int) -> MemoryBatch:
        """Exactly ``count`` exemplars; each is drawn once before any is drawn again.

        Raises:
            RuntimeError: If the memory is not open.
        """
        if self._open is None:
            raise RuntimeError("The memory is not open. Call `open` after each `update`.")
        opened, chosen = self._open, self._next(count)
        on_device = chosen.to(opened.images.device)
        soft = None
        if opened.soft_labels is None:
            parameters = self.augmentation.draw(count, self.generator)
        else:
            num_views = opened.soft_labels.shape[1]
            view = torch.randint(num_views, (count,), generator=self.generator)
            soft = opened.soft_labels[on_device, view.to(on_device.device)].float()
            parameters = torch.zeros(count, 0) if opened.views is None else opened.views[chosen, view]
        pixels = self.augmentation.apply(opened.images[on_device], parameters).float().div_(255)
        return MemoryBatch(pixels, opened.labels[on_device], soft)

    def _next(self, count: int) -> Tensor:
        """Indices from a queue that is a shuffled pass over the memory, filled up when it runs out."""
        while len(self._queue) < count:
            shuffled = torch.randperm(len(self), generator=self.generator)
            self._queue = torch.cat([self._queue, shuffled])
        chosen, self._queue = self._queue[:count], self._queue[count:]
        return chosen


def _require_positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"Expected `{name}` of at least 1, got {value}.")
    return value


@dataclass(frozen=True)
class _OpenMemory:
    images: Tensor  # uint8 (N, C, H, W), on the device
    labels: Tensor
    soft_labels: Tensor | None  # float16 (N, V, K), on the device
    views: Tensor | None  # int8 (N, V, P), on the CPU
