"""`gift-cl distill`: a real data set as few exemplars of each class, in one file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gift_cl.cli.distill_inputs import (
    Inputs,
    MeasuredTeacher,
    check_codec,
    check_space,
    load_inputs,
    rank_and_world_size,
)
from gift_cl.cli.distill_report import Meter, Waiting, announce, words
from gift_cl.cli.options import NORMALIZATION_HELP, add_real_data_options
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.cli.targets import check_targets
from gift_cl.cli.teacher_report import ask_teacher
from gift_cl.codecs import build_codec, recode
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import open_dataset
from gift_cl.distillers import DISTILLERS, Distiller
from gift_cl.distilling import distill_dataset
from gift_cl.errors import ReadError
from gift_cl.evaluation.memory_limits import is_out_of_memory
from gift_cl.evaluation.processes import joined
from gift_cl.evaluation.surroundings import commit, hardware, versions
from gift_cl.files import sha256_of_file
from gift_cl.layout_writers import LAYOUTS, write_layout
from gift_cl.parts_folder import COMMAND, save_or_explain
from gift_cl.progress import silent

_PROGRAM = """Distil the training images of a data set: a few exemplars of each class, in one safetensors file
with all that they were made from, and a picture of them beside it (NAME-sheet.png).

If the method needs a teacher, it is looked for in ROOT/pretrain_models/DATASET_MODEL.pth or .safetensors, or
given with --teacher. Before it is used it is measured on the test images, and refused if it is not what its
file or its card says. `gift-cl teacher train` makes one.

Exemplars are made in parts: class by class where the method allows it (random, herding, coverage, rded, dm,
idc), pass by pass of up to 100 classes (sre2l, cda), or all at once where networks are trained on all classes
(gvbsm, datm, idc with match=ridge, embedding=trained). Each part is kept in FILE.parts when it is finished;
the same command goes on where it was stopped. Several processes share the work, started by torchrun or by
hand with the same command, and take over what a dead one leaves. The file is the same, byte for byte, whoever
makes what. At the end FILE.parts is gone."""
_EXAMPLES = """examples:
  gift-cl distill --method random --dataset digits --ipc 10 --out digits.safetensors
  gift-cl distill --method rded --dataset cifar100 --model conv3 --ipc 10 --codec jpeg:75 \\
      --out data/syn_data/rded/cifar100_conv3/ipc10.safetensors
  gift-cl distill --method rded --dataset digits --teacher digits_mlp.safetensors --ipc 10 \\
      --out digits.safetensors --layout rded:png
  torchrun --nproc-per-node 8 -m gift_cl distill --method rded:factor=2 --dataset imagenet-1k \\
      --model resnet18 --ipc 50 --out rded.safetensors
