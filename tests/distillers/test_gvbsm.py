import copy
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import gvbsm
from gift_cl.distillers.conv_statistics import StatisticsMatching
from gift_cl.distillers.gvbsm import GVBSM, batches
from gift_cl.models import MLP, build_model
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views import CropFlip

NORMALIZATION = Normalization((0.4, 0.5), (0.3, 0.2))
QUIET: dict[str, Any] = {"backbones": "none", "drop": 0.0, "flip": False, "roll": 0}


class Net(nn.Module):
    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.classifier = nn.Linear(3, outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.relu(self.norm(self.conv(images))).mean((2, 3)))
        return logits


def readable() -> Net:
    """Class 1 wants the first channel bright, and class 3 dark."""
    net = Net().requires_grad_(False)
    for weight in net.parameters():
        weight.zero_()
    net.norm.weight.fill_(1)
    net.conv.weight[0, 0, 1, 1], net.conv.weight[1, 0, 1, 1] = 1, -1
    net.classifier.weight[1, 0] = net.classifier.weight[3, 1] = 5
    return net


def make_teacher(
    model: nn.Module | None = None, *, classes: tuple[int, ...] = (0, 1, 3), oracle: bool = False
) -> Teacher:
    torch.manual_seed(0)
    return Teacher(model or Net(), classes=classes, normalization=NORMALIZATION, oracle=oracle)


def make_images(per_class: int = 6, *, height: int = 7, width: int = 7) -> tuple[Tensor, Tensor]:
    """Classes 3 and 1, mixed."""
    labels = torch.tensor([3, 1] * per_class)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (len(labels), 2, height, width), dtype=torch.uint8, generator=generator
    ), labels


def distill(
    distiller: GVBSM,
    *,
    per_class: int = 2,
    teacher: Teacher | None = None,
    seed: int = 0,
    height: int = 7,
    width: int = 7,
    progress: Progress = silent,
) -> DistilledDataset:
    images, labels = make_images(height=height, width=width)
    return distiller.distill(
        images,
        labels,
        per_class=per_class,
        num_classes=4,
        teacher=teacher or make_teacher(),
        generator=torch.Generator().manual_seed(seed),
        progress=progress,
    )


def tiles(hidden: Tensor) -> Tensor:
    """Patches of 4 by 4 of ``hidden`` (N, C, H, W) enlarged to multiples, (P, values)."""
    size = [side + -side % 4 for side in hidden.shape[2:]]
    larger = functional.interpolate(hidden, size, mode="bilinear")
    return torch.stack(
        [
            larger[:, :, top : top + 4, left : left + 4].flatten()
            for top in range(0, size[0], 4)
            for left in range(0, size[1], 4)
        ]
    )


def statistics(net: Net, inputs: Tensor) -> list[Tensor]:
    """Means and variances at the convolution, of its patches, and at the batch norm, (2, n) each."""
    rows = inputs.transpose(0, 1).flatten(1), tiles(inputs), net.conv(inputs).transpose(0, 1).flatten(1)
    return [torch.stack([values.mean(1), values.var(1, correction=0)]) for values in rows]


