"""The file format of a `DistilledDataset`: safetensors, with JSON metadata and hashes.

``docs/formats.md`` specifies it. Nothing in a file is executed, and what is read is verified.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.ledger import label_nbytes
from gift_cl.normalization import Normalization
from gift_cl.sealed import read_sealed, reporting_damage, write_sealed
from gift_cl.soft_labels import SoftLabels

FORMAT = "gift-cl/2"
_READABLE = ("gift-cl/1", FORMAT)

_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.int32}  # by bytes; four are never all used


def save_dataset(dataset: DistilledDataset, path: str | os.PathLike[str]) -> None:
    """Write a data set, equal ones as equal bytes; an old file is replaced when the new one is complete.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names it.
    """
    write_sealed(path, _header(dataset), _to_tensors(dataset))


def load_dataset(path: str | os.PathLike[str]) -> DistilledDataset:
    """Read a data set that `save_dataset` wrote; what comes back does not depend on the file any more.

    The hashes of everything are verified, and the first image is decoded.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is no such file, was changed, or its parts do not fit together.
    """
    return _read(path, is_mapped=False)


def open_dataset(path: str | os.PathLike[str]) -> DistilledDataset:
    """A data set whose images stay in the file until they are used: opened at once, however large it is.

    The stored images are mapped into memory, so a batch ``dataset.select(indices).images`` reads its own
    bytes and no others. Everything but the images is verified as `load_dataset` does; the images are not
    read, so their hash is not. The file must not be changed while the data set is in use.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is no such file, or its parts do not fit together.
    """
    return _read(path, is_mapped=True)


def _read(path: str | os.PathLike[str], *, is_mapped: bool) -> DistilledDataset:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No distilled data set at `{os.fspath(path)}`.")
    cure = "Get the file again, or write it again with `save_dataset`."
    with reporting_damage(path, "a distilled data set", cure):
        header, tensors = read_sealed(path, _READABLE, mapped=["pixels"] if is_mapped else [])
        dataset = _from_tensors(tensors, header)
        dataset.encoded.select(range(min(len(dataset), 1))).decode()
    return dataset


def _header(dataset: DistilledDataset) -> dict[str, Any]:
    soft, provenance = dataset.soft_labels, dataset.provenance
    return {
        "format": FORMAT,
        "codec": dataset.encoded.codec,
        "image_shape": list(dataset.encoded.image_shape),
        "num_images": len(dataset),
        "num_classes": dataset.num_classes,
        "factor": dataset.factor,
        "normalization": None if dataset.normalization is None else asdict(dataset.normalization),
        "space": dataset.space,
        "learned_lr": dataset.learned_lr,
        "class_names": None if dataset.class_names is None else list(dataset.class_names),
        "provenance": {
            "method": provenance.method,
            "source": provenance.source,
            "teacher": provenance.teacher,
            "teacher_classes": list(provenance.teacher_classes),
            "oracle": provenance.oracle,
            "hashes": dict(provenance.hashes),
        },
        "covered": None if soft is None else {str(k): list(v) for k, v in soft.covered.items()},
        "num_views": None if soft is None else soft.num_views,
    }


def _to_tensors(dataset: DistilledDataset) -> dict[str, Tensor]:
    """The tensors of a file; together as many bytes as the ledger says."""
    encoded, soft = dataset.encoded, dataset.soft_labels
    labels = dataset.labels.to(_UNSIGNED[label_nbytes(dataset.num_classes)])
    tensors = {"pixels": encoded.payload, "shared": encoded.shared, "labels": labels}
    if encoded.lengths is not None:
        entry = int((encoded.nbytes_each - encoded.lengths).max()) if len(encoded) else 2
        tensors["lengths"] = encoded.lengths.to(_UNSIGNED[entry])
    if soft is not None:
        tensors["soft_labels"] = soft.values
        if soft.views is not None:
            tensors["views"] = soft.views
    return tensors


def _from_tensors(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> DistilledDataset:
    channels, height, width = (_whole(v) for v in header["image_shape"])
    encoded = EncodedImages(
        codec=str(header["codec"]),
        image_shape=(channels, height, width),
        payload=tensors["pixels"],
        lengths=_widened(tensors["lengths"]) if "lengths" in tensors else None,
        num_images=_whole(header["num_images"]),
        shared=tensors["shared"],
    )
    soft = None
    if header["covered"] is not None:
        covered = {int(k): tuple(_whole(c) for c in v) for k, v in header["covered"].items()}
        soft = SoftLabels(tensors["soft_labels"], covered, _whole(header["num_views"]), tensors.get("views"))
    elif "soft_labels" in tensors or "views" in tensors:
        raise ValueError("it holds soft labels, and does not say of which classes")
    names, lr, norm = header.get("class_names"), header.get("learned_lr"), header["normalization"]
    if norm is not None:
        norm = Normalization(tuple(map(float, norm["mean"])), tuple(map(float, norm["std"])))
    return DistilledDataset(
        encoded=encoded,
        labels=_widened(tensors["labels"]),
        num_classes=_whole(header["num_classes"]),
        soft_labels=soft,
        factor=_whole(header["factor"]),
        normalization=norm,
        space=header.get("space", "pixels"),
        learned_lr=None if lr is None else float(lr),
        class_names=None if names is None else tuple(map(str, names)),
        provenance=_provenance(header["provenance"]),
    )


def _provenance(header: Mapping[str, Any]) -> Provenance:
    return Provenance(
        method=str(header["method"]),
        source=str(header["source"]),
        teacher=str(header["teacher"]),
        teacher_classes=tuple(_whole(c) for c in header["teacher_classes"]),
        oracle=bool(header["oracle"]),
        hashes={str(name): str(value) for name, value in header["hashes"].items()},
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"its metadata say {value!r} for a whole number")
    return value


def _widened(values: Tensor) -> Tensor:
    if values.dtype not in _UNSIGNED.values():
        raise ValueError(f"it holds {values.dtype} in place of whole numbers")
    return values.to(torch.int64)
