"""A head that grows with the classes of a stream."""

from __future__ import annotations

from avalanche.models import DynamicModule, IncrementalClassifier
from torch import nn

from gift_cl.models import classifier_name


def with_growing_head(model: nn.Module) -> nn.Module:
    """The same model with Avalanche's `IncrementalClassifier` in the place of its last layer.

    Args:
        model: Changed in place; its last layer is a ``Linear``, or a ``Sequential`` that ends with one.

    Raises:
        TypeError: If there is no such layer, or the model has a head that grows already.
    """
    if any(isinstance(module, DynamicModule) for module in model.modules()):
        raise TypeError(f"Expected a model with a fixed head, got a {type(model).__name__} that can grow.")
    name = classifier_name(model)
    layer = model.get_submodule(name)
    while isinstance(layer, nn.Sequential) and len(layer):
        name, layer = f"{name}.{len(layer) - 1}", layer[-1]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"Expected `{name}` to be a Linear layer, got {type(layer).__name__}.")
    parent, _, child = name.rpartition(".")
    head = IncrementalClassifier(layer.in_features, initial_out_features=1)
    setattr(model.get_submodule(parent), child, head)
    return model
