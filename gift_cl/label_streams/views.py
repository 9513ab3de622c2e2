"""Views of stored images, equal to the published pipeline's to the last bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gift_cl.label_streams.batch import Mix, Mixup


def cut_views(images: Tensor, coords: Tensor, flips: Tensor, *, size: int) -> Tensor:
    """Crops of the images, resized to squares and mirrored where asked.

    Args:
        images: Stored images, uint8 (B, C, H, W), of 1 or 3 channels.
        coords: Top, left, height, width as parts of the image, float32 (B, 4).
        flips: Whether a crop is mirrored, bool (B,).
        size: Side of the views in pixels.

    Returns:
        uint8 (B, C, size, size).

    Raises:
        ValueError: If a crop has not one pixel.

    Source:
        VILA-Lab/SRe2L@8d00cba: PIL rounds the edges of a crop to whole pixels, and its bilinear filter is
        antialiased and sees nothing outside of the crop. Torch's own one differs in some pixels by 1.
    """
    from PIL import Image

    num_images, channels, height, width = images.shape
    views = np.empty((num_images, size, size, channels), dtype=np.uint8)
    pixels = images.permute(0, 2, 3, 1).numpy()
    edges = _edges(coords, height, width)
    for view, image, (top, left, bottom, right) in zip(views, pixels, edges, strict=True):
        crop = np.ascontiguousarray(image[top:bottom, left:right])
        if not crop.size:
            raise ValueError(
                f"Expected crops of at least a pixel, got rows {top} to {bottom} and columns {left} to "
                f"{right} of {height} x {width} pixels. The stream was made from larger images."
            )
        picture = Image.fromarray(crop if channels == 3 else crop[:, :, 0])
        view[:] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).reshape(view.shape)
    views_ = torch.from_numpy(views).permute(0, 3, 1, 2).contiguous()
    views_[flips] = views_[flips].flip(3)
    return views_


def _edges(coords: Tensor, height: int, width: int) -> list[list[int]]:
    """First row, first column, end of the rows and of the columns of each crop."""
    scaled = coords.double().numpy() * (height, width, height, width)
    scaled[:, 2:] += scaled[:, :2]
    edges: list[list[int]] = np.rint(scaled).astype(int).tolist()  # halves to even, as PIL's `round`
    return edges


def mix_views(inputs: Tensor, mix: Mix | None) -> Tensor:
    """Views (B, C, H, W) after blending or pasting; ``inputs`` may be changed in place."""
    if mix is None:
        return inputs
    if isinstance(mix, Mixup):
        return mix.lam * inputs + (1 - mix.lam) * inputs[mix.partner]
    top, left, bottom, right = mix.box
    box = inputs[:, :, top:bottom, left:right]
    box[:] = box[mix.partner]
    return inputs