"""
_GRACE_S = 20.0  # in which rank 0 has to begin where a file is replaced by an equal one


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "distill",
        help="make a few exemplars of each class of a real data set",
        description=_PROGRAM,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--method",
        metavar="SPEC",
        required=True,
        help=f"how, with options, as in rded:factor=2; one of {', '.join(DISTILLERS.names())}",
    )
    add_real_data_options(parser)
    parser.add_argument(
        "--ipc",
        metavar="N",
        type=int,
        required=True,
        help="exemplars of each class, as a student sees them: where a method packs several into the space "
        "of one image (idc), they are counted, not the spaces",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="file to write, usually .safetensors"
    )
    parser.add_argument(
        "--codec",
        metavar="SPEC",
        help="how to store them: raw, png, jpeg:Q, webp:Q, … (default: as the method makes them, mostly raw)",
    )
    parser.add_argument(
        "--layout",
        metavar="SPEC",
        help="write them for the code of others too, into the folder NAME-files: "
        f"{', '.join(LAYOUTS.names())}; images are JPEG files as published, or PNG as in sre2l:png",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace FILE and NAME-files if they are there already"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument(
        "--hold-out",
        metavar="SHARE",
        type=float,
        help="part of the training images of each class that is left out: those that `gift-cl teacher train` "
        "and `gift-cl evaluate` hold out (default: none)",
    )
    _add_teacher_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.set_defaults(run=run)


def _add_teacher_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teacher")
    group.add_argument(
        "--model",
        metavar="SPEC",
        help="its network: conv3, resnet18_modified, …; where a method needs no teacher, one found by this "
        "name judges the exemplars",
    )
    group.add_argument(
        "--teacher",
        metavar="FILE",
        type=Path,
        help="a file of `gift-cl teacher train`, or weights (.pth); of a method that needs none, it only "
        "judges the exemplars",
    )
    group.add_argument(
        "--normalization",
        metavar="NAME",
        help=f"what weights as others publish them expect of pixels in [0, 1]: {NORMALIZATION_HELP} "
        "(default: that of the published teacher)",
    )


def run(options: argparse.Namespace) -> None:
    """Distil into ``options.out``, and print what came out."""
    rank, world_size = rank_and_world_size()
    distiller = DISTILLERS.create(options.method)
    parts = options.out.with_name(f"{options.out.name}.parts")
    with joined():  # to read, to measure the teacher, and to complain with one voice
        inputs = _prepare(options, distiller, parts, is_first=rank == 0)
    facts: dict[str, Any] = {}
    with ExitStack() as bar:
        meter = Meter(silent if rank else bar.enter_context(progress_bar("distilling")))

        def save(dataset: DistilledDataset) -> None:
            meter.stop()
            bar.close()
            facts.update(_save(options, dataset, inputs))

        try:
            made = distill_dataset(
                inputs.data,
                distiller,
                ipc=options.ipc,
                teacher=None if inputs.teacher is None else inputs.teacher.loaded.teacher,
                seed=options.seed,
                device=inputs.device,
                parts=parts,
                save=save,
                is_saved=lambda digest: _is_saved(options.out, digest, parts, overwrite=options.overwrite),
                progress=meter,
                on_wait=Waiting(),
                rank=rank,
                world_size=world_size,
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"The memory of {inputs.device} is too small for `{distiller.spec}`: {error}. Choose smaller "
                "batches by its options, or another device."
            ) from error
    if made is not None:
        facts |= meter.facts()
        print(json.dumps(facts, indent=2) if options.json else words(facts))
    elif rank == 0:
        if not options.out.exists() and not parts.exists():
            raise ValueError("Another process with this command has failed. Start it again to see why.")
        print(f"another process has all parts, and writes {options.out}", file=sys.stderr)


def _prepare(options: argparse.Namespace, distiller: Distiller, parts: Path, *, is_first: bool) -> Inputs:
    """Images and teacher, once all has been checked that can be before anything is made."""
    if options.layout:
        LAYOUTS.create(options.layout).check_method(distiller.spec)
    if is_first:
        files = _beside(options, "files") if options.layout else None
        check_targets(options.out, overwrite=options.overwrite)
        # Where parts are left, this command wrote what lies beside the file, before it was stopped.
        check_targets(
            _beside(options, "sheet.png"), folder=files, overwrite=options.overwrite or parts.is_dir()
        )
    inputs = load_inputs(options, distiller)
    if options.codec:
        check_codec(options.codec, inputs, distiller)
    if is_first:
        check_space(options.out, parts, inputs, distiller, ipc=options.ipc)
        if not options.json:
            print(announce(distiller, inputs, model=options.model), flush=True)
    return inputs


def _save(options: argparse.Namespace, dataset: DistilledDataset, inputs: Inputs) -> dict[str, Any]:
    """Encode and write the exemplars; the file comes last, when all that lies beside it is there."""
    from gift_cl.pictures.canvas import save_figure
    from gift_cl.pictures.contact_sheet import contact_sheet

    teacher, made = inputs.teacher, dataset
    if options.codec:
        with progress_bar("encoding") as progress:
            encoded = recode(dataset.encoded, build_codec(options.codec), progress=progress)
        dataset = replace(dataset, encoded=encoded)
    if teacher is not None and "teacher" in dataset.provenance.hashes:  # it took part
        provenance = replace(dataset.provenance, teacher=teacher.loaded.model)
        dataset = replace(dataset, provenance=provenance)
    agreement = {"made": _agreement(made, teacher), "stored": _agreement(dataset, teacher)}
    files = _beside(options, "files") if options.layout else None
    if files is not None:
        with progress_bar("writing files") as progress:
            write_layout(
                dataset,
                files,
                options.layout,
                data=inputs.data.name,
                model=options.model if teacher is None else teacher.loaded.model,
                overwrite=True,  # what may not be replaced was refused at the start
                progress=progress,
            )
    sheet = _beside(options, "sheet.png")
    save_figure(contact_sheet(dataset), sheet)
    save_or_explain(dataset, options.out)
    ledger = dataset.ledger()
    return {
        "path": str(options.out),
        "bytes": options.out.stat().st_size,
        "sha256": sha256_of_file(options.out),
        "dataset": inputs.data.name,
        "method": dataset.provenance.method,
        "source": dataset.provenance.source,
        "seed": options.seed,
        "ipc": options.ipc,
        "num_images": len(dataset),
        "num_classes": dataset.num_classes,
        "codecs": {"made": made.encoded.codec, "stored": dataset.encoded.codec},
        "ledger": ledger.by_part() | {"total": ledger.total},
        "agreement": agreement,
        "teacher": None if teacher is None else teacher.facts,
        "sheet": str(sheet),
        "files": None if files is None else str(files),
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(torch.device(inputs.device)),
    }


def _beside(options: argparse.Namespace, what: str) -> Path:
    out: Path = options.out
    return out.with_name(f"{out.stem}-{what}")


def _agreement(dataset: DistilledDataset, teacher: MeasuredTeacher | None) -> float | None:
    """Share of the exemplars whose label the teacher gives them; it cannot look at whitened ones."""
    if teacher is None or dataset.space != "pixels":
        return None
    with progress_bar("asking the teacher") as progress:
        order, _ = ask_teacher(teacher.loaded.teacher, dataset, progress=progress)
    return order.accuracy


def _is_saved(out: Path, digest: str, parts: Path, *, overwrite: bool) -> bool:
    """Whether the file is the result of this very command, and rank 0 is not about to replace it."""
    try:
        found = open_dataset(out).provenance.hashes.get(COMMAND)
    except (OSError, ReadError):
        return False
    if found != digest:
        return False
    deadline = time.monotonic() + (_GRACE_S if overwrite else 0)
    while time.monotonic() < deadline:
        if parts.is_dir():
            return False
        time.sleep(0.1)
    return True
