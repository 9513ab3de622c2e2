"""Networks by name: the ones that distillation papers train, torchvision's, and a small one for digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import nn

from gift_cl.models.cards import OBSERVERS, ObserverCard, TeacherMismatchError, check_against_card, find_card
from gift_cl.models.checkpoints import load_checkpoint, load_weights
from gift_cl.models.convnet import ConvNet, Norm
from gift_cl.models.features import classifier_name, penultimate
from gift_cl.models.mlp import MLP
from gift_cl.models.resnet import modified_resnet, resnet18_modified
from gift_cl.models.torchvision_models import classifier_names, torchvision_classifier
from gift_cl.registry import Registry

__all__ = [
    "MLP",
    "MODELS",
    "OBSERVERS",
    "Architecture",
    "ConvNet",
    "ObserverCard",
    "TeacherMismatchError",
    "build_model",
    "check_against_card",
    "classifier_name",
    "find_architecture",
    "find_card",
    "load_checkpoint",
    "load_weights",
    "modified_resnet",
    "penultimate",
    "resnet18_modified",
]


class Architecture(Protocol):
    """A network whose options are set and whose sizes are not; it can be pickled."""

    def __call__(self, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
        """Build the network for square images of ``image_size`` pixels and ``num_classes``."""


def find_architecture(spec: str) -> Architecture:
    """The architecture that a spec describes: one of `MODELS`, or a classifier of torchvision.

    Torchvision is asked for names only if the spec's is none of `MODELS`, since its import is slow.

    Args:
        spec: Name and options, as for `build_model`.

    Raises:
        ValueError: If the name or an option is unknown; the message lists the known ones.
    """
    registry = MODELS
    if spec.partition(":")[0] not in MODELS.names():
        registry = _with_torchvision()
    return registry.create(spec)


def build_model(spec: str, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """The untrained network that a spec describes, on the CPU and in training mode.

    Initial weights are drawn from torch's global generator: seed it to repeat them.

    Args:
        spec: Name and options: ``conv3`` to ``conv6`` (``width``, ``norm``), ``mlp`` (``hidden``),
            ``resnet18``, ``resnet50``, ``resnet101``, the same with ``_modified`` for small images, or
            any other image classifier of torchvision by its name there (no options), as in
            ``"conv3:width=64,norm=instance"`` or ``"swin_v2_t"``.
        in_channels: Channels of the images.
        image_size: Side of the square images in pixels; a ResNet takes any.
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
    architecture = find_architecture(spec)
    return architecture(in_channels=in_channels, image_size=image_size, num_classes=num_classes)


def _convnet(depth: int) -> Callable[..., Architecture]:
    """Factory of one depth; its parameters are the options of the spec."""

    def create(width: int = 128, norm: Norm = "batch") -> Architecture:
        return partial(ConvNet, depth, width=width, norm=norm)

    return create


def _modified(depth: int) -> Callable[[], Architecture]:
    return lambda: partial(_build_modified, depth)


def _build_modified(depth: int, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    del image_size  # its pooling is global
    return modified_resnet(depth, in_channels, num_classes)


def _torchvision(name: str) -> Callable[[], Architecture]:
    return lambda: partial(torchvision_classifier, name)


def _mlp(hidden: int = 128) -> Architecture:
    return partial(MLP, hidden=hidden)


MODELS: Registry[Architecture] = Registry("model")
for _depth in (3, 4, 5, 6):
    MODELS.add(
        f"conv{_depth}",
        _convnet(_depth),
        reference="ConvNet of LINs-lab/RDED@3f6453d and LINs-lab/GIFT@38db552",
    )
for _depth in (18, 50, 101):
    MODELS.add(
        f"resnet{_depth}",
        _torchvision(f"resnet{_depth}"),
        reference="He et al., CVPR 2016, as built by torchvision",
    )
for _depth in (18, 50, 101):
    MODELS.add(
        f"resnet{_depth}_modified",
        _modified(_depth),
        reference="He et al., CVPR 2016, with the small-image stem of LINs-lab/RDED@3f6453d",
    )
MODELS.add("mlp", _mlp, reference="SimpleMLP of ContinualAI/avalanche 0.6")


def _with_torchvision() -> Registry[Architecture]:
    """`MODELS` and every classifier of torchvision that is not among them."""
    registry: Registry[Architecture] = Registry("model")
    for name in MODELS.names():
        registry.add(name, MODELS.entry(name).factory, reference=MODELS.entry(name).reference)
    for name in classifier_names():
        if name not in registry.names():
            registry.add(name, _torchvision(name), reference=f"torchvision.models.{name}")
    return registry
