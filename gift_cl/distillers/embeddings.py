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
from gift_cl.models import build_model
from gift_cl.models.convnet import MAX_DEPTH, MIN_DEPTH
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher

Kind = Literal["random", "teacher", "trained"]

Networks = Callable[[torch.Generator], nn.Module]
"""Draws the network of an iteration: frozen, in evaluation mode, and good until the next one is drawn."""

_BATCH = 64
_RATE = 1e-3


@dataclass(frozen=True)
class Embedding:
    """Where the networks of a distiller come from.

    Features are what `gift_cl.models.penultimate` says of a network. Those that are built here are ConvNets
    with instance norm, for square images.

    Args:
        kind: ``random``: a fresh network each time. ``teacher``: the teacher each time. ``trained``: one of
            a few networks trained to classify the images given, at one of several ages.
        width: Channels of a block of the networks that are built.
        depth: Their blocks, 3 to 6; 0 takes 3 up to 63 pixels, 4 up to 127, 5 up to 255, and else 6.
        networks: Networks that are trained.
        epochs: Passes over the images. Each network is kept as it was before the first and after each.

    Raises:
        ValueError: If an option is unknown or out of range.

    Source:
        Depths: Zhao & Bilen, DM, WACV 2023, and Cazenavette et al., MTT, CVPR 2022: 3 blocks for 32 pixels,
        4 for 64, 5 for 128. A few networks of several ages: after Zhao et al., IDM, CVPR 2023.
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
        depth = self.depth
        if not isinstance(depth, int) or not (depth == 0 or MIN_DEPTH <= depth <= MAX_DEPTH):
            raise ValueError(f"Expected `depth` from {MIN_DEPTH} to {MAX_DEPTH}, or 0, got {depth!r}.")

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
            labels: int64 (N,).
            box: Inputs of the networks are normalised by it, and on its device.
            teacher: Asked for by kind ``teacher`` alone; the caller has checked it.
            generator: On the CPU; gives the networks that are trained.
            progress: Told of the images that networks are trained on.

        Raises:
            ValueError: If the images are not square or too small for a ConvNet, or networks are to be
                trained on a single class.
        """
        if self.kind == "teacher":
            assert teacher is not None
            return partial(_same, teacher.model)
        classes, targets = labels.unique(return_inverse=True)
        build = partial(self._build, images.shape[1:], len(classes), box.device)
        if self.kind == "random":
            return partial(_redrawn, _frozen(build(generator)), torch.Generator(box.device))
        if len(classes) == 1:
            raise ValueError(
                "Expected images of at least two classes for `embedding=trained`, got one. "
                "Use `embedding=random`."
            )
        pool: list[nn.Module] = []
        inputs, targets = box.from_uint8(images), targets.to(box.device)
        for index in range(self.networks):
            done = index * self.epochs * len(images)
            step = partial(_shifted, progress, done, self.training_images(len(images)))
            pool += _ages(build(generator), inputs, targets, self.epochs, generator, step)
        return partial(_one_of, pool)

    def _build(
        self, shape: torch.Size, num_classes: int, device: torch.device, generator: torch.Generator
    ) -> nn.Module:
        """A fresh network; its weights are drawn on the CPU, so they are the same on every device."""
        channels, height, width = shape
        if height != width:
            raise ValueError(
                f"Expected square images for `embedding={self.kind}`, got {height} x {width}. "
                "Use `embedding=teacher`."
            )
        depth = self.depth or min(max(height.bit_length() - 3, MIN_DEPTH), MAX_DEPTH)
        spec = f"conv{depth}:width={self.width},norm=instance"
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
            network = build_model(spec, in_channels=channels, image_size=height, num_classes=num_classes)
        return network.to(device)


def pixel_box(images: Tensor, teacher: Teacher | None) -> PixelBox:
    """Where pixels are optimised: as the teacher sees them, else standardised as these images are.

    Args:
        images: uint8 (N, C, H, W). Without a teacher each channel gets mean 0 and standard deviation 1 over
            all of them, and the box is on their device.
        teacher: Gives its normalisation and its device.
    """
    if teacher is not None:
        return PixelBox(teacher.normalization, next(teacher.model.parameters()).device)
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    mean = shares @ values
    deviation = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    deviation.clamp_(min=1 / 255)  # a channel may be black throughout
    return PixelBox(Normalization(tuple(mean.tolist()), tuple(deviation.tolist())), images.device)


def _ages(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    epochs: int,
    generator: torch.Generator,
    progress: Progress,
) -> list[nn.Module]:
    """Frozen copies of a network: fresh, and after each epoch of its training."""
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    copies = [_frozen(network)]
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for batch in order.split(_BATCH):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        copies.append(_frozen(network))
        progress((epoch + 1) * len(inputs), epochs * len(inputs))
    return copies


def _redrawn(network: nn.Module, on_device: torch.Generator, generator: torch.Generator) -> nn.Module:
    """The network with other weights, as torch draws those of new convolutions; quicker than a new one."""
    on_device.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            for values in layer.parameters():
                values.uniform_(-bound, bound, generator=on_device)
    return network


def _frozen(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False).eval()


def _shifted(progress: Progress, before: int, total: int, done: int, of_these: int) -> None:
    del of_these
    progress(before + done, total)


def _same(network: nn.Module, generator: torch.Generator) -> nn.Module:
    del generator
    return network


def _one_of(networks: list[nn.Module], generator: torch.Generator) -> nn.Module:
    return networks[int(torch.randint(len(networks), (), generator=generator))]
