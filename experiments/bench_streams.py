"""Images a second that a replayed stream of soft labels makes, against what a student can take.

`python -m experiments.bench_streams` takes about two minutes on two cores. Streams of noise are written as
published, in folders and packed, and replayed with CutMix; a ConvNet-3 of width 128 is trained on batches
that are ready. Printed are the median images a second of both, timed in turn, and their ratio. The files
are in the system's cache.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import RandomSampler

from gift_cl.dataset import DistilledDataset
from gift_cl.label_streams import (
    FKDStream,
    LabelStream,
    ReplayedBatch,
    StreamedBatches,
    open_stream,
    pack_stream,
)
from gift_cl.losses import kl_loss
from gift_cl.models import build_model
from gift_cl.normalization import Normalization

_NORM = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
_STUDENT = "conv3:width=128"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes of a stream.

    Args:
        side: Of the images, in pixels.
        num_classes: ``C``.
        images_per_class: Of the data set.
        batch_size: Rows of a batch.
        epochs: Stored.
    """

    side: int
    num_classes: int
    images_per_class: int
    batch_size: int
    epochs: int = 2

    def new_dataset(self) -> DistilledDataset:
        """Images of noise, class by class."""
        count = self.num_classes * self.images_per_class
        generator = torch.Generator().manual_seed(0)
        shape = (count, 3, self.side, self.side)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.arange(self.num_classes).repeat_interleave(self.images_per_class)
        return DistilledDataset.from_images(images, labels, num_classes=self.num_classes)


SETTINGS = (
    Setting(side=32, num_classes=100, images_per_class=10, batch_size=64),  # as CIFAR-100
    Setting(side=64, num_classes=200, images_per_class=10, batch_size=256),  # as Tiny ImageNet
)
QUICK = (Setting(side=16, num_classes=10, images_per_class=4, batch_size=16),)


def write_folder(folder: Path, dataset: DistilledDataset, setting: Setting) -> None:
    """Files as SRe2L publishes them, cut-mixed, of a teacher that knows the larger part of each view."""
    sampler = RandomSampler(dataset.labels, generator=torch.Generator().manual_seed(42))
    rng = np.random.default_rng(0)
    for epoch in range(setting.epochs):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for number, indices in enumerate(torch.tensor(list(sampler)).split(setting.batch_size)):
            rows, half = len(indices), int(rng.integers(setting.side // 3))
            extent = rng.integers(setting.side // 3, setting.side + 1, (rows, 2))
            start = rng.integers(0, setting.side + 1 - extent)
            logits = rng.normal(size=(rows, setting.num_classes))
            logits[np.arange(rows), dataset.labels[indices].numpy()] += 9
            elements = [
                torch.from_numpy(np.hstack([start, extent]) / setting.side).float(),
                torch.from_numpy(rng.random(rows) < 0.5),
                torch.from_numpy(rng.permutation(rows)),
                1 - (2 * half / setting.side) ** 2,
                [np.int64(edge) for edge in (0, 0, 2 * half, 2 * half)],
                torch.from_numpy(logits).half(),
            ]
            torch.save(elements, folder / f"epoch_{epoch}" / f"batch_{number}.tar")


def replayed(stream: LabelStream, dataset: DistilledDataset) -> Iterator[int]:
    """Rows of one batch after another, once it is made; without end."""
    batches = StreamedBatches(stream, dataset, normalization=_NORM)
    while True:
        for batch in batches.loader(range(stream.shape.num_epochs)):
            yield len(batch.labels)


def trained(batches: Sequence[ReplayedBatch], setting: Setting) -> Iterator[int]:
    """Rows of one batch after another, once a student has learnt it; without end."""
    torch.manual_seed(0)
    student = build_model(
        _STUDENT, in_channels=3, image_size=setting.side, num_classes=setting.num_classes
    ).to(memory_format=torch.channels_last)  # as all experiments do
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in itertools.cycle(batches):
        optimizer.zero_grad(set_to_none=True)
        kl_loss(student(batch.images), batch.logits, batch.labels).backward()
        optimizer.step()
        yield len(batch.labels)


def rates(arms: dict[str, Iterator[int]], *, rounds: int, seconds: float) -> dict[str, float]:
    """Median rows a second of each arm; all are timed in turn, since other work may slow the machine."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for rows in arms.values():  # a first batch that is not timed
        next(rows)
    for _ in range(rounds):
        for name, rows in arms.items():
            start, total = time.perf_counter(), 0
            while (passed := time.perf_counter() - start) < seconds:
                total += next(rows)
            found[name].append(total / passed)
    return {name: statistics.median(values) for name, values in found.items()}


def compare(console: Console, settings: Sequence[Setting], *, rounds: int, seconds: float) -> None:
    """Time everything, and print the table."""
    table = Table(title=f"cut-mixed streams, {_STUDENT}, {torch.get_num_threads()} threads")
    for column in ("images", "batch", "stream", "replayed, images/s", "student, images/s", "ratio"):
        table.add_column(column, justify="left" if column in ("images", "stream") else "right")
    for setting in settings:
        dataset = setting.new_dataset()
        with tempfile.TemporaryDirectory() as place:
            write_folder(Path(place, "labels"), dataset, setting)
            folder = FKDStream.open(Path(place, "labels"), dataset)
            pack_stream(folder, Path(place, "packed"), dataset=dataset)
            packed = open_stream(Path(place, "packed"))
            batches = StreamedBatches(packed, dataset, normalization=_NORM)
            arms = {
                "student": trained([batches[number] for number in range(4)], setting),
                "folder": replayed(folder, dataset),
                "packed": replayed(packed, dataset),
            }
            found = rates(arms, rounds=rounds, seconds=seconds)
        student = found.pop("student")
        for name, made in found.items():
            numbers = (f"{made:,.0f}", f"{student:,.0f}", f"{made / student:.1f}")
            table.add_row(f"{setting.side}x{setting.side}", str(setting.batch_size), name, *numbers)
    console.print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_streams",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one tiny stream, a moment each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        compare(Console(), QUICK, rounds=1, seconds=0.05)
    else:
        compare(Console(), SETTINGS, rounds=options.rounds, seconds=2)


if __name__ == "__main__":
    main()
