"""What enters the classifier of a model, whichever model it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def classifier_name(model: nn.Module) -> str:
    """Dotted name of the submodule that is the last layer.

    That is the model's ``classifier``, or its ``fc``; where this is a ``Sequential``, as in MobileNet, the
    ``Linear`` at its end, or the head that grows in the place of that layer. A model with neither has as its
    last layer the ``Linear`` that it defines last, such as the ``linear`` of Avalanche's ``SlimResNet18``;
    after such a layer was replaced by a head that grows, it is the ``Linear`` inside that head.

    Raises:
        TypeError: If the model has no ``classifier``, no ``fc`` and no ``Linear`` layer.
    """
    for usual in ("classifier", "fc"):
        head = getattr(model, usual, None)
        if isinstance(head, nn.Module):
            return _end(usual, head)
    linear: list[str] = [
        name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)
    ]
    if linear:
        return linear[-1]
    raise TypeError(
        "Expected a model with a last layer called `classifier` or `fc`, or with a Linear layer, got "
        f"{type(model).__name__}. Give its last layer one of these names."
    )


def _end(name: str, head: nn.Module) -> str:
    """Name of the last part of a head, as long as this part holds a linear layer."""
    while isinstance(head, nn.Sequential) and len(head):
        child, last = list(head.named_children())[-1]
        if not any(isinstance(module, nn.Linear) for module in last.modules()):
            break
        name, head = f"{name}.{child}", last
    return name


def penultimate(model: nn.Module, images: Tensor) -> Tensor:
    """Features that enter the classifier of a model.

    The model runs once, in the mode and gradient mode it is in, and its classifier runs too; it may
    have been replaced by any module that takes the features first, such as a head that grows. The
    features carry gradients unless the caller turned them off.

    Args:
        model: A network with a last layer that `classifier_name` finds; unchanged, but for what its
            own forward pass changes (running statistics in training mode).
        images: Normalised images, shape ``(N, channels, H, W)``, on the model's device.

    Returns:
        Features of shape ``(N, D)``.

    Raises:
        TypeError: If the model has no such layer.
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
