"""What a file of a packed stream holds: format ``gift-cl-stream/1``, a safetensors file.

``docs/formats.md`` specifies it. Rows of an epoch lie in the order of its batches, and batch ``b`` has the
rows from ``b * batch_size`` on.
"""

from __future__ import annotations

from dataclasses import dataclass

from gift_cl.label_streams.stream import StreamShape

FORMAT = "gift-cl-stream/1"

UNMIXED, MIXUP, CUTMIX = range(3)

SMALL = ("lam", "boxes", "kinds", "sources")
"""Tensors of one entry a batch; the others have one a row."""


@dataclass(frozen=True)
class TensorLayout:
    """One tensor of the file.

    Args:
        dtype: As torch calls it.
        shape: Its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def stored_dtype(self) -> str:
        """Little-endian type, as numpy calls it."""
        return _TYPES[self.dtype][0]

    @property
    def tag(self) -> str:
        """Type as safetensors calls it."""
        return _TYPES[self.dtype][1]


_TYPES = {
    "float64": ("<f8", "F64"),
    "float32": ("<f4", "F32"),
    "int32": ("<i4", "I32"),
    "float16": ("<f2", "F16"),
    "int16": ("<i2", "I16"),
    "uint8": ("|u1", "U8"),
}


def tensor_layouts(shape: StreamShape) -> dict[str, TensorLayout]:
    """Every tensor in the order of the file, wide types first, so that all are aligned."""
    rows, batches = (shape.num_epochs, shape.num_images), (shape.num_epochs, shape.num_batches)
    return {
        "lam": TensorLayout("float64", batches),
        "coords": TensorLayout("float32", (*rows, 4)),
        "indices": TensorLayout("int32", rows),
        "partners": TensorLayout("int32", rows),
        "logits": TensorLayout("float16", (*rows, shape.num_classes)),
        "boxes": TensorLayout("int16", (*batches, 4)),
        "flips": TensorLayout("uint8", rows),
        "kinds": TensorLayout("uint8", batches),
        "sources": TensorLayout("uint8", (*batches, 32)),
    }
