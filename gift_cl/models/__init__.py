"""Networks by name: the ones that distillation papers train, and a small one for digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import nn

from gift_cl.models.checkpoints import load_checkpoint, load_weights
from gift_cl.models.convnet import ConvNet, Norm
from gift_cl.models.features import classifier_name, penultimate
from gift_cl.models.mlp import MLP
from gift_cl.models.resnet import resnet18_modified
from gift_cl.registry import Registry

__all__ = [
    "MLP",
    "MODELS",
    "Architecture",
    "ConvNet",
    "build_model",
    "classifier_name",
    "load_checkpoint",
    "load_weights",
    "penultimate",
    "resnet18_modified",
]


class Architecture(Protocol):
    """A network whose options are set and whose sizes are not; it can be pickled."""

    def __call__(self, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
        """Build the network for square images of ``image_size`` pixels and ``num_classes``."""


def build_model(spec: str, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """The untrained network that a spec describes, on the CPU and in training mode.

    Initial weights are drawn from torch's global generator: seed it to repeat them.

    Args:
        spec: Name and options: ``conv3`` to ``conv6`` (``width``, ``norm``), ``resnet18_modified``
            (no options) or ``mlp`` (``hidden``), as in ``"conv3:width=64,norm=instance"``.
        in_channels: Channels of the images.
        image_size: Side of the square images in pixels; ``resnet18_modified`` takes any.
        num_classes: Outputs ``C``.

    Returns:
        A network from ``(N, in_channels, image_size, image_size)`` to logits ``(N, C)``, with the
        inputs of its last layer as the attribute ``num_features``.

    Raises:
        ValueError: If the name or an option is unknown, or a value cannot be used.

    Example:
        >>> build_model("mlp:hidden=64", in_channels=1, image_size=8, num_classes=10).num_features
        64
    """
    architecture = MODELS.create(spec)
    return architecture(in_channels=in_channels, image_size=image_size, num_classes=num_classes)


def _convnet(depth: int) -> Callable[..., Architecture]:
    """Factory of one depth; its parameters are the options of the spec."""

    def create(width: int = 128, norm: Norm = "batch") -> Architecture:
        return partial(ConvNet, depth, width=width, norm=norm)

    return create


def _resnet18_modified() -> Architecture:
    return _build_resnet18_modified


def _build_resnet18_modified(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    del image_size  # its pooling is global
    return resnet18_modified(in_channels, num_classes)


def _mlp(hidden: int = 128) -> Architecture:
    return partial(MLP, hidden=hidden)


MODELS: Registry[Architecture] = Registry("model")
for _depth in (3, 4, 5, 6):
    MODELS.add(
        f"conv{_depth}",
        _convnet(_depth),
        reference="ConvNet of LINs-lab/RDED@3f6453d and LINs-lab/GIFT@38db552",
    )
MODELS.add(
    "resnet18_modified",
    _resnet18_modified,
    reference="He et al., CVPR 2016, with the small-image stem of LINs-lab/RDED@3f6453d",
)
MODELS.add("mlp", _mlp, reference="SimpleMLP of ContinualAI/avalanche 0.6")
