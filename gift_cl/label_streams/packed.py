"""Reading a packed stream: opened at once however large it is, since it stays in its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.label_streams.batch import Cutmix, Mix, Mixup, StreamBatch
from gift_cl.label_streams.packed_layout import (
    CUTMIX,
    FORMAT,
    MIXUP,
    SMALL,
    UNMIXED,
    tensor_layouts,
)
from gift_cl.label_streams.stream import (
    Order,
    StreamFacts,
    StreamShape,
    check_epoch,
    labels_sha256,
    pixels_sha256,
)
from gift_cl.progress import Progress, silent
from gift_cl.sealed import reporting_damage, sha256, tensor_bytes, unseal

_WHAT = "a packed stream of soft labels"
_CURE = "Get the file again, or write it again with `pack_stream`."


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedStream:
    """A stream in one file, which must not be changed while it is in use.

    Args:
        path: The file.
        shape: How many of everything there are.
        facts: Where it comes from, and how well it fits its images.
        nbytes: Of the file.
        tensors: As `tensor_layouts` says, mapped from the file.
        hashes: SHA-256 of each, as the file says.
    """

    path: str
    shape: StreamShape
    facts: StreamFacts
    nbytes: int
    tensors: Mapping[str, Tensor]
    hashes: Mapping[str, str]

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the file itself; else it would be sent all of it.
        return open_stream, (self.path,)

    def batch(self, epoch: int, number: int) -> StreamBatch:
        """One batch, which does not depend on the file any more; its values are checked, not its hash.

        Raises:
            ValueError: If there is no such batch.
            DamagedFileError: If its values cannot be.
        """
        self.shape.check_position(epoch, number)
        rows = self.shape.rows(number)
        part = {
            name: tensor[epoch, number if name in SMALL else rows].clone()
            for name, tensor in self.tensors.items()
            if name != "sources"
        }
        try:
            if int(part["flips"].max()) > 1:
                raise ValueError("Expected `flips` of 0 and 1, got others.")
            batch = StreamBatch(
                coords=part["coords"],
                flips=part["flips"].bool(),
                mix=_mix(part),
                logits=part["logits"],
                indices=part["indices"].long(),
            )
            self.shape.check_batch(number, batch)
        except ValueError as error:
            raise _damaged(self.path, f"batch {number} of epoch {epoch}: {error}") from error
        return batch

    def source_sha256(self, epoch: int, number: int) -> bytes:
        """SHA-256 of the published file that a batch comes from, 32 bytes."""
        self.shape.check_position(epoch, number)
        return self.tensors["sources"][epoch, number].numpy().tobytes()


def open_stream(path: str | os.PathLike[str]) -> PackedStream:
    """A stream that `pack_stream` wrote.

    Its metadata and all that is small are verified by their hashes, and the sizes of the rest; a batch is
    read and its values are checked when it is asked for. `verify_stream` reads everything.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is no such file, or its parts do not fit together.
    """
    from safetensors import safe_open

    if not os.path.isfile(path):
        raise FileNotFoundError(f"No packed stream of soft labels at `{os.fspath(path)}`.")
    with reporting_damage(path, _WHAT, _CURE):
        with safe_open(path, framework="pt") as file:
            metadata = unseal(file.metadata() or {}, [FORMAT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape, facts = _shape(metadata["shape"]), _facts(metadata["facts"])
        _verify_layout(tensors, metadata["tensors"], shape)
        hashes = {name: str(metadata["tensors"][name]["sha256"]) for name in tensors}
        for name in SMALL:
            tensors[name] = tensors[name].clone()
            if sha256(tensor_bytes(tensors[name])) != hashes[name]:
                raise ValueError(f"the hash of `{name}` does not agree")
    return PackedStream(
        path=os.fspath(path),
        shape=shape,
        facts=facts,
        nbytes=os.path.getsize(path),
        tensors=tensors,
        hashes=hashes,
    )


def verify_stream(
    path: str | os.PathLike[str], *, dataset: DistilledDataset | None = None, progress: Progress = silent
) -> None:
    """Read a packed stream from end to end.

    Args:
        path: A file that `pack_stream` wrote.
        dataset: Images that it has to belong to.
        progress: Told of the epochs.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If a hash does not agree, or values cannot be.
        LayoutError: If the images are others than those that it was packed for.
    """
    stream = open_stream(path)
    if dataset is not None and (labels_sha256(dataset), pixels_sha256(dataset)) != (
        stream.facts.labels_sha256,
        stream.facts.pixels_sha256,
    ):
        raise LayoutError(
            f"Expected the images that `{os.fspath(path)}` was packed for, got others. Read them from the "
            "folder that the stream was made from, and store them without loss."
        )
    digests = {name: hashlib.sha256() for name in stream.tensors if name not in SMALL}
    for epoch in range(stream.shape.num_epochs):
        for name, digest in digests.items():
            digest.update(tensor_bytes(stream.tensors[name][epoch]))
        batches = (stream.batch(epoch, number) for number in range(stream.shape.num_batches))
        try:
            check_epoch((batch.indices for batch in batches), num_images=stream.shape.num_images)
        except DamagedFileError:
            raise
        except ValueError as error:
            raise _damaged(path, f"epoch {epoch}: {error}") from error
        progress(epoch + 1, stream.shape.num_epochs)
    for name, digest in digests.items():
        if digest.hexdigest() != stream.hashes[name]:
            raise _damaged(path, f"the hash of `{name}` does not agree")


def _damaged(path: str | os.PathLike[str], reason: str) -> DamagedFileError:
    return DamagedFileError(f"Cannot read `{os.fspath(path)}` as {_WHAT}: {reason.rstrip('.')}. {_CURE}")


def _mix(part: Mapping[str, Tensor]) -> Mix | None:
    kind, lam, partner = int(part["kinds"]), float(part["lam"]), part["partners"].long()
    if kind == UNMIXED:
        return None
    if kind == MIXUP:
        return Mixup(partner, lam)
    if kind == CUTMIX:
        top, left, bottom, right = (int(edge) for edge in part["boxes"])
        return Cutmix(partner, lam, (top, left, bottom, right))
    raise ValueError(f"Expected `kinds` of 0, 1 or 2, got {kind}.")


def _shape(values: Mapping[str, Any]) -> StreamShape:
    names = [field.name for field in fields(StreamShape)]
    if any(type(values[name]) is not int for name in names):
        raise TypeError("its shape is not of whole numbers")
    return StreamShape(**{name: values[name] for name in names})


def _facts(values: Mapping[str, Any]) -> StreamFacts:
    if values["order"] not in get_args(Order):
        raise ValueError(f"its order is {values['order']!r}, which is unknown")
    return StreamFacts(
        source=str(values["source"]),
        order=values["order"],
        seed=None if values["seed"] is None else int(values["seed"]),
        agreement=float(values["agreement"]),
        chance=float(values["chance"]),
        rows_compared=int(values["rows_compared"]),
        labels_sha256=str(values["labels_sha256"]),
        pixels_sha256=None if values["pixels_sha256"] is None else str(values["pixels_sha256"]),
    )


def _verify_layout(tensors: Mapping[str, Tensor], described: Mapping[str, Any], shape: StreamShape) -> None:
    layouts = tensor_layouts(shape)
    if not set(tensors) == set(described) == set(layouts):
        raise ValueError(f"it should hold {sorted(layouts)}, and holds {sorted(tensors)}")
    for name, layout in layouts.items():
        said = described[name]
        found = (str(tensors[name].dtype).removeprefix("torch."), tuple(tensors[name].shape))
        if not found == (said["dtype"], tuple(said["shape"])) == (layout.dtype, layout.shape):
            raise ValueError(f"the shape or type of `{name}` does not agree")
