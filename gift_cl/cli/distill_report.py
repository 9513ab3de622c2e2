"""What `gift-cl distill` says: at the start, while it waits, and at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from typing import Any

from gift_cl.cli.distill_inputs import Inputs
from gift_cl.distillers import Distiller
from gift_cl.evaluation.claims import Owner
from gift_cl.progress import Progress


class Meter:
    """Passes progress on, and keeps the time of this process.

    Args:
        show: Told what this is told.
    """

    def __init__(self, show: Progress) -> None:
        self._show, self._start = show, time.perf_counter()
        self._images, self._busy_s, self._seconds = 0, 0.0, 0.0

    def __call__(self, done: int, total: int) -> None:
        """See `Progress`."""
        self._images, self._busy_s = done, time.perf_counter() - self._start
        self._show(done, total)

    def stop(self) -> None:
        """The distillation is over."""
        self._seconds = time.perf_counter() - self._start

    def facts(self) -> dict[str, Any]:
        """Seconds, with those of waiting; images through networks, and a second while there were any."""
        rate = self._images / self._busy_s if self._images else None
        return {"seconds": self._seconds, "images": self._images, "images_per_second": rate}


class Waiting:
    """Says whom this process waits for, once for each."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, owners: Collection[Owner]) -> None:
        """Say it of those that are new."""
        for owner in sorted(set(map(str, owners)) - self._said):
            print(f"waiting for {owner}", file=sys.stderr, flush=True)
            self._said.add(owner)


def announce(distiller: Distiller, inputs: Inputs, *, model: str | None) -> str:
    """What is about to be done; ``model`` is that of the teacher asked for."""
    data, teacher = inputs.data, inputs.teacher
    channels, height, width = data.image_shape
    text = (
        f"{distiller.spec} on {inputs.device}: {len(data.train):,} images of {data.name}, "
        f"{channels} x {height} x {width}, {data.num_classes} classes"
    )
    if teacher is None:
        return text if model is None else f"{text}\nno teacher {model} is there to judge the exemplars"
    measured = teacher.accuracy
    return (
        f"{text}\nteacher {teacher.loaded.model} ({teacher.path}): "
        f"{measured.top1:.2%} of {measured.n:,} test images"
    )


def words(facts: Mapping[str, Any]) -> str:
    """What came out."""
    ledger = facts["ledger"]
    parts = {name.replace("_", " "): size for name, size in ledger.items() if size and name != "total"}
    rate = facts["images_per_second"]
    lines = [
        f"{facts['path']}  {facts['bytes']:,} bytes  sha256 {facts['sha256']}",
        f"{facts['num_images']:,} exemplars, {facts['ipc']} of each of {facts['num_classes']:,} classes",
        f"bytes of a memory: {ledger['total']:,} "
        f"({', '.join(f'{name} {size:,}' for name, size in parts.items())}; "
        f"images as `{facts['codecs']['stored']}`)",
        f"distilled for {facts['seconds']:.1f} s" + (f", {rate:,.0f} images/s" if rate else ""),
        _agreement(facts),
        f"picture: {facts['sheet']}",
        f"files: {facts['files']}" if facts["files"] else "",
    ]
    return "\n".join(filter(None, lines))


def _agreement(facts: Mapping[str, Any]) -> str:
    made, stored = facts["agreement"]["made"], facts["agreement"]["stored"]
    if stored is None:
        return ""
    codecs = facts["codecs"]
    if codecs["made"] == codecs["stored"]:
        return f"the teacher agrees with {stored:.1%} of the exemplars"
    return (
        f"the teacher agrees with {made:.1%} of the exemplars before encoding, {stored:.1%} as "
        f"`{codecs['stored']}`"
    )
