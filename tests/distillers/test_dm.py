from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import matching
from gift_cl.distillers.dm import DM
from gift_cl.distillers.herding import Herding
from gift_cl.distillers.mean_matching import class_moments
from gift_cl.models import build_model, penultimate
from gift_cl.normalization import Normalization
from gift_cl.registry import Registry
from gift_cl.teacher import Teacher, UnseenClassError

NORM = Normalization((0.4,), (0.3,))


def make_images(per_class: int = 6) -> tuple[Tensor, Tensor]:
    """Classes 4, 0 and 3, mixed."""
    labels = torch.tensor([4, 0, 3] * per_class)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=generator), labels


def make_teacher(classes: tuple[int, ...] = (0, 3, 4)) -> Teacher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("conv3:width=4,norm=instance", in_channels=1, image_size=8, num_classes=5)
    return Teacher(model, classes=classes, normalization=NORM)


def distill(distiller: DM, per_class: int = 2, *, seed: int = 0, **options: Any) -> DistilledDataset:
    images, labels = make_images()
    images, labels = options.pop("images", images), options.pop("labels", labels)
    teacher = make_teacher() if distiller.needs_teacher else None
    generator = torch.Generator().manual_seed(seed)
    chosen = {"per_class": per_class, "num_classes": 5, "teacher": teacher, "generator": generator} | options
    return distiller.distill(images, labels, **chosen)


def small(**options: Any) -> DM:
    return DM(**{"iterations": 3, "width": 4, "networks": 1, "epochs": 1} | options)


EVERY = [
    small(),
    small(embedding="teacher"),
    small(embedding="trained"),
    small(init="herding"),
    small(init="noise", moments=2, strategy="none"),
    small(pool=2, optimizer="adam", lr=0.1),
    small(pool=2, embedding="trained"),
]
every_way = pytest.mark.parametrize("distiller", EVERY, ids=lambda d: f"{d.embedding} {d.init} {d.moments}")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_moments_are_means_of_powers_over_each_class(order: int) -> None:
    rng = np.random.default_rng(0)
    features, owners = rng.normal(size=(9, 4)), np.array([0, 2, 1, 1, 2, 0, 2, 2, 1])
    expected = [
        np.concatenate([np.mean([f**p for f in features[owners == c]], 0) for p in range(1, order + 1)])
        for c in range(3)
    ]
    moments = class_moments(torch.from_numpy(features), torch.from_numpy(owners), order=order)
    np.testing.assert_allclose(moments.numpy(), expected, rtol=1e-12)


def test_the_gradient_of_a_mean_is_shared_by_its_class() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 7.0], [2.0, 2.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 6.0], [1.0, 4.0]])
    (class_moments(features, torch.tensor([0, 0, 1])) - targets).square().sum().backward()
    # 2 (mean - target) / n, with means (2, 6) of two rows and (2, 2) of one
    assert features.grad is not None
    assert features.grad.tolist() == [[2.0, 0.0], [2.0, 0.0], [2.0, -4.0]]


def by_hand(lr: float, momentum: float, moments: int, per_class: int, steps: int) -> Tensor:
    """Steps on herded images in the teacher's features without augmentation, image by image."""
    images, labels = make_images()
    teacher = make_teacher()
    start = Herding().distill(
        images, labels, per_class=per_class, num_classes=5, teacher=teacher, generator=torch.Generator()
    )

    def features(pixels: Tensor) -> Tensor:
        return penultimate(teacher.model, pixels[None])[0]

    finished = []
    for c in (0, 3, 4):
        real = [(image / 255 - 0.4) / 0.3 for image in images[labels == c]]
        pixels = [((image / 255 - 0.4) / 0.3).requires_grad_() for image in start.images[start.labels == c]]
        speed = [torch.zeros_like(image) for image in pixels]
        for _ in range(steps):
            loss = torch.zeros(())
            for power in range(1, moments + 1):
                target = torch.stack([features(image) ** power for image in real]).mean(0)
                mean = torch.stack([features(image) ** power for image in pixels]).mean(0)
                loss = loss + ((mean - target) ** 2).sum()
            gradients = torch.autograd.grad(loss, pixels)
            for k, gradient in enumerate(gradients):
                speed[k] = momentum * speed[k] + gradient
                moved = pixels[k].detach() - lr * speed[k]
                pixels[k] = moved.clamp(-0.4 / 0.3, 0.6 / 0.3).requires_grad_()
        finished += [(image.detach() * 0.3 + 0.4) * 255 for image in pixels]
    return torch.stack(finished)


