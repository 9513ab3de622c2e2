"""`gift-cl show`: what a distilled data set is, in words, in JSON, and as a picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
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
from gift_cl.cli.teacher_report import ask_teacher
from gift_cl.dataset import DistilledDataset
from gift_cl.facts import Facts, describe, describe_stream

_PROGRAM = (
    "Read a distilled data set, check every file of it, and say what it is: method, classes, images per "
    "class, shapes, value range, normalisation, labels, and bytes by part. With a teacher, compare its "
    "predictions with the labels, and tell whether the classes are in another order. Writes a contact sheet "
    "as a PNG, and nothing else."
)
_EXAMPLES = """examples:
  gift-cl show sre2l_tiny_rn18_4k_ipc100.zip
  gift-cl show syn_data --layout rded:factor=2 --sheet none --json
  gift-cl show new_data --labels FKD_cutmix_fp16
  gift-cl show syn_data --teacher cifar100_conv3.pth --model conv3 --normalization imagenet
"""
_MARGIN = 15  # columns of the headings


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "show",
        help="say what a distilled data set is, and draw it",
        description=fill(_PROGRAM, 100),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser)
    add_teacher_options(parser)
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="PNG of the first images of each class (default: NAME-sheet.png here; `none`: no picture)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what there is to say about ``options.path``."""
    dataset = read(options)
    with progress_bar("measuring") as progress:
        facts = {"path": str(options.path), **describe(dataset, progress=progress)}
    stream = open_labels(options, dataset)
    facts["stream"] = describe_stream(stream) if stream else None
    teacher = build_teacher(options, dataset)
    with progress_bar("asking the teacher") as progress:
        facts["teacher"] = ask_teacher(teacher, dataset, progress=progress)[1] if teacher else None
    facts["sheet"] = _draw(options, dataset)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)


def _draw(options: argparse.Namespace, dataset: DistilledDataset) -> str | None:
    if options.sheet == "none":
        return None
    from gift_cl.pictures.canvas import save_figure
    from gift_cl.pictures.contact_sheet import contact_sheet

    path = Path(options.sheet or f"{Path(options.path).resolve().stem}-sheet.png")
    save_figure(contact_sheet(dataset), path)
    return str(path)


def _print(facts: Facts) -> None:
    for name, text in lines(facts).items():
        for row, line in enumerate(text.splitlines()):
            print(f"{'' if row else name:<{_MARGIN}}{line}")


def lines(facts: Facts) -> dict[str, str]:
    """The facts in words, by their headings; what there is nothing to say about is left out."""
    said = {
        "path": facts["path"],
        "method": f"{facts['method']} (source: {facts['source']})",
        "images": f"{facts['num_images']:,} of {_shape(facts['image_shape'])}, {_classes(facts)}",
        "values": _values(facts),
        "normalization": _normalization(facts["normalization"]),
        "mosaic": f"{facts['factor']} x {facts['factor']} patches" if facts["factor"] > 1 else "",
        "soft labels": _soft_labels(facts["soft_labels"]),
        "label stream": _stream(facts.get("stream")),
        "learned rate": f"{facts['learned_lr']:.6g} (SGD)" if facts["learned_lr"] else "",
        "bytes": _bytes(facts),
        "teacher": facts["teacher"]["text"] if facts.get("teacher") else "",
        "sources": _sources(facts["provenance"]["hashes"]),
        "picture": facts.get("sheet") or "",
    }
    return {name: text for name, text in said.items() if text}


def _shape(shape: list[int]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}"


def _classes(facts: Facts) -> str:
    least, most = facts["images_per_class"]["min"], facts["images_per_class"]["max"]
    each = f"{least}" if least == most else f"{least} to {most}"
    missing = facts["classes_without_images"]
    none = (
        f", none of {', '.join(map(str, missing[:5]))}{' …' if len(missing) > 5 else ''}" if missing else ""
    )
    return f"{facts['num_classes']:,} classes, {each} of each{none}"


def _values(facts: Facts) -> str:
    values = facts["values"]
    if not values["num_measured"]:
        return ""
    what = "ZCA-whitened" if facts["space"] == "zca" else "pixels as [0, 1]"
    mean, std = (" ".join(f"{v:.4f}" for v in values[name]) for name in ("mean", "std"))
    return (
        f"{values['type']}, {what}: {values['min']:.4g} to {values['max']:.4g}, mean {mean}, "
        f"deviation {std} (of {values['num_measured']:,} images)"
    )


def _normalization(norm: Mapping[str, Any] | None) -> str:
    return f"mean {norm['mean']}, deviation {norm['std']}" if norm else "not said by the files"


def _soft_labels(soft: Mapping[str, Any] | None) -> str:
    if soft is None:
        return "none stored"
    return (
        f"logits of {soft['num_views']} view(s), {soft['type']}, {soft['classes_covered']['max']} classes; "
        f"the highest is at the hard label in {soft['agreement_with_labels']:.1%}"
    )


def _stream(stream: Mapping[str, Any] | None) -> str:
    if stream is None:
        return ""
    order: str = stream["order"]
    if stream["seed"] is not None:
        order += f" an epoch, seed {stream['seed']}"
    return (
        f"{stream['num_epochs']:,} epochs of {stream['num_batches']:,} batches of {stream['batch_size']:,}, "
        f"{stream['num_classes']:,} classes, views of {stream['size']} pixels, {stream['bytes']:,} bytes; "
        f"rows in order: {order}; the teacher's answer is the label in {stream['agreement']:.1%} of "
        f"{stream['rows_compared']:,} rows (chance {stream['chance']:.1%})"
    )


def _bytes(facts: Facts) -> str:
    parts = {name: size for name, size in facts["bytes"].items() if size and name != "total"}
    words = ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in parts.items())
    return f"{facts['bytes']['total']:,} ({words}; images as `{facts['codec']}`)"


def _sources(hashes: Mapping[str, str]) -> str:
    return "\n".join(f"{name} sha256 {value}" for name, value in hashes.items())
