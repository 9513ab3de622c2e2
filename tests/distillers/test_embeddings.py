import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.embeddings import Embedding, Networks, pixel_box
from gift_cl.models import ConvNet, build_model, penultimate
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
    network = open_networks(Embedding(width=64))(seeded())
    convolution, norm = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.InstanceNorm2d)][2:4]
    torch.manual_seed(0)
    fresh = dict(nn.Conv2d(64, 64, 3).requires_grad_(False).named_parameters())
    for name, values in convolution.named_parameters():
        assert values.abs().max() <= 1 / 24  # a unit has 64 · 9 = 24² inputs
        # The standard deviation of n uniform values has a relative error of about 0.45 / sqrt(n).
        tolerance = 4 * math.sqrt(2) * 0.45 / math.sqrt(values.numel())
        assert float(values.std()) == pytest.approx(float(fresh[name].std()), rel=tolerance)
    assert [values.unique().tolist() for values in norm.parameters()] == [[1.0], [0.0]]


def test_every_layer_with_random_weights_is_drawn() -> None:
    networks, generator = open_networks(Embedding(width=4)), seeded()
    before = {name: values.clone() for name, values in networks(generator).named_parameters()}
    after = dict(networks(generator).named_parameters())
    kept = [name for name, values in before.items() if torch.equal(values, after[name])]
    norms = [name for name, m in networks(generator).named_modules() if isinstance(m, nn.InstanceNorm2d)]
    assert kept == [f"{name}.{values}" for name in norms for values in ("weight", "bias")]


@pytest.mark.parametrize("side", [16, 33])
def test_networks_are_those_of_convnet(side: int) -> None:
    images = torch.zeros(1, 2, side, side, dtype=torch.uint8)
    network = open_networks(Embedding(width=5), images=images, labels=torch.tensor([0]))(seeded())
    other = ConvNet(3, 2, side, 1, width=5, norm="instance")
    nn.utils.vector_to_parameters(_in_order_of(other, network), other.parameters())
    inputs = torch.randn(3, 2, side, side, generator=seeded())
    torch.testing.assert_close(penultimate(network, inputs), penultimate(other, inputs))
    torch.testing.assert_close(network(inputs), other(inputs))


def _in_order_of(other: ConvNet, network: nn.Module) -> Tensor:
    """Weights of a network whose blocks follow each other: first all convolutions, then all norms."""
    kinds = [type(m) for m in other.modules()]
    modules = sorted(network.modules(), key=lambda m: kinds.index(type(m)) if type(m) in kinds else -1)
    return torch.cat([p.flatten() for m in modules for p in m.parameters(recurse=False)])


@pytest.mark.parametrize(
    ("side", "depth"),
    [(4, 1), (7, 1), (8, 2), (15, 2), (16, 3), (63, 3), (64, 4), (127, 4), (128, 5), (256, 6), (512, 6)],
)
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
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert [norm.num_features for norm in norms] == [4, 4]


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
    losses = sorted(float(nn.functional.cross_entropy(m(inputs), targets)) for m in drawn.values())
    assert len(losses) == 4
    assert losses[0] < 0.5 * losses[-1]


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
        ({"depth": -1}, "`depth` from 0 to 6, got -1"),
        ({"depth": 7}, "`depth` from 0 to 6, got 7"),
        ({"depth": 3.0}, "`depth` from 0 to 6, got 3.0"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Embedding(**options)


def test_images_need_not_be_square() -> None:
    images = torch.zeros(4, 1, 8, 20, dtype=torch.uint8)
    network = open_networks(Embedding(width=3), images=images, labels=torch.arange(4))(seeded())
    assert penultimate(network, images.float()).shape == (4, 3 * 2 * 5)


@pytest.mark.parametrize(("depth", "side", "needed"), [(0, 3, 4), (1, 1, 2), (3, 7, 8), (6, 63, 64)])
def test_images_that_are_too_small_are_refused(depth: int, side: int, needed: int) -> None:
    match = f"at least {needed} pixels a side for `depth={depth}`, got {side} x 99. Use a smaller `depth`"
    with pytest.raises(ValueError, match=match):
        open_networks(Embedding(depth=depth), images=torch.zeros(40, 1, side, 99, dtype=torch.uint8))


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
