"""Data densification: exemplars of a class should differ in many directions, not in one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SIDE = 32


def densification_loss(images: Tensor, *, per_class: int, temperature: float = 4.0) -> Tensor:
    """How much the largest eigenvalue of each class stands out among the others.

    The images of a class, pooled to 32 by 32, are the rows of a matrix ``A``. With the eigenvalues ``λ`` of
    ``A Aᵀ`` its loss is KL(softmax(λ / τ) ‖ softmax(λ)), whose first part is a constant for the gradient: it
    takes from the largest eigenvalues and gives to the others. One image alone has none.

    Eigenvalues are not scaled. Of ten images of a class of CIFAR-100 the largest are mostly thousands apart,
    so at the published temperature of 4 both softmaxes have all weight there, and loss and gradient are 0.
    Temperatures of hundreds are felt.

    Args:
        images: Normalised, (N, C, H, W), class after class.
        per_class: Images of each class, ``k``; N is a multiple of it.
        temperature: ``τ``, above 1; 1 gives nothing.

    Returns:
        Scalar of at least 0, the sum over classes.

    Source:
        Shao et al., G-VBSM, CVPR 2024; shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0.
    """
    rows = nn.functional.adaptive_avg_pool2d(images, _SIDE).flatten(1).unflatten(0, (-1, per_class))
    spectrum = torch.linalg.eigvalsh(rows @ rows.mT)
    target = (spectrum.detach() / temperature).softmax(1)
    return nn.functional.kl_div(spectrum.log_softmax(1), target, reduction="sum")
