from __future__ import annotations

import pytest
import torch

from gift_cl.views import VIEWS, Chain, Flip, Unchanged, build_view

SPECS = [
    "none",
    "flip",
    "flip:probability=1.0",
    "crop_flip:pad=2,flip=false",
    "rrc:min_scale=0.5,size=64",
    "factor_crop:factor=3",
    "shuffle_patches",
    "dsa",
    "dsa:form=one,strategy=color_crop,scale=1.5",
    "factor_crop | dsa:batch_choice=true",
]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("spec", SPECS)
def test_a_view_names_the_spec_that_builds_it(spec: str) -> None:
    view = build_view(spec)
    assert view.spec == spec
    assert build_view(view.spec) == view


def test_every_registered_view_is_built_without_options() -> None:
    images = torch.rand(2, 3, 8, 8)
    for name in VIEWS.names():
        assert build_view(name)(images, _generator()).shape == images.shape


def test_views_follow_each_other_from_left_to_right() -> None:
    images = torch.rand(4, 3, 8, 8)
    chain = build_view("rrc:size=4 | flip:1|none")
    generator = _generator()
    expected = build_view("flip:1")(build_view("rrc:size=4")(images, generator), generator)
    assert torch.equal(chain(images, _generator()), expected)
    assert chain.spec == "rrc:size=4 | flip:probability=1 | none"
    assert isinstance(chain, Chain)
    assert not torch.equal(
        chain(images, _generator()), build_view("flip:1 | rrc:size=4")(images, _generator())
    )


def test_none_is_the_inputs_themselves() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert build_view("none") == Unchanged()
    assert build_view("none")(images, _generator()) is images


@pytest.mark.parametrize("name", VIEWS.names())
def test_integers_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="floating-point type, got torch.uint8. Normalise the images first"):
        build_view(name)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), _generator())


@pytest.mark.parametrize("name", VIEWS.names())
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 0, 8)])
def test_other_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected `inputs` of shape \\(N, C, H, W\\), got"):
        build_view(name)(torch.zeros(shape), _generator())


@pytest.mark.parametrize("spec", ["blur", "flip | blur", "flip |", ""])
def test_unknown_views_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="Unknown view `(blur)?`. Known: none, flip, crop_flip, rrc"):
        build_view(spec)


def test_a_bool_is_no_number() -> None:
    with pytest.raises(ValueError, match="Expected `probability` in \\[0, 1\\], got True"):
        Flip(True)
    with pytest.raises(ValueError, match="Expected `factor` to be an integer of at least 1, got True"):
        build_view("factor_crop:true")


@pytest.mark.gpu
def test_a_seed_gives_the_same_views_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = torch.rand(8, 3, 16, 16)
    for name in VIEWS.names():
        on_gpu = build_view(name)(images.cuda(), _generator())
        assert on_gpu.device.type == "cuda"
        expected = build_view(name)(images, _generator())
        torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-4, atol=1e-4)
