"""ResNets for small images."""

from __future__ import annotations

from torch import nn

from gift_cl.models._checks import check_count


def modified_resnet(depth: int, in_channels: int, num_classes: int) -> nn.Module:
    """Torchvision's ResNet of a depth with a 3x3 stem of stride 1 and no max-pooling.

    Any image size works, since the last pooling is global. State-dict keys are torchvision's, with
    the head under ``fc``. Initial weights are drawn from torch's global generator; the new stem has
    torch's default ones, the other convolutions torchvision's.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the images.
        num_classes: Outputs ``C``.

    Returns:
        A network from images ``(N, in_channels, H, W)`` to logits ``(N, C)``, with the inputs of
        its head (512 up to depth 34, else 2048) as the attribute ``num_features``.

    Raises:
        ValueError: If the depth is another, or a count is no integer of at least 1.

    Source:
        He et al., CVPR 2016; the small-image form of LINs-lab/RDED@3f6453d (Apache-2.0) and
        VILA-Lab/SRe2L@8d00cba, which have 3 input channels only.
    """
    # Imported here because it is slow, and most uses of this package do not need it.
    import torchvision

    if depth not in (18, 34, 50, 101, 152):
        raise ValueError(f"Expected `depth` to be one of 18, 34, 50, 101, 152, got {depth!r}.")
    check_count("in_channels", in_channels)
    check_count("num_classes", num_classes)
    model = torchvision.models.get_model(f"resnet{depth}", weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    model.num_features = model.fc.in_features
    network: nn.Module = model
    return network


def resnet18_modified(in_channels: int, num_classes: int) -> nn.Module:
    """`modified_resnet` of depth 18, the teacher of most small-image papers."""
    return modified_resnet(18, in_channels, num_classes)
