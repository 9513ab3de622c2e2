from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.views import DSA, DSAParameters, apply_dsa, build_view

MOVES = ("crop", "scale", "rotate")


def _images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _happened(parameters: DSAParameters) -> dict[str, Tensor]:
    """Which samples are changed by which operation, bool (N,)."""
    neutral = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    return {
        "color": (parameters.color != neutral).any(1),
        "flip": parameters.flip,
        "crop": (parameters.shift != 0).any(1),
        "scale": (parameters.scale != 1).any(1),
        "rotate": parameters.angle != 0,
        "cutout": parameters.box.any(1),
    }


def _one_by_one(images: Tensor, parameters: DSAParameters, *, align_corners: bool) -> Tensor:
    """The published operations in the published order, sample by sample, for square images."""
    views = []
    for n in range(len(images)):
        view = images[n : n + 1]
        if parameters.flip[n]:
            view = view.flip(3)
        brightness, saturation, contrast = parameters.color[n].to(images.dtype)
        view = view + brightness
        view = (view - view.mean(1, keepdim=True)) * saturation + view.mean(1, keepdim=True)
        view = (view - view.mean()) * contrast + view.mean()
        height, width = view.shape[2:]
        down, right = (int(step) for step in parameters.shift[n])
        view = F.pad(view, [width] * 2 + [height] * 2)
        view = view[:, :, height + down : 2 * height + down, width + right : 2 * width + right]
        angle, (across, along) = parameters.angle[n], parameters.scale[n]
        for rows in (
            [[across, 0, 0], [0, along, 0]],
            [[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]],
        ):
            theta = torch.tensor(rows, dtype=torch.float64)[None]
            if not torch.equal(theta[0], torch.eye(2, 3, dtype=torch.float64)):
                grid = F.affine_grid(theta, list(view.shape), align_corners=align_corners)
                view = F.grid_sample(view, grid, align_corners=align_corners)
        view = view.clone()
        top, left, bottom, right = (int(edge) for edge in parameters.box[n])
        view[:, :, top:bottom, left:right] = 0
        views.append(view)
    return torch.cat(views)


@pytest.mark.parametrize(
    ("form", "align_corners", "size"),
    [("all", False, 16), ("all", False, 13), ("one", True, 16), ("one", True, 13)],
)
def test_views_equal_the_published_operations_sample_by_sample(
    form: Any, align_corners: bool, size: int
) -> None:
    images = _images(12, 3, size, size, dtype=torch.float64)
    generator, seen = _generator(1), Counter[str]()
    for _ in range(20):
        parameters = DSA(form=form).draw(12, size, size, generator)
        seen.update(name for name, samples in _happened(parameters).items() if samples.any())
        expected = _one_by_one(images, parameters, align_corners=align_corners)
        torch.testing.assert_close(apply_dsa(images, parameters), expected, rtol=1e-9, atol=1e-9)
    assert len(seen) == 6  # no operation was left untested


def test_a_call_draws_and_applies() -> None:
    images = _images(4, 3, 8, 8)
    expected = apply_dsa(images, DSA().draw(4, 8, 8, _generator(5)))
    assert torch.equal(DSA()(images, _generator(5)), expected)


def test_form_all_flips_half_colors_and_cuts_all_and_moves_each_in_one_way() -> None:
    happened = _happened(DSA().draw(6000, 32, 32, _generator()))
    shares = {name: float(samples.double().mean()) for name, samples in happened.items()}
    assert shares["color"] == shares["cutout"] == 1
    # Five standard deviations of 6000 draws; 1 of 81 shifts is by no pixel.
    assert shares["flip"] == pytest.approx(0.5, abs=0.033)
    assert shares["scale"] == pytest.approx(1 / 3, abs=0.031)
    assert shares["rotate"] == pytest.approx(1 / 3, abs=0.031)
    assert shares["crop"] == pytest.approx(1 / 3 * 80 / 81, abs=0.031)
    moves = torch.stack([happened[name] for name in MOVES]).sum(0)
    assert int(moves.max()) == 1


