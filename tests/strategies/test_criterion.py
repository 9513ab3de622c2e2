from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import make_benchmark, make_strategy

from strategies import DistilledMemory, GIFTReplay, HardLabelCriterion

LOGITS = torch.tensor([[3.0, 4.0, -1.0], [0.5, -2.0, 1.0]])
LABELS = torch.tensor([1, 0])


def test_cosine_is_that_of_logits_and_one_hot_labels() -> None:
    logits = LOGITS.numpy()
    cosines = logits[[0, 1], LABELS.numpy()] / np.linalg.norm(logits, axis=1)
    assert float(HardLabelCriterion("cosine")(LOGITS, LABELS)) == pytest.approx(1 - cosines.mean())


def test_gift_pulls_the_one_hot_label_to_the_smoothed_one() -> None:
    logits, hard = LOGITS.numpy(), np.eye(3)[LABELS.numpy()]
    smoothed = 0.85 * hard + 0.05  # 0.9 at the true class, 0.05 at the others
    target = hard + 0.1 * smoothed / np.linalg.norm(smoothed, axis=1, keepdims=True)
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(target, axis=1)
    expected = 1 - ((logits * target).sum(1) / lengths).mean()
    assert float(HardLabelCriterion()(LOGITS, LABELS)) == pytest.approx(expected)


def test_cross_entropy_is_torchs() -> None:
    logits = torch.cat([LOGITS, torch.full((2, 1), -1000.0)], 1)
    expected = nn.functional.cross_entropy(logits, LABELS)
    torch.testing.assert_close(HardLabelCriterion("ce")(logits, LABELS), expected)


def answer(logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = HardLabelCriterion("cosine")(logits, LABELS)
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def test_masked_units_are_not_seen() -> None:
    loss, gradient = answer(LOGITS)
    masked_loss, masked_gradient = answer(torch.cat([LOGITS, torch.full((2, 4), -1000.0)], 1))
    torch.testing.assert_close(masked_loss, loss)
    torch.testing.assert_close(masked_gradient[:, :3], gradient)
    assert not bool(masked_gradient[:, 3:].any())


def test_a_label_of_a_masked_unit_has_a_finite_loss() -> None:
    logits = torch.tensor([[1.0, -1000.0]])  # as in an evaluation on classes to come
    assert float(HardLabelCriterion("cosine")(logits, torch.tensor([1]))) == 1.0


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("loss", ["gift", "cosine", "ce"])
def test_a_stream_is_learnt_with_it(loss: str, growing: bool) -> None:
    settings: dict[str, Any] = {"criterion": HardLabelCriterion(loss), "loss": loss, "train_epochs": 20}
    settings |= {"memory_weight": 1.0, "balance": True}
    memory = DistilledMemory(per_class=6, labels="hard", num_classes=6)
    strategy = make_strategy(GIFTReplay, memory=memory, growing=growing, **settings)
    benchmark = make_benchmark()
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)  # it widens a growing head by masked units
    right = [
        int(strategy.model(image[None]).argmax()) == label
        for experience in benchmark.test_stream
        for image, label, *_ in experience.dataset
    ]
    assert np.mean(right) > 0.8


def test_a_loss_that_needs_soft_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="got `kl`. Choose gift, cosine or ce"):
        HardLabelCriterion("kl")
