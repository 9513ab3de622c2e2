import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.distillers.density import densification_loss


def make_images(count: int, *, side: int = 32, scale: float = 0.02, seed: int = 0) -> Tensor:
    """Small values, so that eigenvalues are near 1 and no softmax is saturated."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64)


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def loss_of_class(rows: np.ndarray, temperature: float) -> float:
    spectrum = np.linalg.svd(rows, compute_uv=False) ** 2  # the eigenvalues of A Aᵀ
    flat, sharp = softmax(spectrum / temperature), softmax(spectrum)
    return float(sum(p * math.log(p / q) for p, q in zip(flat, sharp, strict=True)))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 5), st.floats(1.5, 8))
def test_the_loss_is_the_divergence_of_spectra_summed_over_classes(
    num_classes: int, per_class: int, temperature: float
) -> None:
    images = make_images(num_classes * per_class)
    groups = images.numpy().reshape(num_classes, per_class, -1)
    expected = sum(loss_of_class(rows, temperature) for rows in groups)
    loss = densification_loss(images, per_class=per_class, temperature=temperature)
    assert float(loss) == pytest.approx(expected, abs=1e-12)


def test_pinned_value() -> None:
    # Rows (1, 0, ...) and (0, 2, 0, ...): the eigenvalues are 1 and 4, the larger shares of the two softmaxes
    # p = 1 / (1 + e^-0.75) and q = 1 / (1 + e^-3), and the loss p ln(p / q) + (1 - p) ln((1 - p) / (1 - q)).
    images = torch.zeros(2, 1, 32, 32)
    images[0, 0, 0, 0], images[1, 0, 0, 1] = 1, 2
    assert float(densification_loss(images, per_class=2)) == pytest.approx(0.3835643, abs=1e-6)


def test_images_of_another_size_are_pooled() -> None:
    images = make_images(3, side=64)
    pooled = images.numpy().reshape(3, 3, 32, 2, 32, 2).mean((3, 5))
    loss = densification_loss(images, per_class=3)
    assert float(loss) == pytest.approx(loss_of_class(pooled.reshape(3, -1), 4.0), abs=1e-12)
    small = make_images(3, side=8)
    repeated = small.numpy().repeat(4, 2).repeat(4, 3)
    loss = densification_loss(small, per_class=3)
    assert float(loss) == pytest.approx(loss_of_class(repeated.reshape(3, -1), 4.0), abs=1e-12)


def test_the_gradient_flattens_the_spectrum() -> None:
    """By hand: d loss / d λ is softmax(λ) - softmax(λ / τ), and d λ_i / d A is 2 v_i v_iᵀ A."""
    images = make_images(4).requires_grad_()
    densification_loss(images, per_class=4, temperature=3).backward()
    rows = images.detach().numpy().reshape(4, -1)
    spectrum, vectors = np.linalg.eigh(rows @ rows.T)
    slope = softmax(spectrum) - softmax(spectrum / 3)
    assert slope[-1] > 0 > slope[0]
    expected = 2 * vectors @ np.diag(slope) @ vectors.T @ rows
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.from_numpy(expected).view_as(images))


def test_the_order_within_a_class_does_not_matter() -> None:
    images = make_images(4)
    torch.testing.assert_close(
        densification_loss(images.flip(0), per_class=4), densification_loss(images, per_class=4)
    )


def test_alike_images_lose_more_than_different_ones() -> None:
    base, other = make_images(1), make_images(3, seed=1)
    alike, different = base + 0.1 * other, torch.cat([base, other[:2]])
    assert densification_loss(alike, per_class=3) > 2 * densification_loss(different, per_class=3)


def test_orthogonal_images_of_equal_norm_lose_nothing() -> None:
    images = torch.zeros(3, 1, 32, 32)
    for index in range(3):
        images[index, 0, index] = 0.2
    images.requires_grad_()
    loss = densification_loss(images, per_class=3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(images.grad, torch.zeros_like(images))


def test_one_image_of_a_class_loses_nothing() -> None:
    images = make_images(3).requires_grad_()
    loss = densification_loss(images, per_class=1)
    loss.backward()
    assert float(loss.detach()) == 0
    torch.testing.assert_close(images.grad, torch.zeros_like(images))


def test_a_temperature_of_one_changes_nothing() -> None:
    assert float(densification_loss(make_images(3), per_class=3, temperature=1)) == pytest.approx(
        0, abs=1e-12
    )
