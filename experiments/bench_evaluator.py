"""Images per second of the evaluator against a plain PyTorch loop, step by step in one run.

A step draws 100 images of 32x32 pixels, augments them, lets a teacher label them, and trains a student with
the GIFT loss and AdamW. The plain loop does the same in float32, as most published evaluators do: a
DataLoader with 4 workers transforms one sample after the other, and each step waits for its loss. "Networks
alone" is the floor: the teacher's forward pass, the student's forward and backward pass, and the update, on a
batch that is ready. After each step of the evaluator, the others take one, so whatever else the machine does
meets all of them; speeds and ratios are medians over the steps. The plain loop's workers go on meanwhile,
which favours it.

"float32, compiled" is the same training with student and teacher compiled; its first step, which compiles, is
not counted, and the networks alone are never compiled.

`python -m experiments.bench_evaluator` takes about twelve minutes on two idle cores, half of it for bfloat16,
which a processor without such units emulates. `--quick` takes seconds and measures nothing worth quoting.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from experiments.device_clock import now
from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.folding import folded
from gift_cl.evaluation.optimizers import build_optimizer
from gift_cl.evaluation.precision import Precision, autocast
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.training import train
from gift_cl.losses import gift_loss
from gift_cl.models import build_model
from gift_cl.normalization import build_normalization
from gift_cl.teacher import Teacher

_NORMALIZATION = build_normalization("cifar")

OURS = "evaluator"
FLOOR = "networks alone"
CONTIGUOUS = "networks alone, float32, contiguous"
PLAIN = "plain loop, float32"


@dataclass(frozen=True)
class Setting:
    """What is timed.

    Args:
        model: Spec of student and teacher.
        num_images: Images an epoch; ten classes.
        batch_size: Images a step.
        workers: Processes of the plain loop's DataLoader.
        epochs: Of each recipe; bfloat16 gets one.
        with_compiled: Time compiled networks too; on a CPU that needs a C++ compiler.
        with_bfloat16: Time bfloat16 too.
        device: Where all of them compute; each step is waited for.
    """

    model: str = "conv3"
    num_images: int = 1000
    batch_size: int = 100
    workers: int = 4
    epochs: int = 3
    with_compiled: bool = True
    with_bfloat16: bool = True
    device: str = "cpu"

    def quick(self) -> Setting:
        """The same, tiny."""
        return replace(self, model="conv3:width=4", num_images=40, batch_size=20, workers=1, epochs=1)

    def new_model(self, seed: int) -> nn.Module:
        """A network with seeded weights, on the device."""
        torch.manual_seed(seed)
        model = build_model(self.model, in_channels=3, image_size=32, num_classes=10)
        return model.to(self.device)

    @property
    def images(self) -> Tensor:
        """Noise, uint8 (N, 3, 32, 32)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (self.num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recipe of GIFT with the augmentation of the plain loop, with its own, compiled, in bfloat16."""
        plain = Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            normalization="cifar",
            view="crop_flip:pad=4",
            evaluations=1,
        )
        found = {"float32": plain, "float32, DSA": plain.override(view="dsa")}
        if self.with_compiled:
            found["float32, compiled"] = plain.override(compile=True)
        if self.with_bfloat16:
            found["bfloat16"] = plain.override(precision="bfloat16", epochs=1)
        return found


class _Samples(Dataset[tuple[Tensor, int]]):
    """PIL images, transformed one by one, as torchvision's data sets."""

    def __init__(self, images: Tensor) -> None:
        self._images = [to_pil_image(image) for image in images]
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(_NORMALIZATION.mean, _NORMALIZATION.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._transform(self._images[index]), index % 10


def plain_steps(setting: Setting) -> Iterator[None]:
    """Steps of a loop as it is usually written, without end."""
    loader = DataLoader(
        _Samples(setting.images),
        batch_size=setting.batch_size,
        shuffle=True,
        num_workers=setting.workers,
        persistent_workers=setting.workers > 0,
    )
    teacher, student = setting.new_model(1).eval(), setting.new_model(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    total = 0.0
    while True:
        for batch in loader:
            images, labels = (part.to(setting.device) for part in batch)
            with torch.no_grad():
                soft_labels = teacher(images)
            optimizer.zero_grad()
            loss = gift_loss(student(images), soft_labels, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
            yield


def network_steps(
    setting: Setting, precision: Precision, memory_format: torch.memory_format = torch.channels_last
) -> Iterator[None]:
    """Steps of the networks alone, without end; the teacher is folded as the evaluator does."""
    size, (recipe, *_) = setting.batch_size, setting.recipes.values()
    device = torch.device(setting.device)
    pixels, labels = setting.images[:size].to(device) / 255, torch.arange(size, device=device) % 10
    inputs = _NORMALIZATION.apply(pixels).contiguous(memory_format=memory_format)
    student = setting.new_model(0).to(memory_format=memory_format)
    teacher = folded(setting.new_model(1), inputs[:2]).to(memory_format=memory_format)
    optimizer = build_optimizer(
        recipe.optimizer,
        student,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        decay_all=recipe.decay_all,
    )
    while True:
        optimizer.zero_grad()
        with torch.no_grad(), autocast(device, precision):
            soft_labels = teacher(inputs)
        with autocast(device, precision):
            logits = student(inputs)
        gift_loss(logits, soft_labels, labels).backward()
        optimizer.step()
        yield


Seconds = dict[str, list[float]]
"""Of each step, by who took it."""


def time_recipe(setting: Setting, recipe: Recipe) -> Seconds:
    """Train by a recipe; after each step but the first, which is not counted, the others take one."""
    labels = torch.arange(setting.num_images) % 10
    exemplars = DistilledDataset.from_images(setting.images, labels, num_classes=10)
    teacher = Teacher(setting.new_model(1), classes=range(10), normalization=_NORMALIZATION)
    others = {
        FLOOR: network_steps(setting, recipe.precision),
        CONTIGUOUS: network_steps(setting, "float32", torch.contiguous_format),
        PLAIN: plain_steps(setting),
    }
    for steps in others.values():
        next(steps)
    seconds: Seconds = {name: [] for name in (OURS, *others)}
    start: float | None = None

    def take_turns(done: int, total: int) -> None:
        nonlocal start
        del done, total
        if start is not None:
            seconds[OURS].append(now(setting.device) - start)
            for name, steps in others.items():
                before = now(setting.device)
                next(steps)
                seconds[name].append(now(setting.device) - before)
        start = now(setting.device)

    train(
        setting.new_model(0),
        exemplars,
        recipe,
        teacher=teacher,
        device=setting.device,
        progress=take_turns,
    )
    return seconds


def table_of(setting: Setting, measured: dict[str, Seconds]) -> Table:
    """Images per second by recipe, what the evaluator adds to its networks, and gains on the plain loop."""
    table = Table(
        title=f"images/s: {setting.model}, 32x32, {setting.num_images} images, batches of "
        f"{setting.batch_size}, {setting.device}, {torch.get_num_threads()} threads, median over steps"
    )
    table.add_column("recipe")
    for name in (OURS, FLOOR, CONTIGUOUS, PLAIN, "time over networks alone", "speed-up on the plain loop"):
        table.add_column(name, justify="right")
    for recipe, seconds in measured.items():
        speeds = (setting.batch_size / statistics.median(seconds[name]) for name in seconds)
        over, gain = ratio(seconds, OURS, FLOOR), ratio(seconds, PLAIN, OURS)
        table.add_row(recipe, *(f"{speed:,.1f}" for speed in speeds), f"{over:.2f}x", f"{gain:.2f}x")
    return table


def ratio(seconds: Seconds, name: str, other: str) -> float:
    """Median over the steps of the quotient of two that took turns."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_evaluator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default, shown = Setting(), "(default: %(default)s)"
    parser.add_argument("--model", default=default.model, help=f"student and teacher {shown}")
    parser.add_argument("--images", type=int, default=default.num_images, help=f"an epoch {shown}")
    parser.add_argument("--batch", type=int, default=default.batch_size, help=f"images a step {shown}")
    parser.add_argument(
        "--workers", type=int, default=default.workers, help=f"of the plain loop's DataLoader {shown}"
    )
    parser.add_argument("--epochs", type=int, default=default.epochs, help=f"of each recipe {shown}")
    parser.add_argument("--threads", type=int, default=2, help=f"threads of torch {shown}")
    parser.add_argument("--device", default=default.device, help=f"where all compute {shown}")
    parser.add_argument("--no-compiled", action="store_true", help="leave compiled networks out")
    parser.add_argument("--no-bfloat16", action="store_true", help="leave bfloat16 out")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few images: does it run?")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting = Setting(
        model=options.model,
        num_images=options.images,
        batch_size=options.batch,
        workers=options.workers,
        epochs=options.epochs,
        with_compiled=not options.no_compiled,
        with_bfloat16=not options.no_bfloat16,
        device=options.device,
    )
    setting = setting.quick() if options.quick else setting
    console = Console()
    measured = {}
    for name, recipe in setting.recipes.items():
        with console.status(name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # that is the comparison
            measured[name] = time_recipe(setting, recipe)
    console.print(table_of(setting, measured))


if __name__ == "__main__":
    main()
