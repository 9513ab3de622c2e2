"""A frozen model that labels images, and knows which classes it has seen."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gift_cl.memory_format import images_at_once
from gift_cl.normalization import IDENTITY, Normalization


class UnseenClassError(ValueError):
    """A teacher was asked about a class it has not seen, or it has seen classes of the future."""


class Teacher:
    """A frozen copy of a model with its normalisation and the classes it was trained on.

    Args:
        model: Copied; the copy is put in evaluation mode and never trained again.
        classes: Ids of the classes in the data that the model was trained on. The model's output column
            ``c`` stands for class ``c``.
        normalization: What the model expects of its inputs.
        oracle: Allow labels for classes that the model has not seen, and a model that has seen classes
            which the stream has not reached. Results obtained with an oracle are leaky: say so.
        bits: Precision in which the weights are kept, 16 or 32; they are rounded to it at once, so what
            is measured is what is charged.

    Raises:
        ValueError: If there are no classes, or a weight is not finite in this precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: Iterable[int],
        normalization: Normalization = IDENTITY,
        oracle: bool = False,
        bits: Literal[16, 32] = 32,
    ) -> None:
        self.classes = tuple(dict.fromkeys(int(c) for c in classes))
        if not self.classes:
            raise ValueError("Expected `classes` with at least one class, got none.")
        if bits not in (16, 32):
            raise ValueError(f"Expected `bits` 16 or 32, got {bits}.")
        self.normalization = normalization
        self.oracle = oracle
        self.bits = bits
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        _round_weights(self.model, bits)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and buffers as kept."""
        return sum(
            tensor.numel() * (self.bits // 8 if tensor.is_floating_point() else tensor.element_size())
            for tensor in self.model.state_dict().values()
        )

    @property
    def device(self) -> torch.device:
        """Where its model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits of all output columns for images as they are.

        Args:
            pixels: (N, C, H, W): float in [0, 1], or uint8.

        Returns:
            float32 (N, width of the model's head) on the device of the model. Only the columns of
            ``classes`` mean something.
        """
        device = self.device
        outputs = [
            self.model(self.normalization.apply(as_float(batch.to(device)))).float()
            for batch in pixels.split(images_at_once(pixels, device))
        ]
        if not outputs:
            return torch.zeros(0, max(self.classes) + 1, device=device)
        return torch.cat(outputs)

    def label(self, pixels: Tensor, labels: Tensor, *, classes: Sequence[int]) -> Tensor:
        """Soft labels of images whose classes this teacher has seen.

        Args:
            pixels: (N, C, H, W): float in [0, 1], or uint8.
            labels: Hard labels, int64 (N,), checked against what the teacher has seen.
            classes: Order of the columns to return.

        Returns:
            float32 (N, len(classes)), NaN at classes that the teacher has not seen.

        Raises:
            UnseenClassError: If a label is of a class that the teacher has not seen.
            ValueError: If a logit is not finite.
        """
        self.require_seen(int(c) for c in labels.unique())
        logits = self.logits(pixels)
        if not bool(torch.isfinite(self.columns(logits, self.classes)).all()):
            raise ValueError(
                "Expected finite soft labels, got NaN or infinite logits. "
                "Check the teacher: its training may have diverged."
            )
        return self.columns(logits, classes)

    def columns(self, logits: Tensor, classes: Sequence[int]) -> Tensor:
        """Of the model's output, the columns of ``classes``; NaN where the teacher has not seen one."""
        seen = set(self.classes)
        if logits.shape[1] <= max(self.classes):
            raise UnseenClassError(
                f"Expected a teacher with an output for each of its classes {self.classes}, got "
                f"{logits.shape[1]} outputs. Pass the classes that the model was trained on."
            )
        picked = logits[:, [c if c in seen else self.classes[0] for c in classes]]
        unseen = torch.tensor([c not in seen for c in classes], device=logits.device)
        return picked.masked_fill(unseen, float("nan"))

    def require_seen(self, classes: Iterable[int]) -> None:
        """Refuse classes that this teacher has not seen, unless it is an oracle."""
        unseen = sorted(set(classes) - set(self.classes))
        if unseen and not self.oracle:
            raise UnseenClassError(
                f"This teacher has seen classes {sorted(self.classes)}, not {unseen}. Train it on them "
                "first, or ask for `oracle=True` and say so in the results."
            )

    def require_no_future(self, classes_so_far: Iterable[int]) -> None:
        """Refuse to take part in a stream that has not reached all classes seen by this teacher."""
        future = sorted(set(self.classes) - set(classes_so_far))
        if future and not self.oracle:
            raise UnseenClassError(
                f"This teacher has seen classes {future}, which the stream has not reached: its labels "
                "leak the future. Train one on the data so far, or ask for `oracle=True` and say so."
            )


def as_float(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as float32; uint8 images are divided by 255."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels.float()


def _round_weights(model: nn.Module, bits: Literal[16, 32]) -> None:
    """Round the floating-point state in place, keeping its dtype, once it is known to be finite."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        rounded = tensor.half() if bits == 16 else tensor
        if not bool(torch.isfinite(rounded).all()):
            cure = "Keep it in 32 (`bits=32`), and check" if bits == 16 else "Check"
            raise ValueError(
                f"The teacher's `{name}` is not finite in {bits} bits. {cure} that the model did not diverge."
            )
        tensor.copy_(rounded)
