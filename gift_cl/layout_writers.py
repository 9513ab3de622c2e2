"""Distilled images in the layouts of others, for their code: the counterpart of the readers."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from gift_cl.codecs import Jpeg, Png
from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DATM, DISTILLERS, RDED
from gift_cl.evaluation.labelling import stored_labels
from gift_cl.files import explaining_writes
from gift_cl.progress import Progress, silent
from gift_cl.registry import Registry
from gift_cl.teacher import as_float

FileKind = Literal["jpg", "png"]
"""JPEG of quality 75, as all published images are; or PNG, which loses nothing."""

_CODECS = {"jpg": Jpeg(75), "png": Png()}
_CHUNK = 256
_SMALL = 64  # pixels a side


class LayoutWriter(Protocol):
    """Writes one layout; a frozen record of its options."""

    def check_method(self, method: str) -> None:
        """Raise ``ValueError`` if images of this method cannot be laid out so."""

    def write(self, dataset: DistilledDataset, folder: Path, *, data: str, model: str) -> Iterator[int]:
        """Write into an empty folder; yields how many images are done.

        Args:
            dataset: Equally many images of each class, class after class.
            folder: Where to.
            data: Name of the real data, usable in the name of a file, without ``_``.
            model: Name of the teacher's network, likewise.
        """


def write_layout(
    dataset: DistilledDataset,
    folder: str | os.PathLike[str],
    layout: str,
    *,
    data: str,
    model: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> None:
    """Write images as the authors of a method lay them out; the folder appears when all of it is there.

    Args:
        dataset: Equally many images of each class, class after class.
        folder: Holds what the authors' code writes for one experiment.
        layout: A spec of `LAYOUTS`: ``"sre2l"``, ``"rded:png"``.
        data: Name of the real data.
        model: Network of the teacher; options do not matter here.
        overwrite: Replace the folder if it is there.
        progress: Told of the images that are done.

    Raises:
        ValueError: If the layout is unknown, or not for these images.
        FileExistsError: If the folder is there already.
        OSError: If it cannot be written.
    """
    writer = LAYOUTS.create(layout)
    writer.check_method(dataset.provenance.method)
    expected = torch.arange(dataset.num_classes).repeat_interleave(len(dataset) // dataset.num_classes)
    if not len(dataset) or not torch.equal(dataset.labels, expected):
        raise ValueError(
            f"Expected equally many images of each of {dataset.num_classes} classes, class after class, for "
            f"the layout `{layout}`, got {dataset.images_per_class}."
        )
    with _new_folder(Path(folder), overwrite=overwrite) as inside, explaining_writes(folder, at=inside):
        names = {"data": _plain(data), "model": _plain((model or "none").partition(":")[0])}
        for done in writer.write(dataset, inside, **names):
            progress(done, len(dataset))


@dataclass(frozen=True)
class SRe2LWriter:
    """``{method}/new{class}/class{class}_id{image}``, for SRe2L, CDA and G-VBSM.

    Args:
        files: Kind of the files; by default what was published.
        small: What was published for images of up to 64 pixels; larger ones are JPEG files.

    Source:
        VILA-Lab/SRe2L@8d00cba, JPEG files; shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0, PNG files for
        CIFAR and Tiny-ImageNet. Deliberate difference: they truncate pixels; here these are as stored.
    """

    files: FileKind | None = None
    small: FileKind = "jpg"

    def __post_init__(self) -> None:
        _check_files(self.files)

    def check_method(self, method: str) -> None:
        """Images of any method will do; the name of the folder says whose they are."""

    def write(self, dataset: DistilledDataset, folder: Path, *, data: str, model: str) -> Iterator[int]:
        """See `LayoutWriter.write`."""
        del data, model
        is_small = max(dataset.encoded.image_shape[1:]) <= _SMALL
        kind = self.files or (self.small if is_small else "jpg")
        digits = 3 if dataset.num_classes <= 1000 else 5
        root = folder / _plain(dataset.provenance.method.partition(":")[0])
        return _write_images(dataset, root, kind, prefix="new", digits=(digits, 3))


@dataclass(frozen=True)
class RDEDWriter:
    """``{data}_{model}_f{factor}_mipc{sources}_ipc{ipc}_cr{crops}/syn_data/{class}/class{class}_id{image}``.

    Args:
        files: Kind of the files.

    Source:
        LINs-lab/RDED@3f6453d, below ``exp``; JPEG files.
    """

    files: FileKind = "jpg"

    def __post_init__(self) -> None:
        _check_files(self.files)

    def check_method(self, method: str) -> None:
        """Only RDED has the numbers that the folder is named by."""
        if method.partition(":")[0] != "rded":
            raise ValueError(
                f"Expected images of `rded` for its layout, got some of `{method}`. Choose `sre2l` or `gift`."
            )

    def write(self, dataset: DistilledDataset, folder: Path, *, data: str, model: str) -> Iterator[int]:
        """See `LayoutWriter.write`."""
        made_by = DISTILLERS.create(dataset.provenance.method)
        assert isinstance(made_by, RDED)
        name = f"{data}_{model}_f{dataset.factor}_mipc{made_by.sources}_ipc{_ipc(dataset)}_cr{made_by.crops}"
        return _write_images(dataset, folder / name / "syn_data", self.files, prefix="", digits=(5, 5))


@dataclass(frozen=True)
class DATMWriter:
    """``images_best.pt``, ``labels_best.pt`` and ``lr_best.pt``: float32 values, logits, learning rate.

    Source:
        NUS-HPC-AI-Lab/DATM@97ae510, below ``logged_files``.
    """

    def check_method(self, method: str) -> None:
        """Only DATM learns labels and a learning rate; students of their code see whitened images."""
        if method.partition(":")[0] != "datm":
            raise ValueError(
                f"Expected images of `datm` for its layout, got some of `{method}`. Choose `sre2l` or `gift`."
            )
        made_by = DISTILLERS.create(method)
        if isinstance(made_by, DATM) and not made_by.zca:
            raise ValueError(
                f"Expected whitened images for the layout `datm`, got pixels of `{method}`, which students "
                "of its code would see without normalisation. Use `datm:zca=true`, or the layout `gift`."
            )

    def write(self, dataset: DistilledDataset, folder: Path, *, data: str, model: str) -> Iterator[int]:
        """See `LayoutWriter.write`."""
        if dataset.learned_lr is None:
            raise ValueError("Expected a `learned_lr` for the layout `datm`, got none.")
        place = folder / data / str(_ipc(dataset)) / model / "run" / "Normal"
        place.mkdir(parents=True)
        torch.save(as_float(dataset.images), place / "images_best.pt")
        torch.save(stored_labels(dataset).float(), place / "labels_best.pt")
        torch.save(torch.tensor(dataset.learned_lr), place / "lr_best.pt")
        yield len(dataset)


@dataclass(frozen=True)
class GIFTWriter:
    """``{method}/{data}_{model}/ipc{ipc}/data.pt``: float32 pixels in [0, 1] and labels.

    Source:
        LINs-lab/GIFT@38db552, below ``syn_data``. Soft labels take the place of hard ones for DATM only.
    """

    def check_method(self, method: str) -> None:
        """Images of any method will do."""

    def write(self, dataset: DistilledDataset, folder: Path, *, data: str, model: str) -> Iterator[int]:
        """See `LayoutWriter.write`."""
        method = dataset.provenance.method.partition(":")[0]
        place = folder / _plain(method) / f"{data}_{model}" / f"ipc{_ipc(dataset)}"
        place.mkdir(parents=True)
        labels = stored_labels(dataset).float() if method == "datm" else dataset.labels
        torch.save({"dataset": data, "data": as_float(dataset.images), "label": labels}, place / "data.pt")
        yield len(dataset)


LAYOUTS: Registry[LayoutWriter] = Registry("layout to write")
LAYOUTS.add("sre2l", SRe2LWriter, reference="VILA-Lab/SRe2L@8d00cba")
LAYOUTS.add("cda", SRe2LWriter, reference="VILA-Lab/SRe2L@8d00cba, CDA/")
LAYOUTS.add(
    "gvbsm",
    partial(SRe2LWriter, small="png"),
    reference="shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0",
)
LAYOUTS.add("rded", RDEDWriter, reference="LINs-lab/RDED@3f6453d")
LAYOUTS.add("datm", DATMWriter, reference="NUS-HPC-AI-Lab/DATM@97ae510")
LAYOUTS.add("gift", GIFTWriter, reference="data.pt of LINs-lab/GIFT@38db552")


def _write_images(
    dataset: DistilledDataset, root: Path, kind: FileKind, *, prefix: str, digits: tuple[int, int]
) -> Iterator[int]:
    """``{prefix}{class}/class{class}_id{image}``, with numbers of ``digits`` digits."""
    ipc = _ipc(dataset)
    for index, data in enumerate(_image_files(dataset, kind)):
        label, number = divmod(index, ipc)
        path = root / f"{prefix}{label:0{digits[0]}d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"class{label:0{digits[0]}d}_id{number:0{digits[1]}d}.{kind}").write_bytes(data)
        yield index + 1


def _image_files(dataset: DistilledDataset, kind: FileKind) -> Iterator[bytes]:
    """Whole files; JPEG or PNG images that are stored as such are not encoded again."""
    if dataset.space != "pixels":
        raise ValueError("Expected pixels for image files, got whitened images. Choose `datm` or `gift`.")
    codec, name = _CODECS[kind], dataset.encoded.codec.partition(":")[0]
    is_kept = name == codec.spec.partition(":")[0]
    for chunk in torch.arange(len(dataset)).split(_CHUNK):
        part = dataset.encoded.select(chunk)
        if not is_kept:
            part = codec.encode(_as_uint8(part.decode()))
        shared = part.shared.numpy().tobytes()
        yield from (codec.container.join(shared, stream) for stream in part.streams())


def _as_uint8(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def _ipc(dataset: DistilledDataset) -> int:
    return len(dataset) // dataset.num_classes


def _plain(name: str) -> str:
    """The last part of a name or path, with nothing in it that means something in the name of a file."""
    last = Path(name).name.removesuffix(".zip")
    return re.sub(r"[^A-Za-z0-9.-]", "-", last).lstrip(".") or "data"


def _check_files(kind: str | None) -> None:
    if kind is not None and kind not in get_args(FileKind):
        raise ValueError(f"Expected `files` jpg or png, got {kind!r}.")


@contextmanager
def _new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder that takes the place of ``folder`` when the block ends without an error."""
    if folder.exists() and not overwrite:
        raise FileExistsError(f"The folder `{folder}` is there already. Choose another name, or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.")
    except OSError as error:
        raise OSError(
            f"Cannot write into `{folder.parent}`: {error.strerror}. Choose a folder that you may write to."
        ) from error
    inside = Path(scratch, "new")
    try:
        inside.mkdir()  # with the permissions of a new folder, while the one around it is private
        yield inside
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        inside.rename(folder)
    finally:
        shutil.rmtree(scratch)
