"""Differentiable siamese augmentation (DSA): colour, crop, cutout, flip, scale and rotate, in two forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gift_cl.transfer import sent
from gift_cl.views.operations import color, erase, warp
from gift_cl.views.view import check_number, restored, widened, written_spec

Form = Literal["all", "one"]

_OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
_MOVES = ("crop", "scale", "rotate")  # form `all` takes one of them
_NEUTRAL_COLOR = (0.0, 1.0, 1.0)


class DSAParameters(NamedTuple):
    """What happens to each sample, on the CPU; what does not happen to it has the neutral value.

    Args:
        color: Brightness, factor of saturation, factor of contrast, float64 (N, 3); neutral 0, 1, 1.
        flip: Mirrored left to right, bool (N,).
        shift: The view starts so many rows and columns into the image, whole numbers, float64 (N, 2).
        scale: Pixels of the image to a pixel of the view, horizontally and vertically, float64 (N, 2);
            above 1 the image shrinks.
        angle: Turn from view to image, from x towards y, in radians, float64 (N,); neutral 0.
        box: Erased: first row, first column, row and column after the last, float64 (N, 4); neutral empty.
    """

    color: Tensor
    flip: Tensor
    shift: Tensor
    scale: Tensor
    angle: Tensor
    box: Tensor


@dataclass(frozen=True)
class DSA:
    """DSA in the form of GIFT (`all`) or of DC and DATM (`one`).

    Form `all`: colour, flip and cutout for every sample, and one of crop, scale and rotate. Form `one`: a
    single operation for the whole batch. Strengths are drawn for each sample in both. Operations come in the
    order colour, flip, crop or scale or rotate, cutout. No value is clipped, and what comes in from outside
    is zero: normalise first.

    Args:
        form: ``all`` or ``one``.
        strategy: Names of the operations to choose from, joined by ``_``, in any order.
        batch_choice: In form `all`, one choice of crop, scale or rotate for the whole batch.
        flip: Probability, in [0, 1].
        brightness: Added: uniform in [-brightness / 2, brightness / 2].
        saturation: Factor: uniform in [0, saturation].
        contrast: Factor: uniform in [contrast, 1 + contrast].
        crop: Largest shift, as a share of the side, in [0, 1]; rounded to whole pixels, uniform.
        scale: At least 1; both factors uniform in [1 / scale, scale].
        rotate: Largest angle in degrees, in [0, 180], to either side; uniform.
        cutout: Sides of the erased box, as a share of the image's sides, in [0, 1]; its centre is uniform in
            the image, and it is clipped.

    Source:
        Zhao and Bilen, DSA, ICML 2021; VICO-UoE/DatasetCondensation@306245d, utils.py (form `one`).
        LINs-lab/GIFT@38db552 (form `all`). Deliberate differences: in form `all` crop, scale or rotate is
        chosen for each sample, as its strengths are; snu-mllab/Efficient-Dataset-Condensation@086273c, which
        has the same form, chooses for the batch, as ``batch_choice`` does. Images that are not square are
        rotated without distortion; for square ones the published variants, corners aligned (DATM) or not
        (GIFT), are the same map, so there is no such option.
    """

    form: Form = "all"
    strategy: str = "color_crop_cutout_flip_scale_rotate"
    batch_choice: bool = False
    flip: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    scale: float = 1.2
    rotate: float = 15.0
    cutout: float = 0.5

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"Expected `form` to be `all` or `one`, got {self.form!r}.")
        names = str(self.strategy).split("_")
        if not set(names) <= set(_OPERATIONS) or len(set(names)) < len(names):
            raise ValueError(
                f"Expected `strategy` to be different names out of {', '.join(_OPERATIONS)}, joined by `_`, "
                f"got {self.strategy!r}."
            )
        if not isinstance(self.batch_choice, bool):
            raise ValueError(f"Expected `batch_choice` to be true or false, got {self.batch_choice!r}.")
        for name in ("flip", "crop", "cutout"):
            check_number(name, getattr(self, name), high=1)
        for name in ("brightness", "saturation", "contrast"):
            check_number(name, getattr(self, name))
        check_number("scale", self.scale, low=1)
        check_number("rotate", self.rotate, high=180)

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("dsa", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        images = widened(inputs)
        num_images, _, height, width = images.shape
        return restored(apply_dsa(images, self.draw(num_images, height, width, generator)), inputs)

    def draw(self, num_images: int, height: int, width: int, generator: torch.Generator) -> DSAParameters:
        """Parameters for ``num_images`` images of ``height`` by ``width`` pixels."""
        happens = self._choose(num_images, generator)
        uniform = torch.rand(num_images, 11, dtype=torch.float64, generator=generator)
        sides = torch.tensor([height, width], dtype=torch.float64)
        flip, brightness, saturation, contrast, angle = uniform[:, :5].unbind(1)
        factors = (brightness - 0.5) * self.brightness, saturation * self.saturation, contrast + self.contrast
        reach = (sides * self.crop + 0.5).floor()
        hole = (sides * self.cutout + 0.5).floor()
        start = (uniform[:, 9:11] * (sides + 1 - hole % 2)).floor() - (hole / 2).floor()
        return DSAParameters(
            color=torch.where(happens["color"], torch.stack(factors, 1), sides.new_tensor(_NEUTRAL_COLOR)),
            flip=(flip < self.flip) & happens["flip"][:, 0],
            shift=((uniform[:, 5:7] * (2 * reach + 1)).floor() - reach) * happens["crop"],
            scale=torch.where(
                happens["scale"], 1 / self.scale + uniform[:, 7:9] * (self.scale - 1 / self.scale), 1.0
            ),
            angle=(2 * angle - 1) * math.radians(self.rotate) * happens["rotate"][:, 0],
            box=torch.cat([start.clamp(min=0), (start + hole).minimum(sides)], 1) * happens["cutout"],
        )

    def _choose(self, num_images: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Which samples undergo which operation, bool (N, 1) each."""
        names = self.strategy.split("_")
        happens = {name: torch.full((num_images, 1), name in names) for name in _OPERATIONS}
        rivals = names if self.form == "one" else [name for name in _MOVES if name in names]
        if rivals:
            num_choices = 1 if self.form == "one" or self.batch_choice else num_images
            choice = torch.randint(len(rivals), (num_choices, 1), generator=generator)
            for index, name in enumerate(rivals):
                happens[name] = (choice == index).expand(num_images, 1)
        return happens