def distil_by_hand(distiller: GVBSM, labels: Tensor, *, per_class: int) -> Tensor:
    """The whole method for one teacher, without augmentation; Adam, averages and cosine are written out."""
    images, _ = make_images()
    teacher = make_teacher()
    net = teacher.model
    assert isinstance(net, Net)
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    generator = torch.Generator().manual_seed(0)
    CropFlip(0, False)(images.float(), generator)  # views of the real images are the images
    real = statistics(net, NORMALIZATION.apply(images / 255))
    real[2] = torch.stack([net.norm.running_mean, net.norm.running_var])
    inputs = torch.randn(len(labels), *images.shape[1:], generator=generator)
    low, high = NORMALIZATION.apply(torch.zeros(1, 2, 1, 1)), NORMALIZATION.apply(torch.ones(1, 2, 1, 1))
    first_moment, second_moment = torch.zeros_like(inputs), torch.zeros_like(inputs)
    averages: list[Tensor] = []
    for step in range(distiller.iterations):
        # The generator also draws for dropped convolutions and views, none of which changes anything here.
        inputs.requires_grad_()
        found = statistics(net, inputs)
        now = [part.detach() for part in found]
        averages = [
            distiller.momentum * old + (1 - distiller.momentum) * new
            for old, new in zip(averages or now, now, strict=True)
        ]
        norms = [
            weight * (part - part.detach() + average - wanted).norm(dim=1).sum()
            for weight, part, average, wanted in zip(
                (distiller.first, distiller.first, 1), found, averages, real, strict=True
            )
        ]
        logits = net(inputs)[:, [0, 1, 3]]
        places = torch.where(labels == 3, 2, labels)
        loss = functional.cross_entropy(logits, places) + distiller.weight * sum(norms)
        for group in inputs.split(per_class):
            rows = functional.adaptive_avg_pool2d(group, 32).flatten(1)
            spectrum = torch.linalg.eigvalsh(rows @ rows.T)
            flat = (spectrum.detach() / distiller.temperature).log_softmax(0)
            loss = loss + distiller.density * (flat.exp() * (flat - spectrum.log_softmax(0))).sum()
        (gradient,) = torch.autograd.grad(loss, inputs)
        first_moment = 0.5 * first_moment + 0.5 * gradient
        second_moment = 0.9 * second_moment + 0.1 * gradient**2
        lr = distiller.lr * 0.5 * (1 + math.cos(math.pi * step / distiller.iterations))
        update = (first_moment / (1 - 0.5 ** (step + 1))) / (
            (second_moment / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8
        )
        inputs = (inputs.detach() - lr * update).clamp(low, high)
    return NORMALIZATION.to_images(inputs)


# The optimisation


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0.0},
        {"density": 0.03, "temperature": 500.0},
        {"first": 1.0, "momentum": 0.0, "weight": 0.5},
    ],
)
def test_images_are_those_of_the_method_written_out(options: dict[str, float]) -> None:
    distiller = GVBSM(iterations=6, lr=0.1, **(QUIET | {"weight": 0.3, **options}))
    made = distill(distiller)
    expected = distil_by_hand(distiller, torch.tensor([1, 1, 3, 3]), per_class=2)
    # Where a gradient is nearly 0, Adam divides rounding errors by rounding errors.
    assert float((made.images == expected).float().mean()) > 0.98
    noise = distill(GVBSM(iterations=1, lr=1e-9, **QUIET))
    assert float((made.images == noise.images).float().mean()) < 0.25


def test_the_teacher_recognises_what_is_made() -> None:
    teacher = make_teacher(readable())
    made = distill(GVBSM(iterations=40, lr=0.3, weight=0.0, **QUIET), per_class=4, teacher=teacher)
    assert torch.equal(teacher.logits(made.images).argmax(1), made.labels)


def test_outputs_of_classes_that_the_teacher_has_not_seen_play_no_part() -> None:
    teacher = make_teacher()
    changed = copy.deepcopy(teacher.model)
    assert isinstance(changed, Net)
    changed.classifier.bias[2] = 100
    first, second = (
        distill(GVBSM(iterations=4, **QUIET), teacher=t) for t in (teacher, make_teacher(changed))
    )
    assert torch.equal(first.images, second.images)


def test_networks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def watched(name: str, model: nn.Module) -> nn.Module:
        model.register_forward_hook(lambda *_: runs.append(name))
        return model.eval().requires_grad_(False)

    def train(spec: str, *_: Any, **__: Any) -> nn.Module:
        runs.append(f"train {spec}")
        return watched(spec, Net())

    monkeypatch.setattr(gvbsm, "train_backbone", train)
    distiller = GVBSM("conv3+conv4", width=4, iterations=5, batch=2, drop=0.0)
    teacher = make_teacher()
    watched("teacher", teacher.model)
    distill(distiller, teacher=teacher)
    steps = ["teacher", "conv3:width=4", "conv4:width=4", "teacher", "conv3:width=4"]
    assert runs[-10:] == steps * 2  # a batch for each class
    assert [run for run in runs if run.startswith("train")] == ["train conv3:width=4", "train conv4:width=4"]


def test_averages_begin_anew_with_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    call = StatisticsMatching.__call__

    def observed(matching: StatisticsMatching, inputs: Tensor, generator: torch.Generator) -> Any:
        events.append(f"match {len(inputs)}")
        return call(matching, inputs, generator)

    monkeypatch.setattr(StatisticsMatching, "forget", lambda _: events.append("forget"))
    monkeypatch.setattr(StatisticsMatching, "__call__", observed)
    distill(GVBSM(iterations=2, batch=2, **QUIET))
    assert events == ["forget", "match 2", "match 2"] * 2


def test_backbones_are_trained_on_the_images_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(spec: str, images: Tensor, labels: Tensor, **options: Any) -> nn.Module:
        seen.update(options, images=images, labels=labels)
        return Net().eval().requires_grad_(False)

    monkeypatch.setattr(gvbsm, "train_backbone", train)
    distill(GVBSM("resnet18_modified", epochs=7, iterations=1, flip=False), height=16, width=16)
    images, labels = make_images(height=16, width=16)
    assert torch.equal(seen["images"], images)
    assert torch.equal(seen["labels"], labels)
    assert (seen["num_classes"], seen["epochs"], seen["normalization"]) == (4, 7, NORMALIZATION)
    assert seen["view"] == CropFlip(2, flip=False)


