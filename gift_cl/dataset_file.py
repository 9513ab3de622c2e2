"""The file format of a `DistilledDataset`: safetensors, with JSON metadata and hashes.

``docs/formats.md`` specifies it. Nothing in a file is executed, and what is read is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.files import replacing
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels

FORMAT = "gift-cl/1"


class DamagedFileError(ValueError):
    """A file is not what it says it is."""


def save_dataset(dataset: DistilledDataset, path: str | os.PathLike[str]) -> None:
    """Write a data set; an existing file is replaced only when the new one is complete."""
    from safetensors.torch import save_file

    tensors = {name: t.contiguous() for name, t in _to_tensors(dataset).items()}
    header = _header(dataset) | {"sha256": {name: _sha256(t) for name, t in tensors.items()}}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"gift_cl": json.dumps(header)})


def load_dataset(path: str | os.PathLike[str]) -> DistilledDataset:
    """Read a data set that `save_dataset` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is no such file, was changed, or its parts do not fit together.
    """
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise FileNotFoundError(f"No distilled data set at `{os.fspath(path)}`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
        header = json.loads(metadata.get("gift_cl", "null"))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"its metadata does not say `{FORMAT}`")
        _verify_hashes(tensors, header)
        return _from_tensors(tensors, header)
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise DamagedFileError(
            f"Cannot read `{os.fspath(path)}` as a distilled data set: {error}. "
            "Get the file again, or write it again with `save_dataset`."
        ) from error


def _header(dataset: DistilledDataset) -> dict[str, Any]:
    soft = dataset.soft_labels
    return {
        "format": FORMAT,
        "codec": dataset.encoded.codec,
        "image_shape": list(dataset.encoded.image_shape),
        "num_images": len(dataset),
        "num_classes": dataset.num_classes,
        "factor": dataset.factor,
        "normalization": None if dataset.normalization is None else asdict(dataset.normalization),
        "provenance": asdict(dataset.provenance),
        "covered": None if soft is None else {str(k): list(v) for k, v in soft.covered.items()},
        "num_views": None if soft is None else soft.num_views,
    }


def _to_tensors(dataset: DistilledDataset) -> dict[str, Tensor]:
    encoded, soft = dataset.encoded, dataset.soft_labels
    tensors = {"pixels": encoded.payload, "shared": encoded.shared, "labels": dataset.labels}
    if encoded.lengths is not None:
        tensors["lengths"] = encoded.lengths
    if soft is not None:
        tensors["soft_labels"] = soft.values
        if soft.views is not None:
            tensors["views"] = soft.views
    narrow = {name: _narrow(tensors[name]) for name in ("labels", "lengths") if name in tensors}
    return tensors | narrow


def _narrow(values: Tensor) -> Tensor:
    """Non-negative integers in the narrowest unsigned type that holds them."""
    largest = int(values.max()) if len(values) else 0
    for dtype, limit in ((torch.uint8, 1 << 8), (torch.uint16, 1 << 16), (torch.int32, 1 << 31)):
        if largest < limit:
            return values.to(dtype)
    return values


def _from_tensors(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> DistilledDataset:
    lengths = tensors["lengths"].to(torch.int64) if "lengths" in tensors else None
    channels, height, width = (int(v) for v in header["image_shape"])
    encoded = EncodedImages(
        codec=str(header["codec"]),
        image_shape=(channels, height, width),
        payload=tensors["pixels"],
        lengths=lengths,
        num_images=int(header["num_images"]),
        shared=tensors["shared"],
    )
    soft = None
    if header["covered"] is not None:
        covered = {int(k): tuple(int(c) for c in v) for k, v in header["covered"].items()}
        soft = SoftLabels(tensors["soft_labels"], covered, int(header["num_views"]), tensors.get("views"))
    norm, provenance = header["normalization"], dict(header["provenance"])
    provenance["teacher_classes"] = tuple(int(c) for c in provenance["teacher_classes"])
    return DistilledDataset(
        encoded=encoded,
        labels=tensors["labels"].to(torch.int64),
        num_classes=int(header["num_classes"]),
        soft_labels=soft,
        factor=int(header["factor"]),
        normalization=norm and Normalization(tuple(norm["mean"]), tuple(norm["std"])),
        provenance=Provenance(**provenance),
    )


def _verify_hashes(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    hashes = header["sha256"]
    if set(hashes) != set(tensors):
        raise ValueError(f"it should hold {sorted(hashes)}, and holds {sorted(tensors)}")
    for name, tensor in tensors.items():
        if _sha256(tensor) != hashes[name]:
            raise ValueError(f"the hash of `{name}` does not agree")


def _sha256(tensor: Tensor) -> str:
    flat = tensor.contiguous().view(-1)
    data = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    return hashlib.sha256(data).hexdigest()
