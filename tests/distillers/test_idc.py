from __future__ import annotations

from typing import Any

import pytest
import torch
from test_multi_formation import bilinear
from torch import Tensor, nn

from gift_cl.codecs import Downscale, Quantize, Webp
from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import RandomImages
from gift_cl.distillers.gradient_matching import (
    gradient_distance,
    gradient_loss,
    matched_weights,
    weight_gradients,
)
from gift_cl.distillers.herding import Herding
from gift_cl.distillers.hybrid import Hybrid
from gift_cl.distillers.idc import IDC
from gift_cl.distillers.matching_targets import TargetSource
from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.ridge_matching import ridge_loss
from gift_cl.memory import ExemplarMemory
from gift_cl.models import build_model, penultimate
from gift_cl.normalization import Normalization
from gift_cl.registry import Registry
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views import DSA

NORM = Normalization((0.4,), (0.3,))
FEW: dict[str, Any] = {"iterations": 2, "width": 4, "networks": 1, "epochs": 1, "real": 6}
OPTIONS: dict[str, dict[str, Any]] = {
    "feature random": {},
    "feature teacher": {"embedding": "teacher"},
    "feature trained": {"embedding": "trained"},
    "gradient random": {"match": "gradient"},
    "gradient teacher": {"match": "gradient", "embedding": "teacher"},
    "gradient trained": {"match": "gradient", "embedding": "trained"},
    "ridge random": {"match": "ridge"},
    "ridge teacher": {"match": "ridge", "embedding": "teacher", "pool": 1},
    "ridge trained": {"match": "ridge", "embedding": "trained"},
    "four bits": {"bits": 4},
    "two bits of whole images": {"factor": 1, "bits": 2},
    "through webp": {"factor": 1, "webp": 30},
    "from herded images": {"init": "herding"},
    "pool and adam": {"pool": 1, "optimizer": "adam", "lr": 0.1},
    "no views": {"strategy": "none"},
}
every_way = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


class Flat(nn.Module):
    """Its penultimate features are the inputs themselves; it remembers them."""

    def __init__(self, size: int, num_classes: int = 4) -> None:
        super().__init__()
        self.classifier = nn.Linear(size, num_classes)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        logits: Tensor = self.classifier(images.flatten(1))
        return logits


def make_images(per_class: int = 9, *, side: int = 8) -> tuple[Tensor, Tensor]:
    """Classes 3 and 0, mixed; smooth, and of different brightness."""
    labels = torch.tensor([3, 0] * per_class)
    generator = torch.Generator().manual_seed(0)
    coarse = 150 * torch.rand(len(labels), 1, 3, 3, generator=generator) + 30 * labels.view(-1, 1, 1, 1)
    images = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return images.round().to(torch.uint8), labels


def make_teacher(
    model: nn.Module | None = None, *, classes: tuple[int, ...] = (0, 1, 3), oracle: bool = False
) -> Teacher:
    torch.manual_seed(0)
    if model is None:
        model = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=4)
    return Teacher(model, classes=classes, normalization=NORM, oracle=oracle)


def distill(
    distiller: IDC | Hybrid,
    per_class: int = 4,
    *,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    teacher: Teacher | None = None,
    seed: int = 0,
    **others: Any,
) -> DistilledDataset:
    given = make_images()
    return distiller.distill(
        given[0] if images is None else images,
        given[1] if labels is None else labels,
        per_class=per_class,
        num_classes=5,
        teacher=teacher or make_teacher(),
        generator=torch.Generator().manual_seed(seed),
        **others,
    )


# What it stores


def test_a_slot_holds_factor_squared_exemplars() -> None:
    images, labels = make_images()
    made = distill(IDC(**FEW), per_class=4)
    one_each = RandomImages().distill(
        images, labels, per_class=1, num_classes=5, teacher=None, generator=torch.Generator()
    )
    assert len(made) == 4 * len(one_each)
    assert made.ledger().pixels == one_each.ledger().pixels
    assert made.ledger().labels == 4 * one_each.ledger().labels


