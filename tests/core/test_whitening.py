import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.enhance import ZCAWhitening
from torch import Tensor

import gift_cl.whitening
from gift_cl.progress import Progress
from gift_cl.whitening import ZCA, cached_zca, fit_zca

SHAPE = (3, 4, 4)


def make_images(count: int = 60, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Images whose pixels go together, as those of photographs do."""
    generator = torch.Generator().manual_seed(seed)
    shades = torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.rand(count, *shape, generator=generator)
    return ((0.6 * shades + 0.4 * noise) * 255).to(torch.uint8)


def flat(images: Tensor) -> npt.NDArray[np.float64]:
    return images.double().flatten(1).numpy() / 255


def whiten_by_svd(images: Tensor, train: Tensor, eps: float) -> npt.NDArray[np.float64]:
    """The formula, from the singular values of the centred data."""
    data = flat(train)
    _, singular, rows = np.linalg.svd(data - data.mean(0), full_matrices=True)
    variances = np.zeros(data.shape[1])
    variances[: len(singular)] = singular**2 / (len(data) - 1)
    matrix = (rows.T / np.sqrt(variances + eps)) @ rows
    whitened: npt.NDArray[np.float64] = (flat(images) - data.mean(0)) @ matrix
    return whitened


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images that whitenings were fitted to."""
    counts: list[int] = []

    def counted(images: Tensor, *, eps: float, progress: Progress) -> ZCA:
        counts.append(len(images))
        return fit_zca(images, eps=eps, progress=progress)

    monkeypatch.setattr(gift_cl.whitening, "fit_zca", counted)
    return counts


@pytest.mark.parametrize("count", [60, 7])  # with fewer images than pixels, the covariance is singular
@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_whitening_agrees_with_the_singular_values_of_the_data(count: int, eps: float) -> None:
    train, test = make_images(count), make_images(9, seed=1)
    expected = whiten_by_svd(test, train, eps)
    whitened = fit_zca(train, eps=eps).apply(test)
    assert whitened.dtype == torch.float32
    assert whitened.shape == test.shape
    torch.testing.assert_close(whitened.flatten(1).numpy(), expected.astype(np.float32), rtol=1e-5, atol=1e-5)


def test_whitening_agrees_with_kornia() -> None:
    train, test = make_images(200), make_images(9, seed=1)
    kornia = ZCAWhitening(eps=0.1, compute_inv=True).fit(train.double() / 255)
    zca = fit_zca(train)
    expected = kornia(test.double() / 255)
    torch.testing.assert_close(zca.matrix, kornia.transform_matrix.float())
    torch.testing.assert_close(zca.mean, kornia.mean_vector.flatten().float())
    torch.testing.assert_close(zca.apply(test), expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        zca.invert(expected), kornia.inverse_transform(expected).float(), rtol=1e-5, atol=1e-5
    )


def test_two_images_of_one_pixel_by_hand() -> None:
    zca = fit_zca(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), eps=0.5)
    torch.testing.assert_close(zca.mean, torch.tensor([0.5]))
    torch.testing.assert_close(zca.matrix, torch.tensor([[1.0]]))  # variance 1/2, and 1/2 more


def test_along_its_eigenvectors_the_variance_becomes_a_share() -> None:
    train = make_images(300)
    covariance = np.cov(flat(train).T)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    whitened = fit_zca(train).apply(train).double().flatten(1).numpy()
    shares = eigenvectors.T @ np.cov(whitened.T) @ eigenvectors
    np.testing.assert_allclose(shares, np.diag(eigenvalues / (eigenvalues + 0.1)), atol=1e-5)
    assert shares.max() > 0.8  # or the bound above would say little
    assert shares.min() < 0.2


def test_the_matrix_is_symmetric_and_positive_definite() -> None:
    matrix = fit_zca(make_images(5)).matrix.double()
    torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-6)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_bright_pixels_with_little_variance_keep_their_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(254, 256, (3000, 1, 2, 2), dtype=torch.uint8, generator=generator)
    eps = 1e-6  # of the size of the variances
    expected = whiten_by_svd(train[:20], train, eps).astype(np.float32)
    whitened = fit_zca(train, eps=eps).apply(train[:20]).flatten(1).numpy()
    # The pixels in float32, and so their differences from the mean, are good to 6e-8 of 2e-3.
    torch.testing.assert_close(whitened, expected, rtol=1e-3, atol=1e-3)


def test_a_fit_is_the_same_in_every_bit_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    train = make_images(60)
    first = fit_zca(train)
    for batch in (60, 7, 1):
        monkeypatch.setattr(gift_cl.whitening, "_BATCH", batch)
        again = fit_zca(train)
        assert torch.equal(again.matrix, first.matrix)
        assert torch.equal(again.mean, first.mean)
        assert again.source_sha256 == first.source_sha256


def test_images_are_whitened_in_batches_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train = make_images(60)
    zca = fit_zca(train)
    whitened = zca.apply(train)
    monkeypatch.setattr(gift_cl.whitening, "_BATCH", 7)
    torch.testing.assert_close(zca.apply(train), whitened)
    torch.testing.assert_close(zca.invert(whitened), train.float() / 255)


