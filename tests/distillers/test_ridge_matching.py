import numpy as np
import pytest
import torch
from torch import Tensor

from gift_cl.distillers.ridge_matching import ridge_loss, ridge_weights


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("num_images", "size"), [(4, 7), (7, 4), (5, 5)])
def test_weights_minimise_squared_error_and_penalty(num_images: int, size: int) -> None:
    """Ridge regression as least squares with rows for the penalty."""
    features, targets = random(num_images, size), random(num_images, 3, seed=1)
    penalty = 0.3 * features.square().sum(1).mean()
    rows = np.vstack([features.numpy(), penalty.sqrt().item() * np.eye(size)])
    wanted = np.vstack([targets.numpy(), np.zeros((size, 3))])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose(ridge_weights(features, targets, ridge=0.3).numpy(), expected, atol=1e-10)


def loss_of(made: Tensor, *, ridge: float = 0.5) -> Tensor:
    owners, real_owners = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0, 2, 0, 1])
    return ridge_loss(made, owners, random(5, 6, seed=2), real_owners, num_classes=3, ridge=ridge)


def test_the_loss_is_the_error_on_real_images() -> None:
    """Image by image, with targets written out."""
    made, real = random(4, 6).numpy(), random(5, 6, seed=2).numpy()
    classes = np.eye(3) - 1 / 3
    center = made.mean(0)
    weights = ridge_weights(
        torch.from_numpy(made - center), torch.from_numpy(classes[[0, 1, 2, 2]]), ridge=0.5
    ).numpy()
    errors = [
        sum(
            (answer - wanted) ** 2
            for answer, wanted in zip((one - center) @ weights, classes[k], strict=True)
        )
        for one, k in zip(real, (1, 0, 2, 0, 1), strict=True)
    ]
    assert loss_of(random(4, 6)).item() == pytest.approx(np.mean(errors))


def test_the_gradient_is_that_of_finite_differences() -> None:
    made = random(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(loss_of, (made,))


def test_the_loss_ignores_where_and_how_large_features_are() -> None:
    owners = torch.tensor([0, 1, 1])
    made, real = random(3, 4), random(3, 4, seed=1)
    first = ridge_loss(made, owners, real, owners, num_classes=2, ridge=0.1)
    moved = ridge_loss(5 * made + 2, owners, 5 * real + 2, owners, num_classes=2, ridge=0.1)
    torch.testing.assert_close(first, moved)


def test_exemplars_that_teach_nothing_have_the_loss_of_silence() -> None:
    found = loss_of(random(4, 6), ridge=1e9)
    assert found.item() == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize("size", [2, 6])
def test_exemplars_that_look_the_same_teach_nothing(size: int) -> None:
    made, owners = torch.ones(3, size), torch.tensor([0, 1, 1])
    real = random(3, size).float()
    assert ridge_loss(made, owners, real, owners, num_classes=2, ridge=0.3).item() == pytest.approx(0.5)


def test_separable_classes_are_learned() -> None:
    made, owners = 3 * torch.eye(2, dtype=torch.float64), torch.tensor([0, 1])
    assert ridge_loss(made, owners, made, owners, num_classes=2, ridge=1e-6).item() < 1e-6
