import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.embeddings import Embedding, Networks, pixel_box
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_stripes(count: int = 40, *, side: int = 8) -> tuple[Tensor, Tensor]:
    """Noisy rows of class 7 and columns of class 2, in turn."""
    labels = torch.tensor([7, 2] * (count // 2))
    wave = 128 + 80 * (torch.arange(side) % 2)
    rows, columns = wave[:, None].expand(side, side), wave[None].expand(side, side)
    images = torch.where((labels == 7)[:, None, None], rows, columns)[:, None]
    noise = torch.randint(-40, 41, images.shape, generator=seeded())
    return (images + noise).to(torch.uint8), labels


def make_teacher(channels: int = 1) -> Teacher:
    torch.manual_seed(0)
    model = build_model("mlp:hidden=4", in_channels=channels, image_size=8, num_classes=8)
    return Teacher(model, classes=(2, 7), normalization=Normalization((0.4,) * channels, (0.3,) * channels))


def open_networks(embedding: Embedding, *, seed: int = 0, **options: Any) -> Networks:
    images, labels = make_stripes()
    images, labels = options.pop("images", images), options.pop("labels", labels)
    box = pixel_box(images, None)
    return embedding.open(images, labels, box=box, teacher=None, generator=seeded(seed), **options)


def weights(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).clone()


def test_random_networks_are_fresh_each_time() -> None:
    networks, generator = open_networks(Embedding(width=4)), seeded()
    drawn = [weights(networks(generator)) for _ in range(3)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_the_generator_alone_decides_which_networks_are_drawn(kind: Any) -> None:
    def draw(seed: int) -> Tensor:
        generator = seeded(seed)
        networks = open_networks(Embedding(kind, width=4, networks=2, epochs=1), seed=seed)
        return torch.cat([weights(networks(generator)) for _ in range(3)])

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(draw(0), first)
    assert not torch.equal(draw(1), first)


def test_random_weights_are_distributed_as_those_of_new_layers() -> None:
    drawn = dict(open_networks(Embedding(width=64))(seeded()).named_parameters())
    torch.manual_seed(0)
    fresh = dict(nn.Conv2d(64, 64, 3).requires_grad_(False).named_parameters())
    for name, others in fresh.items():
        values = drawn[f"layers.conv.1.{name}"]
        assert values.abs().max() <= 1 / 24  # a unit has 64 · 9 = 24² inputs
        # The standard deviation of n uniform values has a relative error of about 0.45 / sqrt(n).
        tolerance = 4 * math.sqrt(2) * 0.45 / math.sqrt(values.numel())
        assert float(values.std()) == pytest.approx(float(others.std()), rel=tolerance)
        norm = drawn[f"layers.norm.1.{name}"]
        assert norm.unique().tolist() == [1.0 if name == "weight" else 0.0]


@pytest.mark.parametrize(("side", "depth"), [(8, 3), (32, 3), (64, 4), (96, 4), (128, 5), (224, 5), (256, 6)])
def test_larger_images_get_deeper_networks(side: int, depth: int) -> None:
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    networks = open_networks(Embedding(width=1), images=images, labels=torch.tensor([0]))
    convolutions = [m for m in networks(seeded()).modules() if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in convolutions] == [3] + [1] * (depth - 1)


def test_depth_and_width_can_be_chosen() -> None:
    images = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    networks = open_networks(Embedding(width=5, depth=6), images=images, labels=torch.tensor([0]))
    convolutions = [m for m in networks(seeded()).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [5] * 6


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_networks_are_frozen_and_have_instance_norm(kind: Any) -> None:
    network = open_networks(Embedding(kind, width=4, networks=1, epochs=1))(seeded())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [4, 4, 4]


def test_the_teacher_is_the_network_of_every_iteration() -> None:
    images, labels = make_stripes()
    teacher, generator = make_teacher(), seeded()
    before = generator.get_state()
    networks = Embedding("teacher").open(
        images, labels, box=pixel_box(images, teacher), teacher=teacher, generator=generator
    )
    assert networks(generator) is networks(generator) is teacher.model
    assert torch.equal(generator.get_state(), before)


def test_trained_networks_are_kept_at_every_age() -> None:
    networks, generator = open_networks(Embedding("trained", width=4, networks=2, epochs=3)), seeded()
    drawn = {id(network): network for network in (networks(generator) for _ in range(200))}
    assert len(drawn) == 2 * 4
    assert len({tuple(weights(network).tolist()) for network in drawn.values()}) == 8


def test_trained_networks_have_learnt_to_tell_the_classes_apart() -> None:
    images, labels = make_stripes(640)
    embedding, generator = Embedding("trained", width=32, networks=1, epochs=3), seeded()
    networks = open_networks(embedding, images=images, labels=labels)
    inputs, targets = pixel_box(images, None).from_uint8(images), (labels == 7).long()
    drawn = {id(network): network for network in (networks(generator) for _ in range(100))}
    shares = sorted(float((m(inputs).argmax(1) == targets).float().mean()) for m in drawn.values())
    assert len(shares) == 4
    assert shares[0] < 0.7  # before the first epoch
    assert shares[-1] > 0.95


def test_training_tells_its_progress() -> None:
    told: list[tuple[int, int]] = []
    embedding = Embedding("trained", width=4, networks=2, epochs=2)
    open_networks(embedding, progress=lambda done, total: told.append((done, total)))
    assert told == [(40, 160), (80, 160), (120, 160), (160, 160)]
    assert embedding.training_images(40) == 160
    assert Embedding("random").training_images(40) == Embedding("teacher").training_images(40) == 0


def test_only_what_depends_on_other_classes_needs_them() -> None:
    assert [Embedding(kind).classes_at_once for kind in ("random", "teacher", "trained")] == [1, 1, None]
    assert [Embedding(kind).needs_teacher for kind in ("random", "teacher", "trained")] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "best"}, "`embedding` to be one of random, teacher, trained, got 'best'"),
        ({"width": 0}, "`width` to be an integer of at least 1, got 0"),
        ({"networks": 0}, "`networks` to be an integer of at least 1, got 0"),
        ({"epochs": True}, "`epochs` to be an integer of at least 1, got True"),
        ({"depth": 2}, "`depth` from 3 to 6, or 0, got 2"),
        ({"depth": 7}, "`depth` from 3 to 6, or 0, got 7"),
        ({"depth": 3.0}, "`depth` from 3 to 6, or 0, got 3.0"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Embedding(**options)


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_images_that_are_not_square_are_left_to_a_teacher(kind: Any) -> None:
    images = torch.zeros(40, 1, 8, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"square images for `embedding={kind}`, got 8 x 16. Use.*teacher"):
        open_networks(Embedding(kind), images=images)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="`image_size` of at least 8 for depth 3, got 7"):
        open_networks(Embedding(), images=torch.zeros(40, 1, 7, 7, dtype=torch.uint8))


def test_a_single_class_cannot_train_networks() -> None:
    with pytest.raises(ValueError, match="at least two classes for `embedding=trained`, got one.*=random"):
        open_networks(Embedding("trained"), labels=torch.full((40,), 7))


def test_images_are_standardised_by_themselves() -> None:
    images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8, generator=seeded())
    images[:, 1] //= 4
    inputs = pixel_box(images, None).from_uint8(images).numpy().astype(np.float64)
    np.testing.assert_allclose(inputs.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std((0, 2, 3)), 1, rtol=1e-6)


def test_a_black_channel_stays_finite() -> None:
    images = torch.zeros(2, 2, 4, 4, dtype=torch.uint8)
    images[0, 1] = 255
    box = pixel_box(images, None)
    assert box.normalization == Normalization((0.0, 0.5), (1 / 255, 0.5))
    assert torch.equal(box.to_uint8(box.from_uint8(images)), images)


def test_a_teacher_decides_how_pixels_are_normalised() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    teacher = make_teacher(3)
    assert pixel_box(images, teacher).normalization == teacher.normalization
