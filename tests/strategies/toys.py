"""Toy benchmarks of 8x8 images, tiny networks, and spies."""

# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets, class_incremental_benchmark, nc_benchmark
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gift_cl.models import MLP
from gift_cl.normalization import IDENTITY, Normalization
from strategies import with_growing_head

NUM_CLASSES = 6


class Images(TensorDataset):
    """Images with the ``targets`` that Avalanche looks for."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        super().__init__(inputs, labels)
        self.targets = labels.tolist()


def make_images(
    per_class: int = 12, *, channels: int = 1, seed: int = 0, normalization: Normalization = IDENTITY
) -> Images:
    """Noisy copies of one pattern a class, as network inputs; the pixels are whole grey levels."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(NUM_CLASSES, channels, 8, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(NUM_CLASSES).repeat(per_class)
    noise = torch.rand(len(labels), channels, 8, 8, generator=generator)
    pixels = (0.6 * patterns[labels] + 0.4 * noise).mul(255).round().div(255)
    return Images(normalization.apply(pixels), labels)


def make_benchmark(kind: str = "nc", *, num_experiences: int = 3, per_class: int = 12, **options: Any) -> Any:
    """Classes 0 to 5 in ascending order, split evenly.

    Mini-batches of the kinds ``nc`` and ``raw`` are 3-tuples, of ``classification`` 2-tuples.
    """
    train, test = make_images(per_class, **options), make_images(4, seed=1, **options)
    order = list(range(NUM_CLASSES))
    if kind == "nc":
        return nc_benchmark(train, test, num_experiences, task_labels=False, fixed_class_order=order)
    streams: dict[str, Any] = {"train": train, "test": test}
    if kind == "classification":
        streams = {name: as_classification_dataset(images) for name, images in streams.items()}
    return class_incremental_benchmark(streams, num_experiences=num_experiences, class_order=order)


def make_stream(*parts: Sequence[int] | Images) -> list[Any]:
    """Experiences with the images of some classes each, other images each time; or with given images."""
    datasets = []
    for number, part in enumerate(parts):
        images = part
        if not isinstance(images, Images):
            every = make_images(seed=number)
            chosen = torch.isin(every.tensors[1], torch.tensor(part)).nonzero().flatten()
            images = Images(every.tensors[0][chosen], every.tensors[1][chosen])
        datasets.append(as_classification_dataset(images))
    stream: list[DatasetExperience[Any]] = list(
        benchmark_from_datasets(train=datasets, test=datasets[:1]).train_stream
    )
    return stream


def make_model(*, growing: bool = False, channels: int = 1, seed: int = 0) -> nn.Module:
    """A network with six hidden units for each class."""
    torch.manual_seed(seed)
    model = MLP(channels, 8, NUM_CLASSES, hidden=36)
    return with_growing_head(model) if growing else model


def make_strategy(
    strategy: Any = Naive,
    *,
    model: nn.Module | None = None,
    growing: bool = False,
    metrics: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """A quiet strategy with a small model; torch's global generator is seeded just after."""
    model = model or make_model(growing=growing)
    defaults: dict[str, Any] = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": 8,
        "train_epochs": 2,
        "eval_mb_size": 64,
        "evaluator": EvaluationPlugin(*metrics, loggers=[Recorder()]),
    }
    made = strategy(model=model, **(defaults | settings))
    torch.manual_seed(1)
    return made


class Recorder(BaseLogger):
    """Keeps every metric that it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, list[Any]] = {}

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Keep the value."""
        del x_plot
        self.metrics.setdefault(name, []).append(value)


class Spy(SupervisedPlugin):
    """Records what a plugin after the rehearsal sees, and what the model is given."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded."""
        self.model_inputs: list[Tensor] = []
        self.model_outputs: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.task_labels: list[Tensor] = []
        self.losses: list[Tensor] = []

    @property
    def num_rehearsed(self) -> list[int]:
        """In each step, what the model was given beyond the current data."""
        return [len(m) - len(i) for m, i in zip(self.model_inputs, self.inputs, strict=True)]

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Watch the model."""
        self._handle = strategy.model.register_forward_hook(self._record)

    def _record(self, _: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        self.model_inputs.append(inputs[0].detach().clone())
        self.model_outputs.append(outputs.detach().clone())

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Record the batch and the loss."""
        self.inputs.append(strategy.mb_x.clone())
        self.labels.append(strategy.mb_y.clone())
        self.outputs.append(strategy.mb_output.detach().clone())
        self.losses.append(strategy.loss.detach().clone())
        if len(strategy.mbatch) > 2:
            self.task_labels.append(strategy.mb_task_id.clone())

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stop watching."""
        self._handle.remove()


def weights(strategy: Any) -> Tensor:
    """All weights of a strategy's model in a row."""
    return nn.utils.parameters_to_vector(strategy.model.parameters()).detach()
