import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.batch_norm_statistics import BatchNormStatistics
from gift_cl.distillers.cda import CDA
from gift_cl.distillers.protocol import Distiller, MadeInPasses
from gift_cl.distillers.sre2l import SRe2L, split_evenly
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.registry import Registry
from gift_cl.teacher import Teacher

NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
DISTILLERS: Registry[Distiller] = Registry("distiller")
DISTILLERS.add("sre2l", SRe2L, reference="SRe2L, NeurIPS 2023")


def make_images(classes: tuple[int, ...] = (0, 2, 3), side: int = 8) -> tuple[Tensor, Tensor]:
    labels = torch.tensor(classes).repeat(2)
    shape = (len(labels), 3, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images, labels


def make_teacher(spec: str = "conv3:width=8", classes: tuple[int, ...] = (0, 2, 3)) -> Teacher:
    torch.manual_seed(0)
    model = build_model(spec, in_channels=3, image_size=8, num_classes=5).train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(32, 3, 8, 8) * 3 - 1.5)
    return Teacher(model, classes=classes, normalization=NORMALIZATION)


def distill(
    distiller: SRe2L,
    per_class: int = 2,
    *,
    teacher: Teacher | None = None,
    classes: tuple[int, ...] = (0, 2, 3),
    seed: int = 0,
    **options: Any,
) -> DistilledDataset:
    images, labels = make_images(classes)
    return distiller.distill(
        images,
        labels,
        per_class=per_class,
        num_classes=5,
        teacher=teacher or make_teacher(),
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def batch_sizes(distiller: SRe2L, per_class: int, classes: tuple[int, ...] = (0, 2, 3)) -> list[int]:
    """Images that each batch sends through the teacher; every batch has one iteration."""
    calls: list[tuple[int, int]] = []
    distill(distiller, per_class, classes=classes, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert {call[1] for call in calls} == {per_class * len(classes)} == {done[-1]}
    return [after - before for before, after in zip([0, *done], done, strict=False)]


# What comes out


def test_each_class_gets_its_exemplars_in_ascending_order() -> None:
    made = distill(SRe2L(iterations=2), 4)
    assert made.labels.tolist() == [0] * 4 + [2] * 4 + [3] * 4  # more than there are real images
    assert made.images.shape == (12, 3, 8, 8)
    assert made.images.dtype == torch.uint8
    assert made.encoded.codec == "raw"
    assert (made.num_classes, made.factor, made.soft_labels) == (5, 1, None)
    assert made.provenance.method == SRe2L(iterations=2).spec
    assert made.provenance.teacher_classes == (0, 2, 3)
    assert made.normalization == NORMALIZATION


@pytest.fixture(scope="module")
def colour_teacher() -> Teacher:
    """Knows red, green and blue, as classes 0, 2 and 3: that channel at 0.6, the others at 0.3, and noise."""
    torch.manual_seed(0)
    model = build_model("conv3:width=8", in_channels=3, image_size=8, num_classes=5).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(50):
        labels = torch.randint(3, (48,))
        colours = (0.3 + 0.3 * torch.eye(3))[labels, :, None, None]
        images = (colours + 0.15 * torch.randn(48, 3, 8, 8)).clamp(0, 1)
        loss = nn.functional.cross_entropy(model(NORMALIZATION.apply(images))[:, [0, 2, 3]], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Teacher(model, classes=(0, 2, 3), normalization=NORMALIZATION)


def distance(teacher: Teacher, inputs: Tensor) -> float:
    with BatchNormStatistics(teacher.model, inputs) as statistics:
        teacher.model(inputs)
        return float(statistics.distance())


def test_images_have_what_the_teacher_learned_of_the_classes(colour_teacher: Teacher) -> None:
    made = distill(SRe2L(iterations=60, batch=30, jitter=1), 10, teacher=colour_teacher)
    colours = (made.images / 255).unflatten(0, (3, 10)).mean((1, 3, 4))
    torch.testing.assert_close(colours, 0.3 + 0.3 * torch.eye(3), rtol=0, atol=0.1)
    logits = colour_teacher.logits(made.images)[:, [0, 2, 3]]
    assert logits.argmax(1).tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_a_heavier_weight_brings_statistics_closer(colour_teacher: Teacher) -> None:
    distances = []
    for weight in (0.0, 0.01, 0.1):
        made = distill(SRe2L(iterations=30, batch=30, bn_weight=weight, jitter=0), 10, teacher=colour_teacher)
        distances.append(distance(colour_teacher, NORMALIZATION.apply(made.images / 255)))
    noise = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert distances[0] > 5 * distances[1]
    assert distances[1] > 1.3 * distances[2]
    assert distance(colour_teacher, noise) > 5 * distances[1]


def test_images_follow_adam_on_a_cosine_within_the_range_of_pixels() -> None:
    """The whole optimisation, once more, in double precision and from the formulas."""
    teacher, steps = make_teacher(), 6
    made = distill(SRe2L(iterations=steps, lr=0.3, bn_weight=0.02, jitter=0), 2, teacher=teacher)

    inputs = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 0, 2, 2, 3, 3])
    model = make_teacher().model.double()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (NORMALIZATION.mean, NORMALIZATION.std))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    first = second = torch.zeros_like(inputs)
    seen: list[Tensor] = []
    for norm in norms:
        norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for step in range(steps):
        inputs.requires_grad_()
        seen.clear()
        logits = model(inputs)[:, [0, 2, 3]]
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1, 1, 2, 2]))
        for k, (norm, hidden) in enumerate(zip(norms, seen, strict=True)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            off = (norm.running_mean - hidden.mean((0, 2, 3))).norm()
            off = off + (norm.running_var - hidden.var((0, 2, 3), correction=0)).norm()
            loss = loss + 0.02 * (10 if k == 0 else 1) * off
        (gradient,) = torch.autograd.grad(loss, inputs)
        first = 0.5 * first + 0.5 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        rate = 0.3 / 2 * (1 + math.cos(math.pi * step / steps))
        debiased = first / (1 - 0.5 ** (step + 1)), second / (1 - 0.9 ** (step + 1))
        inputs = inputs.detach() - rate * debiased[0] / (debiased[1].sqrt() + 1e-8)
        inputs = torch.maximum(torch.minimum(inputs, (1 - mean) / std), -mean / std)
    expected = ((inputs * std + mean) * 255).round()
    assert labels.tolist() == made.labels.tolist()
    # Single precision: a value may round to the next grey level.
    torch.testing.assert_close(made.images.double(), expected, rtol=0, atol=1)
    assert (made.images == expected).double().mean() > 0.99


# Batches


@pytest.mark.parametrize(
    ("batch", "per_class", "expected"),
    [
        (100, 2, [6]),
        (3, 3, [3, 3, 3]),
        (5, 3, [3, 3, 3]),
        (6, 5, [6, 6, 3]),
        (12, 10, [12, 9, 9]),
        (2, 3, [2, 2, 2, 2, 1]),  # two classes, one image of each; then two images of the third class
        (1, 2, [1] * 6),
    ],
)
def test_batches_are_filled_with_classes_and_then_with_images(
    batch: int, per_class: int, expected: list[int]
) -> None:
    assert batch_sizes(SRe2L(iterations=1, batch=batch), per_class) == expected


@pytest.mark.parametrize(
    ("total", "most", "expected"), [(10, 10, [10]), (10, 4, [4, 3, 3]), (7, 1, [1] * 7), (1, 9, [1])]
)
def test_images_are_split_as_evenly_as_can_be(total: int, most: int, expected: list[int]) -> None:
    assert split_evenly(total, most) == expected


def test_classes_of_one_group_do_not_depend_on_those_after_it() -> None:
    distiller = SRe2L(iterations=2, batch=2)
    assert distiller.classes_at_once == 2
    both = distill(distiller, 3, classes=(0, 2, 3))
    alone = distill(distiller, 3, classes=(0, 2))
    assert torch.equal(both.images[:6], alone.images)


def test_images_of_a_batch_are_made_together() -> None:
    """The statistics are of the whole batch, so other classes in it change an image."""
    first, other = (distill(SRe2L(iterations=3, jitter=0, batch=b), 1).images[0] for b in (1, 2))
    assert not torch.equal(first, other)


def test_progress_counts_images_of_every_iteration() -> None:
    calls: list[tuple[int, int]] = []
    distill(SRe2L(iterations=3, batch=3), 2, progress=lambda *call: calls.append(call))
    assert calls == [(done, 18) for done in (3, 6, 9, 12, 15, 18)]


# What does not change, and what decides


def test_the_generator_alone_decides() -> None:
    distiller = SRe2L(iterations=2, crop="rrc", flip=True)
    first = distill(distiller)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    teacher = make_teacher()
    torch.random.set_rng_state(state)
    again = distill(distiller, teacher=teacher)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, distill(distiller, seed=1).images)