def test_form_one_takes_one_operation_for_the_whole_batch_each_as_often() -> None:
    generator, view, seen = _generator(), DSA(form="one", flip=1.0), Counter[str]()
    for _ in range(600):
        happened = _happened(view.draw(8, 32, 32, generator))
        (name,) = (name for name, samples in happened.items() if samples.any())
        seen[name] += 1
        assert int(happened[name].sum()) >= 6  # crop moves some sample by no pixel
    assert all(55 <= seen[name] <= 146 for name in ("color", "cutout", "flip", *MOVES))  # 100, 5 deviations


def test_batch_choice_moves_all_samples_in_the_same_way() -> None:
    generator, seen = _generator(), Counter[str]()
    for _ in range(60):
        happened = _happened(DSA(batch_choice=True).draw(8, 32, 32, generator))
        assert happened["color"].all()
        (name,) = (name for name in MOVES if happened[name].any())
        seen[name] += 1
    assert min(seen[name] for name in MOVES) >= 5


def test_strengths_are_uniform_over_the_published_ranges() -> None:
    parameters = DSA().draw(9000, 32, 32, _generator())
    happened = _happened(parameters)
    scale, angle = parameters.scale[happened["scale"]], parameters.angle[happened["rotate"]]
    ranges = [
        (parameters.color[:, 0], -0.5, 0.5),
        (parameters.color[:, 1], 0, 2),
        (parameters.color[:, 2], 0.5, 1.5),
        (scale[:, 0], 1 / 1.2, 1.2),
        (scale[:, 1], 1 / 1.2, 1.2),
        (angle.rad2deg(), -15, 15),
    ]
    for values, low, high in ranges:
        assert low <= values.min()
        assert values.max() <= high
        quarters = torch.histc(values, 4, min=low, max=high) / len(values)
        torch.testing.assert_close(quarters, torch.full_like(quarters, 0.25), rtol=0, atol=0.05)


def test_shifts_are_uniform_over_an_eighth_of_each_side() -> None:
    shifts = DSA(strategy="crop").draw(9000, 32, 16, _generator()).shift
    for column, reach in ((0, 4), (1, 2)):
        values, counts = shifts[:, column].unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        expected = 9000 / (2 * reach + 1)
        assert (counts - expected).abs().max() < 5 * expected**0.5


