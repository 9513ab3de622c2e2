"""The parts of a distillation: what several processes have finished, until all of it is joined.

A folder holds ``command.json``, which says what is being made, a file for each part, and claims on those that
processes are making. A part is whole or not there. When the folder goes, it goes at once, so a process that
finds it without ``command.json`` knows that the work is over, or has not begun.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gift_cl.codecs import concat
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset, save_dataset
from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.evaluation.claims import Claim, Owner, take_claim
from gift_cl.files import replacing
from gift_cl.sealed import sha256
from gift_cl.soft_labels import SoftLabels

COMMAND = "command"
"""Name of the hash, in the provenance of a part and of the whole, of what was asked for."""


@dataclass(frozen=True)
class Part:
    """What is made together.

    Args:
        classes: Ascending.
        first: Exemplars of each class that are made in other parts, before.
        count: Exemplars of each class.
    """

    classes: tuple[int, ...]
    first: int
    count: int

    @property
    def name(self) -> str:
        """Of its file."""
        of_classes = f"{self.classes[0]:05d}-{self.classes[-1]:05d}"
        return f"{of_classes}-from-{self.first:05d}" if self.first else of_classes


def command_digest(command: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked for; JSON has to hold it."""
    return sha256(json.dumps(command, sort_keys=True).encode())


class PartsFolder:
    """A folder of parts; open it with `begin`.

    Args:
        path: Where it is, or will be.
        command: What is asked for, by name; JSON has to hold it.
    """

    def __init__(self, path: str | os.PathLike[str], command: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.command = dict(command)

    @property
    def has_begun(self) -> bool:
        """Whether somebody works here, or did and was stopped."""
        return self._command_file.exists()

    @property
    def _command_file(self) -> Path:
        return self.path / "command.json"

    def begin(self) -> None:
        """Make the folder, or go on with the parts that it holds.

        Raises:
            LayoutError: If they are parts of another command, or nobody knows of which.
            OSError: If the folder cannot be written.
        """
        try:
            found = json.loads(self._command_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            self._require_no_parts()
            with replacing(self._command_file) as temporary:
                temporary.write_text(json.dumps(self.command, indent=2) + "\n")
            return
        except ValueError:
            found = None
        if found != self.command:
            raise LayoutError(
                f"The folder `{self.path}` is of another command{self._difference(found)}. Finish "
                "that one, remove the folder, or write another file."
            )

    def _require_no_parts(self) -> None:
        if parts := sorted(self.path.glob("*.safetensors")):
            raise LayoutError(
                f"The folder `{self.path}` holds {parts[0].name}, and does not say of which command. Remove "
                "it, or write another file."
            )

    def _difference(self, found: object) -> str:
        for name, value in self.command.items():
            if isinstance(found, dict) and found.get(name) != value:
                return f": its `{name}` is {found.get(name)!r}, not {value!r}"
        return ""

    def has(self, part: Part) -> bool:
        """Whether a part is finished."""
        return self._file(part).exists()

    def claim(self, part: Part) -> Claim | Owner:
        """The right to make a part, or who has it; see `take_claim`."""
        return self._claim(part.name)

    def claim_all(self) -> Claim | Owner:
        """The right to join the parts, or who has it."""
        return self._claim("all")

    def _claim(self, name: str) -> Claim | Owner:
        while True:
            with suppress(FileNotFoundError):  # the folder has just gone, and is made again
                return take_claim(self.path / "claims", name)

    def save(self, part: Part, made: DistilledDataset) -> None:
        """Write a part, whose provenance has the hash of the command.

        Raises:
            OSError: If it cannot be written, or the disk is full.
        """
        save_or_explain(made, self._file(part))

    def join(self, parts: Sequence[Part]) -> DistilledDataset:
        """All parts as one data set, once each has been verified; they stay.

        Raises:
            DamagedFileError: If a part is damaged, or of another command.
        """
        return join_parts([self._load(part) for part in parts])

    def _load(self, part: Part) -> DistilledDataset:
        file = self._file(part)
        cure = f"Remove `{file}`, and start the same command again: it makes this part anew."
        try:
            made = load_dataset(file)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error} {cure}") from error
        if made.provenance.hashes.get(COMMAND) != command_digest(self.command):
            raise DamagedFileError(f"A part is of another command. {cure}")
        if made.images_per_class != dict.fromkeys(part.classes, part.count):
            raise DamagedFileError(f"A part holds other exemplars than its name says. {cure}")
        return made

    def remove(self) -> None:
        """Remove the folder and all that it holds, at once for those who look."""
        scratch = tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            os.replace(self.path, Path(scratch, "parts"))
        finally:
            shutil.rmtree(scratch)

    def tidy(self) -> None:
        """Remove the folder if it holds neither a part nor a claim."""
        with suppress(OSError):
            (self.path / "claims").rmdir()
            if not any(self.path.glob("*.safetensors")):
                self._command_file.unlink(missing_ok=True)
                self.path.rmdir()

    def _file(self, part: Part) -> Path:
        return self.path / f"{part.name}.safetensors"


def join_parts(parts: Sequence[DistilledDataset]) -> DistilledDataset:
    """One data set of parts, class after class; exemplars of a class in the order of the parts.

    Args:
        parts: At least one. A normalisation that they do not share is left out.

    Raises:
        ValueError: If they are of different kinds: codec, shape, mosaic factor, space, learned rate, or views
            of soft labels.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for name in ("num_classes", "factor", "space", "learned_lr"):
        values = {getattr(part, name) for part in parts}
        if len(values) > 1:
            raise ValueError(f"Expected parts of one `{name}`, got {', '.join(map(str, values))}.")
    joined = replace(
        first,
        encoded=concat([part.encoded for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        soft_labels=_join_soft_labels([part.soft_labels for part in parts]),
        normalization=first.normalization if len({part.normalization for part in parts}) == 1 else None,
    )
    order = joined.labels.argsort(stable=True)
    return joined if bool((order.diff() == 1).all()) else joined.select(order)


def _join_soft_labels(parts: Sequence[SoftLabels | None]) -> SoftLabels | None:
    stored = [part for part in parts if part is not None]
    if not stored:
        return None
    views = [part.views for part in stored if part.views is not None]
    if len(stored) < len(parts) or len({part.num_views for part in stored}) > 1:
        raise ValueError("Expected parts with soft labels of equally many views, got others.")
    covered = {label: columns for part in stored for label, columns in part.covered.items()}
    values = torch.cat([part.values for part in stored])
    return SoftLabels(values, covered, stored[0].num_views, torch.cat(views) if views else None)


def save_or_explain(dataset: DistilledDataset, path: Path) -> None:
    """`save_dataset`, with an error that says too what is kept when the disk is full.

    Raises:
        OSError: If the file cannot be written; the message names it.
    """
    try:
        save_dataset(dataset, path)
    except OSError as error:
        raise OSError(f"{error} What is finished is kept: start the same command again to go on.") from error
