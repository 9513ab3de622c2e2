"""Torchvision's image classifiers, for images of any size and number of channels."""

from __future__ import annotations

from torch import nn

from gift_cl.models._checks import check_count
from gift_cl.models.features import classifier_name

# Families whose published minimum is the size that their weights were trained at; they work from here on.
_SMALLER = {"swin_": 4, "efficientnet_v2_": 1}


def classifier_names() -> list[str]:
    """Names of the image classifiers of the installed torchvision, in alphabetical order."""
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def torchvision_classifier(name: str, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """An untrained classifier of torchvision, on the CPU and in training mode.

    State-dict keys are torchvision's. Initial weights are drawn from torch's global generator; a stem
    that was replaced has torch's default ones, the other layers torchvision's. The last layer of ``vit_*``
    starts at zero: all logits are 0 before the first step.

    Args:
        name: One of `classifier_names`, such as ``swin_v2_t``.
        in_channels: Channels of the images; for other than 3 the first convolution is replaced.
        image_size: Side of the square images in pixels. Vision transformers ``vit_*`` take multiples of
            their patch size, ``maxvit_t`` multiples of 224, the others any size above their minimum.
        num_classes: Outputs ``C``.

    Returns:
        A network from images ``(N, in_channels, image_size, image_size)`` to logits ``(N, C)``, with
        the inputs of its last layer as the attribute ``num_features``. GoogLeNet and Inception come
        without their auxiliary heads.

    Raises:
        ValueError: If a size is no integer of at least 1, the images are too small or cannot be cut
            into patches, or the network does not end in a linear layer, as SqueezeNet does not.

    Source:
        torchvision.models; minimal sizes are those published with its weights, but for Swin and
        EfficientNetV2, which were measured.
    """
    import torchvision

    check_count("in_channels", in_channels)
    check_count("image_size", image_size)
    check_count("num_classes", num_classes)
    options = _options(name, image_size)
    model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        _replace_stem(model, in_channels)
    last = model.get_submodule(classifier_name(model))
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"Expected a network that ends in a linear layer, got `{name}`, whose logits are averaged "
            "over positions after a ReLU. Use another one of its size, such as `mobilenet_v2`."
        )
    model.num_features = last.in_features
    network: nn.Module = model
    return network


def _options(name: str, image_size: int) -> dict[str, object]:
    """What the builder of a network must be told besides the number of classes."""
    if name.startswith("vit_"):
        _check_multiple(name, image_size, int(name.rpartition("_")[2]))
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        _check_multiple(name, image_size, 224)
        return {"input_size": (image_size, image_size)}
    minimum = _minimum(name)
    if image_size < minimum:
        raise ValueError(
            f"Expected `image_size` of at least {minimum} for `{name}`, got {image_size}. Enlarge the "
            "images, or use a network for small ones, such as `resnet18_modified` or `mobilenet_v2`."
        )
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}  # the default of the second, without its warning
    return {}


def _check_multiple(name: str, image_size: int, step: int) -> None:
    if image_size % step:
        larger = image_size + -image_size % step
        raise ValueError(
            f"Expected `image_size` as a multiple of {step} for `{name}`, which cuts images into patches, "
            f"got {image_size}. Resize the images to {larger}."
        )


def _minimum(name: str) -> int:
    """Smallest side in pixels that a network can process."""
    import torchvision

    for prefix, minimum in _SMALLER.items():
        if name.startswith(prefix):
            return minimum
    side: int = torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"][0]
    return side


def _replace_stem(model: nn.Module, in_channels: int) -> None:
    """Put a first convolution for other channels in the place of the one for 3."""
    convolutions = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    name, stem = next(convolutions, ("", None))
    if stem is None:
        raise ValueError(
            f"Expected `in_channels` 3 for {type(model).__name__}, which has no convolution to replace, "
            f"got {in_channels}. Repeat or mix the channels to make three."
        )
    parent, _, child = name.rpartition(".")
    new = nn.Conv2d(
        in_channels,
        stem.out_channels,
        kernel_size=stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    setattr(model.get_submodule(parent), child, new)
