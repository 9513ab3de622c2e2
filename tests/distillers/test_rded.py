import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, functional

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS, RDED
from gift_cl.distillers.rded import crop, draw_boxes, score, stitch
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher, UnseenClassError


class Linear(nn.Module):
    """Any image shape; logits differ from image to image."""

    def __init__(self, size: int, num_classes: int = 4) -> None:
        super().__init__()
        self.classifier = nn.Linear(size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.flatten(1))
        return logits


def make_teacher(
    shape: tuple[int, int, int] = (1, 16, 16), classes: tuple[int, ...] = (0, 1, 3), *, oracle: bool = False
) -> Teacher:
    torch.manual_seed(0)
    channels, height, width = shape
    norm = Normalization(tuple(0.3 + 0.1 * c for c in range(channels)), (0.25,) * channels)
    return Teacher(Linear(channels * height * width), classes=classes, normalization=norm, oracle=oracle)


def make_images(count: int = 12, shape: tuple[int, int, int] = (1, 16, 16), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, shape[0], 5, 5, generator=generator)
    images = nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    return (images * 255).round().to(torch.uint8)


def distill(
    images: Tensor,
    per_class: int,
    distiller: RDED,
    *,
    teacher: Teacher | None = None,
    label: int = 1,
    seed: int = 0,
) -> DistilledDataset:
    shape = (images.shape[1], images.shape[2], images.shape[3])
    return distiller.distill(
        images,
        torch.full((len(images),), label),
        per_class=per_class,
        num_classes=4,
        teacher=teacher or make_teacher(shape),
        generator=torch.Generator().manual_seed(seed),
    )


# Boxes and crops


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 1.0), st.integers(0, 1000))
def test_boxes_lie_inside_and_cover_their_share(min_scale: float, seed: int) -> None:
    side, top, left = draw_boxes(200, min_scale, torch.Generator().manual_seed(seed)).unbind(1)
    area = side.square()
    assert float(area.min()) >= min_scale * (1 - 1e-6)
    assert float(area.max()) <= 1
    for start in (top, left):
        assert float(start.min()) >= 0
        assert float((start + side).max()) <= 1 + 1e-6


def test_areas_and_places_are_uniform() -> None:
    side, top, left = draw_boxes(20_000, 0.08, torch.Generator().manual_seed(0)).unbind(1)
    # Standard error of the mean: 0.92 / sqrt(12 * 20,000) = 0.002; five of them are allowed.
    assert float(side.square().mean()) == pytest.approx((0.08 + 1) / 2, abs=0.01)
    for start in (top, left):
        assert float((start / (1 - side)).mean()) == pytest.approx(0.5, abs=0.01)


def test_a_crop_is_the_resized_crop_of_torchvision() -> None:
    images = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    boxes, expected = [], []
    for image in images:
        size = int(torch.randint(1, 33, (), generator=generator))
        top, left = torch.randint(0, 33 - size, (2,), generator=generator).tolist()
        boxes.append([size / 32, top / 32, left / 32])
        expected.append(
            functional.resized_crop(
                image, top, left, size, size, [32, 32], InterpolationMode.BILINEAR, antialias=True
            )
        )
    # Single precision: coordinates run from -1 to 1 here, and in pixels there.
    torch.testing.assert_close(crop(images, torch.tensor(boxes), 1), torch.stack(expected), rtol=0, atol=1e-5)


def test_a_crop_of_everything_is_the_image() -> None:
    images = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, -1)
    torch.testing.assert_close(crop(images, boxes, 1), images)
    torch.testing.assert_close(crop(images, boxes, 2), nn.functional.avg_pool2d(images, 2))


def test_a_crop_looks_at_nothing_outside_its_box() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 8:24, 4:20] = 1
    for factor in (1, 2):
        patch = crop(image, torch.tensor([[0.5, 8 / 32, 4 / 32]]), factor)
        torch.testing.assert_close(patch, torch.ones_like(patch))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_crops_of_a_slope_are_exact(factor: int) -> None:
    """Along a slope, interpolating and averaging change nothing but next to the border."""
    columns = (torch.arange(32) + 0.5) / 32
    image = columns.expand(1, 1, 32, 32)
    side, left = 0.5, 0.3
    patch = crop(image, torch.tensor([[side, 0.2, left]]), factor)
    size = 32 // factor
    expected = left + side * (torch.arange(size) + 0.5) / size
    # At the border a crop repeats its outermost half pixel, 1/64 of the slope.
    torch.testing.assert_close(patch[0, 0, 5, 1:-1], expected[1:-1])
    torch.testing.assert_close(patch[0, 0, 5], expected, rtol=0, atol=1 / 64)