def test_pixels_of_the_real_images_do_not_matter() -> None:
    images, labels = make_images()
    made = [
        SRe2L(iterations=2).distill(
            pixels,
            labels,
            per_class=1,
            num_classes=5,
            teacher=make_teacher(),
            generator=torch.Generator().manual_seed(0),
        )
        for pixels in (images, images.flip(0))
    ]
    assert torch.equal(made[0].images, made[1].images)


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = make_teacher()
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    distill(SRe2L(iterations=2), teacher=teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
    assert all(not module.training and not module._forward_pre_hooks for module in teacher.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize(
    "options", [{"jitter": 0}, {"crop": "rrc"}, {"flip": True}, {"tv": 0.1}, {"l2": 0.1}, {"first_bn": 1.0}]
)
def test_every_option_changes_the_images(options: dict[str, Any]) -> None:
    plain = distill(SRe2L(iterations=4)).images
    assert not torch.equal(distill(SRe2L(iterations=4, **options)).images, plain)


# Specs and errors


def test_a_spec_names_every_option_and_builds_the_distiller_again() -> None:
    assert SRe2L().spec == (
        "sre2l:iterations=1000,lr=0.25,bn_weight=0.01,first_bn=10,batch=100,crop=none,min_scale=0.08,"
        "flip=false,jitter=4,tv=0,l2=0"
    )
    chosen = DISTILLERS.create("sre2l:200,lr=1,crop=rrc,flip=true,tv=1e-5,min_scale=1.0")
    assert chosen == SRe2L(iterations=200, lr=1, crop="rrc", flip=True, tv=1e-5, min_scale=1)
    assert DISTILLERS.create(chosen.spec) == chosen
    assert chosen.spec == SRe2L(iterations=200, lr=1.0, crop="rrc", flip=True, tv=0.00001, min_scale=1).spec


def test_published_settings_can_be_typed() -> None:
    specs = re.findall(r"``(sre2l:[^`]+)``", SRe2L.__doc__ or "")
    assert [DISTILLERS.create(spec) for spec in specs] == [
        SRe2L(iterations=4000, lr=0.1, bn_weight=1, crop="rrc", flip=True),
        SRe2L(iterations=4000, crop="rrc", flip=True, jitter=32),
    ]


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("sre2l:iterations=0", "`iterations` to be an integer of at least 1, got 0"),
        ("sre2l:batch=2.5", "`batch` to be an integer of at least 1, got 2.5"),
        ("sre2l:lr=0", r"`lr` in \(0, inf\), got 0"),
        ("sre2l:bn_weight=-1", r"`bn_weight` in \[0, inf\), got -1"),
        ("sre2l:first_bn=none", r"`first_bn` in \[0, inf\), got 'none'"),
        ("sre2l:tv=-1", r"`tv` in \[0, inf\), got -1"),
        ("sre2l:l2=-1", r"`l2` in \[0, inf\), got -1"),
        ("sre2l:crop=center", "`crop` to be one of none, rrc, got 'center'"),
        ("sre2l:min_scale=0", r"`min_scale` in \(0, 1\], got 0"),
        ("sre2l:flip=1", "`flip` to be true or false, got 1"),
        ("sre2l:jitter=-1", "`jitter` to be an integer of at least 0, got -1"),
        ("sre2l:jitter=true", "`jitter` to be an integer of at least 0, got True"),
        ("sre2l:steps=3", "Options of `sre2l`: iterations, lr"),
    ],
)
def test_unusable_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DISTILLERS.create(spec)


