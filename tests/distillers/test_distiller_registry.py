"""What holds for every distiller."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gift_cl.distillers import DISTILLERS, RDED, Distiller, Herding, RandomImages, matching
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher, UnseenClassError

NEED_A_TEACHER = (
    "herding",
    "coverage",
    "rded:factor=1,crops=2,min_scale=0.3,sources=20",
    "rded:factor=2,crops=4",
    "sre2l:iterations=2",
    "cda:iterations=2",
    "gvbsm:backbones=none,iterations=2",
    "dm:iterations=2,width=4,embedding=teacher",
    "hybrid:distilled=rded/crops=2",
)
NEED_NONE = (
    "random",
    "dm:iterations=2,width=4",
    "idc:iterations=2,width=4",
    "datm:experts=1,epochs=3,matched_epochs=1,early_start=1,max_start=2,expansion=0,iterations=2,steps=2,width=4,threshold=9",
)
SPECS = (*NEED_NONE, *NEED_A_TEACHER)
every_distiller = pytest.mark.parametrize("spec", SPECS)
with_teacher = pytest.mark.parametrize("spec", NEED_A_TEACHER)


def make_images(per_class: int = 9, *, channels: int = 1, side: int = 16) -> tuple[Tensor, Tensor]:
    """Classes 2, 0 and 3, mixed."""
    labels = torch.tensor([2, 0, 3] * per_class)
    generator = torch.Generator().manual_seed(0)
    shape = (len(labels), channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), labels


def make_teacher(
    classes: tuple[int, ...] = (0, 2, 3), *, channels: int = 1, side: int = 16, oracle: bool = False
) -> Teacher:
    torch.manual_seed(0)
    model = build_model("conv3:width=4", in_channels=channels, image_size=side, num_classes=5)
    norm = Normalization((0.4,) * channels, (0.3,) * channels)
    return Teacher(model, classes=classes, normalization=norm, oracle=oracle)


def distill(spec: str, per_class: int = 4, *, seed: int = 0, **options: Any) -> Any:
    images, labels = make_images(channels=options.get("channels", 1))
    return DISTILLERS.create(spec).distill(
        images,
        labels,
        per_class=per_class,
        num_classes=5,
        teacher=make_teacher(channels=options.get("channels", 1)),
        generator=torch.Generator().manual_seed(seed),
    )


def test_every_registered_distiller_is_tested_here() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(DISTILLERS.names())


def test_names_build_their_classes() -> None:
    assert isinstance(DISTILLERS.create("random"), RandomImages)
    assert isinstance(DISTILLERS.create("herding"), Herding)
    assert DISTILLERS.create("rded:2,crops=7") == RDED(factor=2, crops=7)


@every_distiller
def test_a_distiller_is_rebuilt_from_its_spec(spec: str) -> None:
    distiller = DISTILLERS.create(spec)
    assert DISTILLERS.create(distiller.spec) == distiller
    assert distiller.needs_teacher == (spec in NEED_A_TEACHER)


@every_distiller
@pytest.mark.parametrize("channels", [1, 3])
def test_each_class_gets_its_exemplars_in_ascending_order(spec: str, channels: int) -> None:
    made = distill(spec, channels=channels)
    assert made.labels.tolist() == [0] * 4 + [2] * 4 + [3] * 4
    assert made.images.shape == (12, channels, 16, 16)
    assert made.images.dtype == torch.uint8
    assert made.encoded.codec == (DISTILLERS.create(spec).codec or "raw")
    assert made.num_classes == 5
    assert (made.soft_labels is not None) == spec.startswith("datm")


@every_distiller
def test_the_generator_alone_decides(spec: str) -> None:
    torch.manual_seed(1)
    first = distill(spec)
    torch.manual_seed(2)
    again, other = distill(spec), distill(spec, seed=1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, other.images) == (spec in ("herding", "coverage"))  # which draw nothing


@every_distiller
def test_the_input_is_left_as_it_is(spec: str) -> None:
    images, labels = make_images()
    before = images.clone(), labels.clone()
    teacher = make_teacher()
    weights = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    DISTILLERS.create(spec).distill(
        images, labels, per_class=3, num_classes=5, teacher=teacher, generator=torch.Generator()
    )
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, weights[name])


@with_teacher
def test_a_dataset_tells_how_it_was_made(spec: str) -> None:
    made = distill(spec)
    assert made.provenance.method == DISTILLERS.create(spec).spec
    assert made.provenance.teacher == "ConvNet"
    assert made.provenance.teacher_classes == (0, 2, 3)
    assert not made.provenance.oracle
    assert made.normalization == Normalization((0.4,), (0.3,))
    assert made.factor == (2 if "factor=2" in spec else 1)


def test_random_images_tell_of_no_teacher() -> None:
    made = distill("random")
    assert (made.provenance.method, made.provenance.teacher, made.normalization) == ("random", "none", None)


@with_teacher
def test_a_teacher_is_asked_for(spec: str) -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="needs a teacher; pass one, or choose `random`"):
        DISTILLERS.create(spec).distill(
            images, labels, per_class=1, num_classes=5, teacher=None, generator=torch.Generator()
        )


@with_teacher
def test_an_unseen_class_is_refused_unless_an_oracle_is_asked(spec: str) -> None:
    images, labels = make_images()
    distiller: Distiller = DISTILLERS.create(spec)

    def run(oracle: bool) -> Any:
        teacher = make_teacher((0, 2), oracle=oracle)
        return distiller.distill(
            images, labels, per_class=1, num_classes=5, teacher=teacher, generator=torch.Generator()
        )

    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 2\], not \[3\]"):
        run(oracle=False)
    assert run(oracle=True).provenance.oracle


@with_teacher
def test_a_teacher_that_diverged_is_refused(spec: str) -> None:
    images, labels = make_images()
    teacher = make_teacher()
    for parameter in teacher.model.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite values from its teacher.*may have diverged"):
        DISTILLERS.create(spec).distill(
            images, labels, per_class=1, num_classes=5, teacher=teacher, generator=torch.Generator()
        )


IMAGES, LABELS = make_images(1)
BAD_INPUT: dict[str, tuple[Tensor, Tensor, int, str]] = {
    "float images": (
        IMAGES.float(),
        LABELS,
        1,
        r"`images` of uint8 \(N, C, H, W\), got torch.float32.*round",
    ),
    "flat images": (IMAGES.flatten(1), LABELS, 1, r"`images` of uint8 \(N, C, H, W\)"),
    "int labels": (IMAGES, LABELS.int(), 1, r"`labels` of int64 \(3,\), got torch.int32"),
    "few labels": (IMAGES, LABELS[:2], 1, r"`labels` of int64 \(3,\), got torch.int64 \(2,\)"),
    "no images": (IMAGES[:0], LABELS[:0], 1, "at least one image to distil"),
    "no exemplars": (IMAGES, LABELS, 0, "`per_class` of at least 1, got 0"),
}


@every_distiller
@pytest.mark.parametrize(("images", "labels", "per_class", "match"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_unusable_input_is_refused(
    spec: str, images: Tensor, labels: Tensor, per_class: int, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        DISTILLERS.create(spec).distill(
            images,
            labels,
            per_class=per_class,
            num_classes=5,
            teacher=make_teacher(),
            generator=torch.Generator(),
        )


@pytest.mark.parametrize("spec", ["dm:iterations=2,width=4", "idc:iterations=2,width=4"])
def test_a_teacher_that_is_not_needed_gives_its_device(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``meta`` stands for an accelerator."""
    devices = []

    def pixel_box(images: Tensor, teacher: Teacher | None, device: torch.device) -> None:
        assert (images.device.type, teacher) == ("cpu", None)  # images follow class by class
        devices.append(device.type)
        raise KeyboardInterrupt

    monkeypatch.setattr(matching, "pixel_box", pixel_box)
    teacher = make_teacher()
    teacher.model.to("meta")
    images, labels = make_images()
    with pytest.raises(KeyboardInterrupt):
        DISTILLERS.create(spec).distill(
            images,
            labels,
            per_class=2,
            num_classes=5,
            teacher=teacher,
            generator=torch.Generator(),
        )
    assert devices == ["meta"]
