"""RDED: crops of real images, or mosaics of them, as numbered image files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.errors import LayoutError
from gift_cl.progress import Progress
from gift_cl.readers.decoding import check_options, read_images
from gift_cl.readers.ipc import check_separable
from gift_cl.readers.numbered import Numbering, find_images, find_root, first_images
from gift_cl.readers.tree import find_roots, names_above, subfolders

_NUMBERING = Numbering(prefix="", class_digits=(5,), id_digits=5)
_FACTOR = re.compile(r"(?:.*_)?f(?P<factor>[1-9][0-9]?)(?:_.*)?")
_EXPERIMENT = re.compile(
    r"(?P<subset>[^_]+)_(?P<arch>.+)_f(?P<factor>[0-9]+)_mipc(?P<mipc>[0-9]+)_ipc(?P<ipc>[0-9]+)"
    r"_cr(?P<crops>[0-9]+)"
)
_NAMES_ABOVE = 3  # folders whose names may say the factor: that of the classes, and those that it lies in


@dataclass(frozen=True)
class RDEDReader:
    """Reads ``{class}/class{class}_id{image}.jpg``, five digits each, at any depth.

    Images of factor 1 are sorted by the teacher's loss, so the first ``ipc`` of each class are a data set of
    their own. Patches of mosaics are dealt out by the number of images, so fewer mosaics are none.

    Args:
        factor: Patches along a side of a mosaic. By default it is taken from the name of the folder,
            ``{subset}_{arch}_f{factor}_mipc{..}_ipc{..}_cr{..}``, as the files do not say.
        codec: How to keep the images: ``files`` as they are, or their pixels by a codec.
        workers: As in `read_images`.

    Raises:
        ValueError: If an option is none of these.

    Source:
        Sun et al., RDED, CVPR 2024; what LINs-lab/RDED@3f6453d writes below ``exp/{..}/syn_data``.
    """

    factor: int | None = None
    codec: str = "files"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_options(self.codec, self.workers)
        if self.factor is not None and (type(self.factor) is not int or self.factor < 1):
            raise ValueError(f"Expected `factor` as a number of at least 1, got {self.factor!r}.")

    @property
    def spec(self) -> str:
        """Name and options."""
        options = [] if self.factor is None else [f"factor={self.factor}"]
        options += [] if self.codec == "files" else [f"codec={self.codec}"]
        return "rded" + (":" + ",".join(options) if options else "")

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`."""
        return any(map(_holds_images, find_roots(path, _NUMBERING.is_class_folder)))

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`."""
        root = find_root(path, _NUMBERING)
        folders = names_above(root, _NAMES_ABOVE)
        factor = self._factor(root, folders)
        files, labels = find_images(root, _NUMBERING)
        num_classes = int(labels[-1]) + 1
        full_ipc = len(files) // num_classes
        experiment = next(filter(None, map(_EXPERIMENT.fullmatch, folders)), None)
        if experiment is not None and int(experiment["ipc"]) != full_ipc:
            raise LayoutError(
                f"Expected {experiment['ipc']} images of each class in `{root}`, as the folder "
                f"{experiment[0]} says, got {full_ipc}. Get the files again, or rename the folder."
            )
        if ipc is not None and ipc < full_ipc:
            check_separable(f"rded:factor={factor}", ipc, factor=factor, where=str(root))
        files, labels = first_images(files, labels, ipc, where=root)
        encoded, digest = read_images(root, files, codec=self.codec, workers=self.workers, progress=progress)
        _, height, width = encoded.image_shape
        if height % factor or width % factor:
            raise LayoutError(
                f"Expected images in `{root}` that divide into {factor} x {factor} patches, got {height} x "
                f"{width} pixels. Give the `factor` that they were made with."
            )
        return DistilledDataset(
            encoded=encoded,
            labels=labels,
            num_classes=num_classes,
            factor=factor,
            provenance=_provenance(root, factor, experiment, digest),
        )

    def _factor(self, root: Path, folders: list[str]) -> int:
        """The factor that is given or named."""
        named = [int(match["factor"]) for match in filter(None, map(_FACTOR.fullmatch, folders))]
        if self.factor is None and not named:
            raise LayoutError(
                f"The mosaic factor of the images in `{root}` is not known: no folder is named like "
                "cifar10_conv3_f1_mipc300_ipc10_cr5. Give it: `rded:factor=1` for CIFAR and Tiny ImageNet, "
                "`rded:factor=2` for larger images."
            )
        if self.factor is not None and named and named[0] != self.factor:
            raise LayoutError(
                f"Expected `factor` {named[0]} for the images in `{root}`, as their folder's name says, got "
                f"{self.factor}. Leave it out, or rename the folder."
            )
        return named[0] if self.factor is None else self.factor


def _holds_images(root: Path) -> bool:
    """Whether the first folder of a class holds an image so named, as no folder of real images does."""
    try:
        folder = next(filter(_NUMBERING.is_class_folder, subfolders(root)))
        return any(_NUMBERING.match(f"{folder}/{entry.name}") for entry in (root / folder).iterdir())
    except (OSError, StopIteration):
        return False


def _provenance(root: Path, factor: int, experiment: re.Match[str] | None, digest: str) -> Provenance:
    method, source, teacher = f"rded:factor={factor}", str(root), "unknown"
    if experiment is not None:
        method += f",crops={experiment['crops']}"
        source += f" ({experiment['subset']}, {experiment['mipc']} images of each class scored)"
        teacher = experiment["arch"]
    return Provenance(method=method, source=source, teacher=teacher, hashes={"tree": digest})
