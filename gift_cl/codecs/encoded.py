"""Images as stored: the bytes of a codec, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """``N`` images of one shape as a codec stores them.

    Args:
        codec: Canonical spec of the codec that wrote them, such as ``"webp:75"``.
        image_shape: Channels, height and width of every image.
        payload: All streams one after another, uint8 (bytes,), on the CPU.
        lengths: Bytes of each stream, int64 (N,), on the CPU; None if all are equally long. Charged
            at 2 bytes an image, or 4 if a stream has 65,536 bytes or more.
        num_images: ``N``.
        shared: Bytes that all streams have in common, uint8 (bytes,), on the CPU; stored once.

    Raises:
        TypeError: If a tensor is not one.
        ValueError: If a field has the wrong type, shape or value, or fields contradict each other.
    """

    codec: str
    image_shape: tuple[int, int, int]
    payload: Tensor
    lengths: Tensor | None
    num_images: int
    shared: Tensor

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or any(size < 1 for size in self.image_shape):
            raise ValueError(
                "Expected `image_shape` of positive (channels, height, width), "
                f"got {tuple(self.image_shape)}."
            )
        if self.num_images < 0:
            raise ValueError(f"Expected `num_images` of at least 0, got {self.num_images}.")
        _check_vector("payload", self.payload, torch.uint8)
        _check_vector("shared", self.shared, torch.uint8)
        if self.lengths is None:
            self._check_equal_lengths()
        else:
            self._check_lengths(self.lengths)

    def _check_equal_lengths(self) -> None:
        size, count = self.payload.numel(), self.num_images
        if size % count if count else size:
            raise ValueError(
                f"Expected `payload` to hold {count} equally long streams, got {size} bytes. "
                "Give `lengths` if they differ."
            )

    def _check_lengths(self, lengths: Tensor) -> None:
        _check_vector("lengths", lengths, torch.int64)
        size = self.payload.numel()
        if len(lengths) != self.num_images:
            raise ValueError(
                f"Expected `lengths` of shape ({self.num_images},), one for each image, "
                f"got {tuple(lengths.shape)}."
            )
        # A length above the size is refused before the sum, which could overflow.
        if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= size:
            raise ValueError(
                f"Expected `lengths` in [0, {size}], the size of `payload`, "
                f"got [{int(lengths.min())}, {int(lengths.max())}]."
            )
        if int(lengths.sum()) != size:
            raise ValueError(
                f"Expected `lengths` to sum to the {size} bytes of `payload`, got {int(lengths.sum())}."
            )

    def __len__(self) -> int:
        return self.num_images

    @property
    def nbytes(self) -> int:
        """Bytes that have to be stored: the streams, the table of their lengths, the shared bytes.

        Example:
            >>> encoded = EncodedImages.from_streams("png", (1, 8, 8), [b"abc", b"de"], shared=b"f")
            >>> encoded.nbytes  # 5 in the streams, 2 lengths of 2 bytes, 1 shared
            10
        """
        return self.payload.numel() + self.num_images * self._entry_nbytes + self.shared.numel()

    @property
    def nbytes_each(self) -> Tensor:
        """Bytes of each image with its entry in the table of lengths, int64 (N,).

        The sum is ``nbytes`` without the shared bytes. After a selection of short streams an
        entry may be cheaper than before, never dearer.
        """
        return self._stream_lengths() + self._entry_nbytes

    @property
    def _entry_nbytes(self) -> int:
        if self.lengths is None or not len(self.lengths):
            return 0
        return 2 if int(self.lengths.max()) < 1 << 16 else 4

    def _stream_lengths(self) -> Tensor:
        if self.lengths is not None:
            return self.lengths
        length = self.payload.numel() // max(self.num_images, 1)
        return torch.full((self.num_images,), length, dtype=torch.int64)

    def select(self, indices: Tensor | Sequence[int]) -> EncodedImages:
        """The images at ``indices``, in that order; nothing is decoded.

        Args:
            indices: Whole numbers in [0, N), shape (n,); one may appear several times.

        Returns:
            ``n`` images that own their bytes. No image has no shared bytes either.

        Raises:
            TypeError: If the indices are not whole numbers.
            ValueError: If one is out of range.
        """
        chosen = _as_indices(indices, self.num_images)
        if self.lengths is None:
            length = self.payload.numel() // max(self.num_images, 1)
            lengths = None
            payload = self.payload.view(self.num_images, length)[chosen].flatten()
        else:
            lengths = self.lengths[chosen]
            ends = self.lengths.cumsum(0)[chosen]
            spans = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
            payload = torch.cat([self.payload[:0], *(self.payload[a:b] for a, b in spans)])
        return EncodedImages(
            codec=self.codec,
            image_shape=self.image_shape,
            payload=payload,
            lengths=lengths,
            num_images=len(chosen),
            shared=self.shared if len(chosen) else self.shared[:0],
        )

    def streams(self) -> list[bytes]:
        """The stored bytes of each image, without the shared ones."""
        data = self.payload.numpy().tobytes()
        lengths = self._stream_lengths()
        ends = lengths.cumsum(0)
        spans = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
        return [data[start:end] for start, end in spans]

    def decode(self) -> Tensor:
        """The images as a student sees them, uint8 (N, C, H, W), on the CPU.

        Raises:
            ValueError: If the codec is unknown, or stored bytes are damaged.
        """
        from gift_cl.codecs import build_codec  # the codecs build on this module

        return build_codec(self.codec).decode(self)

    @classmethod
    def from_streams(
        cls,
        codec: str,
        image_shape: tuple[int, int, int],
        streams: Sequence[bytes],
        *,
        shared: bytes = b"",
    ) -> EncodedImages:
        """Put streams of different lengths together, one for each image."""
        return cls(
            codec=codec,
            image_shape=image_shape,
            payload=_as_tensor(b"".join(streams)),
            lengths=torch.tensor([len(stream) for stream in streams], dtype=torch.int64),
            num_images=len(streams),
            shared=_as_tensor(shared),
        )


def concat(parts: Sequence[EncodedImages]) -> EncodedImages:
    """All images of the parts, in order, with their shared bytes once.

    Args:
        parts: At least one; all of the same codec and image shape.

    Raises:
        ValueError: If there is no part, or the parts differ in codec, image shape or shared bytes.
    """
    if not parts:
        raise ValueError("Expected at least one part in `parts`, got none.")
    first = parts[0]
    for part in parts:
        if (part.codec, tuple(part.image_shape)) != (first.codec, tuple(first.image_shape)):
            raise ValueError(
                "Expected `parts` of one codec and image shape, got "
                f"`{first.codec}` {tuple(first.image_shape)} and "
                f"`{part.codec}` {tuple(part.image_shape)}."
            )
    filled = [part for part in parts if len(part)] or [first]
    shared = filled[0].shared
    if any(not torch.equal(part.shared, shared) for part in filled):
        raise ValueError(
            f"Expected `parts` of `{first.codec}` with the same `shared` bytes; these were written "
            "by different versions of the codec's library. Decode them and encode them together."
        )
    return EncodedImages(
        codec=first.codec,
        image_shape=first.image_shape,
        payload=torch.cat([part.payload for part in filled]),
        lengths=_joined_lengths(filled),
        num_images=sum(len(part) for part in filled),
        shared=shared,
    )


def _joined_lengths(parts: Sequence[EncodedImages]) -> Tensor | None:
    sizes = {part.payload.numel() // max(len(part), 1) for part in parts}
    if all(part.lengths is None for part in parts) and len(sizes) == 1:
        return None
    return torch.cat([part._stream_lengths() for part in parts])


def _check_vector(name: str, values: Tensor, dtype: torch.dtype) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor, got {type(values).__name__}.")
    if values.dtype != dtype or values.ndim != 1 or values.device.type != "cpu":
        raise ValueError(
            f"Expected `{name}` of {dtype} with one dimension on the CPU, got {values.dtype} of "
            f"shape {tuple(values.shape)} on {values.device}."
        )


def _as_indices(indices: Tensor | Sequence[int], num_images: int) -> Tensor:
    chosen = torch.as_tensor(indices, device="cpu")
    if not isinstance(indices, Tensor) and not len(indices):
        chosen = chosen.to(torch.int64)
    if chosen.dtype not in _INTEGERS or chosen.ndim != 1:
        raise TypeError(
            f"Expected `indices` as whole numbers of shape (n,), got {chosen.dtype} of shape "
            f"{tuple(chosen.shape)}. For a mask call `mask.nonzero().flatten()` first."
        )
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < num_images:
        raise ValueError(
            f"Expected `indices` in [0, {num_images}), got [{int(chosen.min())}, {int(chosen.max())}]."
        )
    return chosen.to(torch.int64)


def _as_tensor(data: bytes) -> Tensor:
    # `frombuffer` refuses an empty buffer, and warns about one that cannot be written to.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0).byte()
