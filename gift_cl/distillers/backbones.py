"""Further networks for a distiller, trained shortly on the very images that it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import as_float
from gift_cl.views import View


@contextmanager
def drawing_from(generator: torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it, layers are initialised and drop units out as ``generator`` says.

    Torch gives them no generator but its global ones, of the CPU and of ``device``: these are seeded with one
    number drawn from ``generator``, and restored at the end.
    """
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    seed = int(torch.randint(1 << 62, (), generator=generator))
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def train_backbone(
    spec: str,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    normalization: Normalization,
    view: View,
    epochs: int,
    generator: torch.Generator,
    batch_size: int = 64,
    lr: float = 0.05,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> nn.Module:
    """A classifier of these images, frozen and in evaluation mode.

    Trained by SGD with momentum 0.9 on the cross-entropy, at a constant learning rate and without weight
    decay. A last batch of a single image is left out: batch norms learn nothing from it. Torch's global
    random states are left as they are.

    Args:
        spec: As for `gift_cl.models.build_model`.
        images: uint8 (N, C, S, S), N at least 2.
        labels: int64 (N,), in [0, num_classes).
        num_classes: Outputs of the network.
        normalization: Of its inputs.
        view: Augments the normalised inputs.
        epochs: Over all images.
        generator: On the CPU; all draws come from it.
        batch_size: Images a step, at least 2.
        lr: Learning rate.
        device: Where the network is trained and stays; all images are moved there as uint8.
        progress: Called after each step with the images seen so far, and in all.

    Raises:
        ValueError: If there are too few images or they are not square, if the spec is unknown or does not
            suit them, or if the training diverges.

    Source:
        The "squeeze" step of shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0 for CIFAR: these settings, 50
        epochs on CIFAR-100, 5 on CIFAR-10.
    """
    _, channels, height, width = images.shape
    if height != width:
        raise ValueError(f"Expected square images to train `{spec}` on, got {height} x {width} pixels.")
    if min(len(images), batch_size) < 2:
        raise ValueError(
            f"Expected at least two images to train `{spec}` on, in batches of at least two, got "
            f"{len(images)} in batches of {batch_size}."
        )
    images, labels = images.to(device), labels.to(device)
    with drawing_from(generator, device):
        model = build_model(spec, in_channels=channels, image_size=height, num_classes=num_classes)
        model.to(device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        seen, loss = 0, torch.zeros(())
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator).to(device)
            for batch in order.split(batch_size):
                if len(batch) > 1:
                    inputs = view(normalization.apply(as_float(images[batch])), generator)
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                    optimizer.zero_grad(set_to_none=True)
                    loss = nn.functional.cross_entropy(model(inputs), labels[batch])
                    loss.backward()
                    optimizer.step()
                seen += len(batch)
                progress(seen, epochs * len(images))
    optimizer.zero_grad(set_to_none=True)
    if not bool(torch.isfinite(loss)):
        raise ValueError(
            f"The training of `{spec}` diverged: its last loss is {float(loss.detach())}. "
            "Choose another network, or lower the learning rate."
        )
    return model.eval().requires_grad_(False)
