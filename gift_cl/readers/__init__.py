"""Readers of published distilled data sets, by name or by looking at what is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from gift_cl.archives import is_archive, unpack
from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError, ReadError
from gift_cl.files import sha256_of_file
from gift_cl.progress import Progress, silent
from gift_cl.readers.datm import DATMReader
from gift_cl.readers.gift_pt import GIFTReader
from gift_cl.readers.image_folder import ImageFolderReader
from gift_cl.readers.ipc import check_ipc
from gift_cl.readers.native import NativeReader
from gift_cl.readers.protocol import Reader
from gift_cl.readers.rded import RDEDReader
from gift_cl.readers.sre2l import SRe2LReader
from gift_cl.registry import Registry

READERS: Registry[Reader] = Registry("layout")
READERS.add("gift-cl", NativeReader, reference="docs/formats.md")
READERS.add("datm", DATMReader, reference="NUS-HPC-AI-Lab/DATM@97ae510")
READERS.add("gift", GIFTReader, reference="data.pt of LINs-lab/GIFT@38db552")
READERS.add("rded", RDEDReader, reference="LINs-lab/RDED@3f6453d")
READERS.add("sre2l", partial(SRe2LReader, method="sre2l"), reference="VILA-Lab/SRe2L@8d00cba")
READERS.add("cda", partial(SRe2LReader, method="cda"), reference="VILA-Lab/SRe2L@8d00cba, CDA/")
READERS.add(
    "gvbsm",
    partial(SRe2LReader, method="gvbsm"),
    reference="shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0",
)
READERS.add("folder", ImageFolderReader, reference="torchvision's ImageFolder")


def read_dataset(
    path: str | os.PathLike[str],
    layout: str | None = None,
    *,
    ipc: int | None = None,
    progress: Progress = silent,
) -> DistilledDataset:
    """A distilled data set as its authors published it, or as `save_dataset` wrote it.

    Nothing in the files is executed, and every file is checked. An archive is unpacked into a temporary
    folder first.

    Args:
        path: A folder, a file, or an archive (zip or tar) of one.
        layout: A spec of `READERS`, such as ``"sre2l"`` or ``"rded:factor=2"``; found by looking if None.
        ipc: Only the first ``ipc`` images of each class, where the method makes them so that fewer are a
            data set of their own.
        progress: Told of the images that are done.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If ``layout`` is unknown, or ``ipc`` less than 1.
        ReadError: If something is wrong with the files; the message names the file and the cure.
    """
    check_ipc(ipc)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No distilled data set at `{path}`.")
    reader = None if layout is None else READERS.create(layout)
    read = partial(_read, reader=reader, ipc=ipc, progress=progress)
    return _read_archive(path, read) if is_archive(path) else read(path)


def find_reader(path: str | os.PathLike[str]) -> Reader:
    """The reader that recognizes what is at ``path``.

    Raises:
        LayoutError: If none does, or several do; the message says what was looked for.
    """
    path = Path(path)
    found = [name for name, reader in _LOOKED_FOR.items() if reader.recognizes(path)]
    if len(found) > 1:
        raise LayoutError(
            f"Expected one data set at `{path}`, got some that look like {' and '.join(found)}. Give the "
            "folder of one of them, or say which by `layout`."
        )
    if found:
        return _LOOKED_FOR[found[0]]
    if (folders := ImageFolderReader()).recognizes(path):  # as most others do, too
        return folders
    if any(any(path.glob("*/" * depth + "epoch_0/batch_0.tar")) for depth in range(3)):
        raise LayoutError(
            f"The folder `{path}` holds soft labels (epoch_*/batch_*.tar) and no images. Give the folder of "
            "the images, and this one as its labels: `gift-cl show IMAGES --labels LABELS`."
        )
    raise LayoutError(
        f"No known layout at `{path}`: {_what_is_there(path)}. Known are {_LAYOUTS}. If it is one of them, "
        "give the folder that holds just these, or say which it is with `layout`."
    )


_LOOKED_FOR: dict[str, Reader] = {
    "gift-cl": NativeReader(),
    "datm": DATMReader(),
    "gift": GIFTReader(),
    "rded": RDEDReader(),
    "sre2l": SRe2LReader(),  # or CDA or G-VBSM: their files look the same
}
_LAYOUTS = (
    "new000/class000_id000.jpg (sre2l, cda, gvbsm), 00000/class00000_id00000.jpg (rded), images_best.pt "
    "with labels_best.pt and lr_best.pt (datm), data.pt (gift), <class>/<image> (folder), and .safetensors "
    "(gift-cl)"
)


def _read(path: Path, *, reader: Reader | None, ipc: int | None, progress: Progress) -> DistilledDataset:
    return (reader or find_reader(path)).read(path, ipc=ipc, progress=progress)


def _read_archive(path: Path, read: Callable[[Path], DistilledDataset]) -> DistilledDataset:
    """What is in an archive; messages name the archive, not the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="gift-cl-") as folder:
        inside = Path(folder, path.name)
        unpack(path, inside)
        try:
            dataset = read(inside)
        except ReadError as error:
            raise type(error)(str(error).replace(str(inside), str(path))) from error
    provenance = dataset.provenance
    hashes = {path.name: sha256_of_file(path), **provenance.hashes}
    source = provenance.source.replace(str(inside), str(path))
    return replace(dataset, provenance=replace(provenance, source=source, hashes=hashes))


def _what_is_there(path: Path) -> str:
    if path.is_file():
        return f"a file of {path.stat().st_size} bytes"
    with os.scandir(path) as entries:
        names = sorted(entry.name for _, entry in zip(range(1000), entries, strict=False))
    if not names:
        return "an empty folder"
    return "it holds " + ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
