"""How well exemplars teach a linear classifier, fitted in closed form, to tell real images apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gift_cl.distillers.embeddings import constant_features
from gift_cl.distillers.matching_targets import Target, TargetSource
from gift_cl.models import penultimate
from gift_cl.views import DSA


def ridge_weights(features: Tensor, targets: Tensor, *, ridge: float) -> Tensor:
    """Weights of the linear map that fits targets best, by squared error and a penalty on its weights.

    Args:
        features: (N, D).
        targets: (N, C).
        ridge: Penalty, as a share of the mean squared length of the features; above 0.

    Returns:
        (D, C); differentiable for both.

    Example:
        >>> ridge_weights(torch.eye(2), torch.eye(2), ridge=1.0)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    num_images, size = features.shape
    penalty = ridge * features.square().sum(1).mean()
    penalty = penalty.clamp_min(torch.finfo(features.dtype).eps)  # features may all be the same
    if num_images <= size:  # the smaller of two systems with the same solution
        return features.T @ _solve(features @ features.T, penalty, targets)
    return _solve(features.T @ features, penalty, features.T @ targets)


def ridge_loss(
    made: Tensor, owners: Tensor, real: Tensor, real_owners: Tensor, *, num_classes: int, ridge: float
) -> Tensor:
    """Squared error, on real images, of the ridge classifier that exemplars fit.

    It is a sum over classes and a mean over images.

    Features are taken relative to the mean of the exemplars'; targets are 1 - 1/C for the class and -1/C for
    the others.

    Args:
        made: Features of exemplars, (N, D).
        owners: The class of each, from 0 to ``num_classes`` - 1, int64 (N,).
        real: Features of real images, (M, D).
        real_owners: The class of each.
        num_classes: C, at least 2.
        ridge: As for `ridge_weights`.

    Returns:
        Scalar; 1 - 1/C for exemplars that teach nothing.

    Source:
        Nguyen et al., Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021; Zhou et al., FRePo,
        NeurIPS 2022, who take the features of networks in training on the exemplars. The centre and the
        penalty are ours.
    """
    center = made.mean(0)
    targets, wanted = (
        nn.functional.one_hot(each.to(made.device), num_classes).to(made.dtype) - 1 / num_classes
        for each in (owners, real_owners)
    )
    answers = (real - center) @ ridge_weights(made - center, targets, ridge=ridge)
    return (answers - wanted).square().sum(1).mean()


@dataclass(frozen=True)
class RidgeTarget(Target):
    """Real images that a classifier fitted to the exemplars is to tell apart.

    Args:
        network: Gives features.
        real: Features of real images, (M, D).
        augmentation: Each exemplar has a view of its own in each step; None changes nothing.
        generator: Gives these views.
        owners: The class of each, counted from 0, int64 (M,).
        num_classes: Classes.
        ridge: As for `ridge_weights`.
    """

    augmentation: DSA | None
    generator: torch.Generator
    owners: Tensor
    num_classes: int
    ridge: float

    def distance(self, images: Tensor, owners: Tensor) -> Tensor:
        """`ridge_loss` of exemplars."""
        features = penultimate(self.network, _own_views(self.augmentation, images, self.generator))
        return ridge_loss(
            features, owners, self.real, self.owners, num_classes=self.num_classes, ridge=self.ridge
        )


@dataclass(frozen=True)
class RidgeSource(TargetSource):
    """Draws real images of some classes, each in a view of its own, for `RidgeTarget`.

    Strengths that a class shares, as in other targets, would tell the classifier the class.

    Args:
        ridge: As for `ridge_weights`.
    """

    ridge: float

    def draw(self, generator: torch.Generator) -> RidgeTarget:
        """One target."""
        network, inputs, owners = self.batch(generator)
        real = constant_features(network, _own_views(self.augmentation, inputs, generator))
        return RidgeTarget(network, real, self.augmentation, generator, owners, len(self.real), self.ridge)


def _own_views(augmentation: DSA | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image in a view of its own."""
    return images if augmentation is None else augmentation(images, generator)


def _solve(gram: Tensor, penalty: Tensor, targets: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve(
        gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), targets
    )
    return solution