def test_crops_of_images_that_are_not_square_keep_their_shape() -> None:
    image = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[0.5, 0.25, 0.5]])
    expected = functional.resized_crop(image, 4, 16, 8, 16, [16, 32], InterpolationMode.BILINEAR)
    torch.testing.assert_close(crop(image, box, 1), expected, rtol=0, atol=1e-5)  # as above
    assert crop(image, box, 2).shape == (1, 3, 8, 16)


# Scores


def test_a_score_is_the_cross_entropy_among_the_classes_of_the_teacher() -> None:
    patches, teacher = make_images(), make_teacher()
    logits = teacher.model((patches.float() / 255 - 0.3) / 0.25)[:, [0, 1, 3]]
    for position, label in enumerate((0, 1, 3)):
        expected = logits.logsumexp(1) - logits[:, position]
        torch.testing.assert_close(score(patches, label, teacher), expected)


@pytest.mark.parametrize(
    ("factor", "patch", "shape", "top", "left"),
    [
        (2, (3, 8, 8), (3, 16, 16), 4, 4),
        (3, (3, 9, 9), (3, 27, 27), 9, 9),
        (2, (3, 8, 16), (3, 16, 32), 4, 8),
        (2, (3, 9, 9), (3, 18, 18), 4, 4),
    ],
)
def test_a_small_patch_is_scored_on_the_mean_colour(
    factor: int, patch: tuple[int, int, int], shape: tuple[int, int, int], top: int, left: int
) -> None:
    patches, teacher = make_images(5, patch), make_teacher(shape)
    normalized = teacher.normalization.apply(patches.float() / 255)
    inputs = torch.zeros(5, *shape)  # the mean colour, after normalisation
    inputs[:, :, top : top + patch[1], left : left + patch[2]] = normalized
    expected = nn.functional.cross_entropy(
        teacher.model(inputs)[:, [0, 1, 3]], torch.ones(5).long(), reduction="none"
    )
    torch.testing.assert_close(score(patches, 1, teacher, factor=factor), expected)


def test_an_oracle_scores_a_class_it_has_not_seen_by_its_output() -> None:
    patches, teacher = make_images(), make_teacher(oracle=True)
    logits = teacher.model((patches.float() / 255 - 0.3) / 0.25)
    torch.testing.assert_close(score(patches, 2, teacher), logits.logsumexp(1) - logits[:, 2])
    with pytest.raises(UnseenClassError, match=r"an output for each of the classes \[0, 1, 3, 5\], got 4"):
        score(patches, 5, teacher)


# Stitching