@pytest.mark.parametrize("moments", [1, 2])
@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (4, 0.5)])
def test_steps_are_those_of_a_loop_over_images(moments: int, steps: int, momentum: float) -> None:
    distiller = DM(
        iterations=steps,
        lr=400.0,
        momentum=momentum,
        strategy="none",
        init="herding",
        embedding="teacher",
        moments=moments,
    )
    made = distill(distiller, 3).images.float()
    expected = by_hand(400.0, momentum, moments, 3, steps)
    assert (expected - distill(small(init="herding", lr=1e-9), 3).images).abs().max() > 20  # they moved
    torch.testing.assert_close(made, expected, rtol=0, atol=0.51)  # rounded to grey levels


def test_learning_rate_and_momentum_are_published_ones_and_iterations_fewer() -> None:
    assert (DM().lr, DM().momentum, DM().real, DM().width, DM().iterations) == (1.0, 0.5, 256, 128, 1000)


@pytest.mark.parametrize("embedding", ["random", "teacher", "trained"])
def test_exemplars_that_are_the_real_images_stay_as_they_are(embedding: Any) -> None:
    """Whatever the network and the augmentation: both sides see the same."""
    images, labels = make_images()
    made = distill(small(embedding=embedding, iterations=20, lr=10.0), len(images))
    for c in (0, 3, 4):
        expected = sorted(images[labels == c].flatten(1).tolist())
        assert sorted(made.images[made.labels == c].flatten(1).tolist()) == expected


def test_copies_of_one_image_stay_as_they_are() -> None:
    images, labels = make_images(1)
    made = distill(
        small(iterations=20, lr=10.0), 2, images=images.repeat(5, 1, 1, 1), labels=labels.repeat(5)
    )
    assert torch.equal(made.images, images[[1, 1, 2, 2, 0, 0]])


def mismatch(images: Tensor, labels: Tensor, exemplars: DistilledDataset, network: nn.Module) -> float:
    """Distance of the mean features, over all classes."""
    inputs = [NORM.apply(pixels / 255) for pixels in (images, exemplars.images)]
    with torch.no_grad():
        real, made = (penultimate(network, pixels) for pixels in inputs)
    means = [real[labels == c].mean(0) - made[exemplars.labels == c].mean(0) for c in (0, 3, 4)]
    return float(torch.stack(means).norm())


@pytest.mark.parametrize("init", ["real", "noise"])
def test_features_come_closer_in_networks_never_seen(init: Any) -> None:
    _, labels = make_images()
    smooth = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(smooth, size=(16, 16), mode="bilinear")
    images = (smooth * 255).round().to(torch.uint8)
    few, many = (
        distill(DM(n, width=32, init=init, strategy="none"), 3, images=images, labels=labels) for n in (1, 40)
    )
    torch.manual_seed(9)
    spec = "conv3:width=32,norm=instance"
    network = build_model(spec, in_channels=1, image_size=16, num_classes=1)
    assert mismatch(images, labels, many, network) < 0.8 * mismatch(images, labels, few, network)


@pytest.mark.parametrize("init", ["real", "herding"])
def test_images_to_start_from_are_real_ones(init: Any) -> None:
    images, labels = make_images()
    made = distill(small(init=init, lr=1e-9), 2)
    if init == "real":
        chosen = distill(small(init=init, lr=1e-9), 2, seed=1)
        assert not torch.equal(made.images, chosen.images)
        assert {tuple(row) for row in made.images.flatten(1).tolist()} <= {
            tuple(row) for row in images.flatten(1).tolist()
        }
    else:
        herded = Herding().distill(
            images, labels, per_class=2, num_classes=5, teacher=make_teacher(), generator=torch.Generator()
        )
        assert torch.equal(made.images, herded.images)


