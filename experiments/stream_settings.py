"""What a comparison of memories in streams is: one frozen configuration, read from YAML."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from experiments.config import Config
from experiments.shards import parse_shard
from gift_cl.augmentations import AUGMENTATIONS
from gift_cl.codecs import build_codec
from gift_cl.distillers import DISTILLERS, REAL_IMAGES
from gift_cl.labels import LABELS
from gift_cl.ledger import label_nbytes
from gift_cl.soft_labels import coverage_nbytes

_AXES = ("exemplars", "codec", "labels", "loss", "memory_weight")
_INSTEAD = {
    **dict.fromkeys(("budget_bytes", "per_class"), "`ipc` says"),
    **dict.fromkeys(("seed", "class_order_seed"), "`seeds` say"),
    "out": "`out` says",
}


@dataclass(frozen=True, kw_only=True)
class MemoryChoice:
    """A memory of a comparison: four axes, and how much its loss counts.

    Args:
        exemplars: A distiller with options.
        codec: raw, png, jpeg:Q, webp:Q, quantize:B or downscale:F.
        labels: hard, or stored:views=K,refresh=B; online:bits=B where files differ in size.
        loss: Loss on the exemplars.
        memory_weight: Factor of that loss.
        per_raw_image: Exemplars in the bytes of a raw image, where files differ in size: each class has
            ``ipc`` times as many, whatever they take. None for as many as the bytes of all classes hold.
    """

    exemplars: str
    codec: str = "raw"
    labels: str = "hard"
    loss: str = "ce"
    memory_weight: float = 1.0
    per_raw_image: int | None = None

    @property
    def is_real(self) -> bool:
        """Whether its exemplars are real images, whatever their codec."""
        return self.exemplars.partition(":")[0] in REAL_IMAGES

    @property
    def name(self) -> str:
        """How tables call it."""
        weight = "" if self.memory_weight == 1 else f" x {self.memory_weight:g}"
        number = "" if self.per_raw_image is None else f" · {self.per_raw_image} a raw image"
        return f"{self.exemplars} · {self.codec} · {self.labels} · {self.loss}{weight}{number}"

    def is_real_twin(self, other: MemoryChoice) -> bool:
        """Whether this is `other` with real exemplars in the place of its own, as many as the bytes hold."""
        own = replace(self, exemplars=other.exemplars, per_raw_image=other.per_raw_image)
        return self.is_real and own == other


@dataclass(frozen=True, kw_only=True)
class StreamsConfig:
    """Memories of the same bytes side by side, in the same streams.

    Args:
        stream: Everything but the memory.
        memories: What is compared.
        ipc: Bytes: those of that many raw images a class; below 1 for codecs whose images take less.
        seeds: Of the runs; each goes with the class order of the same number.
        shard: The part of the runs that this process does, as 1/2 and 2/2 of two processes.
        out: Folder of the rows, table and picture.
    """

    stream: Config = field(default_factory=Config)
    memories: list[MemoryChoice] = field(default_factory=lambda: [MemoryChoice(exemplars="herding")])
    ipc: list[float] = field(default_factory=lambda: [10])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    shard: str = "1/1"
    out: str = "runs/compare_streams"

    def __post_init__(self) -> None:
        for name in ("memories", "ipc", "seeds"):
            values = getattr(self, name)
            if not values or any(values.count(value) > 1 for value in values):
                raise ValueError(f"Expected different values in `{name}`, at least one, got {values}.")
        if min(self.ipc) <= 0:
            raise ValueError(f"Expected `ipc` above 0, got {min(self.ipc)}.")
        if self.stream.strategy not in ("gift", "gift_dumb"):
            raise ValueError(
                f"Expected `stream.strategy` gift or gift_dumb, got {self.stream.strategy}: others have no "
                "exemplars to choose."
            )
        unset = Config()
        for name in (*_AXES, "budget_bytes", "per_class", "seed", "class_order_seed", "out"):
            if (value := getattr(self.stream, name)) != getattr(unset, name):
                where = _INSTEAD.get(name, "`memories` say")
                raise ValueError(f"Expected no `stream.{name}`, which {where}, got {value!r}. Leave it out.")
        _ = self.shard_parts

    @property
    def shard_parts(self) -> tuple[int, int]:
        """Number of the shard, from 1 on, and of all shards."""
        return parse_shard(self.shard)

    def smoke(self) -> StreamsConfig:
        """The same comparison, tiny: one IPC and one seed."""
        return replace(self, stream=self.stream.smoke(), ipc=self.ipc[:1], seeds=self.seeds[:1])


def from_values(values: Mapping[str, Any]) -> StreamsConfig:
    """A comparison from what a parser makes of a file: plain values, nested.

    Raises:
        ValueError: If a value is out of range.
    """
    memories = [m if isinstance(m, MemoryChoice) else MemoryChoice(**m) for m in values["memories"]]
    return StreamsConfig(**{**values, "stream": Config(**values["stream"]), "memories": memories})


@dataclass(frozen=True, kw_only=True)
class StreamRun:
    """One run of a comparison."""

    memory: MemoryChoice
    ipc: float
    config: Config


def make_runs(
    comparison: StreamsConfig, *, num_classes: int, image_shape: tuple[int, int, int]
) -> list[StreamRun]:
    """All runs: one seed after another, then IPC, then memories.

    A memory whose images all take as many bytes has a fixed number of exemplars of each class, from the
    first experience on: what fits into the bytes of ``ipc`` raw images, each with its hard label, once all
    labels are there. Files differ in size; memories of them get the bytes of all classes as a budget, which
    leaves more to the first classes while they are few, or the number that their setting says, whatever it
    takes.

    Raises:
        ValueError: If a spec cannot be built, a distiller has another codec of its own, or not one exemplar
            fits.
    """
    runs = []
    for seed, ipc, memory in itertools.product(comparison.seeds, comparison.ipc, comparison.memories):
        config = replace(
            comparison.stream,
            **{axis: getattr(memory, axis) for axis in _AXES},
            **_size(memory, ipc, comparison.stream, num_classes, image_shape),
            seed=seed,
            class_order_seed=seed,
            out=comparison.out,
        )
        runs.append(StreamRun(memory=memory, ipc=ipc, config=config))
    return runs


def _size(
    memory: MemoryChoice, ipc: float, stream: Config, num_classes: int, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    raw = ipc * (math.prod(image_shape) + label_nbytes(num_classes))
    own = DISTILLERS.create(memory.exemplars).codec
    if own is not None and own != memory.codec:
        raise ValueError(f"Expected `codec: {own}` for `{memory.exemplars}`, got {memory.codec}.")
    if memory.per_raw_image is not None:
        if memory.per_raw_image * ipc < 1:
            raise ValueError(f"Expected `per_raw_image` of at least {1 / ipc:g}, got {memory.per_raw_image}.")
        return {"budget_bytes": None, "per_class": int(round(memory.per_raw_image * ipc, 6))}  # 100 * 0.29
    one = build_codec(memory.codec).encode(torch.zeros(1, *image_shape, dtype=torch.uint8))
    if one.lengths is not None:
        return {"budget_bytes": int(num_classes * raw), "per_class": None}
    each, once = _label_sizes(memory.labels, stream, num_classes)
    if (size := one.nbytes + each) + once > raw:
        raise ValueError(
            f"Expected `ipc` with the bytes of an exemplar at least, which takes {size + once:g} in "
            f"{memory.codec} with {memory.labels} labels, got {ipc:g}, which is {raw:g}. Use a larger `ipc`, "
            "or a codec or labels that take less."
        )
    return {"budget_bytes": None, "per_class": int((raw - once) // size)}


def _label_sizes(labels: str, stream: Config, num_classes: int) -> tuple[float, int]:
    """Bytes of labels after the last experience: of an exemplar, in the mean, and of a class."""
    regime = LABELS.create(labels)
    if regime.name == "online":
        raise ValueError(
            f"Expected `labels` hard or stored where all images take as many bytes, got {labels}, whose "
            "teacher takes bytes too. Use a codec of files, as webp:Q, for which there is a budget."
        )
    parameters = AUGMENTATIONS.create(stream.augmentation).num_parameters
    seen = [round(num_classes * (number + 1) / stream.experiences) for number in range(stream.experiences)]
    each = statistics.fmean(
        regime.exemplar_nbytes(
            num_classes=num_classes,
            num_covered=num_classes if regime.refresh else known,
            num_parameters=parameters,
        )
        for known in seen
    )
    return each, coverage_nbytes({0: ()}, num_classes) if regime.name == "stored" else 0
