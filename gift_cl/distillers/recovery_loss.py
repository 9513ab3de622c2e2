"""What SRe2L minimises: how unsure a teacher is of images, and how unusual its batch norms find them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gift_cl.distillers.batch_norm_statistics import BatchNormStatistics
from gift_cl.distillers.protocol import require_finite
from gift_cl.memory_format import in_fastest_format
from gift_cl.teacher import Teacher, UnseenClassError


class RecoveryLoss:
    """Cross-entropy of a teacher plus the weighted distance of its `BatchNormStatistics`.

    The cross-entropy is the mean over a batch, among the classes that the teacher has seen.

    Args:
        teacher: Not changed.
        classes: Classes that images are made of.
        example: Network inputs (N, C, H, W), to see how the teacher takes them.
        method: Name of the distiller, for messages.
        bn_weight: Weight of the distance.
        first_bn: Weight in it of the first batch norm.
        tv: Weight of `total_variation`.
        l2: Weight of the mean norm of the images.

    Raises:
        UnseenClassError: If the teacher has no output for a class.
        ValueError: If the teacher has no batch norm with running statistics, or its outputs are not finite.
    """

    def __init__(
        self,
        teacher: Teacher,
        classes: Tensor,
        example: Tensor,
        *,
        method: str,
        bn_weight: float,
        first_bn: float,
        tv: float,
        l2: float,
    ) -> None:
        self._bn_weight, self._tv, self._l2 = bn_weight, tv, l2
        self._model, self._format = in_fastest_format(teacher.model, example)
        logits = self._model(example)
        require_finite(logits, method=method)
        columns = sorted({*teacher.classes, *classes.tolist()})
        if logits.shape[1] <= columns[-1]:
            raise UnseenClassError(
                f"Expected a teacher with an output for each of the classes {columns}, got "
                f"{logits.shape[1]} outputs. Pass the classes that the model was trained on."
            )
        self._unseen = torch.full_like(logits[:1], -math.inf)  # added to logits
        self._unseen[:, columns] = 0
        self.statistics = BatchNormStatistics(self._model, example, first=first_bn)

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar for network inputs (N, C, H, W) and classes (N,); call it inside ``with statistics``."""
        logits = self._model(inputs.contiguous(memory_format=self._format)) + self._unseen
        loss = nn.functional.cross_entropy(logits, labels) + self._bn_weight * self.statistics.distance()
        if self._tv:
            loss = loss + self._tv * total_variation(inputs)
        if self._l2:
            loss = loss + self._l2 * torch.linalg.vector_norm(inputs.flatten(1), dim=1).mean()
        return loss


def total_variation(images: Tensor) -> Tensor:
    """Norms of the differences of neighbours over the whole batch: across, down, and along both diagonals."""
    differences = (
        images[:, :, :, 1:] - images[:, :, :, :-1],
        images[:, :, 1:] - images[:, :, :-1],
        images[:, :, 1:, 1:] - images[:, :, :-1, :-1],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences]).sum()