def test_a_memory_fills_its_budget_with_small_images() -> None:
    memory = ExemplarMemory(budget_bytes=2 * 3 * 64, codec="downscale:2")
    memory.distiller = IDC(**FEW)
    memory.update(*make_images(20), teacher=None)
    assert memory.dataset is not None
    assert memory.dataset.images_per_class == {3: 11, 0: 11}  # 16 bytes and a label each
    assert memory.ledger.total == 2 * 11 * 17


@every_way
def test_each_class_gets_its_exemplars_in_ascending_order(options: dict[str, Any]) -> None:
    distiller = IDC(**FEW | options)
    made = distill(distiller)
    assert made.labels.tolist() == [0] * 4 + [3] * 4
    assert made.encoded.codec == distiller.codec
    assert made.images.shape == (8, 1, 8, 8)
    assert made.images.dtype == torch.uint8
    assert (made.num_classes, made.factor, made.soft_labels) == (5, 1, None)
    assert made.images[:4].float().mean() < made.images[4:].float().mean()


def test_a_class_with_fewer_images_gives_fewer() -> None:
    images, labels = make_images()
    made = distill(IDC(**FEW), 5, images=images[:8], labels=labels[:8])
    assert made.images_per_class == {0: 4, 3: 4}


@pytest.mark.parametrize(
    ("options", "codec", "needs_teacher", "classes_at_once"),
    [
        ({}, "downscale:2", False, 1),
        ({"factor": 3, "bits": 5}, "downscale:3,bits=5", False, 1),
        ({"embedding": "teacher"}, "downscale:2", True, 1),
        ({"embedding": "trained"}, "downscale:2", False, None),
        ({"match": "gradient"}, "downscale:2", False, None),
        ({"match": "gradient", "embedding": "teacher"}, "downscale:2", True, 1),
    ],
)
def test_what_it_says_of_itself(
    options: dict[str, Any], codec: str, needs_teacher: bool, classes_at_once: int | None
) -> None:
    distiller = IDC(**options)
    assert distiller.codec == codec
    assert distiller.needs_teacher is needs_teacher
    assert distiller.classes_at_once == classes_at_once


# What it does


def test_the_stored_images_are_what_the_loss_saw_bit_for_bit() -> None:
    model = Flat(64)
    teacher = make_teacher(model)
    options = FEW | {"embedding": "teacher", "strategy": "none", "lr": 3.0}
    made = distill(IDC(**options | {"iterations": 1}), teacher=teacher)
    assert isinstance(teacher.model, Flat)
    before = teacher.model.seen[-1]
    distill(IDC(**options | {"iterations": 2}), teacher=teacher)
    seen = teacher.model.seen[-1]  # after the same first step
    assert torch.equal(seen, NORM.apply(made.images.float() / 255))
    assert not torch.equal(seen, before)


@pytest.mark.parametrize(
    ("chosen", "codec"), [({"bits": 2}, Quantize(2)), ({"webp": 30}, Webp(30))], ids=["quantize", "webp"]
)
def test_whole_images_are_matched_as_they_are_stored(chosen: dict[str, int], codec: Quantize | Webp) -> None:
    options = FEW | {"embedding": "teacher", "strategy": "none", "lr": 30.0, "factor": 1} | chosen
    teacher = make_teacher(Flat(64))
    before = distill(IDC(**options | {"iterations": 1, "lr": 1e-9}), teacher=teacher)
    made = distill(IDC(**options | {"iterations": 1}), teacher=teacher)
    assert made.encoded.codec == codec.spec
    assert torch.equal(before.images, codec.encode(not_moved(before)).decode())
    assert not torch.equal(made.images, before.images)
    distill(IDC(**options | {"iterations": 2}), teacher=teacher)
    assert isinstance(teacher.model, Flat)
    assert torch.equal(teacher.model.seen[-1], NORM.apply(made.images.float() / 255))


