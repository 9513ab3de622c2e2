"""What enters the classifier of a model, whichever model it is."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn


def classifier_name(model: nn.Module) -> Literal["classifier", "fc"]:
    """Name of the attribute that holds the last layer.

    Raises:
        TypeError: If the model has neither a ``classifier`` nor an ``fc``.
    """
    if isinstance(getattr(model, "classifier", None), nn.Module):
        return "classifier"
    if isinstance(getattr(model, "fc", None), nn.Module):
        return "fc"
    raise TypeError(
        f"Expected a model whose last layer is called `classifier` or `fc`, got {type(model).__name__}."
    )


def penultimate(model: nn.Module, images: Tensor) -> Tensor:
    """Features that enter the classifier of a model.

    The model runs once, in the mode and gradient mode it is in, and its classifier runs too; it may
    have been replaced by any module that takes the features first, such as a head that grows. The
    features carry gradients unless the caller turned them off.

    Args:
        model: A network whose last layer is called ``classifier`` or ``fc``; unchanged, but for
            what its own forward pass changes (running statistics in training mode).
        images: Normalised images, shape ``(N, channels, H, W)``, on the model's device.

    Returns:
        Features of shape ``(N, D)``.

    Raises:
        TypeError: If the model has neither a ``classifier`` nor an ``fc``.
        ValueError: If its forward pass does not call that layer with a tensor.

    Example:
        >>> import torch
        >>> from gift_cl.models import MLP
        >>> penultimate(MLP(1, 8, 10), torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 128])
    """
    name = classifier_name(model)
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.extend(value for value in inputs[:1] if isinstance(value, Tensor))

    handle = model.get_submodule(name).register_forward_pre_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(
            f"Expected the forward pass of {type(model).__name__} to call `{name}` with a tensor, "
            "got no such call."
        )
    return seen[-1].flatten(1)
