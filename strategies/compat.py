"""Ways round two faults of avalanche-lib 0.6: checkpoints that cannot be saved, and its W&B logger.

Both are open upstream (ContinualAI/avalanche issues 1680 and 1674); both work again with this module.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import torch
from avalanche.checkpointing import save_checkpoint
from avalanche.logging import WandBLogger

from gift_cl.files import replacing


def save_strategy(strategy: Any, path: str | os.PathLike[str]) -> None:
    """Avalanche's `save_checkpoint`, which works and leaves no broken file behind.

    `torch.optim` deletes its submodules from its own namespace, so that optimisers are pickled by value,
    which fails. They are put back first. Load with Avalanche's `maybe_load_checkpoint`.

    Args:
        strategy: Any Avalanche strategy, between two experiences.
        path: Replaced when the checkpoint is complete.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names it.
    """
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if parent == "torch.optim" and not hasattr(torch.optim, child):
            setattr(torch.optim, child, module)
    with replacing(path) as temporary:
        save_checkpoint(strategy, str(temporary))


class CompatWandBLogger(WandBLogger):
    """Avalanche's `WandBLogger` for present versions of wandb.

    It takes the same arguments. wandb moved `generate_id` and `CustomChart`; they are looked up where
    they are now.
    """

    def import_wandb(self) -> None:
        """Import wandb, and put the two names where the logger looks for them."""
        import wandb

        if not hasattr(wandb.util, "generate_id"):
            wandb.util.generate_id = wandb.sdk.lib.runid.generate_id  # type: ignore[attr-defined]
        if not hasattr(wandb, "viz"):
            wandb.viz = SimpleNamespace(CustomChart=wandb.plot.CustomChart)  # type: ignore[attr-defined]
        self.wandb = wandb