def apply_dsa(images: Tensor, parameters: DSAParameters) -> Tensor:
    """Views of float32 or float64 ``images`` (N, C, H, W); what changes no sample is left out.

    The parameters are moved to the images in one piece.
    """
    matrices = _matrices(parameters)
    packed = torch.cat([parameters.color, matrices.flatten(1), parameters.box], 1)
    colors, maps, boxes = sent(packed.to(images.dtype), images.device).split([3, 6, 4], 1)
    if (parameters.color != parameters.color.new_tensor(_NEUTRAL_COLOR)).any():
        images = color(images, colors)
    if (matrices != torch.eye(2, 3, dtype=matrices.dtype)).any():
        images = warp(images, maps.unflatten(1, (2, 3)))
    if parameters.box.any():
        images = erase(images, boxes)
    return images


def _matrices(parameters: DSAParameters) -> Tensor:
    """From a pixel of the view to a point of the image, (N, 2, 3): shift, scale or rotate, then mirror."""
    down, right = parameters.shift.unbind(1)
    across, along = parameters.scale.unbind(1)
    cos, sin = parameters.angle.cos(), parameters.angle.sin()
    mirror = 1 - 2 * parameters.flip.to(cos.dtype)
    x = torch.stack([cos * across, -sin * along, right], 1) * mirror[:, None]
    y = torch.stack([sin * across, cos * along, down], 1)
    return torch.stack([x, y], 1)
