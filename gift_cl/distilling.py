"""A real data set distilled part by part, by one process or several; what is done stays done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import Distiller
from gift_cl.distillers.protocol import MadeInPasses
from gift_cl.evaluation.claims import Owner
from gift_cl.evaluation.digests import dataset_digest, teacher_digest
from gift_cl.evaluation.labelling import seeded
from gift_cl.parts_folder import COMMAND, Part, PartsFolder, command_digest, join_parts
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.teacher import Teacher

_POLL_S = 0.5


def distill_dataset(
    data: RealData,
    distiller: Distiller,
    *,
    ipc: int,
    teacher: Teacher | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    parts: str | os.PathLike[str] | None = None,
    save: Callable[[DistilledDataset], None] | None = None,
    is_saved: Callable[[str], bool] = lambda digest: False,
    progress: Progress = silent,
    on_wait: Callable[[Collection[Owner]], None] = lambda owners: None,
    rank: int = 0,
    world_size: int = 1,
) -> DistilledDataset | None:
    """``ipc`` exemplars of each class, made from the training images.

    Classes are made in groups of ``distiller.classes_at_once``, and each group in passes where the distiller
    is `MadeInPasses`. Each such part has a random state of its own, from the seed, its first class and its
    first exemplar, so that the result does not depend on which process makes it, or when. The part with the
    class of fewest images comes first: if it has too few, that is known at once.

    With ``parts``, each part is written there as it is finished, and the same call goes on where it was
    stopped. Several processes may do it together, told of each other (``rank``) or not: each makes parts that
    no other has, and takes over those of a process that has died. One of them gets the data set, rank 0 if
    there are ranks.

    Args:
        data: Its training images are used, and no others.
        distiller: The method.
        ipc: Exemplars of each class, as a student sees them, at least 1.
        teacher: For methods that need one; others do not get it.
        seed: Of all draws.
        device: Where a method without a teacher computes; others do where the teacher is.
        parts: Folder of what is finished; made if missing.
        save: Given the data set before the parts are removed; without it they stay.
        is_saved: Whether `save` has dealt with a data set that has this hash in its provenance, as
            ``command``. Asked by ranks above 0 that find no parts: all may be over before they begin.
        progress: Told of the images that went through networks here, and how many there may be.
        on_wait: Told who holds the parts that are left, now and then.
        rank: Number of this process.
        world_size: Processes that were told of each other.

    Returns:
        The images as the distiller stores them, class after class; None where another process has them.
        Hashes in the provenance tell the training images, the teacher, and what was asked for.

    Raises:
        UnseenClassError: If the teacher has not seen a class.
        LayoutError: If ``parts`` holds those of another call.
        DamagedFileError: If a part is damaged; the message says what to do.
        ValueError: If a class has too few images, the method needs a teacher, or the images do not suit it.
        OSError: If ``parts`` cannot be written.

    Example:
        >>> from gift_cl.distillers import DISTILLERS
        >>> from gift_cl.real_data import load_real_data
        >>> dataset = distill_dataset(load_real_data("digits"), DISTILLERS.create("random"), ipc=2)
        >>> len(dataset), dataset.provenance.method
        (20, 'random')
    """
    if ipc < 1:
        raise ValueError(f"Expected `ipc` of at least 1, got {ipc}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"Expected `rank` in [0, {world_size}), got {rank}.")
    if distiller.needs_teacher and teacher is None:
        raise ValueError(f"The distiller `{distiller.spec}` needs a teacher; pass one, or choose `random`.")
    if not distiller.needs_teacher:
        teacher = None
    maker = _Maker(data, distiller, ipc=ipc, teacher=teacher, seed=seed, device=device)
    meter = _Meter(progress, world_size)
    if parts is None:
        left = maker.parts
        return join_parts([maker.make(one, meter.of(one, left[i:])) for i, one in enumerate(left)])
    folder = PartsFolder(parts, maker.command)
    if rank and not folder.has_begun and is_saved(command_digest(maker.command)):
        return None
    folder.begin()
    left = maker.order[rank::world_size]
    left += [one for one in maker.order if one not in left]
    while left:
        try:
            owners = _make_parts(folder, maker, left, meter)
        except BaseException:
            folder.tidy()  # where not one part was made, nothing is left behind
            raise
        if owners and rank:
            return None
        if owners:
            on_wait(owners)
            time.sleep(_POLL_S)
    return None if rank else _finish(folder, maker.parts, save)


def _make_parts(folder: PartsFolder, maker: _Maker, left: list[Part], meter: _Meter) -> set[Owner]:
    """Make what is free of ``left``, and take from it what is done, by whomever; returns who has the rest."""
    owners = set()
    for part in list(left):
        claim = None if folder.has(part) else folder.claim(part)
        if isinstance(claim, Owner):
            owners.add(claim)
            continue
        if claim is not None:
            with claim:
                # Another process may have made it meanwhile, or even joined all parts and removed them.
                if folder.has_begun and not folder.has(part):
                    folder.save(part, maker.make(part, meter.of(part, left)))
        left.remove(part)
    return owners


def _finish(
    folder: PartsFolder, parts: Sequence[Part], save: Callable[[DistilledDataset], None] | None
) -> DistilledDataset | None:
    """All parts joined, by one process only."""
    claim = folder.claim_all()
    if isinstance(claim, Owner):
        return None
    with claim:
        is_over = not folder.has_begun
        dataset = None if is_over else folder.join(parts)
        if dataset is not None and save is not None:
            save(dataset)
            folder.remove()
    if is_over:
        folder.tidy()
    return dataset


class _Maker:
    """Makes exemplars, part by part.

    Args:
        data: As in `distill_dataset`, as all that follow.
        distiller: The method.
        ipc: Exemplars of each class.
        teacher: None for methods without one.
        seed: Of all draws.
        device: Of methods without a teacher.
    """

    def __init__(
        self,
        data: RealData,
        distiller: Distiller,
        *,
        ipc: int,
        teacher: Teacher | None,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self._data, self._distiller, self._ipc, self._seed = data, distiller, ipc, seed
        self._teacher, self._device = teacher, torch.device(device)
        self._labels = data.train.labels
        counts = data.train.images_per_class
        classes = tuple(counts)
        size = distiller.classes_at_once or len(classes)
        groups = [classes[start : start + size] for start in range(0, len(classes), size)]
        self.parts = [part for group in groups for part in self._parts_of(group)]
        self.order = sorted(self.parts, key=lambda part: min(counts[label] for label in part.classes))

    def _parts_of(self, group: tuple[int, ...]) -> list[Part]:
        distiller, passes = self._distiller, [self._ipc]
        if isinstance(distiller, MadeInPasses):
            passes = distiller.passes(self._ipc, len(group))
        return [Part(group, sum(passes[:number]), count) for number, count in enumerate(passes)]

    @cached_property
    def command(self) -> dict[str, Any]:
        """All that the exemplars follow from."""
        return {
            "method": self._distiller.spec,
            "ipc": self._ipc,
            "seed": self._seed,
            "data": dataset_digest(self._data.train),
            "teacher": None if self._teacher is None else teacher_digest(self._teacher),
        }

    def make(self, part: Part, progress: Progress) -> DistilledDataset:
        """The exemplars of a part, with where they come from.

        Raises:
            ValueError: If a class has too few images.
        """
        images, labels = self._images_of(part.classes)
        draws = f"distill {part.classes[0]}" + (f" from {part.first}" if part.first else "")
        made = self._distiller.distill(
            images,
            labels,
            per_class=part.count,
            num_classes=self._data.num_classes,
            teacher=self._teacher,
            generator=seeded(draws, self._seed),
            progress=progress,
        )
        self._check(made, part)
        hashes = {name: self.command[name] for name in ("data", "teacher") if self.command[name]}
        provenance = replace(
            made.provenance,
            source=f"{self._data.train.provenance.source}, distilled with seed {self._seed}",
            hashes={**made.provenance.hashes, **hashes, COMMAND: command_digest(self.command)},
        )
        return replace(made, class_names=self._data.class_names, provenance=provenance)

    def _images_of(self, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        train, labels = self._data.train, self._labels
        if len(classes) == len(train.images_per_class):
            images = train.images
        else:
            rows = torch.isin(labels, torch.tensor(classes)).nonzero().flatten()
            images, labels = train.encoded.select(rows).decode(), labels[rows]
        return (images if self._teacher else images.to(self._device)), labels

    def _check(self, made: DistilledDataset, part: Part) -> None:
        counts = made.images_per_class
        label = min(part.classes, key=lambda label: counts.get(label, 0))
        if (count := counts.get(label, 0)) < part.count:
            raise ValueError(
                f"Expected at most {count} for `ipc`, as many as `{self._distiller.spec}` makes of the "
                f"images of `{self._data.class_names[label]}`, got {self._ipc}."
            )
        assert torch.equal(made.labels, torch.tensor(part.classes).repeat_interleave(part.count))


class _Meter:
    """How far all that is left for a process is, as far as the parts so far tell.

    Args:
        progress: Told of it.
        world_size: Processes that share what is left.
    """

    def __init__(self, progress: Progress, world_size: int) -> None:
        self._progress, self._world_size = progress, world_size
        self._done = 0

    def of(self, part: Part, left: Sequence[Part]) -> Progress:
        """What a part's distiller tells."""
        before = self._done
        sizes = [len(one.classes) * one.count for one in (part, *left)]
        others = sum(sizes[1:]) / sizes[0] - 1  # parts of this size

        def tell(done: int, total: int) -> None:
            self._done = before + done
            self._progress(self._done, before + total + round(total * others / self._world_size))

        return tell
