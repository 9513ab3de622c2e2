"""How far a few steps on synthetic images get a network along an expert's way, and the gradients of that.

A student starts where an expert was, at ``theta_0``, and takes ``N`` steps of plain SGD with learning rate
``a``, each on a batch of the synthetic images ``X`` and soft labels ``Y``::

    theta_{i+1} = theta_i - a g_i,    g_i = gradient at theta_i of the loss on batch i

so it ends at ``theta_0 - a (g_0 + ... + g_{N-1})``. With ``d = theta_0 - theta*``, where ``theta*`` is where
the expert came to, the loss of the matching is a quadratic in that sum::

    L = |d - a (g_0 + ... + g_{N-1})|² / |d|²

Backwards, let ``v_i`` be the gradient of ``L`` with respect to ``theta_i``, through all steps that follow. It
starts with ``v_N = 2 (theta_N - theta*) / |d|²``. Step ``i`` adds to the gradients

    for X and Y:  - a times the gradient of <v_{i+1}, g_i> with respect to the batch
    for a:        - <v_{i+1}, g_i>
    and then      v_i = v_{i+1} - a times the gradient of <v_{i+1}, g_i> with respect to theta_i

and ``<v_{i+1}, g_i>``, with ``v_{i+1}`` held fixed, depends on step ``i`` alone. So the graph of one step is
built again, used for one vector-Jacobian product, and dropped: its memory does not depend on ``N``. What is
kept of every step is one vector of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Step(NamedTuple):
    """One step of the student.

    Args:
        indices: Which synthetic images it sees, int64 (n,), each at most once, on their device.
        view: How it sees them; differentiable, and the same whenever it is called.
    """

    indices: Tensor
    view: Callable[[Tensor], Tensor]


class Gradients(NamedTuple):
    """Of the loss, with respect to images (N, C, H, W), logits (N, K) and the learning rate ()."""

    images: Tensor
    logits: Tensor
    lr: Tensor


def matching_loss(end: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """Squared distance that is left to go, as a share of the one from the start; not finite if that is 0.

    Args:
        end: Where the student came to, (P,).
        start: Where both began, (P,).
        target: Where the expert came to, (P,).

    Returns:
        Scalar: 0 when the student ends at the target, 1 when it stayed.

    Example:
        >>> matching_loss(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]), torch.zeros(2))
        tensor(0.2500)
    """
    return (end - target).square().sum() / (start - target).square().sum()


@dataclass(frozen=True, eq=False)
class Student:
    """A network that is trained on synthetic images, and what it is trained on.

    Args:
        network: Gives the architecture; its own parameters are neither read nor changed. It has no buffers
            that a forward pass changes.
        images: Synthetic images as the network sees them, float (N, C, H, W).
        logits: Their soft labels before the softmax, (N, K).
        lr: Learning rate, a scalar tensor.
        steps: In their order.

    Source:
        Cazenavette et al., MTT, CVPR 2022; soft labels as Guo et al., DATM, ICLR 2024; gradients batch by
        batch as Cui et al., TESLA, ICML 2023 (arXiv 2211.10586). Deliberate difference: TESLA
        (justincui03/tesla@488842e, distill.py) has ``v_N`` in the place of every ``v_{i+1}``, which leaves
        out that a batch moves the points at which later gradients are taken. Here the gradients are those
        of the unrolled graph, as in MTT.
    """

    network: nn.Module
    images: Tensor
    logits: Tensor
    lr: Tensor
    steps: Sequence[Step]

    def train(self, start: Tensor) -> list[Tensor]:
        """Parameters before each step and after the last one, each (P,); nothing carries a gradient."""
        points = [start]
        for step in self.steps:
            leaves = self._leaves(points[-1])
            images, logits = self.images[step.indices].detach(), self.logits[step.indices].detach()
            gradient = torch.autograd.grad(self._loss(leaves, step.view(images), logits), leaves)
            points.append(points[-1] - self.lr.detach() * _flat(gradient))
        return points

    def gradients(self, points: Sequence[Tensor], target: Tensor) -> Gradients:
        """Exact gradients of `matching_loss` at what `train` returned.

        Args:
            points: Of `train`.
            target: Where the expert came to, (P,).
        """
        lr = self.lr.detach()
        of_images, of_logits = torch.zeros_like(self.images), torch.zeros_like(self.logits)
        of_lr = torch.zeros_like(lr)
        start, end = points[0], points[-1]
        pull = 2 * (end - target) / (start - target).square().sum()  # v_N
        for point, step in zip(reversed(points[:-1]), reversed(self.steps), strict=True):
            leaves = self._leaves(point)
            images = self.images[step.indices].detach().requires_grad_()
            logits = self.logits[step.indices].detach().requires_grad_()
            loss = self._loss(leaves, step.view(images), logits)
            along = _flat(torch.autograd.grad(loss, leaves, create_graph=True)).dot(pull)
            by_images, by_logits, *by_point = torch.autograd.grad(along, [images, logits, *leaves])
            of_images[step.indices] -= lr * by_images
            of_logits[step.indices] -= lr * by_logits
            of_lr -= along.detach()
            pull = pull - lr * _flat(by_point)
        return Gradients(of_images, of_logits, of_lr)

    def _leaves(self, point: Tensor) -> list[Tensor]:
        """The parameters of the network that a point (P,) stands for, without a copy."""
        shapes = [parameter.shape for parameter in self.network.parameters()]
        parts = point.detach().split([shape.numel() for shape in shapes])
        return [part.view(shape).requires_grad_() for part, shape in zip(parts, shapes, strict=True)]

    def _loss(self, leaves: Sequence[Tensor], inputs: Tensor, logits: Tensor) -> Tensor:
        """Cross-entropy with the softmax of ``logits``, mean over the batch."""
        names = [name for name, _ in self.network.named_parameters()]
        answers: Tensor = functional_call(self.network, dict(zip(names, leaves, strict=True)), (inputs,))
        return nn.functional.cross_entropy(answers, logits.softmax(1))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