@pytest.mark.parametrize(("size", "hole"), [(8, 4), (10, 5), (9, 5)])
def test_cut_boxes_have_their_centres_anywhere_and_are_clipped(size: int, hole: int) -> None:
    centres = range(size + 1 - hole % 2)
    starts = [centre - hole // 2 for centre in centres]
    expected = {(max(start, 0), min(start + hole, size)) for start in starts}
    boxes = DSA(strategy="cutout").draw(4000, size, size, _generator()).box
    for low, high in ((0, 2), (1, 3)):
        drawn = Counter(map(tuple, boxes[:, [low, high]].int().tolist()))
        assert set(drawn) == expected
        assert min(drawn.values()) > 4000 / len(starts) * 0.7


@pytest.mark.parametrize("strategy", ["flip", "color_cutout", "scale_rotate", "rotate_flip_crop"])
@pytest.mark.parametrize("form", ["all", "one"])
def test_only_operations_of_the_strategy_happen(strategy: str, form: Any) -> None:
    generator, seen = _generator(), set()
    for _ in range(30):
        happened = _happened(DSA(form, strategy).draw(16, 16, 16, generator))
        seen |= {name for name, samples in happened.items() if samples.any()}
    assert seen == set(strategy.split("_"))


def test_without_strength_moves_and_cutout_leave_the_images_alone() -> None:
    images = _images(8, 3, 7, 9)
    view = DSA(strategy="flip_crop_scale_rotate_cutout", flip=0, crop=0, scale=1, rotate=0, cutout=0)
    assert torch.equal(view(images, _generator()), images)


def test_a_flip_of_all_twice_is_the_image() -> None:
    images = _images(4, 3, 7, 9)
    flip = build_view("dsa:strategy=flip,flip=1")
    once = flip(images, _generator())
    assert torch.equal(once, images.flip(3))
    assert torch.equal(flip(once, _generator()), images)


def test_cutout_keeps_untouched_pixels_exactly() -> None:
    images = _images(16, 3, 9, 12)
    views = DSA(strategy="cutout")(images, _generator())
    gone = views == 0
    assert torch.equal(views[~gone], images[~gone])
    assert 0.05 < float(gone.double().mean()) < 0.3  # at most a quarter, and less where clipped


def test_crops_are_exact() -> None:
    images = _images(8, 3, 10, 11)
    parameters = DSA(strategy="crop").draw(8, 10, 11, _generator())
    views = apply_dsa(images, parameters)
    for image, view, (down, right) in zip(images, views, parameters.shift.int().tolist(), strict=True):
        rows, columns = range(max(0, -down), min(10, 10 - down)), range(max(0, -right), min(11, 11 - right))
        for row, column in itertools.product(rows, columns):
            assert torch.equal(view[:, row, column], image[:, row + down, column + right])
        assert int((view != 0).sum()) == 3 * len(rows) * len(columns)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    form=st.sampled_from(["all", "one"]),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_views_of_any_shape_are_seeded_and_finite(shape: tuple[int, ...], form: Any, seed: int) -> None:
    images = _images(*shape)
    before = images.clone()
    views = DSA(form)(images, _generator(seed))
    assert views.shape == images.shape
    assert torch.isfinite(views).all()
    assert torch.equal(DSA(form)(images, _generator(seed)), views)
    assert torch.equal(images, before)


def test_samples_and_calls_get_parameters_of_their_own() -> None:
    images = _images(1, 3, 8, 8).expand(6, 3, 8, 8)
    generator = _generator()
    views = torch.cat([DSA()(images, generator), DSA()(images, generator)])
    assert len(views.unique(dim=0)) == 12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    images = _images(8, 3, 12, 12).to(dtype)
    views = DSA()(images, _generator())
    assert views.dtype == dtype
    assert torch.equal(views, DSA()(images.float(), _generator()).to(dtype))


def test_channels_last_changes_the_layout_only() -> None:
    images = _images(8, 3, 12, 10)
    views = DSA()(images.to(memory_format=torch.channels_last), _generator())
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views, DSA()(images, _generator()))


@pytest.mark.parametrize("form", ["all", "one"])
def test_gradients_pass_to_the_images(form: Any) -> None:
    images = _images(3, 2, 5, 4, dtype=torch.float64).requires_grad_()
    for seed in range(6):
        parameters = DSA(form).draw(3, 5, 4, _generator(seed))
        assert torch.autograd.gradcheck(lambda i, p=parameters: apply_dsa(i, p), (images,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("form=two", "Expected `form` to be `all` or `one`, got 'two'"),
        ("strategy=flip_blur", "Expected `strategy` to be different names out of color, crop"),
        ("strategy=flip_flip", "got 'flip_flip'"),
        ("strategy=", "got ''"),
        ("batch_choice=1", "Expected `batch_choice` to be true or false, got 1"),
        ("flip=1.5", "Expected `flip` in \\[0, 1\\], got 1.5"),
        ("crop=-0.1", "Expected `crop` in \\[0, 1\\], got -0.1"),
        ("cutout=nan", "Expected `cutout` in \\[0, 1\\], got nan"),
        ("brightness=-1", "Expected `brightness` in \\[0, inf\\), got -1"),
        ("saturation=inf", "Expected `saturation` in \\[0, inf\\), got inf"),
        ("contrast=strong", "Expected `contrast` in \\[0, inf\\), got 'strong'"),
        ("scale=0.9", "Expected `scale` in \\[1, inf\\), got 0.9"),
        ("rotate=200", "Expected `rotate` in \\[0, 180\\], got 200"),
        ("zoom=2", "Options of `dsa`: form, strategy"),
    ],
)
def test_unusable_options_are_refused(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_view(f"dsa:{options}")