def test_backbones_change_the_result() -> None:
    options: dict[str, Any] = {"width": 4, "epochs": 1, "iterations": 4}
    made = [distill(GVBSM(b, **options), height=8, width=8).images for b in ("none", "conv3", "conv3+conv3")]
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[1], made[2])


def test_a_batch_is_shifted_mirrored_and_rolled_alike() -> None:
    image = torch.rand(1, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(image, [1] * 4)
    shifted = [padded[:, :, top : top + 8, left : left + 16] for top in range(3) for left in range(3)]
    mirrored = [*shifted, *(view.flip(3) for view in shifted)]
    rolls = [(down, right) for down in range(3) for right in range(3)]
    origins = {
        view.roll(roll, (2, 3)).numpy().tobytes(): (place, roll)
        for place, view in enumerate(mirrored)
        for roll in rolls
    }
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        views = GVBSM("none", roll=2).augment(image.expand(3, -1, -1, -1), generator)
        assert torch.equal(views, views[:1].expand(3, -1, -1, -1))
        found.append(origins[views[:1].numpy().tobytes()])
    # Expected are 22 and 44, with standard deviations of 4.6 and 6.3.
    assert min(sum(place == wanted for place, _ in found) for wanted in range(18)) > 4
    assert min(sum(roll == wanted for _, roll in found) for wanted in rolls) > 18
    plain = {view.numpy().tobytes() for view in shifted}
    for _ in range(30):
        view = GVBSM("none", roll=0, flip=False).augment(image, generator)
        assert view.numpy().tobytes() in plain


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True), st.integers(1, 9), st.integers(1, 20)
)
def test_batches_are_of_whole_classes_where_these_fit(classes: list[int], per_class: int, size: int) -> None:
    made = [batch.tolist() for batch in batches(torch.tensor(classes), per_class, size)]
    assert list(chain(*made)) == [label for label in classes for _ in range(per_class)]
    assert max(map(len, made)) <= size
    if per_class <= size:
        assert all(batch.count(label) == per_class for batch in made for label in batch)
        assert len(made) == math.ceil(len(classes) / (size // per_class))
    else:
        assert all(len(set(batch)) == 1 for batch in made)


# What is returned


def test_each_class_gets_its_exemplars_in_ascending_order() -> None:
    made = distill(GVBSM(iterations=2, batch=3, **QUIET), per_class=4)  # larger than a batch
    assert made.labels.tolist() == [1] * 4 + [3] * 4
    assert made.images.shape == (8, 2, 7, 7)
    assert made.images.dtype == torch.uint8
    assert len(made.images.flatten(1).unique(dim=0)) == 8
    assert (made.encoded.codec, made.factor, made.num_classes, made.soft_labels) == ("raw", 1, 4, None)
    assert made.normalization == NORMALIZATION
    assert made.provenance.method == GVBSM(iterations=2, batch=3, **QUIET).spec
    assert (made.provenance.teacher, made.provenance.teacher_classes) == ("Net", (0, 1, 3))


def test_the_generator_alone_decides() -> None:
    distiller = GVBSM("conv3", width=4, epochs=1, iterations=3)
    torch.manual_seed(1)
    first = distill(distiller, height=8, width=8)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    teacher = make_teacher()
    torch.set_rng_state(before)
    again = distill(distiller, height=8, width=8, teacher=teacher)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, distill(distiller, height=8, width=8, seed=1).images)


def test_teacher_and_images_are_left_as_they_are() -> None:
    teacher, (images, labels) = make_teacher(), make_images()
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    kept = images.clone(), labels.clone()
    GVBSM(iterations=2, **QUIET).distill(
        images, labels, per_class=1, num_classes=4, teacher=teacher, generator=torch.Generator()
    )
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not teacher.model.training
    assert all(weight.grad is None for weight in teacher.model.parameters())
    assert not any(layer._forward_pre_hooks for layer in teacher.model.modules())
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_images_need_not_be_square_without_backbones() -> None:
    made = distill(GVBSM(iterations=2, **QUIET), height=8, width=12)
    assert made.images.shape == (4, 2, 8, 12)
    with pytest.raises(ValueError, match="square images to train `conv3:width=128` on, got 8 x 12 pixels"):
        distill(GVBSM("conv3", iterations=1), height=8, width=12)


def test_progress_counts_images_through_networks() -> None:
    told: list[tuple[int, int]] = []
    distiller = GVBSM("conv3", width=2, epochs=2, iterations=3, batch=2)
    distill(distiller, height=8, width=8, progress=lambda done, total: told.append((done, total)))
    # 12 real images: measured by the teacher, 2 epochs, measured by the backbone; 3 steps for 2 batches of 2.
    assert told == [(done, 60) for done in (12, 24, 36, 48, *range(50, 61, 2))]


# Options and errors


def test_a_distiller_says_what_it_is() -> None:
    default = GVBSM()
    assert default.spec == (
        "gvbsm:backbones=mobilenet_v2+shufflenet_v2_x0_5,width=128,epochs=20,iterations=1000,lr=0.05,weight=0.01,"
        "first=10,momentum=0.8,drop=0.4,patch=4,density=1,temperature=4,flip=true,roll=32,batch=100"
    )
    assert (default.needs_teacher, default.classes_at_once, default.codec) == (True, None, None)
    assert GVBSM(density=2).spec == GVBSM(density=2.0).spec


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"backbones": "conv3+nothing"}, "Unknown model `nothing`"),
        ({"backbones": ""}, "Unknown model ``"),
        ({"width": 0}, "`width` to be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, "`epochs` to be an integer"),
        ({"iterations": 0}, "`iterations` to be an integer"),
        ({"patch": 0}, "`patch` to be an integer"),
        ({"batch": 0}, "`batch` to be an integer"),
        ({"weight": -1}, r"`weight` in \[0"),
        ({"first": "x"}, r"`first` in \[0"),
        ({"density": math.nan}, r"`density` in \[0"),
        ({"lr": 0}, r"`lr` in \(0"),
        ({"temperature": 0.5}, r"`temperature` in \[1"),
        ({"momentum": 1.0}, r"`momentum` in \[0, 1\), got 1.0"),
        ({"drop": -0.1}, r"`drop` in \[0, 1\), got -0.1"),
        ({"flip": 1}, "`flip` to be true or false, got 1"),
        ({"roll": -1}, "`roll` to be an integer of at least 0, got -1"),
        ({"roll": True}, "`roll` to be an integer of at least 0, got True"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GVBSM(**({"backbones": "none"} | options))


def no_training(*_: Any, **__: Any) -> nn.Module:
    raise AssertionError("no backbone should be trained")


Broken = Callable[[], Teacher]


def diverged() -> Teacher:
    teacher = make_teacher()
    for weight in teacher.model.parameters():
        weight.fill_(math.nan)
    return teacher


@pytest.mark.parametrize(
    ("broken", "error", "match"),
    [
        (diverged, ValueError, "NaN or infinite values from its teacher.*may have diverged"),
        (lambda: make_teacher(MLP(2, 7, 4)), ValueError, "convolutions or batch norms, got MLP without"),
        (lambda: make_teacher(classes=(0, 1)), UnseenClassError, r"has seen classes \[0, 1\], not \[3\]"),
        (
            lambda: make_teacher(Net(3)),
            UnseenClassError,
            r"output for each of the classes \[0, 1, 3\], got 3",
        ),
    ],
)
def test_an_unsuitable_teacher_is_refused_before_anything_is_trained(
    broken: Broken, error: type[ValueError], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gvbsm, "train_backbone", no_training)
    with pytest.raises(error, match=match):
        distill(GVBSM("conv3"), teacher=broken())


def test_a_teacher_is_asked_for() -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="`gvbsm` needs a teacher; pass one, or choose `random`"):
        GVBSM("none").distill(
            images, labels, per_class=1, num_classes=4, teacher=None, generator=torch.Generator()
        )


def test_an_oracle_makes_images_of_a_class_it_has_not_seen() -> None:
    teacher = make_teacher(readable(), classes=(0, 1), oracle=True)
    made = distill(GVBSM(iterations=40, lr=0.3, weight=0.0, **QUIET), teacher=teacher)
    assert made.provenance.oracle
    assert teacher.logits(made.images).argmax(1).tolist() == [1, 1, 3, 3]


def test_a_model_that_views_its_features_can_teach() -> None:
    class Viewing(Net):
        def forward(self, images: Tensor) -> Tensor:
            hidden = torch.relu(self.norm(self.conv(images)))
            logits: Tensor = self.classifier(hidden.view(len(images), 3, -1).mean(2))
            return logits

    torch.manual_seed(0)
    made = distill(GVBSM(iterations=3, **QUIET), teacher=make_teacher(Viewing()))
    difference = (made.images.int() - distill(GVBSM(iterations=3, **QUIET)).images.int()).abs()
    assert float((difference <= 1).float().mean()) > 0.99


def test_published_networks_can_be_backbones() -> None:
    model = build_model("conv3:width=4", in_channels=2, image_size=8, num_classes=4)
    distiller = GVBSM("shufflenet_v2_x0_5", epochs=1, iterations=2)
    made = distill(distiller, teacher=make_teacher(model), height=8, width=8)
    assert made.images.shape == (4, 2, 8, 8)
