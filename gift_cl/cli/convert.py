"""`gift-cl convert`: a published data set as one safe file."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from gift_cl.cli.options import (
    add_data_options,
    add_teacher_options,
    build_teacher,
    open_labels,
    read,
)
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.cli.targets import check_targets
from gift_cl.cli.teacher_report import ask_teacher
from gift_cl.codecs import build_codec, recode
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import save_dataset
from gift_cl.files import sha256_of_file
from gift_cl.label_streams import pack_stream

_PROGRAM = (
    "Read a distilled data set, check every file of it, and write it as one safetensors file, with where it "
    "comes from and the SHA-256 of its sources. The images are kept as published (JPEG and PNG files stay "
    "what they are, byte by byte) unless a codec is given. Soft labels given with --labels are packed into a "
    "second file beside it, OUT.labels.safetensors. Nothing is written before all of it has been checked."
)
_EXAMPLES = """examples:
  gift-cl convert sre2l_tiny_rn18_4k_ipc100.zip tiny.safetensors
  gift-cl convert syn_data rded.safetensors --layout rded:factor=2 --codec raw
  gift-cl convert new_data in1k.safetensors --labels FKD_cutmix_fp16
  gift-cl convert syn_data out.safetensors --teacher t.pth --model conv3 --normalization imagenet --reorder
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "convert",
        help="write a published data set as one safe file",
        description=fill(_PROGRAM, 100),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write, usually .safetensors")
    parser.add_argument(
        "--codec",
        metavar="SPEC",
        help="how to store the images: raw (fastest to read), png, jpeg:Q, webp:Q, … (default: as published)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    add_teacher_options(parser)
    parser.add_argument(
        "--reorder", action="store_true", help="rename the classes so that the labels fit the teacher"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write ``options.out``."""
    labels_out = options.out.with_name(options.out.stem + ".labels.safetensors") if options.labels else None
    _check_options(options)
    check_targets(options.out, labels_out, overwrite=options.overwrite)
    dataset = read(options)
    stream = open_labels(options, dataset)
    dataset, said = _reorder(options, dataset)
    if options.codec:
        with progress_bar("encoding") as progress:
            encoded = recode(dataset.encoded, build_codec(options.codec), progress=progress)
            dataset = replace(dataset, encoded=encoded)
    written = {}
    if stream is not None and labels_out is not None:
        with progress_bar("labels", unit="batches") as progress:
            pack_stream(stream, labels_out, dataset=dataset, progress=progress)
        written["labels"] = _receipt(labels_out)
    save_dataset(dataset, options.out)
    written["images"] = _receipt(options.out)
    if options.json:
        print(json.dumps({"written": written, "teacher": said}, indent=2))
        return
    if said:
        print(said["text"])
    for receipt in written.values():
        print(f"{receipt['path']}  {receipt['bytes']:,} bytes  sha256 {receipt['sha256']}")


def _check_options(options: argparse.Namespace) -> None:
    if options.reorder and options.teacher is None:
        raise ValueError("Expected `--teacher` with `--reorder`: the order is the one of its outputs.")
    if options.reorder and options.labels:
        raise ValueError("Expected no `--labels` with `--reorder`: the stream holds logits in the old order.")


def _reorder(
    options: argparse.Namespace, dataset: DistilledDataset
) -> tuple[DistilledDataset, dict[str, Any] | None]:
    """The data set in the teacher's order, if asked for, and what the teacher said."""
    teacher = build_teacher(options, dataset)
    if teacher is None:
        return dataset, None
    with progress_bar("asking the teacher") as progress:
        order, said = ask_teacher(teacher, dataset, progress=progress)
    if not options.reorder or order.is_identity:
        return dataset, said
    provenance = dataset.provenance
    source = f"{provenance.source}; classes reordered to those of {Path(options.teacher).name}"
    dataset = replace(dataset.reordered(order.permutation), provenance=replace(provenance, source=source))
    return dataset, said


def _receipt(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
