from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.codecs import Downscale
from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS, RDED, Distiller, Herding, RandomImages
from gift_cl.distillers.hybrid import Hybrid, hybrid_of, num_distilled, turns, written_inside
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.registry import Registry
from gift_cl.teacher import Teacher

NORM = Normalization((0.4,), (0.3,))


def make_images(per_class: int = 9) -> tuple[Tensor, Tensor]:
    """Classes 2 and 0, mixed; no pixel is white."""
    labels = torch.tensor([2, 0] * per_class)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=generator), labels


def make_teacher(classes: tuple[int, ...] = (0, 2)) -> Teacher:
    torch.manual_seed(0)
    model = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=3)
    return Teacher(model, classes=classes, normalization=NORM)


@dataclass(frozen=True)
class White:
    """White images whose first pixel is their rank; as many as are wanted, up to ``most``."""

    codec: str | None = None
    classes_at_once: int | None = 1
    most: int = 99
    spec: str = field(default="white", init=False)
    needs_teacher: bool = field(default=False, init=False)

    def distill(
        self, images: Tensor, labels: Tensor, *, per_class: int, num_classes: int, **others: Any
    ) -> DistilledDataset:
        others["progress"](per_class, 7)
        classes, count = labels.unique(), min(per_class, self.most)
        made = torch.full((len(classes), count, *images.shape[1:]), 255, dtype=torch.uint8)
        made[:, :, 0, 0, 0] = torch.arange(count)
        return DistilledDataset.from_images(
            made.flatten(0, 1),
            classes.repeat_interleave(count),
            num_classes=num_classes,
            codec=self.codec or "raw",
        )


def distill(
    distiller: Hybrid, per_class: int, *, teacher: Teacher | None = None, seed: int = 0, **others: Any
) -> DistilledDataset:
    images, labels = make_images()
    generator = torch.Generator().manual_seed(seed)
    return distiller.distill(
        images,
        labels,
        per_class=per_class,
        num_classes=3,
        teacher=teacher,
        generator=generator,
        **others,
    )


def is_white(images: Tensor) -> list[int]:
    return (images[:, 0, 4, 4] == 255).int().tolist()


# Shares


