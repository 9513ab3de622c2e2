"""A frozen network without the batch norms that a convolution before them can take over."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@torch.no_grad()
def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy in evaluation mode on the CPU that answers the same, with fewer layers where possible.

    Which batch norm follows which convolution is seen by running the model on the example, in float64. If
    the copy answers the example otherwise, because something else reads the output of a convolution
    too, the model is copied as it is.

    Args:
        model: Not changed.
        example: Some inputs (N, C, H, W), on any device.
    """
    plain = copy.deepcopy(model).cpu().eval()
    fused, example = copy.deepcopy(plain).double(), example.cpu().double()
    pairs, expected = _pairs(fused, example)
    for convolution, norm in pairs:
        first = cast(nn.Conv2d, fused.get_submodule(convolution))
        second = cast(nn.BatchNorm2d, fused.get_submodule(norm))
        fused.set_submodule(convolution, fuse_conv_bn_eval(first, second))
        fused.set_submodule(norm, nn.Identity())
    is_same = torch.allclose(fused(example), expected, rtol=1e-6, atol=1e-6)
    return fused.float() if pairs and is_same else plain


def _pairs(model: nn.Module, example: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of convolutions and of the batch norms that read their outputs, and the model's answer."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no number is given twice
    pairs: list[tuple[str, str]] = []
    used: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            used.append(name)
            if isinstance(module, nn.Conv2d):
                outputs[id(output)] = (name, output)
            elif id(inputs[0]) in outputs:
                pairs.append((outputs[id(inputs[0])][0], name))

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) or _is_foldable(module)
    ]
    try:
        answer: Tensor = model(example)
    finally:
        for handle in handles:
            handle.remove()
    once = {name for name in used if used.count(name) == 1}
    return [(first, second) for first, second in pairs if {first, second} <= once], answer


def _is_foldable(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.track_running_stats
