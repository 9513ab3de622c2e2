"""ResNet-18 for small images."""

from __future__ import annotations

from torch import nn

from gift_cl.models._checks import check_count


def resnet18_modified(in_channels: int, num_classes: int) -> nn.Module:
    """Torchvision's ResNet-18 with a 3x3 stem of stride 1 and no max-pooling.

    Any image size works, since the last pooling is global. State-dict keys are torchvision's, with
    the head under ``fc``. Initial weights are drawn from torch's global generator; the new stem has
    torch's default ones, the other convolutions torchvision's.

    Args:
        in_channels: Channels of the images.
        num_classes: Outputs ``C``.

    Returns:
        A network from images ``(N, in_channels, H, W)`` to logits ``(N, C)``, with the inputs of
        its head, 512, as the attribute ``num_features``.

    Raises:
        ValueError: If an argument is no integer of at least 1.

    Source:
        He et al., CVPR 2016; the small-image form of LINs-lab/RDED@3f6453d (Apache-2.0) and
        VILA-Lab/SRe2L@8d00cba, which have 3 input channels only.
    """
    # Imported here because it is slow, and most uses of this package do not need it.
    import torchvision

    check_count("in_channels", in_channels)
    check_count("num_classes", num_classes)
    model = torchvision.models.resnet18(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    model.num_features = model.fc.in_features
    network: nn.Module = model
    return network
