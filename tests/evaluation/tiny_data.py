"""Data sets, teachers and recipes of a few pixels for the tests of the evaluator."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.recipe import Recipe
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher

NORMALIZATION = Normalization((0.5,), (0.25,))


def make_images(num_images: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Image i of class i % 3 is bright in two rows of its class."""
    labels = torch.arange(num_images) % 3
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (num_images, 1, 8, 8), dtype=torch.uint8, generator=generator)
    for row in (0, 1):
        images[torch.arange(num_images), 0, 2 * labels + row] += 150
    return images, labels


def make_dataset(num_images: int = 12, *, seed: int = 0, soft: bool = False) -> DistilledDataset:
    """Soft labels of image i are (i, i + 1/4, i + 1/2)."""
    images, labels = make_images(num_images, seed=seed)
    dataset = DistilledDataset.from_images(images, labels, num_classes=3)
    return replace(dataset, soft_labels=make_soft_labels(labels)) if soft else dataset


def make_soft_labels(labels: Tensor, **values: Any) -> SoftLabels:
    logits = torch.arange(len(labels))[:, None, None] + torch.tensor([0.0, 0.25, 0.5])
    return SoftLabels.from_logits(logits, labels, dict.fromkeys(range(3), (0, 1, 2)), **values)


def make_recipe(**values: Any) -> Recipe:
    settings: dict[str, Any] = {
        "epochs": 2,
        "normalization": "0.5/0.25",
        "view": "none",
        "batch_size": 4,
        "evaluations": 1,
    }
    return Recipe(**(settings | values))


def make_model(spec: str = "mlp:hidden=8", *, num_classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(spec, in_channels=1, image_size=8, num_classes=num_classes)


@cache
def make_teacher() -> Teacher:
    """Tells the classes apart, and expects another normalisation than the recipes' students."""
    weights = torch.zeros(3, 64)
    for label in range(3):
        weights[label, 16 * label : 16 * (label + 1)] = 1.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    model.load_state_dict({"1.weight": weights})
    return Teacher(model, classes=range(3), normalization=Normalization((0.25,), (2.0,)))
