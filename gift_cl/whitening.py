"""ZCA whitening: the space of DATM's published images, and what test images have to go through there.

The transform is not published with the images. It is fitted again to the real training images, and kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError
from gift_cl.files import check_writable
from gift_cl.progress import Progress, silent
from gift_cl.sealed import read_sealed, reporting_damage, sha256, write_sealed
from gift_cl.teacher import as_float

FORMAT = "gift-cl-zca/1"

_BATCH = 1024  # images at a time; 100 MB of float64 at 3x64x64
_TOLERANCE = 1 / 512  # half a grey level


@dataclass(frozen=True, eq=False)
class ZCA:
    """Whitening that changes images as little as it can: ``(pixels - mean) @ matrix``.

    Args:
        mean: Of the training pixels in [0, 1], float32 (D,) with D = C·H·W in this order.
        matrix: Symmetric and positive definite, float32 (D, D).
        eps: What was added to the eigenvalues of the covariance; positive.
        image_shape: Channels, height, width.
        source_sha256: Of the bytes of the training images.

    Raises:
        ValueError: If the parts do not fit together.
    """

    mean: Tensor
    matrix: Tensor
    eps: float
    image_shape: tuple[int, int, int]
    source_sha256: str

    def __post_init__(self) -> None:
        size = math.prod(self.image_shape)
        for name, tensor, shape in (("mean", self.mean, (size,)), ("matrix", self.matrix, (size, size))):
            if tensor.dtype != torch.float32 or tensor.shape != shape:
                raise ValueError(
                    f"Expected `{name}` in float32 of shape {shape} for images of shape {self.image_shape}, "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}."
                )

    def to(self, device: torch.device | str) -> ZCA:
        """The same whitening on a device, where `apply` then has nothing to move."""
        mean, matrix = self.mean.to(device), self.matrix.to(device)
        return ZCA(mean, matrix, self.eps, self.image_shape, self.source_sha256)

    def apply(self, images: Tensor) -> Tensor:
        """Whitened images, float32 (N, C, H, W) on the device of ``images``; unbounded, around zero.

        Args:
            images: (N, C, H, W): uint8, or float in [0, 1]. Not normalised.

        Raises:
            TypeError: If the images are neither uint8 nor float.
            ValueError: If they have another shape, or pixels that are NaN or not in [0, 1].
        """
        self._require_shape(images)
        _require_pixels(images)
        here = self.to(images.device)
        whitened = torch.empty(images.shape, device=images.device)
        with torch.autocast(images.device.type, enabled=False):  # it would multiply in half precision
            for start in range(0, len(images), _BATCH):
                part = slice(start, start + _BATCH)
                centred = as_float(images[part]).flatten(1) - here.mean
                whitened[part] = (centred @ here.matrix).view(-1, *self.image_shape)
        return whitened

    def invert(self, whitened: Tensor) -> Tensor:
        """Pixels of whitened images, float32 (N, C, H, W) on their device; not clamped to [0, 1].

        The inverse is not kept: it would double the file, and images are whitened often and looked at
        seldom. Each call factors the matrix in float64 on the CPU, so it undoes the matrix as stored.

        Raises:
            TypeError: If the images are not float.
            ValueError: If they have another shape, or are not finite.
        """
        self._require_shape(whitened)
        if not whitened.is_floating_point():
            raise TypeError(f"Expected whitened images in float, got {whitened.dtype}.")
        if not bool(torch.isfinite(whitened).all()):
            raise ValueError("Expected finite whitened images, got NaN or infinite values.")
        factor = torch.linalg.cholesky(self.matrix.double().cpu())
        mean = self.mean.double().cpu()
        pixels = torch.empty(whitened.shape, device=whitened.device)
        for start in range(0, len(whitened), _BATCH):
            part = slice(start, start + _BATCH)
            columns = whitened[part].flatten(1).double().cpu().mT
            solved = torch.cholesky_solve(columns, factor).mT + mean
            pixels[part] = solved.view(-1, *self.image_shape).to(pixels)
        return pixels

    def _require_shape(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images of shape (N, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(images.shape)}. The whitening was fitted to images of that shape."
            )


def fit_zca(images: Tensor, *, eps: float = 0.1, progress: Progress = silent) -> ZCA:
    """The whitening of training images, computed on their device.

    With eigenvectors ``U`` and eigenvalues ``S`` of the pixels' covariance, the matrix is
    ``U diag(1 / sqrt(S + eps)) U^T``. Memory is a few matrices of D x D in float64, whatever N is
    (D = 3,072: 75 MB each; D = 12,288: 1.2 GB each). The covariance does not depend on the order of
    summation, and equal images give equal bits on one machine.

    Args:
        images: All training images, uint8 (N, C, H, W) with N at least 2.
        eps: Added to the eigenvalues. DATM's data need 0.1.
        progress: Told of the images that are counted; the decomposition follows the last call.

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If there are fewer than two, they have no pixels, or ``eps`` is not positive.

    Source:
        Guo et al., DATM, ICLR 2024: kornia's ``ZCAWhitening(eps=0.1, compute_inv=True)``. They work in
        float32 on all images at once; here the statistics are exact and the rest is in float64.
    """
    _require_training_images(images)
    if not 0 < eps < math.inf:
        raise ValueError(f"Expected a positive `eps`, got {eps}. DATM's data need 0.1.")
    num, size = len(images), images[0].numel()
    sums = torch.zeros(size, dtype=torch.float64, device=images.device)
    products = torch.zeros(size, size, dtype=torch.float64, device=images.device)
    for start in range(0, num, _BATCH):
        part = images[start : start + _BATCH].flatten(1).double()
        sums += part.sum(0)
        products.addmm_(part.mT, part)
        progress(min(start + _BATCH, num), num)
    # Up to 370,000 images these are whole numbers below 2**53: the sums and their difference are exact.
    covariance = products.mul_(num).addr_(sums, sums, alpha=-1).div_(255**2 * num * (num - 1))
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    scales = (eigenvalues.clamp_min(0) + eps).rsqrt()
    matrix = (eigenvectors * scales) @ eigenvectors.mT
    channels, height, width = images.shape[1:]
    return ZCA(
        mean=(sums / (255 * num)).float(),
        matrix=matrix.float(),
        eps=float(eps),
        image_shape=(channels, height, width),
        source_sha256=_sha256_of_images(images),
    )


def cached_zca(
    images: Tensor,
    folder: str | os.PathLike[str],
    *,
    eps: float = 0.1,
    progress: Progress = silent,
) -> ZCA:
    """What `fit_zca` says of these images, from a file in ``folder`` if there is a sound one.

    The file is named by the hash of the images, their shape and ``eps``. A damaged file is replaced.

    Raises:
        TypeError: As `fit_zca`.
        ValueError: As `fit_zca`.
        OSError: If the folder cannot be written; found out before the fit.

    Warns:
        UserWarning: If there is a damaged file.
    """
    _require_training_images(images)
    facts = {
        "format": FORMAT,
        "eps": float(eps),
        "image_shape": list(images.shape[1:]),
        "source_sha256": _sha256_of_images(images),
    }
    name = sha256(json.dumps(facts, sort_keys=True).encode())
    path = Path(folder) / f"zca-{name}.safetensors"
    if path.exists():
        try:
            return _read(path, facts).to(images.device)
        except (DamagedFileError, OSError) as error:
            warnings.warn(f"A damaged whitening is fitted again. {error}", stacklevel=2)
    check_writable(path)
    zca = fit_zca(images, eps=eps, progress=progress)
    write_sealed(path, facts, {"mean": zca.mean.cpu(), "matrix": zca.matrix.cpu()})
    return zca


def _read(path: Path, facts: dict[str, Any]) -> ZCA:
    """A whitening from a file, once the file agrees with ``facts`` and with its own hashes."""
    with reporting_damage(path, "a whitening", "Nothing has to be done."):
        header, tensors = read_sealed(path, [FORMAT])
        if {name: value for name, value in header.items() if name != "tensors"} != facts:
            raise ValueError("its metadata do not agree with the images")
        channels, height, width = facts["image_shape"]
        return ZCA(
            tensors["mean"],
            tensors["matrix"],
            facts["eps"],
            (channels, height, width),
            facts["source_sha256"],
        )


def _require_training_images(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(
            f"Expected training images in uint8, got {images.dtype}. Whitening is fitted to pixels as stored."
        )
    if images.ndim != 4 or not all(images.shape[1:]):
        raise ValueError(f"Expected images of shape (N, C, H, W) with pixels, got {tuple(images.shape)}.")
    if len(images) < 2:
        raise ValueError(f"Expected at least two images, got {len(images)}. Fit to the whole training set.")


def _require_pixels(images: Tensor) -> None:
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise TypeError(f"Expected images in uint8 or float, got {images.dtype}.")
    low, high = (float(v) for v in torch.aminmax(images.detach())) if images.numel() else (0.0, 1.0)
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # NaN is neither
        raise ValueError(
            f"Expected pixels in [0, 1], got [{low:.3g}, {high:.3g}]. Whiten images before any other "
            "normalisation, and check them for NaN."
        )


def _sha256_of_images(images: Tensor) -> str:
    digest = hashlib.sha256()
    for part in images.split(_BATCH):
        digest.update(part.contiguous().cpu().numpy().data)
    return digest.hexdigest()