@pytest.mark.parametrize(("factor", "count"), [(1, 5), (2, 3), (3, 2)])
def test_mosaics_take_patches_in_turn_cell_by_cell(factor: int, count: int) -> None:
    height, width = 2, 3
    patches = torch.arange(count * factor**2 + 2).view(-1, 1, 1, 1).expand(-1, 1, height, width)
    mosaics = stitch(patches, count, factor)
    assert mosaics.shape == (count, 1, factor * height, factor * width)
    for k in range(count):
        for cell in range(factor**2):
            row, column = divmod(cell, factor)
            part = mosaics[k, 0, row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert (part == k + cell * count).all()


def test_pinned_mosaic() -> None:
    mosaics = stitch(torch.arange(8).view(8, 1, 1, 1), 2, 2)
    assert mosaics.tolist() == [[[[0, 2], [4, 6]]], [[[1, 3], [5, 7]]]]


def test_too_few_patches_give_fewer_whole_mosaics() -> None:
    patches = torch.arange(11).view(11, 1, 1, 1)
    assert stitch(patches, 5, 2).flatten(1).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert stitch(patches[:3], 5, 2).shape == (0, 1, 2, 2)


# Distillation


def test_the_easiest_crop_of_each_image_is_kept_easiest_first() -> None:
    images, teacher, distiller = make_images(12), make_teacher(), RDED(crops=4, min_scale=0.2)
    made = distill(images, 12, distiller, teacher=teacher)

    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(12, generator=generator)
    source = images[order].float() / 255
    crops = [crop(source, draw_boxes(12, 0.2, generator), 1) for _ in range(4)]
    patches = (torch.stack(crops) * 255).round().to(torch.uint8)
    scores = torch.stack([score(p, 1, teacher) for p in patches])
    best = scores.amin(0)
    by_hand = [patches[scores[:, i].argmin(), i] for i in best.argsort().tolist()]
    assert torch.equal(made.images, torch.stack(by_hand))
    assert score(made.images, 1, teacher).diff().min() >= 0


def test_when_images_run_out_their_second_best_crops_follow() -> None:
    images, teacher = make_images(3), make_teacher()
    made = distill(images, 8, RDED(crops=3, min_scale=0.2), teacher=teacher)
    scores = score(made.images, 1, teacher)
    for rank in (slice(0, 3), slice(3, 6), slice(6, 8)):
        assert (scores[rank].diff() >= 0).all()  # easiest first within each rank
    whole = score(distill(images, 9, RDED(crops=3, min_scale=0.2), teacher=teacher).images, 1, teacher)
    assert float(whole[:3].max()) <= float(whole.max())
    assert float(whole[:3].mean()) < float(whole[3:6].mean()) < float(whole[6:].mean())


def test_no_more_than_all_crops_are_made() -> None:
    made = distill(make_images(3), 50, RDED(crops=4))
    assert len(made) == 12
    assert len(made.images.flatten(1).unique(dim=0)) == 12


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (3, 16, 32)])
def test_mosaics_hold_the_easiest_patches(shape: tuple[int, int, int]) -> None:
    images, teacher = make_images(20, shape), make_teacher(shape)
    made = distill(images, 3, RDED(factor=2, crops=2), teacher=teacher)
    assert made.images.shape == (3, *shape)
    assert made.factor == 2
    height, width = shape[1] // 2, shape[2] // 2
    cells = made.images.unfold(2, height, height).unfold(3, width, width)  # (3, C, 2, 2, h, w)
    patches = cells.permute(2, 3, 0, 1, 4, 5).reshape(12, shape[0], height, width)  # cell by cell
    scores = score(patches, 1, teacher, factor=2)
    assert (scores.diff() >= 0).all()


def test_a_class_with_too_few_images_for_a_mosaic_gives_none() -> None:
    assert len(distill(make_images(3), 2, RDED(factor=2, crops=1))) == 0


def test_sources_limit_the_images_that_are_looked_at() -> None:
    images = torch.arange(0, 200, 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    made = distill(images.contiguous(), 50, RDED(crops=2, sources=6))
    assert len(made) == 12
    assert len(made.images.unique()) == 6


def test_min_scale_of_one_keeps_whole_images() -> None:
    images = make_images(6)
    made = distill(images, 6, RDED(crops=1, min_scale=1.0))
    assert sorted(made.images.flatten(1).tolist()) == sorted(images.flatten(1).tolist())


def test_a_smaller_choice_is_a_prefix_of_a_larger_one() -> None:
    images = make_images()
    small, large = (distill(images, count, RDED()) for count in (3, 9))
    assert torch.equal(small.images, large.images[:3])


@pytest.mark.parametrize(
    ("shape", "factor", "match"),
    [
        ((1, 8, 8), 2, r"at least 8 pixels, got 4 \(8 x 8 pixels, `factor` 2\). Use `rded:factor=1`"),
        ((1, 32, 8), 2, "at least 8 pixels, got 4"),
        ((3, 32, 32), 5, "multiples of `factor` 5, got 32 x 32"),
        ((3, 33, 32), 2, "multiples of `factor` 2, got 33 x 32. Use `rded:factor=1`"),
    ],
)
def test_images_that_make_no_mosaic_are_refused(shape: tuple[int, int, int], factor: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        distill(make_images(4, shape), 1, RDED(factor=factor))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5)])
def test_small_images_make_exemplars_without_a_mosaic(shape: tuple[int, int, int]) -> None:
    assert distill(make_images(4, shape), 2, RDED()).images.shape == (2, *shape)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("rded:factor=0", "`factor` to be an integer of at least 1, got 0"),
        ("rded:crops=1.5", "`crops` to be an integer of at least 1, got 1.5"),
        ("rded:sources=0", "`sources` to be an integer of at least 1"),
        ("rded:min_scale=0", r"`min_scale` in \(0, 1\], got 0"),
        ("rded:min_scale=abc", r"`min_scale` in \(0, 1\], got 'abc'"),
        ("rded:min_scale=1.5", r"`min_scale` in \(0, 1\], got 1.5"),
        ("rded:size=3", "Options of `rded`: factor, crops, min_scale, sources"),
    ],
)
def test_unusable_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DISTILLERS.create(spec)
