"""What distillers add to the passes of their networks, step by step in one run.

RDED scores crops: its floor is the teacher's forward pass of as many images that are ready. `sre2l` and `cda`
take steps on pixels: their floor is the teacher's forward and backward pass to the pixels of a batch that is
ready. `dm` also passes real images: its floor has the forward pass of as many. After each step of a distiller
the floor takes one of the same size, so whatever else the machine does meets both; ratios are medians over
the steps. The networks of the floor are in the memory format that is fastest for them.

`python -m experiments.bench_distillers` takes about five minutes on two idle cores. `--quick` takes seconds
and measures nothing worth quoting.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from experiments.device_clock import now
from gift_cl.distillers import DISTILLERS
from gift_cl.distillers.embeddings import Embedding
from gift_cl.memory_format import fastest_format, images_at_once
from gift_cl.models import build_model
from gift_cl.normalization import build_normalization
from gift_cl.teacher import Teacher

_NORMALIZATION = build_normalization("cifar")
_CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """What is timed.

    Args:
        width: Channels of the ConvNet-3 that is the teacher, and of the networks of `dm`.
        per_class: Real images of each of ten classes.
        ipc: Exemplars of each class.
        steps: Of the distillers that take steps.
        device: Where all of them compute; each step is waited for.
    """

    width: int = 128
    per_class: int = 250
    ipc: int = 10
    steps: int = 20
    device: str = "cpu"

    def quick(self) -> Setting:
        """The same, tiny."""
        return replace(self, width=4, per_class=8, ipc=2, steps=3)

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """Noise, uint8 (N, 3, 32, 32), and its labels, on the device."""
        generator = torch.Generator().manual_seed(0)
        count = self.per_class * _CLASSES
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return images.to(self.device), (torch.arange(count) % _CLASSES).to(self.device)

    @property
    def teacher(self) -> Teacher:
        """With weights as they are drawn; what it answers makes no difference."""
        torch.manual_seed(1)
        model = build_model(f"conv3:width={self.width}", in_channels=3, image_size=32, num_classes=_CLASSES)
        return Teacher(model.to(self.device), classes=range(_CLASSES), normalization=_NORMALIZATION)

    @property
    def contestants(self) -> dict[str, tuple[int, Callable[[], None]]]:
        """Distillers, images in one of their steps, and the floor of such a step."""
        made, real = self.ipc * _CLASSES, self.per_class * _CLASSES
        inversion = f"iterations={self.steps},batch={made}"
        teacher = self.teacher.model
        network = Embedding(width=self.width).build(torch.Size((3, 32, 32)), _CLASSES).to(self.device)
        scoring, inverting = passes(teacher, forward=5 * self.per_class), passes(teacher, to_pixels=made)
        matching = passes(network, forward=real, to_pixels=made)
        return {
            "rded:crops=5": (5 * self.per_class, scoring),
            f"sre2l:{inversion}": (made, inverting),
            f"cda:{inversion}": (made, inverting),
            f"dm:iterations={self.steps},width={self.width},real={self.per_class}": (real + made, matching),
        }


def passes(network: nn.Module, *, forward: int = 0, to_pixels: int = 0) -> Callable[[], None]:
    """Passes of so many images that are ready: forward alone, and forward and backward to the pixels."""
    network = copy.deepcopy(network).requires_grad_(False).eval()
    device = next(network.parameters()).device
    images = torch.randn(max(forward, to_pixels), 3, 32, 32, device=device)
    memory_format = fastest_format(network, images[:2])
    network, images = network.to(memory_format=memory_format), images.to(memory_format=memory_format)
    pixels = images[:to_pixels].clone().requires_grad_()

    @torch.no_grad()
    def answer() -> None:
        for batch in images[:forward].split(images_at_once(images, device)):
            network(batch)

    def once() -> None:
        answer()
        if to_pixels:
            torch.autograd.grad(network(pixels).square().sum(), pixels)

    return once


def time_distiller(
    setting: Setting, spec: str, size: int, floor: Callable[[], None]
) -> list[tuple[float, float]]:
    """Seconds of each step of ``size`` images of a distiller, and of its floor right after it.

    The first step is not counted.
    """
    images, labels = setting.images
    seconds: list[tuple[float, float]] = []
    steps, start = 0, 0.0

    def take_turns(done: int, total: int) -> None:
        nonlocal steps, start
        del total
        if done // size == steps:
            return
        end = now(setting.device)
        floor()
        if steps:
            seconds.append((end - start, now(setting.device) - end))
        steps, start = done // size, now(setting.device)

    floor()
    DISTILLERS.create(spec).distill(
        images,
        labels,
        per_class=setting.ipc,
        num_classes=_CLASSES,
        teacher=setting.teacher,
        generator=torch.Generator().manual_seed(0),
        progress=take_turns,
    )
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_distillers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default, shown = Setting(), "(default: %(default)s)"
    parser.add_argument("--width", type=int, default=default.width, help=f"channels of ConvNet-3 {shown}")
    parser.add_argument("--steps", type=int, default=default.steps, help=f"of sre2l, cda and dm {shown}")
    parser.add_argument("--device", default=default.device, help=f"where all compute {shown}")
    parser.add_argument("--threads", type=int, default=2, help=f"threads of torch {shown}")
    parser.add_argument("--only", help="the distillers whose name begins so")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few images: does it run?")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting = Setting(width=options.width, steps=options.steps, device=options.device)
    setting = setting.quick() if options.quick else setting
    table = Table(
        title=f"ConvNet-3 of width {setting.width}, 32x32, {setting.device}, "
        f"{torch.get_num_threads()} threads, median over steps, in one run"
    )
    for name in ("distiller", "images/s", "its networks alone", "time over networks alone", "steps"):
        table.add_column(name, justify="left" if name == "distiller" else "right")
    console = Console()
    for spec, (size, floor) in setting.contestants.items():
        if not spec.startswith(options.only or ""):
            continue
        with console.status(spec):
            seconds = time_distiller(setting, spec, size, floor)
        ours, floors = (statistics.median(each) for each in zip(*seconds, strict=True))
        ratio = statistics.median(own / alone for own, alone in seconds)
        table.add_row(
            spec, f"{size / ours:,.0f}", f"{size / floors:,.0f}", f"{ratio:.2f}x", str(len(seconds))
        )
    console.print(table)


if __name__ == "__main__":
    main()
