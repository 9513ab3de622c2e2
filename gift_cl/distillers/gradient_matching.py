"""How far the gradients that exemplars give a network are from those that real images give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gift_cl.distillers.siamese import SiameseView


def matched_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights whose gradients are compared, by name: kernels and matrices, no biases and no scales.

    They share the memory of the network's and ask for gradients, which the network's own need not do.

    Raises:
        ValueError: If there are none.
    """
    weights = {
        name: weight.detach().requires_grad_()
        for name, weight in network.named_parameters()
        if weight.ndim > 1
    }
    if not weights:
        raise ValueError(f"Expected a network with kernels or matrices, got {type(network).__name__}.")
    return weights


def weight_gradients(
    network: nn.Module, weights: dict[str, Tensor], inputs: Tensor, *, columns: Sequence[int]
) -> tuple[Tensor, ...]:
    """Gradients of the mean cross-entropy of images of one class with respect to ``weights``.

    Args:
        network: Gives logits; unchanged in the mode that it is in, as long as this is evaluation mode.
        weights: As from `matched_weights`.
        inputs: (N, C, H, W). If they need gradients, the results can be differentiated for them.
        columns: Logits that take part, that of the images' class first.
    """
    logits = functional_call(network, weights, (inputs,))[:, columns]
    targets = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    loss = nn.functional.cross_entropy(logits, targets)
    return torch.autograd.grad(loss, tuple(weights.values()), create_graph=inputs.requires_grad)


def gradient_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """One minus the cosine between gradients, summed over all outputs of all layers.

    Args:
        made: Gradients of weights, (outputs, ...) each.
        real: The same of real images.

    Returns:
        Scalar in [0, 2 outputs]; where either gradient is zero, an output counts 1.

    Example:
        >>> gradient_distance([torch.eye(2)], [torch.tensor([[3.0, 0.0], [0.0, -1.0]])])
        tensor(2.)

    Source:
        Zhao et al., Dataset Condensation with Gradient Matching, ICLR 2021; biases do not take part there
        either.
    """
    cosines = [
        nn.functional.cosine_similarity(of_made.flatten(1), of_real.flatten(1)).sub(1).sum()
        for of_made, of_real in zip(made, real, strict=True)
    ]
    return -torch.stack(cosines).sum()


@dataclass(frozen=True)
class GradientTarget:
    """A network that exemplars of one class are to teach what real images teach it.

    Args:
        network: Its weights are not changed.
        view: Of the images.
        real: Real images of the class, seen so, (M, C, H, W).
        columns: Logits that take part, that of the class first.
    """

    network: nn.Module
    view: SiameseView
    real: Tensor
    columns: list[int]

    def distance(self, images: Tensor, owners: Tensor) -> Tensor:
        """`gradient_loss` of images of the class, before the view."""
        return gradient_loss(self.network, self.view(images, owners), self.real, columns=self.columns)


def gradient_loss(network: nn.Module, made: Tensor, real: Tensor, *, columns: list[int]) -> Tensor:
    """`gradient_distance` of a class: its mean over outputs, times the thousands of values of the images.

    So one learning rate suits networks and images of any size and number: a pixel does not move less because
    there are more of them.

    Args:
        network: Its weights are not changed.
        made: Small images of the class, enlarged, (N, C, H, W).
        real: Real images of it, (M, C, H, W).
        columns: Logits that take part, that of the class first.
    """
    weights = matched_weights(network)
    target = weight_gradients(network, weights, real, columns=columns)
    distance = gradient_distance(weight_gradients(network, weights, made, columns=columns), target)
    return distance * (made.numel() / 1000 / sum(len(gradient) for gradient in target))
