"""What a forward pass costs."""

from __future__ import annotations

import torch
from torch import nn

from gift_cl.evaluation.accuracy import evaluating


@torch.no_grad()
def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass on one image, in evaluation mode.

    Products and sums of matrix products, convolutions and attention are counted, two for each pair; what is
    done element by element is not, as usual.

    Args:
        model: On one device; every module has the mode it had afterwards.
        image_shape: Channels, height and width.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())