def test_images_no_larger_than_the_jitter_are_refused() -> None:
    with pytest.raises(ValueError, match="larger than `jitter` 8, got 8 x 8 pixels. Use `sre2l:jitter=0`"):
        distill(SRe2L(jitter=8))


def test_images_of_which_a_crop_is_less_than_a_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a share of 0.01 \(`min_scale`\) is at least a pixel, got 8 x 8"):
        distill(SRe2L(crop="rrc", min_scale=0.01))
    assert len(distill(SRe2L(iterations=1, min_scale=0.01))) == 6  # nothing is cropped


@pytest.mark.parametrize(
    ("spec", "name"), [("mlp:hidden=4", "MLP"), ("conv3:width=4,norm=instance", "ConvNet")]
)
def test_a_teacher_without_batch_norm_is_refused(spec: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"keep running statistics, got {name} without any.*such as `rded`"):
        distill(SRe2L(), teacher=make_teacher(spec))


def test_a_teacher_is_asked_for() -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="`sre2l` needs a teacher"):
        SRe2L().distill(images, labels, per_class=1, num_classes=5, teacher=None, generator=torch.Generator())


@pytest.mark.parametrize("distiller", [SRe2L(batch=6), CDA(batch=6)])
def test_a_batch_is_a_pass_that_can_be_made_on_its_own(distiller: SRe2L) -> None:
    assert isinstance(distiller, MadeInPasses)
    assert distiller.passes(5, 3) == [2, 2, 1]
    assert distiller.passes(2, 6) == [1, 1]
