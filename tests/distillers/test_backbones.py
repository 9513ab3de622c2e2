import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.backbones import drawing_from, train_backbone
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.views import build_view

SPEC = "conv3:width=4"
NORMALIZATION = Normalization((0.4,), (0.3,))


def make_data(count: int = 12) -> tuple[Tensor, Tensor]:
    """Bright and dark images in turn."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return (noise + 120 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels


def train(
    count: int = 12,
    *,
    spec: str = SPEC,
    seed: int = 0,
    view: str = "none",
    epochs: int = 2,
    batch_size: int = 5,
    lr: float = 0.05,
    progress: Progress = silent,
) -> nn.Module:
    images, labels = make_data(count)
    return train_backbone(
        spec,
        images,
        labels,
        num_classes=3,
        normalization=NORMALIZATION,
        view=build_view(view),
        epochs=epochs,
        generator=torch.Generator().manual_seed(seed),
        batch_size=batch_size,
        lr=lr,
        progress=progress,
    )


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_is_gradient_descent_with_momentum() -> None:
    images, labels = make_data()
    generator = torch.Generator().manual_seed(0)
    with drawing_from(generator):
        model = build_model(SPEC, in_channels=1, image_size=8, num_classes=3)
    velocities = [torch.zeros_like(weight) for weight in model.parameters()]
    for _ in range(2):
        order = torch.randperm(12, generator=generator).tolist()
        for batch in (order[:5], order[5:10], order[10:]):
            logits = model((images[batch] / 255 - 0.4) / 0.3)
            loss = -logits.log_softmax(1)[range(len(batch)), labels[batch]].mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, velocity, gradient in zip(model.parameters(), velocities, gradients, strict=True):
                    velocity.mul_(0.9).add_(gradient)
                    weight.sub_(0.05 * velocity)
    expected = model.state_dict()
    # Single precision, and convolutions in another memory format.
    for name, value in train().state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_a_backbone_learns_what_it_is_shown() -> None:
    images, labels = make_data(40)
    model = train(40, epochs=8, view="crop_flip:pad=1")
    predicted = model(NORMALIZATION.apply(images / 255)).argmax(1)
    assert float((predicted == labels).float().mean()) > 0.9


def test_a_backbone_is_frozen_and_evaluates() -> None:
    model = train()
    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_last_batch_of_one_image_is_left_out() -> None:
    state = train(11, epochs=1).state_dict()
    assert [int(state[f"layers.norm.{block}.num_batches_tracked"]) for block in range(3)] == [2, 2, 2]


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(1)
    first = train(view="crop_flip:pad=1")
    torch.manual_seed(2)
    assert same(first, train(view="crop_flip:pad=1"))
    assert not same(first, train(view="crop_flip:pad=1", seed=1))
    assert not same(first, train())


def test_the_global_random_state_is_left_as_it_is() -> None:
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


def test_global_draws_follow_from_the_generator() -> None:
    before = torch.get_rng_state()

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        with drawing_from(generator):
            first = torch.rand(3)
        with drawing_from(generator):
            return torch.cat([first, torch.rand(3)])

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert not torch.equal(*draw(0).split(3))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="inside"), drawing_from(torch.Generator()):
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_images_of_all_epochs() -> None:
    told: list[tuple[int, int]] = []
    train(11, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 22) for done in (5, 10, 11, 16, 21, 22)]


def test_images_that_are_not_square_are_refused() -> None:
    images, labels = make_data()
    with pytest.raises(ValueError, match="square images to train `conv3:width=4` on, got 8 x 6 pixels"):
        train_backbone(
            SPEC,
            images[:, :, :, :6],
            labels,
            num_classes=2,
            normalization=NORMALIZATION,
            view=build_view("none"),
            epochs=1,
            generator=torch.Generator(),
        )


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two images to train.*got 1 in batches of 5"):
        train(1)
    with pytest.raises(ValueError, match="at least two images to train.*got 12 in batches of 1"):
        train(batch_size=1)


def test_a_training_that_diverges_is_told() -> None:
    with pytest.raises(ValueError, match="training of `conv3:width=4` diverged: its last loss is"):
        train(lr=1e30)
