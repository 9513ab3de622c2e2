"""Networks whose features are matched: fresh ones, the teacher, or some trained on the images given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.stages import Stages
from gift_cl.memory_format import images_at_once
from gift_cl.models import penultimate
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher

Kind = Literal["random", "teacher", "trained"]

Networks = Callable[[torch.Generator], nn.Module]
"""Draws the network of an iteration: frozen, in evaluation mode, and good until the next one is drawn."""

_DEEPEST = 6
_BATCH = 64
_RATE = 1e-3  # of Adam


@dataclass(frozen=True)
class Embedding:
    """Where the networks of a distiller come from.

    Features are what `gift_cl.models.penultimate` says of a network. The networks that are built here are
    those of `gift_cl.models.ConvNet` with instance norm, but may have less than 3 blocks, and take images
    that are not square.

    Args:
        kind: ``random``: a fresh network each time. ``teacher``: the teacher each time. ``trained``: one of
            a few networks trained to classify the images given, at one of several ages.
        width: Channels of a block of the networks that are built.
        depth: Their blocks, 1 to 6; 0 follows the shorter side of the images: 1 from 4 pixels on, 2 from 8,
            3 from 16, 4 from 64, 5 from 128, 6 from 256.
        networks: Networks that are trained.
        epochs: Passes over the images. Each network is kept as it was before the first, and after each.

    Raises:
        ValueError: If an option is unknown or out of range.

    Source:
        Zhao and Bilen, DM, WACV 2023, and Cazenavette et al., MTT, CVPR 2022: 3 blocks for 32 pixels, 4 for
        64, 5 for 128. Below 16 pixels there are fewer, so that the last norm has 4 x 4 values at least: of
        2 x 2 it leaves little. Networks of several ages: after Zhao et al., IDM, CVPR 2023.
    """

    kind: Kind = "random"
    width: int = 128
    depth: int = 0
    networks: int = 4
    epochs: int = 4

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise ValueError(f"Expected `embedding` to be one of {known}, got {self.kind!r}.")
        for name in ("width", "networks", "epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Expected `{name}` to be an integer of at least 1, got {value!r}.")
        if self.depth not in range(_DEEPEST + 1) or not isinstance(self.depth, int):
            raise ValueError(f"Expected `depth` from 0 to {_DEEPEST}, got {self.depth!r}.")

    @property
    def needs_teacher(self) -> bool:
        """As a distiller says it."""
        return self.kind == "teacher"

    @property
    def classes_at_once(self) -> int | None:
        """As a distiller says it: networks are trained to tell all classes apart."""
        return None if self.kind == "trained" else 1

    def training_images(self, num_images: int) -> int:
        """Images that go through networks in `open`, for progress."""
        return self.networks * self.epochs * num_images if self.kind == "trained" else 0

    def open(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        box: PixelBox,
        teacher: Teacher | None,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Networks:
        """The networks for these images; they are trained here, if they are.

        Args:
            images: uint8 (N, C, H, W).
            labels: int64 (N,). Networks that are built have an output for each class, in ascending order.
            box: Inputs of the networks are normalised by it, and on its device.
            teacher: Asked for by kind ``teacher`` alone; the caller has checked it.
            generator: On the CPU; gives the networks that are trained.
            progress: Told of the images that networks are trained on.

        Raises:
            ValueError: If the images are too small, or networks are to be trained on a single class.
        """
        if self.kind == "teacher":
            assert teacher is not None
            return partial(_same, teacher.model)
        classes, targets = labels.unique(return_inverse=True)
        network = self.build(images.shape[1:], len(classes)).to(box.device)
        draw = partial(_redrawn, network, torch.Generator(box.device))
        if self.kind == "random":
            return draw
        if len(classes) == 1:
            raise ValueError(
                "Expected images of at least two classes for `embedding=trained`, got one. "
                "Use `embedding=random`."
            )
        stages = Stages(progress, self.training_images(len(images)))
        inputs, targets = box.from_uint8(images), targets.to(box.device)
        pool: list[nn.Module] = []
        for _ in range(self.networks):
            pool += _ages(draw(generator), inputs, targets, self.epochs, generator, stages.start())
        return partial(_one_of, pool)

    def build(self, shape: torch.Size, num_classes: int) -> nn.Module:
        """A frozen network for images of a shape, without weights to speak of."""
        in_channels, height, width = shape
        side, needed = min(height, width), 2**self.depth if self.depth else 4
        if side < needed:
            raise ValueError(
                f"Expected images of at least {needed} pixels a side for `depth={self.depth}`, got "
                f"{height} x {width}. Use a smaller `depth`, or `embedding=teacher`."
            )
        depth = self.depth or min(max(3, side.bit_length() - 3), side.bit_length() - 2, _DEEPEST)
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            for channels in [in_channels] + [self.width] * (depth - 1):
                layers += [
                    nn.Conv2d(channels, self.width, 3, padding=1),
                    nn.InstanceNorm2d(self.width, affine=True),
                    nn.ReLU(),
                    nn.AvgPool2d(2),
                ]
            num_features = self.width * (height >> depth) * (width >> depth)
            layers += [nn.Flatten(), nn.Linear(num_features, num_classes)]
        return nn.Sequential(*layers).requires_grad_(False).eval()


def pixel_box(images: Tensor, teacher: Teacher | None, device: torch.device | None = None) -> PixelBox:
    """Where pixels are optimised: as the teacher sees them, else standardised as these images are.

    Args:
        images: uint8 (N, C, H, W). Without a teacher each channel gets mean 0 and standard deviation 1 over
            all of them.
        teacher: Gives its normalisation and its device.
        device: Of the box, without a teacher; that of the images by default.
    """
    if teacher is not None:
        return PixelBox(teacher.normalization, teacher.device)
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    mean = shares @ values
    deviation = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    deviation.clamp_(min=1 / 255)  # a channel may be black throughout
    return PixelBox(Normalization(tuple(mean.tolist()), tuple(deviation.tolist())), device or images.device)


@torch.no_grad()
def constant_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """Features of inputs (N, C, H, W), which carry no gradients, float (N, D)."""
    return torch.cat(
        [penultimate(network, batch) for batch in inputs.split(images_at_once(inputs, inputs.device))]
    )


def _redrawn(network: nn.Module, on_device: torch.Generator, generator: torch.Generator) -> nn.Module:
    """The network with other weights, distributed as torch's own; quicker than a new network."""
    on_device.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            for values in layer.parameters():
                values.uniform_(-bound, bound, generator=on_device)
    return network


def _ages(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    epochs: int,
    generator: torch.Generator,
    progress: Progress,
) -> list[nn.Module]:
    """Frozen copies of a network: as it is, and after each epoch of its training."""
    copies = [copy.deepcopy(network)]
    network = copy.deepcopy(network).requires_grad_()
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for batch in order.split(_BATCH):
            nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        copies.append(copy.deepcopy(network).requires_grad_(False))
        progress(epoch * len(inputs), epochs * len(inputs))
    return copies


def _same(network: nn.Module, generator: torch.Generator) -> nn.Module:
    del generator
    return network


def _one_of(networks: list[nn.Module], generator: torch.Generator) -> nn.Module:
    return networks[int(torch.randint(len(networks), (), generator=generator))]