def not_moved(made: DistilledDataset) -> Tensor:
    """The real images that exemplars were, if no step moved them."""
    images, labels = make_images()
    return (
        RandomImages()
        .distill(
            images,
            labels,
            per_class=4,
            num_classes=made.num_classes,
            teacher=None,
            generator=torch.Generator().manual_seed(0),
        )
        .images
    )


def test_exemplars_of_few_bits_take_few_bytes() -> None:
    made = distill(IDC(**FEW | {"factor": 1, "bits": 2}))
    assert made.encoded.nbytes == len(made) * 64 * 2 // 8
    assert set(made.images.unique().tolist()) <= {0, 85, 170, 255}


def test_it_starts_from_herded_images_if_asked() -> None:
    images, labels = make_images()
    still = FEW | {"init": "herding", "embedding": "teacher", "lr": 1e-9}
    made, teacher = distill(IDC(**still)), make_teacher()
    herded = Herding().distill(
        images, labels, per_class=4, num_classes=4, teacher=teacher, generator=torch.Generator()
    )
    assert torch.equal(made.images, Downscale(2).encode(herded.images).decode())


@pytest.mark.parametrize(("iterations", "momentum", "lr"), [(1, 0.0, 0.5), (3, 0.5, 1.0), (2, 0.0, 9.0)])
def test_steps_follow_the_distance_of_means(iterations: int, momentum: float, lr: float) -> None:
    """With inputs as features and all real images, gradients are known; the last case is clamped."""
    images, labels = make_images()
    options = FEW | {"embedding": "teacher", "strategy": "none", "real": 99, "momentum": momentum}
    made, start = (
        distill(IDC(**options | {"iterations": n, "lr": rate}), 3, teacher=make_teacher(Flat(64)))
        for n, rate in ((iterations, lr), (1, 1e-9))  # the latter moves nothing
    )
    enlarge = bilinear(4, 2).double()
    for label in (0, 3):
        own = start.labels == label
        real = images[labels == label].double()
        small = start.encoded.payload.view(6, 1, 4, 4)[own].double()
        velocity = torch.zeros_like(small)
        for _ in range(iterations):
            shown = (enlarge @ small.round() @ enlarge.T).round()
            slope = 2 / 3 * (shown.mean(0) - real.mean(0))  # of |mean - mean|², for each of three images
            velocity = momentum * velocity + enlarge.T @ slope @ enlarge / 4
            small = (small - lr * velocity).clamp(0, 255)  # the space's deviation is in both, and cancels
        error = made.encoded.payload.view(6, 1, 4, 4)[own].double() - small
        assert float(error.abs().max()) <= 0.6  # rounded to grey levels; and ties may differ on the way
        assert (lr == 9.0) == bool(((small == 0) | (small == 255)).any())


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_mean_features_come_close_to_those_of_the_class(momentum: float) -> None:
    images, labels = make_images()
    options: dict[str, Any] = {"embedding": "teacher", "strategy": "none", "real": 99}
    teacher = make_teacher(Flat(64))

    def distance(lr: float) -> float:
        made = distill(IDC(iterations=40, lr=lr, momentum=momentum, **options), teacher=teacher)
        gaps = [
            (made.images[made.labels == c].float().mean(0) - images[labels == c].float().mean(0))
            for c in (0, 3)
        ]
        return float(torch.stack(gaps).abs().mean())

    assert distance(1.0) < 0.15 * distance(1e-9)


def test_gradients_come_close_to_those_of_the_class() -> None:
    images, labels = make_images()
    teacher = make_teacher(Flat(64), classes=(0, 1, 2, 3))
    real = NORM.apply(images[labels == 3].float() / 255)

    def distance(iterations: int) -> float:
        options: dict[str, Any] = {"match": "gradient", "embedding": "teacher", "strategy": "none"}
        made = distill(IDC(iterations=iterations, real=99, lr=30.0, **options), teacher=teacher)
        shown = NORM.apply(made.images[made.labels == 3].float() / 255)
        weights = matched_weights(teacher.model)
        gradients = [weight_gradients(teacher.model, weights, x, columns=[3, 0, 1, 2]) for x in (shown, real)]
        return float(gradient_distance(*gradients))

    assert distance(40) < 0.5 * distance(1)


