"""A network with one hidden layer, for the 8x8 digits."""

from __future__ import annotations

from torch import Tensor, nn

from gift_cl.models._checks import check_count


class MLP(nn.Module):
    """Flatten, linear, ReLU, and a linear ``classifier``.

    State-dict keys are ``features.0.*`` and ``classifier.*``. Initial weights are torch's own,
    drawn from its global generator.

    Args:
        in_channels: Channels of the images.
        image_size: Side of the square images in pixels.
        num_classes: Outputs ``C``.
        hidden: Units of the hidden layer.

    Attributes:
        num_features: Inputs of the classifier, which are the hidden units.

    Raises:
        ValueError: If an argument is no integer of at least 1.

    Source:
        ``SimpleMLP`` of ContinualAI/avalanche 0.6 (MIT) with one hidden layer of 128 for its 512,
        and without its dropout; the keys are the same.
    """

    def __init__(self, in_channels: int, image_size: int, num_classes: int, *, hidden: int = 128) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_count("image_size", image_size)
        check_count("num_classes", num_classes)
        check_count("hidden", hidden)
        self.features = nn.Sequential(nn.Linear(in_channels * image_size**2, hidden), nn.ReLU())
        self.num_features = hidden
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of normalised images ``(N, in_channels, image_size, image_size)``."""
        logits: Tensor = self.classifier(self.features(images.flatten(1)))
        return logits
