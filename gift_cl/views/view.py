"""What a view is, how views follow each other, and what all of them check and say of themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor


class View(Protocol):
    """Augments a batch; every sample has parameters of its own.

    The parameters are drawn on the CPU, so a seed gives the same views on every device. What one call
    returns is given to the teacher and to the student.
    """

    @property
    def spec(self) -> str:
        """What builds this view again: ``"dsa:form=one"``."""
        ...

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented copies of ``inputs``.

        Args:
            inputs: Float, shape ``(N, C, H, W)``, in any range, on any device and in either memory format;
                not changed.
            generator: On the CPU.

        Returns:
            As ``inputs`` in shape, dtype, device and memory format; a view with a ``size`` may change
            ``H`` and ``W``. Computed in float32, or in float64 if the inputs are.

        Raises:
            TypeError: If ``inputs`` are not floating-point numbers.
            ValueError: If their shape does not suit the view.
        """
        ...


@dataclass(frozen=True)
class Unchanged:
    """The inputs themselves, not a copy; draws nothing."""

    @property
    def spec(self) -> str:
        """See ``View``."""
        return "none"

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        del generator
        return check_inputs(inputs)


@dataclass(frozen=True)
class Chain:
    """One view after the other.

    Args:
        views: At least one; the first sees the inputs.
    """

    views: tuple[View, ...]

    @property
    def spec(self) -> str:
        """See ``View``."""
        return " | ".join(view.spec for view in self.views)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        for view in self.views:
            inputs = view(inputs, generator)
        return inputs


def written_spec(name: str, chosen: Any) -> str:
    """The spec of a dataclass whose fields are the options; defaults go without saying."""
    options = ((field.name, getattr(chosen, field.name), field.default) for field in fields(chosen))
    text = ",".join(f"{key}={str(value).lower()}" for key, value, default in options if value != default)
    return f"{name}:{text}" if text else name


def check_inputs(inputs: Tensor) -> Tensor:
    """The inputs, if they are float (N, C, H, W) with pixels."""
    if not inputs.is_floating_point():
        raise TypeError(
            f"Expected `inputs` of a floating-point type, got {inputs.dtype}. Normalise the images first."
        )
    if inputs.ndim != 4 or 0 in inputs.shape[1:]:
        raise ValueError(
            f"Expected `inputs` of shape (N, C, H, W), got {tuple(inputs.shape)}. "
            "Give a single image as `image[None]`."
        )
    return inputs


def widened(inputs: Tensor) -> Tensor:
    """Checked inputs as views are computed: contiguous, which is the fastest, and float32 or float64."""
    return check_inputs(inputs).to(torch.promote_types(inputs.dtype, torch.float32)).contiguous()


def restored(images: Tensor, inputs: Tensor) -> Tensor:
    """Images in the dtype and the memory format of the inputs."""
    channels_last = inputs.is_contiguous(memory_format=torch.channels_last) and not inputs.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(inputs.dtype).contiguous(memory_format=memory_format)


def check_number(
    name: str, value: object, *, low: float = 0.0, high: float = math.inf, low_too: bool = True
) -> None:
    """Raise ``ValueError`` unless the option is a finite number in [low, high], or in (low, high]."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (low <= number <= high and number < math.inf and (low_too or number > low)):
        limits = f"{'[' if low_too else '('}{low:g}, {high:g}{']' if high < math.inf else ')'}"
        raise ValueError(f"Expected `{name}` in {limits}, got {value!r}.")


def check_whole(name: str, value: object, *, low: int = 1) -> None:
    """Raise ``ValueError`` unless the option is an integer of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"Expected `{name}` to be an integer of at least {low}, got {value!r}.")