@pytest.mark.parametrize(
    ("p", "pattern"),
    [
        (0.5, [1, 0, 1, 0, 1, 0, 1, 0]),
        (0.25, [0, 1, 0, 0, 0, 1, 0, 0]),
        (0.75, [1, 0, 1, 1, 1, 1, 0, 1]),
        (0.01, [0, 1, 0, 0, 0, 0, 0, 0]),
        (0.99, [1, 0, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_pinned_turns(p: float, pattern: list[int]) -> None:
    assert turns(8, p).int().tolist() == pattern


@given(p=st.floats(0, 1, exclude_min=True, exclude_max=True), count=st.integers(1, 300))
def test_every_prefix_has_the_share_up_to_one_image(p: float, count: int) -> None:
    so_far = turns(count, p).cumsum(0)
    sizes = torch.arange(1, count + 1)
    assert so_far.tolist() == [num_distilled(n, p) for n in sizes.tolist()]
    assert float((so_far - sizes * p).abs().max()) <= 1
    if count > 1:
        assert int(so_far[1:].min()) >= 1
        assert int((sizes - so_far)[1:].min()) >= 1


def test_kinds_take_turns_in_each_class() -> None:
    made = distill(Hybrid(0.25, White(), RandomImages()), 6)
    assert made.labels.tolist() == [0] * 6 + [2] * 6
    assert is_white(made.images) == [0, 1, 0, 0, 0, 1] * 2


def test_a_prefix_of_each_kind_is_the_most_valuable_of_it() -> None:
    images, labels = make_images()
    teacher = make_teacher()
    made = distill(Hybrid(0.5, White(), Herding()), 6, teacher=teacher)
    herded = Herding().distill(
        images, labels, per_class=3, num_classes=3, teacher=teacher, generator=torch.Generator()
    )
    for label in (0, 2):
        own = made.images[made.labels == label]
        assert own[0::2, 0, 0, 0].tolist() == [0, 1, 2]  # ranks that `White` has written
        assert torch.equal(own[1::2], herded.images[herded.labels == label])


@pytest.mark.parametrize(("p", "kind"), [(0.49, 0), (0.5, 1)])
def test_a_single_exemplar_is_of_the_larger_share(p: float, kind: int) -> None:
    assert is_white(distill(Hybrid(p, White(), RandomImages()), 1).images) == [kind, kind]


def test_the_longer_kind_follows_when_the_other_runs_out() -> None:
    made = distill(Hybrid(0.5, White(most=2), RandomImages()), 8)
    assert made.images_per_class == {0: 6, 2: 6}
    assert is_white(made.images) == [1, 0, 1, 0, 0, 0] * 2
    made = distill(Hybrid(0.5, White(), RandomImages()), 24)  # there are nine real images
    assert is_white(made.images) == ([1, 0] * 9 + [1] * 3) * 2


def test_real_images_are_images_that_were_given() -> None:
    images, labels = make_images()
    made = distill(Hybrid(0.5, White(), RandomImages()), 6)
    for image, label in zip(made.images[1::2], made.labels[1::2], strict=True):
        assert bool((image == images[labels == label]).all((1, 2, 3)).any())


# What follows from the parts


@pytest.mark.parametrize(
    ("distilled", "real", "expected"),
    [
        (White(), RandomImages(), False),
        (White(), Herding(), True),
        (RDED(), RandomImages(), True),
    ],
)
def test_a_teacher_is_needed_if_a_part_needs_one(
    distilled: Distiller, real: Distiller, expected: bool
) -> None:
    distiller = Hybrid(0.5, distilled, real)
    assert distiller.needs_teacher is expected
    if expected:
        with pytest.raises(ValueError, match="`hybrid:p=0.5,.*` needs a teacher"):
            distill(distiller, 2)


@pytest.mark.parametrize("classes_at_once", [1, 3, None])
def test_as_many_classes_are_made_together_as_are_distilled_together(classes_at_once: int | None) -> None:
    assert Hybrid(0.5, White(None, classes_at_once), RandomImages()).classes_at_once == classes_at_once


def test_real_images_are_stored_by_the_codec_of_the_distiller() -> None:
    distiller = Hybrid(0.5, White("downscale:2"), RandomImages())
    assert distiller.codec == "downscale:2"
    made = distill(distiller, 4)
    assert made.encoded.codec == "downscale:2"
    assert made.encoded.nbytes == 8 * 16
    real = made.images[made.labels == 0][1::2]
    images, labels = make_images()
    stored = Downscale(2).encode(images[labels == 0]).decode()
    for image in real:
        assert bool((image == stored).all((1, 2, 3)).any())
    assert is_white(made.images) == [1, 0, 1, 0] * 2


def test_without_a_codec_images_are_raw() -> None:
    distiller = Hybrid(0.5, White(), RandomImages())
    assert distiller.codec is None
    assert distill(distiller, 2).encoded.codec == "raw"


def test_a_dataset_tells_of_both_parts() -> None:
    teacher = make_teacher()
    made = distill(Hybrid(0.5, RDED(), Herding()), 4, teacher=teacher)
    assert made.provenance.method == (
        "hybrid:p=0.5,distilled=rded/factor=1;crops=5;min_scale=0.08;sources=300,real=herding"
    )
    assert (made.provenance.teacher, made.provenance.teacher_classes) == ("MLP", (0, 2))
    assert made.normalization == NORM
    without = distill(Hybrid(0.5, White(), RandomImages()), 4, teacher=teacher)
    assert (without.provenance.teacher, without.normalization) == ("none", None)


def test_the_generator_alone_decides() -> None:
    distiller, teacher = Hybrid(0.5, RDED(crops=2), RandomImages()), make_teacher()
    torch.manual_seed(1)
    first = distill(distiller, 4, teacher=teacher)
    torch.manual_seed(2)
    again, other = distill(distiller, 4, teacher=teacher), distill(distiller, 4, teacher=teacher, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_progress_is_that_of_the_distilled_part() -> None:
    heard: list[tuple[int, int]] = []
    distill(
        Hybrid(0.5, White(), Herding()),
        4,
        teacher=make_teacher(),
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(2, 7)]


# Specs


def make_registry() -> Registry[Distiller]:
    registry: Registry[Distiller] = Registry("distiller")
    for name in ("random", "herding", "rded"):
        registry.add(name, DISTILLERS.entry(name).factory, reference="")
    registry.add("dm", White, reference="")
    registry.add("hybrid", hybrid_of(registry.create), reference="")
    return registry


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hybrid", Hybrid(0.5, White(), Herding())),
        ("hybrid:0.3,real=random", Hybrid(0.3, White(), RandomImages())),
        ("hybrid:p=0.5,distilled=rded,real=herding", Hybrid(0.5, RDED(), Herding())),
        ("hybrid:0.5,distilled=rded/factor=1;crops=3", Hybrid(0.5, RDED(1, 3), Herding())),
        ("hybrid:distilled=rded/1;crops=3,p=0.5", Hybrid(0.5, RDED(1, 3), Herding())),
    ],
)
def test_a_spec_inside_a_spec_has_other_signs(spec: str, expected: Hybrid) -> None:
    assert make_registry().create(spec) == expected


@given(p=st.floats(0, 1, exclude_min=True, exclude_max=True), crops=st.integers(1, 9))
def test_a_hybrid_is_rebuilt_from_its_spec(p: float, crops: int) -> None:
    distiller = Hybrid(p, RDED(crops=crops), RandomImages())
    assert make_registry().create(distiller.spec) == distiller


def test_other_signs_are_written_as_they_are_read() -> None:
    assert written_inside("rded:factor=1,crops=3") == "rded/factor=1;crops=3"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("hybrid:0", r"`p` in \(0, 1\), got 0\. For one kind alone"),
        ("hybrid:1.0", r"`p` in \(0, 1\), got 1\.0"),
        ("hybrid:nan", r"`p` in \(0, 1\), got nan"),
        ("hybrid:true", r"`p` in \(0, 1\), got True"),
        ("hybrid:half", r"`p` in \(0, 1\), got 'half'"),
        ("hybrid:real=rded", "Expected `real` to be one of random, herding, coverage, got `rded:factor=1"),
        ("hybrid:distilled=dm/float32", "that are pixels, as real images are, got `white`"),
        ("hybrid:distilled=hybrid/0.3", "Expected `distilled` to be one method, got `hybrid:p=0.3,"),
        ("hybrid:distilled=rded/sides=3", "Bad options in distiller `rded:sides=3`"),
        ("hybrid:distilled=3", "Unknown distiller `3`"),
    ],
)
def test_unusable_parts_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_registry().create(spec)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="`per_class` of at least 1, got 0"):
        distill(Hybrid(0.5, White(), RandomImages()), 0)
