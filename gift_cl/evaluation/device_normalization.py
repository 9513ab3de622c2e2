"""Normalisations whose numbers lie on the device already, so that a step need not wait for them."""

from __future__ import annotations

import torch
from torch import Tensor

from gift_cl.normalization import IDENTITY, Normalization


class Standardize:
    """A normalisation whose numbers lie on the device already; changes its inputs."""

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        self._statistics = None
        if normalization != IDENTITY:
            self._statistics = _column(normalization.mean, device), _column(normalization.std, device)

    def __call__(self, pixels: Tensor) -> Tensor:
        if self._statistics is None:
            return pixels
        mean, std = self._statistics
        return pixels.sub_(mean).div_(std)


class Renormalize:
    """From one normalisation to another; the pixels stay the same."""

    def __init__(self, old: Normalization, new: Normalization, device: torch.device) -> None:
        self._map = None
        if old != new:
            old_mean, old_std, new_mean, new_std = (
                _column(values, device) for values in (old.mean, old.std, new.mean, new.std)
            )
            self._map = old_std / new_std, (old_mean - new_mean) / new_std

    def __call__(self, inputs: Tensor) -> Tensor:
        if self._map is None:
            return inputs
        scale, shift = self._map
        return inputs * scale + shift


def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
