import math

import pytest
import torch
from torch.testing import assert_close

from gift_cl.losses import ce_loss, gift_ce_loss, gift_loss


def make_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, soft_labels = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    return logits, soft_labels, torch.tensor([0, 3, 2, 1, 1])


def test_it_is_the_sum_of_its_parts_in_double_precision() -> None:
    logits, soft_labels, labels = make_batch()
    unit = torch.nn.functional.normalize
    smoothed = torch.full((5, 4), 0.1 / 3, dtype=torch.float64).scatter_(1, labels[:, None], 0.9)
    refined = 0.3 * unit(smoothed, dim=1) + 0.7 * unit(soft_labels, dim=1)
    cosine = (unit(logits, dim=1) * unit(refined, dim=1)).sum(1).mean()
    log_probs = logits - logits.exp().sum(1, keepdim=True).log()
    expected = 1 - cosine - 2 * log_probs[torch.arange(5), labels].mean()
    value = gift_ce_loss(logits, soft_labels, labels, weight=0.3, ce_weight=2.0)
    assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)  # the losses compute in float32 at least


def test_a_parallel_row_of_equal_logits_costs_the_entropy_alone() -> None:
    value = gift_ce_loss(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([1]), weight=0.0)
    assert float(value) == pytest.approx(math.log(2))


def test_without_cross_entropy_it_is_gift() -> None:
    batch = make_batch()
    assert_close(gift_ce_loss(*batch, ce_weight=0.0), gift_loss(*batch))


def test_its_gradient_is_that_of_both_parts() -> None:
    logits, soft_labels, labels = make_batch()
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(gift_ce_loss(logits, soft_labels, labels, ce_weight=0.5), logits)
    (gift_part,) = torch.autograd.grad(gift_loss(logits, soft_labels, labels), logits)
    (ce_part,) = torch.autograd.grad(ce_loss(logits, None, labels), logits)
    assert_close(gradient, gift_part + 0.5 * ce_part)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="`ce_weight`"):
        gift_ce_loss(*make_batch(), ce_weight=-1.0)
