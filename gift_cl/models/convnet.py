"""The plain convolutional network that distillation papers train and test on."""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import Tensor, nn

from gift_cl.models._checks import check_count

Norm = Literal["batch", "instance", "none"]

MIN_DEPTH = 3
MAX_DEPTH = 6


class ConvNet(nn.Module):
    """ConvNet-D: blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling.

    Each block halves the side, rounding down; what is left is flattened into one linear
    ``classifier``. State-dict keys are ``layers.conv.{d}.*``, ``layers.norm.{d}.*`` (absent for
    ``norm="none"``) and ``classifier.*``. Initial weights are torch's own, drawn from its global
    generator.

    Args:
        depth: Number of blocks, 3 to 6.
        in_channels: Channels of the images.
        image_size: Side of the square images in pixels, at least ``2 ** depth``.
        num_classes: Outputs ``C``.
        width: Channels of every block.
        norm: ``"batch"``; ``"instance"``, which has learned scale and shift and keeps no running
            statistics; or ``"none"``.

    Attributes:
        num_features: Inputs of the classifier.

    Raises:
        ValueError: If a size is no integer of at least 1, the depth or the norm is unknown, or
            the images are too small for the depth.

    Example:
        >>> ConvNet(3, in_channels=3, image_size=32, num_classes=10).num_features
        2048

    Source:
        Gidaris & Komodakis, CVPR 2018, as built by LINs-lab/RDED@3f6453d (Apache-2.0) and
        LINs-lab/GIFT@38db552; their ReLU works in place, this one does not, so that
        hooks may keep what they see. Their 28-pixel special case (padding to 32) is left out.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        image_size: int,
        num_classes: int,
        *,
        width: int = 128,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        _check(depth, image_size, norm)
        check_count("in_channels", in_channels)
        check_count("num_classes", num_classes)
        check_count("width", width)
        channels = [in_channels] + [width] * (depth - 1)
        self.layers = nn.ModuleDict(
            {
                "conv": nn.ModuleList(nn.Conv2d(c, width, 3, padding=1) for c in channels),
                "norm": nn.ModuleList(_norm_layer(norm, width) for _ in range(depth)),
                "act": nn.ModuleList(nn.ReLU() for _ in range(depth)),
                "pool": nn.ModuleList(nn.AvgPool2d(2) for _ in range(depth)),
            }
        )
        self.num_features = width * (image_size >> depth) ** 2
        self.classifier = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of normalised images ``(N, in_channels, image_size, image_size)``."""
        groups = (cast(nn.ModuleList, group) for group in self.layers.values())
        hidden = images
        for block in zip(*groups, strict=True):
            for layer in block:
                hidden = layer(hidden)
        logits: Tensor = self.classifier(hidden.flatten(1))
        return logits


def _check(depth: int, image_size: int, norm: str) -> None:
    check_count("depth", depth)
    if not MIN_DEPTH <= depth <= MAX_DEPTH:
        raise ValueError(f"Expected `depth` from {MIN_DEPTH} to {MAX_DEPTH}, got {depth}.")
    check_count("image_size", image_size)
    if image_size < 2**depth:
        raise ValueError(
            f"Expected `image_size` of at least {2**depth} for depth {depth}, got {image_size}. "
            "Use fewer blocks or enlarge the images."
        )
    if norm not in get_args(Norm):
        known = ", ".join(get_args(Norm))
        raise ValueError(f"Expected `norm` to be one of {known}, got {norm!r}.")


def _norm_layer(norm: Norm, width: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "instance":
        return nn.InstanceNorm2d(width, affine=True)  # twice as fast on a CPU as a group norm
    return nn.Identity()
