"""Experts: ConvNets trained on the images given, whose parameters are kept after each epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from gift_cl.distillers.backbones import drawing_from
from gift_cl.memory_format import images_at_once
from gift_cl.models import ConvNet
from gift_cl.models.convnet import MAX_DEPTH, MIN_DEPTH
from gift_cl.progress import Progress, silent
from gift_cl.views import View


def expert_network(
    image_shape: Sequence[int], num_classes: int, *, width: int, generator: torch.Generator
) -> ConvNet:
    """A fresh ConvNet with instance norm, on the CPU.

    It has 3 blocks for images of up to 63 pixels, 4 up to 127, 5 up to 255, and else 6. All of its state are
    parameters, so a point of its trajectory says everything.

    Args:
        image_shape: Channels, height, width.
        num_classes: Outputs.
        width: Channels of a block.
        generator: Draws the weights; torch's global generator is left as it is.

    Raises:
        ValueError: If the images are not square, or have fewer than 8 pixels a side.
    """
    channels, height, image_width = image_shape
    if height != image_width or height < 1 << MIN_DEPTH:
        raise ValueError(
            f"Expected square images of at least {1 << MIN_DEPTH} pixels a side for expert ConvNets, got "
            f"{height} x {image_width}. Choose another distiller, or resize the images."
        )
    depth = min(max(height.bit_length() - 3, MIN_DEPTH), MAX_DEPTH)
    with drawing_from(generator):
        return ConvNet(depth, channels, height, num_classes, width=width, norm="instance")


def train_expert(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    view: View,
    generator: torch.Generator,
    progress: Progress = silent,
) -> Tensor:
    """Parameters of the network before and after each epoch of plain SGD.

    There is neither momentum nor weight decay, and the learning rate is constant: what lies between two
    points is the sum of gradients, which few steps on other images can imitate.

    Args:
        network: Trained in place, on the device of ``inputs``.
        inputs: Normalised or whitened images, float (N, C, H, W).
        targets: Outputs of the network that are right, int64 (N,), on the same device.
        epochs: Over all images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        lr: Learning rate.
        view: Augments each batch.
        generator: On the CPU; draws the order and the views.
        progress: Called after each epoch with the images seen, and in all.

    Returns:
        Float (epochs + 1, P) on the CPU, with the parameters in the order of ``network.parameters()``.

    Raises:
        ValueError: If a parameter is not finite after an epoch.

    Source:
        Cazenavette et al., MTT, CVPR 2022.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    points = [parameters_to_vector(network.parameters()).detach().cpu()]
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for batch in order.split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(view(inputs[batch], generator)), targets[batch]).backward()
            optimizer.step()
        points.append(parameters_to_vector(network.parameters()).detach().cpu())
        if not bool(torch.isfinite(points[-1]).all()):
            raise ValueError(
                f"An expert diverged in epoch {epoch} at the learning rate {lr:g}. Lower `expert_lr`."
            )
        progress(epoch * len(inputs), epochs * len(inputs))
    return torch.stack(points)


@torch.no_grad()
def answers(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of a network for inputs as they are, (N, C) on their device."""
    return torch.cat([network(batch) for batch in inputs.split(images_at_once(inputs, inputs.device))])


def choose(
    answered: Tensor, targets: Tensor, per_class: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images to begin with, and their soft labels.

    Args:
        answered: Logits of experts, (experts, N, K).
        targets: Outputs that are right, int64 (N,), on the same device.
        per_class: Images wanted of each class, at least 1.
        generator: On the CPU.

    Returns:
        Indices, int64 (n,), class after class; at random, those that the first expert gets right before the
        others. And logits (n, K): the mean over the experts that are right, or over all if none is.
    """
    right = answered.argmax(2) == targets
    shuffled = torch.randperm(len(targets), generator=generator).to(targets.device)
    shuffled = shuffled[(~right[0, shuffled]).int().argsort(stable=True)]
    indices = torch.cat([shuffled[targets[shuffled] == c][:per_class] for c in range(answered.shape[2])])
    voting = right[:, indices]
    weights = (voting | ~voting.any(0)).to(answered.dtype)
    logits = (answered[:, indices] * weights[..., None]).sum(0) / weights.sum(0)[:, None]
    return indices, logits
