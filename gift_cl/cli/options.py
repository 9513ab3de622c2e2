"""Options that several subcommands share: distilled and real data, and which teacher to ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from gift_cl.cli.progress_bar import progress_bar
from gift_cl.dataset import DistilledDataset
from gift_cl.errors import LayoutError
from gift_cl.label_streams import FKDStream, LabelStream, open_stream
from gift_cl.label_streams.stream import labels_sha256
from gift_cl.normalization import NORMALIZATIONS
from gift_cl.readers import READERS, read_dataset
from gift_cl.teacher import Teacher
from gift_cl.teacher_file import load_teacher

PATH_HELP = (
    "a folder, file, or zip or tar archive of a distilled data set: SRe2L, CDA or G-VBSM images "
    "(new000/class000_id000.jpg), RDED images (00000/class00000_id00000.jpg), DATM tensors (images_best.pt, "
    "labels_best.pt, lr_best.pt), GIFT's data.pt, <class>/<image> folders, or a .safetensors file of gift-cl"
)
NORMALIZATION_HELP = (
    f"{', '.join(NORMALIZATIONS)}, or means and standard deviations as in 0.5,0.5,0.5/0.2,0.2,0.2"
)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """What to read, and how."""
    parser.add_argument("path", metavar="PATH", help=PATH_HELP)
    parser.add_argument(
        "--layout",
        metavar="SPEC",
        help=f"how it is laid out, with options, such as rded:factor=2; one of {', '.join(READERS.names())} "
        "(default: found by looking)",
    )
    parser.add_argument(
        "--ipc",
        type=int,
        metavar="N",
        help="only the first N images of each class, for methods that make them so that fewer are a data "
        "set of their own (default: all)",
    )
    parser.add_argument(
        "--labels",
        metavar="FOLDER",
        help="soft labels of these images: a folder as SRe2L or G-VBSM publish it (epoch_0/batch_0.tar, …), "
        "or a packed file",
    )


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, and what is needed to use it."""
    group = parser.add_argument_group(
        "teacher", "a trained network whose predictions are compared with the labels"
    )
    group.add_argument(
        "--teacher",
        metavar="CHECKPOINT",
        help="a file of `gift-cl teacher train`, or weights as published (.pth)",
    )
    group.add_argument(
        "--model", metavar="SPEC", help="architecture of published weights: conv3, resnet18_modified, …"
    )
    group.add_argument(
        "--normalization",
        metavar="NAME",
        help=f"what published weights expect of pixels in [0, 1]: {NORMALIZATION_HELP}",
    )
    group.add_argument("--device", default="cpu", help="where it runs (default: cpu)")


def add_real_data_options(parser: argparse.ArgumentParser) -> None:
    """Real images, and where to compute with them."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        required=True,
        help="digits, cifar10, cifar100, tinyimagenet, imagenet-1k, …; or a folder or zip with "
        "train/<class>/ and test/<class>/",
    )
    parser.add_argument("--root", metavar="DIR", help="folder of all data (default: $GIFT_CL_DATA, or data)")
    parser.add_argument(
        "--image-size",
        metavar="N",
        type=int,
        help="pixels a side (default: what the teacher takes, or images as they are)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1 (default: cuda if there is one; processes of torchrun take a card each)",
    )


def read(options: argparse.Namespace) -> DistilledDataset:
    """The data set that the options name, with progress."""
    with progress_bar("reading") as progress:
        return read_dataset(options.path, options.layout, ipc=options.ipc, progress=progress)


def build_teacher(options: argparse.Namespace, dataset: DistilledDataset) -> Teacher | None:
    """The teacher that the options name, for the images of a data set; None without one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an option is missing, or the teacher does not fit the images.
    """
    if options.teacher is None:
        return None
    return load_teacher(
        options.teacher,
        device=options.device,
        model=options.model,
        normalization=options.normalization,
        num_classes=dataset.num_classes,
        image_shape=dataset.encoded.image_shape,
    ).teacher


def open_labels(options: argparse.Namespace, dataset: DistilledDataset) -> LabelStream | None:
    """The stream of soft labels that the options name, matched with its images; None without one."""
    if options.labels is None:
        return None
    if Path(options.labels).is_file():
        stream = open_stream(options.labels)
        if stream.facts.labels_sha256 != labels_sha256(dataset):
            raise LayoutError(
                f"Expected the images that `{options.labels}` was packed for, got others in "
                f"`{options.path}`. Give those images, all of them."
            )
        return stream
    with progress_bar("labels", unit="files") as progress:
        return FKDStream.open(options.labels, dataset, progress=progress)