def test_noise_is_unlike_real_images() -> None:
    images, labels = make_images()
    made = distill(small(init="noise", lr=1e-9), images=images // 2, labels=labels)
    assert made.images.max() > 160  # no real image is brighter than 127
    assert made.images.min() == 0


def test_a_class_is_drawn_anew_in_each_iteration_up_to_its_limit() -> None:
    teacher, sizes, sums = make_teacher(), [], []

    def watch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        sums.append(float(inputs[0].detach().sum()))

    teacher.model.register_forward_pre_hook(watch)
    distill(small(embedding="teacher", real=4, strategy="none"), 2, teacher=teacher)
    assert sizes == [3 * 4, 3 * 2] * 3  # real, distilled
    assert len(set(sums[::2])) == 3


def test_classes_do_not_depend_on_those_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    distiller = small(embedding="teacher", init="herding", strategy="none", lr=10.0)
    together = distill(distiller)
    monkeypatch.setattr(matching, "_AT_ONCE", 1)
    apart = distill(distiller)
    # Batches of another size may be summed in another order.
    torch.testing.assert_close(apart.images, together.images, rtol=0, atol=1)


def test_a_pass_holds_no_more_images_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, sizes = make_teacher(), []
    teacher.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(matching, "_AT_ONCE", 16)  # two classes of 6 real and 2 distilled images
    distill(small(embedding="teacher", iterations=1), 2, teacher=teacher)
    assert sizes == [12, 4, 6, 2]


@every_way
def test_exemplars_are_stored_images_of_their_classes_in_ascending_order(distiller: DM) -> None:
    made = distill(distiller, 2)
    assert made.labels.tolist() == [0, 0, 3, 3, 4, 4]
    assert made.images.shape == (6, 1, 8, 8)
    assert made.images.dtype == torch.uint8
    assert made.encoded.codec == "raw"
    assert made.num_classes == 5


@every_way
def test_the_generator_alone_decides(distiller: DM) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = distill(distiller)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(distill(distiller).images, first.images)
    assert not torch.equal(distill(distiller, seed=1).images, first.images)


@every_way
def test_what_is_given_is_left_as_it_is(distiller: DM) -> None:
    (images, labels), teacher = make_images(), make_teacher()
    before = images.clone(), labels.clone(), {k: v.clone() for k, v in teacher.model.state_dict().items()}
    distill(distiller, images=images, labels=labels, teacher=teacher)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert all(torch.equal(value, before[2][name]) for name, value in teacher.model.state_dict().items())
    assert not teacher.model.training
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_a_teacher_that_is_not_needed_takes_no_part() -> None:
    alone, beside = distill(small()), distill(small(), teacher=make_teacher())
    assert torch.equal(alone.images, beside.images)
    assert (beside.provenance.teacher, beside.normalization) == ("none", None)


def test_a_dataset_tells_how_it_was_made() -> None:
    made = distill(small(embedding="teacher"))
    assert made.provenance.method == small(embedding="teacher").spec
    assert (made.provenance.teacher, made.provenance.teacher_classes) == ("ConvNet", (0, 3, 4))
    assert made.normalization == NORM


@pytest.mark.parametrize("embedding", ["teacher", "trained"])
def test_progress_ends_when_all_images_have_gone_through_networks(embedding: Any) -> None:
    told: list[tuple[int, int]] = []
    distiller = small(embedding=embedding, real=4, networks=2, epochs=3)
    distill(distiller, 2, progress=lambda done, total: told.append((done, total)))
    training = 2 * 3 * 18 if embedding == "trained" else 0
    total = training + 3 * 3 * (4 + 2)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {of_all for _, of_all in told} == {total}


def test_a_small_class_gives_fewer_exemplars() -> None:
    images, labels = make_images()
    keep = torch.tensor([0, 1, 3, 4, 6, 7, 9, 2])  # four of classes 4 and 0 but the last, one of class 3
    made = distill(small(real=3), 4, images=images[keep], labels=labels[keep])
    assert made.images_per_class == {0: 3, 3: 1, 4: 4}


def test_pixels_cannot_leave_their_range() -> None:
    made = distill(small(lr=1e6))
    assert {0, 255} <= set(made.images.flatten().tolist())


@pytest.mark.parametrize(
    ("options", "needs_teacher", "classes_at_once"),
    [
        ({}, False, 1),
        ({"init": "noise"}, False, 1),
        ({"init": "herding"}, True, 1),
        ({"embedding": "teacher"}, True, 1),
        ({"embedding": "trained"}, False, None),
        ({"embedding": "trained", "init": "herding"}, True, None),
    ],
)
def test_what_is_needed_depends_on_the_options(
    options: dict[str, Any], needs_teacher: bool, classes_at_once: int | None
) -> None:
    distiller = DM(**options)
    assert distiller.needs_teacher == needs_teacher
    assert distiller.classes_at_once == classes_at_once
    assert distiller.codec is None


@every_way
def test_a_distiller_is_rebuilt_from_its_spec(distiller: DM) -> None:
    registry: Registry[DM] = Registry("distiller")
    registry.add("dm", DM, reference="")
    assert registry.create(distiller.spec) == distiller
    for option in fields(DM):
        assert (f"{option.name}=" in distiller.spec) == option.init


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"iterations": 0}, "`iterations` to be an integer of at least 1, got 0"),
        ({"real": 2.5}, "`real` to be an integer of at least 1, got 2.5"),
        ({"pool": -1}, "`pool`"),
        ({"optimizer": "sdg"}, "`optimizer`"),
        ({"lr": 0}, r"`lr` in \(0, inf\), got 0"),
        ({"momentum": 1.5}, r"`momentum` in \[0, 1\], got 1.5"),
        ({"moments": 3}, "`moments` to be 1 or 2, got 3"),
        ({"init": "zeros"}, "`init` to be one of real, herding, coverage, noise, got 'zeros'"),
        ({"strategy": "blur"}, "`strategy` to be different names out of color, .*, got 'blur'"),
        ({"embedding": "best"}, "`embedding` to be one of random, teacher, trained, got 'best'"),
        ({"depth": 9}, "`depth` from 0 to 6, got 9"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DM(**options)


@pytest.mark.parametrize("options", [{"embedding": "teacher"}, {"init": "herding"}])
def test_a_teacher_has_to_be_there_and_to_know_the_classes(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`dm` needs a teacher; pass one"):
        distill(small(**options), teacher=None)
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 4\], not \[3\]"):
        distill(small(**options), teacher=make_teacher((0, 4)))


def test_a_teacher_that_diverged_is_refused() -> None:
    teacher = make_teacher()
    for parameter in teacher.model.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite values from its teacher.*may have diverged"):
        distill(small(embedding="teacher"), teacher=teacher)


def test_images_have_to_be_stored_ones() -> None:
    images, _ = make_images()
    with pytest.raises(ValueError, match=r"`images` of uint8 \(N, C, H, W\), got torch.float32"):
        distill(small(), images=images.float())
    with pytest.raises(ValueError, match="`per_class` of at least 1, got 0"):
        distill(small(), 0)


def test_a_pool_passes_real_images_as_often_as_it_is_large() -> None:
    images, _ = make_images()
    passed: list[tuple[int, int]] = []
    distill(small(pool=2, iterations=7), 2, progress=lambda done, total: passed.append((done, total)))
    assert passed[-1] == (2 * len(images) + 7 * 6,) * 2


def test_a_pool_of_one_network_without_a_view_is_that_network_always() -> None:
    options = {"embedding": "teacher", "strategy": "none", "init": "herding", "iterations": 5, "lr": 100.0}
    pooled, drawn = distill(small(pool=1, **options), 2), distill(small(**options), 2)
    assert torch.equal(pooled.images, drawn.images)
    assert not torch.equal(pooled.images, distill(small(**options | {"lr": 1e-9}), 2).images)


def test_networks_of_a_pool_keep_their_weights_and_all_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []

    def watched(network: nn.Module, inputs: Tensor) -> Tensor:
        seen.append(tuple(next(network.parameters()).flatten()[:3].tolist()))
        return penultimate(network, inputs)

    monkeypatch.setattr("gift_cl.distillers.matching_targets.penultimate", watched)
    distill(small(pool=3, iterations=30), 2)
    assert len(set(seen)) == 3
    seen.clear()
    distill(small(iterations=30), 2)
    assert len(set(seen)) == 30


def test_adam_moves_pixels_by_its_rate_whatever_the_scale_of_the_features() -> None:
    options = {"iterations": 1, "strategy": "none", "init": "herding", "embedding": "teacher"}
    start = distill(small(**options, lr=1e-9), 2).images.float()
    moved = distill(small(**options, optimizer="adam", lr=0.1), 2).images.float()
    step = 0.1 * 0.3 * 255  # of normalised pixels
    gaps = (moved - start).abs()
    assert gaps.max() <= step + 0.51
    assert ((gaps - step).abs() <= 0.51).float().mean() > 0.8  # the rest met the end of the range
