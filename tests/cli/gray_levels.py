"""Images that a linear teacher can tell apart, and such a teacher."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gift_cl.models import MLP

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # gray, one a class


def write_images(root: Path) -> Path:
    """Forty PNG images of each of five gray levels, as SRe2L lays them out; returns the folder."""
    for label, level in enumerate(LEVELS):
        folder = root / f"new{label:03d}"
        folder.mkdir(parents=True)
        for number in range(40):
            shade = round(255 * level) + number % 7 - 3
            pixels = np.full((8, 8, 3), shade, np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label:03d}_id{number:03d}.png")
    return root


def write_teacher(path: Path, order: tuple[int, ...]) -> None:
    """Weights of an MLP that calls gray level ``c`` class ``order[c]``: logits 2 m g - g² of the mean m."""
    model = MLP(3, 8, len(LEVELS), hidden=1)
    hidden, head = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    levels = torch.tensor(LEVELS)
    with torch.no_grad():
        hidden.weight.fill_(1 / hidden.in_features)
        hidden.bias.zero_()
        head.weight[torch.tensor(order), 0] = 2 * levels
        head.bias[torch.tensor(order)] = -levels.square()
    torch.save(model.state_dict(), path)
