"""What a comparison of distillers is: one frozen configuration, read from YAML and the command line."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from experiments.data import DataChoice
from experiments.shards import parse_shard
from gift_cl.codecs import build_codec
from gift_cl.distillers import DISTILLERS, Distiller
from gift_cl.evaluation.recipe import Recipe
from gift_cl.losses import build_loss


@dataclass(frozen=True, kw_only=True)
class CompareConfig(DataChoice):
    """Distillers side by side: exemplars of the same bytes, students with the same training, one teacher.

    Args:
        distillers: With options, as random, rded:factor=2.
        ipc: Images a class. A distiller with a codec of its own makes as many as take the bytes of that many
            raw images.
        losses: Of students: ce on hard labels; gift, or another one, on labels of the teacher on line.
        seeds: Of the distillation and of the student.
        model: Network of the teacher and of the students.
        codec: raw, png, jpeg:Q, webp:Q, quantize:B or downscale:F; raw if a distiller has its own.
        steps: Of each student.
        rounds: Parts of the training with as many steps each: the learning rate is set anew, and the student
            is measured, once a round.
        batch_size: Exemplars in a step; where there are fewer, each comes several times, in other views.
        optimizer: Any of torch.optim with options, as AdamW or SGD:nesterov=true.
        lr: First learning rate.
        weight_decay: Of the optimizer.
        schedule: Of the learning rate: multistep, cosine, half_cosine, step or constant.
        view: Augmentation of the exemplars: none, flip, crop_flip:pad=4, dsa.
        teacher_epochs: Passes of the teacher over the training images; the rest is the recipe of
            `gift-cl teacher train`.
        device: Where everything is computed.
        shard: The part of the work that this process does, as 1/2 and 2/2 of two processes.
        tracking: W&B: offline, online or disabled.
        out: Folder of the rows, exemplars and pictures.
    """

    evaluate_on: Literal["test", "validation"] = "validation"
    distillers: list[str] = field(default_factory=lambda: ["random", "herding", "rded"])
    ipc: list[int] = field(default_factory=lambda: [1, 10, 50])
    losses: list[str] = field(default_factory=lambda: ["ce", "gift"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    model: str = "mlp"
    codec: str = "raw"
    steps: int = 400
    rounds: int = 10
    batch_size: int = 50
    optimizer: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    view: str = "none"
    teacher_epochs: int = 20
    device: str = "cpu"
    shard: str = "1/1"
    tracking: Literal["offline", "online", "disabled"] = "offline"
    out: str = "runs/compare_distillers"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("distillers", "ipc", "losses", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"Expected different values in `{name}`, at least one, got {values}.")
        for name in ("steps", "rounds", "batch_size", "teacher_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `{name}` of at least 1, got {getattr(self, name)}.")
        if min(self.ipc) < 1:
            raise ValueError(f"Expected `ipc` of at least 1, got {min(self.ipc)}.")
        if self.steps % self.rounds:
            raise ValueError(f"Expected `steps` as a multiple of `rounds`, {self.rounds}, got {self.steps}.")
        build_codec(self.codec)
        for loss in self.losses:
            self.recipe(loss, seed=0, normalization="none")
        _ = self.shard_parts

    @property
    def shard_parts(self) -> tuple[int, int]:
        """Number of the shard, from 1 on, and of all shards."""
        return parse_shard(self.shard)

    def recipe(self, loss: str, *, seed: int, normalization: str) -> Recipe:
        """How a student is trained: an epoch is a round.

        Raises:
            ValueError: If a value is out of range, or a spec cannot be built.
        """
        return Recipe(
            epochs=self.rounds,
            evaluations=self.rounds,
            batch_size=self.batch_size,
            normalization=normalization,
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            view=self.view,
            loss=loss,
            labels="online" if build_loss(loss).needs_soft_labels else "hard",
            seed=seed,
        )

    def smoke(self) -> CompareConfig:
        """The same comparison, tiny, on the CPU and untracked: one IPC, one seed, one round."""
        return replace(
            self,
            ipc=self.ipc[:1],
            seeds=self.seeds[:1],
            steps=self.steps // self.rounds,
            rounds=1,
            teacher_epochs=1,
            device="cpu",
            tracking="disabled",
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """Exemplars to make, from which students with all losses are trained.

    Args:
        name: Of the distiller, as the configuration spells it.
        distiller: What makes them.
        ipc: Raw images a class that they may take the bytes of.
        per_class: Exemplars of each class.
        seed: Of the distillation and of the students.
    """

    name: str
    distiller: Distiller
    ipc: int
    per_class: int
    seed: int


def make_jobs(config: CompareConfig, *, num_classes: int, image_shape: tuple[int, int, int]) -> list[Job]:
    """All jobs: one seed after another, then distillers, then images a class.

    Raises:
        ValueError: If a distiller is unknown or named twice, the codec does not suit one, or a round does not
            show every exemplar equally often.
    """
    distillers = {name: DISTILLERS.create(name) for name in config.distillers}
    specs = [distiller.spec for distiller in distillers.values()]
    if twice := [name for name in distillers if specs.count(distillers[name].spec) > 1]:
        raise ValueError(f"Expected different `distillers`, got {' and '.join(twice)}, which are the same.")
    jobs = []
    for seed, name, ipc in itertools.product(config.seeds, distillers, config.ipc):
        per_class = exemplars_per_class(distillers[name], ipc, codec=config.codec, image_shape=image_shape)
        _check_round(config, per_class * num_classes)
        jobs.append(Job(name=name, distiller=distillers[name], ipc=ipc, per_class=per_class, seed=seed))
    return jobs


def exemplars_per_class(
    distiller: Distiller, ipc: int, *, codec: str, image_shape: tuple[int, int, int]
) -> int:
    """Exemplars of a class whose pixels take the bytes of ``ipc`` raw images, or less if they do not divide.

    It is ``ipc`` for distillers without a codec of their own, whatever the codec.

    Raises:
        ValueError: If both have a codec, exemplars are no pixels, or their bytes differ.
    """
    if distiller.codec is None:
        return ipc
    if distiller.codec == "float32":
        raise ValueError(
            f"Expected exemplars that are pixels, got whitened ones of `{distiller.spec}`. Turn its "
            "whitening off."
        )
    if codec != "raw":
        raise ValueError(
            f"Expected `codec` raw beside `{distiller.spec}`, which has a codec of its own, got {codec}. "
            "Bytes are equal to those of raw images."
        )
    one = build_codec(distiller.codec).encode(torch.zeros(1, *image_shape, dtype=torch.uint8))
    if one.lengths is not None:
        raise ValueError(
            f"Expected exemplars of equal bytes, got files of `{distiller.codec}` from `{distiller.spec}`, "
            "whose size is known when they are made. `experiments.compare_streams` takes them, with a "
            "`per_class` of their own."
        )
    return ipc * math.prod(image_shape) // one.nbytes


def _check_round(config: CompareConfig, num_exemplars: int) -> None:
    images = config.steps // config.rounds * config.batch_size
    if images % num_exemplars:
        raise ValueError(
            f"Expected rounds that show each of {num_exemplars} exemplars equally often, got rounds of "
            f"{config.steps // config.rounds} steps with {config.batch_size} images. Choose `steps`, "
            f"`rounds` and `batch_size` so that {num_exemplars} divides steps / rounds x batch_size."
        )