def test_exemplars_of_all_classes_learn_to_teach_what_tells_them_apart() -> None:
    images, labels = make_images()
    teacher, box = make_teacher(), PixelBox(NORM, "cpu")

    def loss(made: DistilledDataset) -> float:
        of_made, of_real = (
            penultimate(teacher.model, box.from_uint8(each)) for each in (made.images, images)
        )
        places = (made.labels == 3).long(), (labels == 3).long()
        return ridge_loss(of_made, places[0], of_real, places[1], num_classes=2, ridge=0.3).item()

    options = {"match": "ridge", "embedding": "teacher", "optimizer": "adam", "strategy": "none", "real": 99}
    start, end = (
        distill(IDC(**FEW | options | {"iterations": steps, "lr": lr}), teacher=teacher)
        for steps, lr in ((1, 1e-9), (30, 0.05))
    )
    assert loss(end) < 0.8 * loss(start)


def test_views_do_not_tell_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each real image and each exemplar has strengths of its own."""
    drawn: list[int] = []
    draw = DSA.draw

    def watched(dsa: DSA, num_images: int, *others: Any) -> Any:
        drawn.append(num_images)
        return draw(dsa, num_images, *others)

    monkeypatch.setattr(DSA, "draw", watched)
    distill(IDC(**FEW | {"match": "ridge", "iterations": 3, "pool": 1}))
    assert drawn == [2 * 6, *[2 * 4] * 3]  # classes times real images, and times exemplars


@pytest.mark.parametrize(
    ("embedding", "expected"), [("teacher", [[0, 1, 3], [3, 0, 1]]), ("random", [[0, 1], [1, 0]])]
)
def test_gradients_are_those_of_the_own_class_among_those_known(
    embedding: Any, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def spy(network: nn.Module, made: Any, real: Any, *, columns: list[int]) -> Tensor:
        asked.append(columns)
        return gradient_loss(network, made, real, columns=columns)

    monkeypatch.setattr("gift_cl.distillers.gradient_matching.gradient_loss", spy)
    distill(IDC(**FEW | {"match": "gradient", "embedding": embedding, "iterations": 1}))
    assert asked == expected


def test_the_distance_of_features_equals_a_plain_loop() -> None:
    network = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=4)
    images, labels = make_images(3)
    box = PixelBox(NORM, "cpu")
    made, owners = torch.randn(5, 1, 8, 8), torch.tensor([0, 0, 1, 1, 1])
    expected = 0.0
    for place, label in enumerate((3, 0)):
        means = [
            torch.stack([penultimate(network, image[None])[0] for image in part]).mean(0)
            for part in (made[owners == place], box.from_uint8(images[labels == label]))
        ]
        expected += float((means[0] - means[1]).detach().square().sum())
    real = [images[labels == label] for label in (3, 0)]
    source = TargetSource(real, box, lambda generator: network, None, 99, 1, "idc")
    target = source.draw(torch.Generator())
    assert target.distance(made, owners).item() == pytest.approx(expected, rel=1e-4)


def test_gradient_loss_is_a_mean_over_outputs_times_thousands_of_values() -> None:
    network = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=4)
    made, real = torch.randn(5, 1, 8, 8), torch.randn(7, 1, 8, 8)
    weights = matched_weights(network)
    distance = gradient_distance(
        weight_gradients(network, weights, made, columns=[1, 0, 2]),
        weight_gradients(network, weights, real, columns=[1, 0, 2]),
    )
    loss = gradient_loss(network, made, real, columns=[1, 0, 2])
    assert loss.item() == pytest.approx(distance.item() / (8 + 4) * 5 * 64 / 1000, rel=1e-5)


def test_real_images_and_their_exemplars_undergo_the_same_views() -> None:
    """An exemplar of each image, of areas that are even: real and made features are the same."""
    labels = torch.tensor([0, 3] * 4)
    images = (30 * torch.arange(8, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(8, 1, 8, 8)
    made = distill(
        IDC(**FEW | {"iterations": 5, "real": 99, "embedding": "teacher", "lr": 10.0}),
        images=images,
        labels=labels,
        teacher=make_teacher(Flat(64)),
    )
    assert sorted(made.images[:, 0, 0, 0].tolist()) == list(range(0, 240, 30))
    assert torch.equal(made.images, made.images[:, :, :1, :1].expand_as(made.images))


# What holds for every distiller


@every_way
def test_the_generator_alone_decides(options: dict[str, Any]) -> None:
    distiller = IDC(**FEW | options)
    torch.manual_seed(1)
    first, state = distill(distiller), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = distill(distiller), distill(distiller, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    torch.manual_seed(0)  # as `make_teacher` does
    build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=4)
    assert torch.equal(torch.get_rng_state(), state)


@every_way
def test_inputs_and_teacher_are_left_as_they_are(options: dict[str, Any]) -> None:
    images, labels = make_images()
    teacher = make_teacher()
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    distill(IDC(**FEW | options), images=images, labels=labels, teacher=teacher)
    assert torch.equal(images, make_images()[0])
    for name, value in teacher.model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
        assert not value.requires_grad


def test_batch_norms_of_the_teacher_are_left_as_they_are() -> None:
    model = build_model("conv3:width=4", in_channels=1, image_size=8, num_classes=4)
    for match in ("feature", "gradient", "ridge"):
        teacher = make_teacher(model)
        distill(IDC(**FEW | {"match": match, "embedding": "teacher"}), teacher=teacher)
        for name, value in teacher.model.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name


@every_way
def test_it_is_rebuilt_from_its_spec(options: dict[str, Any]) -> None:
    registry: Registry[IDC] = Registry("distiller")
    registry.add("idc", IDC, reference="")
    distiller = IDC(**FEW | options)
    assert registry.create(distiller.spec) == distiller


def test_a_dataset_tells_how_it_was_made() -> None:
    distiller = IDC(**FEW | {"embedding": "teacher"})
    made = distill(distiller)
    assert made.provenance.method == distiller.spec
    assert (made.provenance.teacher, made.provenance.teacher_classes) == ("MLP", (0, 1, 3))
    assert made.normalization == NORM
    without = distill(IDC(**FEW))  # a teacher is given, but not asked
    assert (without.provenance.teacher, without.normalization) == ("none", None)


@pytest.mark.parametrize(("options", "trained"), [({}, 0), ({"embedding": "trained", "epochs": 2}, 2 * 18)])
@pytest.mark.parametrize("match", ["feature", "gradient", "ridge"])
def test_progress_counts_images_through_networks(options: dict[str, Any], trained: int, match: str) -> None:
    heard: list[tuple[int, int]] = []
    distill(
        IDC(**FEW | {"match": match} | options),
        progress=lambda done, total: heard.append((done, total)),
    )
    total = trained + 2 * 2 * (6 + 4)  # iterations, classes, real images and exemplars
    assert heard[-1] == (total, total)
    assert {of_all for _, of_all in heard} == {total}
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_a_hybrid_stores_real_images_as_small() -> None:
    images, labels = make_images()
    hybrid = Hybrid(0.5, IDC(**FEW), RandomImages())
    assert hybrid.codec == "downscale:2"
    made = distill(hybrid)
    assert made.encoded.nbytes == 8 * 16
    stored = Downscale(2).encode(images[labels == 0]).decode()
    for image in made.images[made.labels == 0][1::2]:
        assert bool((image == stored).all((1, 2, 3)).any())


# What it refuses


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"factor": 0}, "`factor` to be an integer of at least 1, got 0"),
        ({"factor": -1, "webp": 50}, "`factor` to be an integer of at least 1, got -1"),
        ({"factor": 1, "bits": 8.0, "webp": 50}, "`bits` to be an integer of at least 1, got 8.0"),
        ({"factor": 1}, "For images as they are, use `dm`"),
        ({"pool": -1}, "`pool` to be an integer of at least 0, got -1"),
        ({"ridge": 0.0}, "`ridge`"),
        ({"pool": 2, "match": "gradient"}, "`pool` 0 for `match=gradient`"),
        ({"optimizer": "lion"}, "`optimizer` to be sgd or adam, got 'lion'"),
        ({"init": "noise"}, "`init` to be one of real, herding, coverage, got 'noise'"),
        ({"bits": 9}, r"`bits` as a whole number in \[1, 8\], got 9"),
        ({"webp": 20}, "or `factor` 1, 8 `bits` and a `webp` quality; got 2, 8 and 20"),
        ({"factor": 1, "bits": 4, "webp": 20}, "a `webp` quality; got 1, 4 and 20"),
        ({"factor": 1, "webp": 101}, r"`quality` as a whole number in \[1, 100\], got 101"),
        ({"factor": 1, "webp": -1}, "`webp` to be an integer of at least 0, got -1"),
        ({"match": "logits"}, "`match` to be one of feature, gradient, ridge, got 'logits'"),
        ({"iterations": 0}, "`iterations` to be an integer of at least 1, got 0"),
        ({"real": 0}, "`real` to be an integer of at least 1, got 0"),
        ({"lr": 0.0}, r"`lr` in \(0, inf\), got 0.0"),
        ({"momentum": 1.5}, r"`momentum` in \[0, 1\], got 1.5"),
        ({"strategy": "blur"}, "`strategy` to be different names out of color"),
        ({"embedding": "none"}, "`embedding` to be one of random, teacher, trained, got 'none'"),
        ({"width": 0}, "`width` to be an integer of at least 1, got 0"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        IDC(**options)


def test_small_images_without_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 4 pixels a side, got 2 \(8 x 8.*smaller `factor`, or"):
        distill(IDC(factor=4))


def test_a_factor_that_does_not_divide_is_refused() -> None:
    images, labels = make_images(side=14)
    with pytest.raises(ValueError, match=r"multiples of 3 for `downscale:3`, got 14 x 14"):
        distill(IDC(factor=3), images=images, labels=labels)


@pytest.mark.parametrize("match", ["gradient", "ridge"])
@pytest.mark.parametrize("embedding", ["random", "teacher"])
def test_a_single_class_cannot_be_told_from_others(match: Any, embedding: Any) -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match=f"at least two classes for `match={match}`, got one.*match=feature"):
        distill(
            IDC(match=match, embedding=embedding),
            images=images[labels == 0],
            labels=labels[labels == 0],
            teacher=make_teacher(classes=(0,)),
        )


def test_a_teacher_is_asked_for() -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="`idc` needs a teacher"):
        IDC(embedding="teacher").distill(
            images, labels, per_class=1, num_classes=4, teacher=None, generator=torch.Generator()
        )


def test_an_unseen_class_is_refused_unless_an_oracle_is_asked() -> None:
    distiller = IDC(**FEW | {"match": "gradient", "embedding": "teacher"})
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 1\], not \[3\]"):
        distill(distiller, teacher=make_teacher(classes=(0, 1)))
    assert distill(distiller, teacher=make_teacher(classes=(0, 1), oracle=True)).provenance.oracle


def test_gradients_of_an_oracle_without_the_output_are_refused() -> None:
    with pytest.raises(UnseenClassError, match="a teacher with an output for class 3, got 3 outputs"):
        distill(
            IDC(match="gradient", embedding="teacher"),
            teacher=make_teacher(Flat(64, num_classes=3), classes=(0, 1), oracle=True),
        )


@pytest.mark.parametrize("match", ["feature", "gradient", "ridge"])
def test_a_teacher_that_diverged_is_refused(match: Any) -> None:
    teacher = make_teacher()
    for parameter in teacher.model.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite values from its teacher"):
        distill(IDC(match=match, embedding="teacher"), teacher=teacher)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`images` of uint8 \(N, C, H, W\), got torch.float32"):
        distill(IDC(), images=make_images()[0].float())