def test_progress_counts_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gift_cl.whitening, "_BATCH", 25)
    calls: list[tuple[int, int]] = []
    fit_zca(make_images(60), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(25, 60), (50, 60), (60, 60)]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(2, 20),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    eps=st.floats(1e-3, 10),
    seed=st.integers(0, 999),
)
def test_inverting_gives_the_pixels_back(
    count: int, shape: tuple[int, int, int], eps: float, seed: int
) -> None:
    train = make_images(count, shape=shape, seed=seed)
    zca = fit_zca(train, eps=eps)
    test = make_images(4, shape=shape, seed=seed + 1000)
    pixels = zca.invert(zca.apply(test))
    # Whitened values are rounded to float32, and the inverse stretches that by up to sqrt(S + eps) ~ 3.
    torch.testing.assert_close(pixels, test.float() / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_images_are_whitened_like_the_same_images_in_uint8(dtype: torch.dtype) -> None:
    train = make_images()
    zca = fit_zca(train)
    torch.testing.assert_close(zca.apply(train.to(dtype) / 255), zca.apply(train), rtol=0, atol=1e-5)


def test_images_are_whitened_in_full_precision_inside_autocast() -> None:
    train = make_images()
    zca = fit_zca(train)
    with torch.autocast("cpu", torch.bfloat16):
        inside = zca.apply(train)
    assert torch.equal(inside, zca.apply(train))


def test_gradients_pass_through_whitening() -> None:
    zca = fit_zca(make_images())
    images = (make_images(2).float() / 255).requires_grad_()
    zca.apply(images).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad.flatten(1), zca.matrix.sum(1).expand(2, -1))


def test_no_images_are_whitened_to_no_images() -> None:
    zca = fit_zca(make_images())
    none = torch.zeros(0, *SHAPE)
    assert zca.apply(none).shape == none.shape
    assert zca.invert(none).shape == none.shape


def test_arguments_are_left_as_they_are() -> None:
    train = make_images()
    kept = train.clone()
    zca = fit_zca(train)
    pixels = train.float() / 255
    whitened = zca.apply(pixels)
    zca.invert(whitened)
    assert torch.equal(train, kept)
    assert torch.equal(pixels, kept.float() / 255)
    assert torch.equal(whitened, zca.apply(pixels))


def test_constant_images_are_only_scaled() -> None:
    zca = fit_zca(torch.full((5, 1, 2, 2), 51, dtype=torch.uint8), eps=0.25)
    torch.testing.assert_close(zca.matrix, 2 * torch.eye(4))  # 1 / sqrt(0.25)
    torch.testing.assert_close(zca.apply(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 1.6))


def test_rounding_of_a_singular_covariance_is_not_magnified() -> None:
    matrix = fit_zca(make_images(7), eps=1e-18).matrix  # eigenvalues of 0 come out as -1e-17, too
    assert bool(torch.isfinite(matrix).all())


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match=r"at least two images, got 1"):
        fit_zca(make_images(1))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 4), (5, 1, 0, 4)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"of shape \(N, C, H, W\) with pixels, got \(5, "):
        fit_zca(torch.zeros(shape, dtype=torch.uint8))


def test_a_fit_wants_pixels_as_stored() -> None:
    with pytest.raises(TypeError, match=r"in uint8, got torch\.float32"):
        fit_zca(make_images().float() / 255)


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf")])
def test_eps_has_to_be_positive(eps: float) -> None:
    with pytest.raises(ValueError, match=r"positive `eps`, got"):
        fit_zca(make_images(), eps=eps)


def test_images_of_another_shape_are_refused() -> None:
    zca = fit_zca(make_images())
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(SHAPE)):
        with pytest.raises(ValueError, match=r"of shape \(N, 3, 4, 4\), got"):
            zca.apply(images)
        with pytest.raises(ValueError, match=r"of shape \(N, 3, 4, 4\), got"):
            zca.invert(images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_pixels_that_are_none_are_refused(value: float) -> None:
    images = torch.full((2, *SHAPE), 0.5)
    images[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\], got .* before any other normalisation"):
        fit_zca(make_images()).apply(images)


def test_whole_numbers_that_are_not_bytes_are_refused() -> None:
    zca = fit_zca(make_images())
    with pytest.raises(TypeError, match=r"in uint8 or float, got torch\.int64"):
        zca.apply(torch.zeros(2, *SHAPE, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"whitened images in float, got torch\.uint8"):
        zca.invert(torch.zeros(2, *SHAPE, dtype=torch.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_whitened_images_have_to_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"finite whitened images"):
        fit_zca(make_images()).invert(torch.full((1, *SHAPE), value))


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`matrix` in float32 of shape \(4, 4\) .* got torch.float32 .*\(3, 3\)"
    ):
        ZCA(torch.zeros(4), torch.eye(3), 0.1, (1, 2, 2), "")
    with pytest.raises(ValueError, match=r"`mean` in float32 of shape \(4,\) .* got torch.float64"):
        ZCA(torch.zeros(4, dtype=torch.float64), torch.eye(4), 0.1, (1, 2, 2), "")


def test_a_second_run_reads_the_file(tmp_path: Path, fits: list[int]) -> None:
    train = make_images()
    first, second = (cached_zca(train, tmp_path / "cache", eps=0.2) for _ in range(2))
    assert fits == [60]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.mean, second.mean)
    assert (first.eps, first.image_shape, first.source_sha256) == (0.2, SHAPE, second.source_sha256)
    assert (second.eps, second.image_shape) == (0.2, SHAPE)


def test_the_source_is_the_hash_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gift_cl.whitening, "_BATCH", 25)
    train = make_images()
    assert fit_zca(train).source_sha256 == hashlib.sha256(train.numpy().tobytes()).hexdigest()


