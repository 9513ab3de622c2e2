"""What there is to say about a data set, as plain values: for tables, for JSON, and for rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.label_streams import LabelStream
from gift_cl.progress import Progress, silent

Facts = dict[str, Any]

_MEASURED = 5000  # images whose values are measured; more would take long, and change little
_CHUNK = 256


def describe(dataset: DistilledDataset, *, progress: Progress = silent) -> Facts:
    """All there is to know of a data set without a teacher; JSON can hold it.

    Args:
        dataset: Up to 5,000 of its images are decoded, evenly spaced.
        progress: Told of the images that are decoded.
    """
    counts = dataset.images_per_class
    sizes = counts.values()
    norm, provenance = dataset.normalization, asdict(dataset.provenance)
    return {
        "method": dataset.provenance.method,
        "source": dataset.provenance.source,
        "num_images": len(dataset),
        "num_classes": dataset.num_classes,
        "classes_without_images": [c for c in range(dataset.num_classes) if c not in counts][:100],
        "images_per_class": {"min": min(sizes, default=0), "max": max(sizes, default=0)},
        "class_names": None if dataset.class_names is None else list(dataset.class_names),
        "image_shape": list(dataset.encoded.image_shape),
        "codec": dataset.encoded.codec,
        "space": dataset.space,
        "values": _describe_values(dataset, progress),
        "normalization": None if norm is None else {"mean": list(norm.mean), "std": list(norm.std)},
        "factor": dataset.factor,
        "learned_lr": dataset.learned_lr,
        "soft_labels": _describe_soft_labels(dataset),
        "bytes": dataset.ledger().by_part() | {"total": dataset.ledger().total},
        "provenance": provenance | {"teacher_classes": list(dataset.provenance.teacher_classes)},
    }


def describe_stream(stream: LabelStream) -> Facts:
    """What a stream of soft labels holds, and how well it fits its images; JSON can hold it."""
    return {
        **asdict(stream.shape),
        "num_batches": stream.shape.num_batches,
        "bytes": stream.nbytes,
        **asdict(stream.facts),
    }


def agreement(logits: Tensor, labels: Tensor) -> float:
    """Share of rows (N, C) whose highest value, NaN aside, is at their label (N,); NaN without rows."""
    filled = logits.float().nan_to_num(nan=-torch.inf)
    return float((filled.argmax(1) == labels).float().mean())


def _describe_values(dataset: DistilledDataset, progress: Progress) -> Mapping[str, Any]:
    """Type, range, and mean and standard deviation of each channel; pixels of uint8 count as [0, 1]."""
    indices = torch.arange(0, len(dataset), max(1, -(-len(dataset) // _MEASURED)))
    if not len(indices):
        return {"type": "none", "num_measured": 0}
    low, high, kind, done = torch.inf, -torch.inf, "", 0
    sums: list[Tensor] = []
    for chunk in indices.split(_CHUNK):
        images = dataset.encoded.select(chunk).decode()
        kind = str(images.dtype).removeprefix("torch.")
        values = images.double() / (255 if images.dtype == torch.uint8 else 1)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        sums.append(torch.stack([values.mean((2, 3)).sum(0), values.square().mean((2, 3)).sum(0)]))
        progress(done := done + len(chunk), len(indices))
    mean, square = torch.stack(sums).sum(0) / len(indices)
    deviation = (square - mean.square()).clamp_(0).sqrt()
    return {
        "type": kind,
        "min": low,
        "max": high,
        "mean": [round(float(v), 6) for v in mean],
        "std": [round(float(v), 6) for v in deviation],
        "num_measured": len(indices),
    }


def _describe_soft_labels(dataset: DistilledDataset) -> Mapping[str, Any] | None:
    soft = dataset.soft_labels
    if soft is None:
        return None
    first_view = soft.dense(dataset.labels, range(dataset.num_classes))[:, 0]
    widths = [len(columns) for columns in soft.covered.values()]
    return {
        "num_views": soft.num_views,
        "type": str(soft.values.dtype).removeprefix("torch."),
        "classes_covered": {"min": min(widths, default=0), "max": max(widths, default=0)},
        "agreement_with_labels": agreement(first_view, dataset.labels),
    }
