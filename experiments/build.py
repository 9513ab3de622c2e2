"""Strategies of a comparison, built from one configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import DER, ER_ACE, Cumulative, GDumb, Naive, Replay
from torch import nn

from experiments.avalanche_memory import sample_ledger, samples_within
from experiments.benchmark import Stream
from experiments.config import Config
from gift_cl.ledger import Ledger
from gift_cl.models import build_model
from strategies import DistilledMemory, GIFTDumb, GIFTReplay, HardLabelCriterion, with_growing_head


def build_strategy(config: Config, stream: Stream) -> Any:
    """The strategy of a configuration, with a new model."""
    return _BUILDERS[config.strategy](config, stream)


def avalanche_sample(config: Config, stream: Stream) -> Ledger | None:
    """What one sample costs in Avalanche's memory; None for strategies without one."""
    if config.strategy not in ("replay", "der", "er_ace", "gdumb"):
        return None
    num_classes = stream.data.num_classes
    logits = num_classes if config.strategy == "der" else 0
    pixels = math.prod(stream.data.image_shape)
    return sample_ledger(pixels=pixels, num_classes=num_classes, num_logits=logits)


def _model(config: Config, stream: Stream) -> nn.Module:
    channels, size, _ = stream.data.image_shape
    model = build_model(
        config.model, in_channels=channels, image_size=size, num_classes=stream.data.num_classes
    )
    model = model.to(memory_format=torch.channels_last)  # no change but in speed, for convolutions
    return with_growing_head(model) if config.head == "growing" else model


def _common(config: Config, stream: Stream) -> dict[str, Any]:
    model = _model(config, stream)
    optimizer = getattr(torch.optim, config.optimizer)
    settings = {"momentum": config.momentum} if config.optimizer == "SGD" else {}
    return {
        "model": model,
        "optimizer": optimizer(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, **settings
        ),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": config.batch_size,
        "train_epochs": config.epochs,
        "eval_mb_size": 512,
        "device": torch.device(config.device),
        "evaluator": EvaluationPlugin(loggers=[BaseLogger()]),  # a logger that is silent
    }


def _mem_size(config: Config, stream: Stream) -> int:
    sample = avalanche_sample(config, stream)
    assert sample is not None
    assert config.budget_bytes is not None
    return samples_within(config.budget_bytes, sample)


def _naive(config: Config, stream: Stream) -> Any:
    return Naive(**_common(config, stream))


def _joint(config: Config, stream: Stream) -> Any:
    return Cumulative(**_common(config, stream))


def _replay(config: Config, stream: Stream) -> Any:
    return Replay(mem_size=_mem_size(config, stream), **_common(config, stream))


def _der(config: Config, stream: Stream) -> Any:
    """DER++ with both weights at 0.5."""
    mem_size = _mem_size(config, stream)
    batch_size_mem = min(config.batch_size_mem, mem_size)  # it does not rehearse before it has a batch
    return DER(
        mem_size=mem_size,
        batch_size_mem=batch_size_mem,
        alpha=0.5,
        beta=0.5,
        **_common(config, stream),
    )


def _er_ace(config: Config, stream: Stream) -> Any:
    mem_size = _mem_size(config, stream)
    batch_size_mem = min(config.batch_size_mem, mem_size)
    return ER_ACE(mem_size=mem_size, batch_size_mem=batch_size_mem, **_common(config, stream))


def _gdumb(config: Config, stream: Stream) -> Any:
    settings = _common(config, stream) | {"train_epochs": config.student_epochs}
    return GDumb(mem_size=_mem_size(config, stream), **settings)


def _gift(config: Config, stream: Stream) -> Any:
    memory = DistilledMemory(
        budget_bytes=config.budget_bytes,
        per_class=config.per_class,
        exemplars=config.exemplars,
        codec=config.codec,
        labels=config.labels,
        augmentation=config.augmentation,
        normalization=stream.normalization,
        num_classes=stream.data.num_classes,
        seed=config.seed,
    )
    settings: dict[str, Any] = _common(config, stream) | {
        "memory": memory,
        "loss": config.loss,
        "batch_size_mem": config.batch_size_mem,
        "memory_weight": config.memory_weight,
        "balance": config.balance,
        "criterion": HardLabelCriterion(config.criterion),
        "extension": config.extension,
    }
    if config.effective_protocol == "memory_only":
        return GIFTDumb(student_epochs=config.student_epochs, student_seed=config.seed, **settings)
    return GIFTReplay(**settings)


_BUILDERS: dict[str, Callable[[Config, Stream], Any]] = {
    "naive": _naive,
    "replay": _replay,
    "der": _der,
    "er_ace": _er_ace,
    "gdumb": _gdumb,
    "gift": _gift,
    "gift_dumb": _gift,
    "joint": _joint,
}
