"""A criterion for the current data that speaks the language of the exemplars' loss."""

from __future__ import annotations

from torch import Tensor, nn

from gift_cl.losses import build_loss

_MASKED = -1000  # what Avalanche's IncrementalClassifier gives units of classes not seen yet


class HardLabelCriterion(nn.Module):
    """A loss of the registry on hard labels, in the place of cross-entropy.

    With ``gift`` on the current data and on the exemplars, both parts are bounded alike; beside
    cross-entropy the cosine fades as logits grow.

    Args:
        loss: Spec of a loss that does without soft labels: gift, cosine or ce.

    Raises:
        ValueError: If it does not, or is unknown.
    """

    def __init__(self, loss: str = "gift") -> None:
        super().__init__()
        self.loss = build_loss(loss)
        if self.loss.name not in ("gift", "cosine", "ce"):
            raise ValueError(
                f"Expected a loss that does without soft labels, got `{loss}`. Choose gift, cosine or ce."
            )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch; units that Avalanche masked count as 0, which no cosine sees.

        Args:
            logits: (N, C).
            labels: int64 (N,).
        """
        if self.loss.name != "ce":
            logits = logits.masked_fill(logits <= _MASKED, 0.0)
        return self.loss(logits, None, labels)