def test_what_was_read_does_not_depend_on_the_file(tmp_path: Path) -> None:
    train = make_images()
    expected = cached_zca(train, tmp_path)
    read = cached_zca(train, tmp_path)
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(read.matrix, expected.matrix)


def test_what_is_read_is_what_would_be_fitted(tmp_path: Path) -> None:
    train = make_images()
    cached_zca(train, tmp_path)
    fitted, read = fit_zca(train), cached_zca(train, tmp_path)
    assert torch.equal(fitted.matrix, read.matrix)
    assert torch.equal(fitted.apply(train), read.apply(train))


def test_other_images_shapes_or_eps_have_files_of_their_own(tmp_path: Path, fits: list[int]) -> None:
    train = make_images()
    changed = train.clone()
    changed[3, 0, 0, 0] ^= 1
    for images in (train, changed, train.view(60, 3, 2, 8), train.flip(0)):
        cached_zca(images, tmp_path)
    cached_zca(train, tmp_path, eps=0.2)
    assert len(list(tmp_path.iterdir())) == len(fits) == 5


def test_the_name_of_a_file_depends_on_the_images_not_on_their_layout(
    tmp_path: Path, fits: list[int]
) -> None:
    train = make_images()
    cached_zca(train, tmp_path)
    cached_zca(train.contiguous(memory_format=torch.channels_last), tmp_path)
    assert fits == [60]


@pytest.mark.parametrize("damage", ["header", "metadata", "tensor", "cut", "empty", "pickle", "other"])
def test_a_damaged_file_is_replaced(tmp_path: Path, fits: list[int], damage: str) -> None:
    train = make_images()
    expected = cached_zca(train, tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    broken = bytearray(sound)
    match damage:
        case "header":
            broken[3] ^= 1
        case "metadata":
            broken[sound.index(b"sha256") + 20] ^= 1
        case "tensor":
            broken[-5] ^= 1
        case "cut":
            broken = broken[:-100]
        case "empty":
            broken = bytearray()
        case "pickle":
            torch.save({"mean": expected.mean, "matrix": expected.matrix}, path)
            broken = bytearray(path.read_bytes())
        case "other":  # sound, and of other images
            cached_zca(make_images(seed=1), tmp_path / "other")
            (other,) = (tmp_path / "other").iterdir()
            broken = bytearray(other.read_bytes())
    path.write_bytes(broken)
    fits.clear()
    with pytest.warns(
        UserWarning, match=r"A damaged whitening is fitted again. Cannot read `.*zca-.*\.safetensors`"
    ) as caught:
        zca = cached_zca(train, tmp_path)
    assert caught[0].filename == __file__
    assert fits == [60]
    assert torch.equal(zca.matrix, expected.matrix)
    assert path.read_bytes() == sound


def test_no_changed_byte_is_trusted(tmp_path: Path) -> None:
    train = make_images(5, shape=(1, 1, 2))
    expected = cached_zca(train, tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    for position in range(len(sound)):
        broken = bytearray(sound)
        broken[position] ^= 1
        path.write_bytes(broken)
        with pytest.warns(UserWarning, match="A damaged whitening"):
            zca = cached_zca(train, tmp_path)
        assert torch.equal(zca.matrix, expected.matrix)


def test_a_folder_that_cannot_be_written_is_found_out_before_the_fit(tmp_path: Path, fits: list[int]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Choose a folder that you may write to"):
        cached_zca(make_images(), tmp_path / "file")
    assert fits == []


def test_nothing_is_left_when_a_fit_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"positive `eps`"):
        cached_zca(make_images(), tmp_path, eps=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_of_a_fit_not_of_a_file(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        cached_zca(make_images(), tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(60, 60)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_whitening(tmp_path: Path) -> None:
    train = make_images()
    expected = fit_zca(train)
    for zca in (cached_zca(train.cuda(), tmp_path), cached_zca(train.cuda(), tmp_path), expected):
        whitened = zca.apply(train.cuda())
        assert whitened.is_cuda
        torch.testing.assert_close(whitened.cpu(), expected.apply(train), rtol=1e-5, atol=1e-5)
        assert zca.invert(whitened).is_cuda
