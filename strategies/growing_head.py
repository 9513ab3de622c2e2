"""A head that grows with the classes of a stream."""

from __future__ import annotations

from avalanche.models import IncrementalClassifier
from torch import nn

from gift_cl.models import classifier_name


def with_growing_head(model: nn.Module) -> nn.Module:
    """The same model with Avalanche's `IncrementalClassifier` in the place of its last layer.

    Args:
        model: Changed in place; its last layer is a ``Linear`` called ``classifier`` or ``fc``.

    Raises:
        TypeError: If there is no such layer.
    """
    name = classifier_name(model)
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"Expected `{name}` to be a Linear layer, got {type(layer).__name__}.")
    setattr(model, name, IncrementalClassifier(layer.in_features, initial_out_features=1))
    return model
