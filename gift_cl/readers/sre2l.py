"""SRe2L, CDA and G-VBSM: image files of numbered classes, in the same layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.progress import Progress
from gift_cl.readers.decoding import check_options, read_images
from gift_cl.readers.ipc import check_separable
from gift_cl.readers.numbered import Numbering, find_images, find_root, first_images
from gift_cl.readers.tree import find_roots, names_above

Method = Literal["sre2l", "cda", "gvbsm"]

_NUMBERING = Numbering(prefix="new", class_digits=(3, 5), id_digits=3)
_METHODS = {  # words in the name of a folder
    "sre2l": re.compile(r"(?<![a-z0-9])sre2l(?![a-z0-9])"),
    "cda": re.compile(r"(?<![a-z0-9])cda(?![a-z0-9])"),
    "gvbsm": re.compile(r"(?<![a-z0-9])g[-_]?vbsm(?![a-z0-9])"),
}
_UNKNOWN = "sre2l/cda/gvbsm"
_NAMES_ABOVE = 3  # folders whose names may say the method: that of the classes, and those that it lies in


@dataclass(frozen=True)
class SRe2LReader:
    """Reads ``new{class}/class{class}_id{image}`` as JPEG or PNG files, at any depth.

    The first ``ipc`` images of each class are a data set of their own where SRe2L or CDA made them, one after
    the other. G-VBSM optimises those of a class together.

    Args:
        codec: How to keep the images: ``files`` as they are, or their pixels by a codec.
        method: Which of the three made them. By default it is taken from the names of the folders, or stays
            unknown: the files do not say.
        workers: As in `read_images`.

    Raises:
        ValueError: If an option is none of these.

    Source:
        Yin et al., SRe2L, NeurIPS 2023; Yin & Shen, CDA, 2023 (classes of ImageNet-21K have five digits);
        Shao et al., G-VBSM, CVPR 2024 (PNG files for small images). What VILA-Lab/SRe2L@8d00cba and
        shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0 write.
    """

    codec: str = "files"
    method: Method | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        check_options(self.codec, self.workers)
        if self.method is not None and self.method not in get_args(Method):
            raise ValueError(f"Expected `method` sre2l, cda or gvbsm, got {self.method!r}.")

    @property
    def spec(self) -> str:
        """Name and options."""
        return (self.method or "sre2l") + ("" if self.codec == "files" else f":codec={self.codec}")

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`."""
        return bool(find_roots(path, _NUMBERING.is_class_folder))

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`."""
        root = find_root(path, _NUMBERING)
        method, how = self._method(root)
        files, labels = find_images(root, _NUMBERING)
        if ipc is not None and ipc < len(files) // (int(labels[-1]) + 1):
            check_separable(method, ipc, factor=1, where=str(root))
        files, labels = first_images(files, labels, ipc, where=root)
        encoded, digest = read_images(root, files, codec=self.codec, workers=self.workers, progress=progress)
        return DistilledDataset(
            encoded=encoded,
            labels=labels,
            num_classes=int(labels[-1]) + 1,
            provenance=Provenance(
                method=method,
                source=f"{root} (method {how})",
                teacher="unknown",
                hashes={"tree": digest},
            ),
        )

    def _method(self, root: Path) -> tuple[str, str]:
        """The method, and how it is known."""
        if self.method is not None:
            return self.method, "as given"
        for folder in names_above(root, _NAMES_ABOVE):
            named = [name for name, word in _METHODS.items() if word.search(folder.lower())]
            if len(named) == 1:
                return named[0], f"by the name of the folder {folder}"
        return _UNKNOWN, "unknown"
