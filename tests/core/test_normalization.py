import pytest
import torch

from gift_cl.normalization import IDENTITY, NORMALIZATIONS, Normalization, build_normalization


def test_images_survive_the_way_to_the_network_and_back() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    norm = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    torch.testing.assert_close(norm.to_images(norm.apply(images.float() / 255)), images)


def test_a_wrong_normalisation_is_noticed() -> None:
    inputs = Normalization((0.5,), (0.25,)).apply(torch.rand(4, 1, 2, 2))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\].*Pass as `normalization`"):
        IDENTITY.to_images(inputs)


def test_nan_is_noticed() -> None:
    with pytest.raises(ValueError, match="NaN"):
        IDENTITY.to_images(torch.full((1, 1, 2, 2), float("nan")))


def test_inputs_that_are_not_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), got \(4, 64\)"):
        IDENTITY.to_images(torch.zeros(4, 64))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.0,)), ((0.5, 0.5), (1.0,)), ((), ())])
def test_unusable_statistics_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="std"):
        Normalization(mean, std)


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        Normalization((0.1, 0.2, 0.3), (1.0, 1.0, 1.0)).apply(torch.zeros(1, 1, 2, 2))


def test_published_constants_are_found_by_name() -> None:
    assert build_normalization("imagenet").std == (0.229, 0.224, 0.225)
    assert build_normalization("none") == IDENTITY
    assert NORMALIZATIONS["cifar"] != NORMALIZATIONS["cifar-gvbsm"]


def test_constants_may_be_written_out() -> None:
    assert build_normalization("0.5,0,1/0.1,2,3") == Normalization((0.5, 0.0, 1.0), (0.1, 2.0, 3.0))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("imagenette", "Unknown normalisation `imagenette`. Known: none, imagenet, tiny, cifar"),
        ("0.5/0", r"Bad normalisation `0.5/0`: Expected positive `std`"),
        ("a/b", "Bad normalisation `a/b`: could not convert"),
        ("nan/1", "Bad normalisation `nan/1`: Expected finite `mean`"),
        ("0,0/1", "equal length"),
    ],
)
def test_unusable_constants_are_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_normalization(text)
