"""What tells data sets and teachers from others: SHA-256 of all that can change a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.teacher import Teacher

_KNOWN: WeakKeyDictionary[DistilledDataset | Teacher, str] = WeakKeyDictionary()


def dataset_digest(dataset: DistilledDataset) -> str:
    """Of images as stored, labels and soft labels; computed once for each object."""
    if dataset not in _KNOWN:
        encoded, soft = dataset.encoded, dataset.soft_labels
        facts = [encoded.codec, *encoded.image_shape, dataset.num_classes, dataset.space]
        tensors = [encoded.payload, encoded.lengths, encoded.shared, dataset.labels]
        if soft is not None:
            facts += [str(sorted(soft.covered.items())), soft.num_views]
            tensors += [soft.values, soft.views]
        _KNOWN[dataset] = _digest(facts, tensors)
    return _KNOWN[dataset]


def teacher_digest(teacher: Teacher) -> str:
    """Of weights, classes and normalisation; computed once for each object."""
    if teacher not in _KNOWN:
        state = teacher.model.state_dict()
        facts = [*state, *teacher.classes, str(teacher.normalization), teacher.oracle]
        _KNOWN[teacher] = _digest(facts, list(state.values()))
    return _KNOWN[teacher]


def text_digest(facts: Any) -> str:
    """Of anything that JSON can write, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _digest(facts: list[Any], tensors: list[Tensor | None]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for tensor in tensors:
        digest.update(b"none" if tensor is None else f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
