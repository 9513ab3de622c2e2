"""What an experiment is: one frozen configuration, read from YAML and the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from experiments.data import DataChoice

StrategyName = Literal["naive", "replay", "der", "er_ace", "gdumb", "gift", "gift_dumb", "joint"]
Protocol = Literal["rehearsal", "memory_only", "no_memory", "joint"]

_PROTOCOLS: dict[str, Protocol] = {
    "naive": "no_memory",
    "joint": "joint",
    "gdumb": "memory_only",
    "gift_dumb": "memory_only",
}


@dataclass(frozen=True, kw_only=True)
class Config(DataChoice):
    """A class-incremental run.

    Args:
        experiences: Number of experiences; it has to divide the number of classes.
        strategy: naive, replay, der, er_ace, gdumb (Avalanche's), gift, gift_dumb (ours), or joint, which
            trains on all data so far.
        protocol: ``rehearsal`` or ``memory_only``, for the strategy gift; the others have one each.
        budget_bytes: Bytes of everything that is kept between experiences.
        per_class: Exemplars of each class, in the place of a budget in bytes (gift and gift_dumb only).
        exemplars: A distiller with options: ``herding``, ``rded:factor=2``.
        codec: raw, png, jpeg:Q, webp:Q, quantize:B or downscale:F.
        labels: hard, stored:views=K,refresh=B or online:bits=B.
        loss: Loss on the exemplars: gift:weight=W, cosine, kl:temperature=T,t2=B, softce, mse, ce, mse_ce,
            softce_ce or gift_ce:weight=W,ce_weight=V.
        memory_weight: Factor of that loss.
        balance: Let every class count the same, old or new (gift and gift_dumb).
        criterion: Loss on the current data of gift and gift_dumb: ce, or gift on hard labels.
        extension: Logits of classes that a label's teacher did not know: row_min, row_mean or zero.
        augmentation: none, crop:pad=P or crop_flip:pad=P, of current data and exemplars alike.
        model: mlp, conv3 to conv6 or resnet18_modified, with options: ``conv3:width=64``.
        head: ``fixed`` has an output for every class from the start; ``growing`` gets them as classes arrive.
        optimizer: SGD, Adam or AdamW.
        lr: Learning rate.
        momentum: Of SGD.
        weight_decay: Of the optimizer.
        epochs: Passes over the data of each experience.
        student_epochs: Passes of a memory-only student over the memory.
        batch_size: Current images in a step.
        batch_size_mem: Exemplars in a step.
        seed: Of the model, the order of the data and all draws.
        class_order_seed: Of the order of the classes; -1 keeps the order of the labels.
        device: Where the model is trained.
        tracking: W&B: offline, online or disabled.
        out: Folder of the rows, memories and pictures.
    """

    experiences: int = 5
    strategy: StrategyName = "gift"
    protocol: Literal["rehearsal", "memory_only"] = "rehearsal"
    budget_bytes: int | None = 5250
    per_class: int | None = None
    exemplars: str = "herding"
    codec: str = "quantize:2"
    labels: str = "stored"
    loss: str = "gift:weight=0.8"
    memory_weight: float = 10.0
    balance: bool = False
    criterion: Literal["ce", "gift"] = "ce"
    extension: Literal["row_min", "row_mean", "zero"] = "row_min"
    augmentation: str = "none"
    model: str = "mlp:hidden=128"
    head: Literal["fixed", "growing"] = "fixed"
    optimizer: Literal["SGD", "Adam", "AdamW"] = "SGD"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = 5
    student_epochs: int = 100
    batch_size: int = 32
    batch_size_mem: int = 32
    seed: int = 0
    class_order_seed: int = 0
    device: str = "cpu"
    tracking: Literal["offline", "online", "disabled"] = "offline"
    out: str = "runs/class_incremental"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("experiences", "epochs", "student_epochs", "batch_size", "batch_size_mem"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `{name}` of at least 1, got {getattr(self, name)}.")
        if self.lr <= 0:
            raise ValueError(f"Expected a positive `lr`, got {self.lr}.")
        if self.strategy in ("replay", "der", "er_ace", "gdumb") and self.budget_bytes is None:
            raise ValueError(f"Expected `budget_bytes` for the strategy {self.strategy}, got none.")
        if self.is_gift and (self.budget_bytes is None) == (self.per_class is None):
            raise ValueError(
                f"Expected either `budget_bytes` or `per_class`, got {self.budget_bytes} and "
                f"{self.per_class}. Set the other one to null."
            )

    @property
    def is_gift(self) -> bool:
        """Whether the strategy is one of ours."""
        return self.strategy in ("gift", "gift_dumb")

    @property
    def effective_protocol(self) -> Protocol:
        """How the memory is used, for rows."""
        return _PROTOCOLS.get(self.strategy, self.protocol)

    def smoke(self) -> Config:
        """The same run, tiny, on the CPU and untracked."""
        return replace(
            self, epochs=1, student_epochs=1, device="cpu", tracking="disabled", evaluate_on="test"
        )
