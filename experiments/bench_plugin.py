"""Time per training step: our plugin against Avalanche's Replay and DER, side by side in one run.

`python -m experiments.bench_plugin` takes about two minutes on two cores. Each strategy learns a first
experience, so that its memory is full; then the epochs of a second one are timed, all strategies in
turn, several rounds. Printed are the median milliseconds of a step, loader and all, and ratios to Replay.
The last table follows an online stream of many tiny experiences: milliseconds of the first and of the
last twenty.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import DER, Naive, Replay
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from experiments.quiet import quiet_avalanche
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.real_data import load_real_data
from strategies import DistilledMemory, GIFTPlugin

_NORM = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
_REGIMES = ("hard", "stored:views=1", "stored:views=4", "online")


@dataclass(frozen=True)
class Setting:
    """Images and a model to time steps on.

    Args:
        name: For the table.
        benchmark: Two experiences or more.
        model: Spec of the model.
        shape: Of an image.
        normalization: What the transforms apply.
        augmentation: Of the exemplars.
    """

    name: str
    benchmark: Any
    model: str
    shape: tuple[int, int, int]
    normalization: Normalization
    augmentation: str

    def new_model(self) -> nn.Module:
        """A model with seeded weights."""
        torch.manual_seed(0)
        channels, size, _ = self.shape
        model = build_model(self.model, in_channels=channels, image_size=size, num_classes=10)
        return model.to(memory_format=torch.channels_last)  # as all experiments do


class _PilImages(Dataset[tuple[Any, int]]):
    """As torchvision's CIFAR: PIL images in memory, transformed one by one."""

    def __init__(self, num_images: int) -> None:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.images = [to_pil_image(image) for image in noise]
        self.targets = [i % 10 for i in range(num_images)]
        self.transform = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.targets[index]


class _Tensors(Dataset[tuple[Tensor, int]]):
    """Float images in memory."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.targets = images.float() / 255, labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def cifar_like(num_images: int, model: str) -> Setting:
    """32x32 PIL images of noise with the usual CIFAR transforms."""
    normalize = [transforms.ToTensor(), transforms.Normalize(_NORM.mean, _NORM.std)]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    images = _PilImages(num_images)
    benchmark = nc_benchmark(
        images,
        images,
        n_experiences=2,
        task_labels=False,
        shuffle=False,
        train_transform=transforms.Compose([*augment, *normalize]),
        eval_transform=transforms.Compose(normalize),
    )
    return Setting("32x32, CIFAR transforms", benchmark, model, (3, 32, 32), _NORM, "crop_flip")


def digits() -> Setting:
    """8x8 tensors without a transform, and a small MLP."""
    data = load_real_data("digits")
    train = _Tensors(data.train.images, data.train.labels)
    benchmark = nc_benchmark(train, train, n_experiences=2, task_labels=False, shuffle=False)
    return Setting("digits 8x8, tensors", benchmark, "mlp", (1, 8, 8), Normalization(), "none")


class _Stopwatch(SupervisedPlugin):
    """Milliseconds from the end of one step to the end of the next, within an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = []
        self._last = 0.0

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._last = time.perf_counter()

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self.steps.append((now - self._last) * 1000)
        self._last = now


def strategies_of(setting: Setting) -> dict[str, Callable[[SupervisedPlugin], Any]]:
    """Builders of the strategies compared; all rehearse 32 exemplars beside 32 current images."""

    def common(watch: SupervisedPlugin) -> dict[str, Any]:
        model = setting.new_model()
        return {
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            "criterion": nn.CrossEntropyLoss(),
            "train_mb_size": 32,
            "train_epochs": 1,
            "evaluator": EvaluationPlugin(loggers=[BaseLogger()]),  # a logger that is silent
            "plugins": [watch],
        }

    def gift(regime: str) -> Callable[[SupervisedPlugin], Any]:
        def build(watch: SupervisedPlugin) -> Any:
            memory = DistilledMemory(
                per_class=40,
                exemplars="random",
                labels=regime,
                augmentation=setting.augmentation,
                normalization=setting.normalization,
            )
            settings = common(watch)
            settings["plugins"] = [watch, GIFTPlugin(memory, batch_size_mem=32)]
            return Naive(**settings)

        return build

    return {
        "Naive, no memory": lambda watch: Naive(**common(watch)),
        "Replay (Avalanche)": lambda watch: Replay(mem_size=200, **common(watch)),
        "DER (Avalanche)": lambda watch: DER(mem_size=200, batch_size_mem=32, **common(watch)),
        **{f"GIFT, {regime}": gift(regime) for regime in _REGIMES},
    }


def time_steps(setting: Setting, *, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step in the second experience, by strategy."""
    first, second = setting.benchmark.train_stream[:2]
    arms = {}
    for name, build in strategies_of(setting).items():
        watch = _Stopwatch()
        strategy = build(watch)
        strategy.train(first)
        watch.steps.clear()
        arms[name] = (strategy, watch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Classes .* came back")  # that is how rounds are made
        for strategy, watch in arms.values():  # one epoch that is not counted
            strategy.train(second)
            watch.steps.clear()
        for _ in track(range(rounds), description=setting.name, transient=True):
            for strategy, _ in arms.values():
                strategy.train(second)
    return {name: statistics.median(watch.steps) for name, (_, watch) in arms.items()}


def time_online(setting: Setting) -> dict[str, tuple[float, float]]:
    """Milliseconds of an experience of ten images: mean of the first and of the last twenty."""
    times = {}
    for name, build in strategies_of(setting).items():
        strategy = build(SupervisedPlugin())
        first, second = setting.benchmark.train_stream[:2]
        strategy.train(first)
        stream = split_online_stream(
            [second], experience_size=10, shuffle=False, drop_last=True, access_task_boundaries=True
        )
        milliseconds = []
        for experience in stream:
            start = time.perf_counter()
            strategy.train(experience)
            milliseconds.append((time.perf_counter() - start) * 1000)
        within = milliseconds[1:-1]  # the memory is opened in the first and updated after the last
        times[name] = (statistics.mean(within[:20]), statistics.mean(within[-20:]))
    return times


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_plugin",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed epochs of each strategy (default: 7)")
    parser.add_argument("--images", type=int, default=2000, help="images of 32x32 (default: 2000)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with quiet_avalanche():
        compare(Console(), images=options.images, rounds=options.rounds)


def compare(console: Console, *, images: int, rounds: int) -> None:
    """Time everything, and print the tables."""
    models = ("mlp", "conv3:width=8", "conv3:width=32")  # the heavier the model, the less a loader matters
    for setting in (*(cifar_like(images, model) for model in models), digits()):
        steps = time_steps(setting, rounds=rounds)
        replay = steps["Replay (Avalanche)"]
        table = Table(title=f"{setting.name}, {setting.model}, 32 + 32 images a step")
        for column in ("strategy", "ms a step", "steps a second of Replay's"):
            table.add_column(column, justify="left" if column == "strategy" else "right")
        for name, milliseconds in steps.items():
            table.add_row(name, f"{milliseconds:.2f}", f"{replay / milliseconds:.2f}x")
        console.print(table)
    table = Table(title="online stream of digits, 10 images an experience")
    for column in ("strategy", "ms, first 20", "ms, last 20"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for name, (start, end) in time_online(digits()).items():
        table.add_row(name, f"{start:.2f}", f"{end:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
