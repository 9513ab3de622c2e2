"""`gift-cl teacher`: train the teacher of a data set, and measure one before it is used."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from gift_cl.cli.options import NORMALIZATION_HELP, add_real_data_options
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.cli.targets import check_targets
from gift_cl.cli.training_report import announce, describe, shares, words
from gift_cl.evaluation import accuracy
from gift_cl.evaluation.parts import find_device
from gift_cl.evaluation.processes import current, joined
from gift_cl.evaluation.surroundings import commit, hardware, versions
from gift_cl.evaluation.teacher_recipe import measure_teacher, teacher_recipe, train_teacher
from gift_cl.evaluation.training import DivergedError
from gift_cl.files import sha256_of_file
from gift_cl.models import ObserverCard, find_card
from gift_cl.normalization import build_normalization
from gift_cl.real_data import HOLD_OUT_SEED, RealData, hold_out, load_real_data, load_split
from gift_cl.teacher_file import is_teacher_file, load_teacher, save_teacher

_TRAIN = (
    "Train a network on all training images of a data set, as the published observers were trained "
    "(torchvision's reference recipe; every setting can be given), and write it with its normalisation, its "
    "test accuracy and all that is needed to train it again. The accuracy is that of the end: no epoch is "
    "chosen. A training that is killed starts anew: nothing is written before its end. Processes of torchrun "
    "share the images of each batch, and come to the same network but for rounding."
)
_TRAIN_EXAMPLES = """examples:
  gift-cl teacher train --dataset cifar100 --model conv3 --root data --out cifar100_conv3.safetensors
  gift-cl teacher train --dataset tinyimagenet --model resnet18_modified --epochs 50 --device cuda \\
      --precision bfloat16 --out tiny.safetensors
  gift-cl teacher train --dataset digits --model mlp --epochs 20 --hold-out 0.1 --out digits.safetensors
  torchrun --nproc-per-node 8 -m gift_cl teacher train --dataset imagenet-1k --model resnet18 \\
      --out resnet18.safetensors
"""
_MEASURE = (
    "Measure a teacher on the test images of a data set. It is refused (exit status 2) if it is far below "
    "the accuracy in its file or, for weights as others publish them, the published one; the message says so "
    "if it numbers the classes in another order than the data."
)
_MEASURE_EXAMPLES = """examples:
  gift-cl teacher measure cifar100_conv3.safetensors --dataset cifar100
  gift-cl teacher measure cifar100_conv3.pth --dataset cifar100 --model conv3 --normalization imagenet
"""
_NORMALIZATION = f"for pixels in [0, 1]: {NORMALIZATION_HELP} (default: that of the published teacher"
_RECIPE: dict[str, dict[str, Any]] = {
    "epochs": {"type": int, "metavar": "N"},
    "batch_size": {"type": int, "metavar": "N"},
    "optimizer": {"metavar": "SPEC", "help": "any of torch.optim: SGD, AdamW, SGD:nesterov=true, …"},
    "lr": {"type": float, "metavar": "RATE"},
    "weight_decay": {"type": float, "metavar": "DECAY"},
    "schedule": {"metavar": "SPEC", "help": "cosine, multistep, constant, warmup:5 | cosine, …"},
    "view": {"metavar": "SPEC", "help": "none, flip, crop_flip:pad=4, rrc:min_scale=0.08 | flip, …"},
    "seed": {"type": int, "metavar": "N", "help": "(default: 0)"},
    "precision": {"choices": ("float32", "bfloat16"), "help": "of forward passes"},
    "compile": {"action": "store_true", "default": None, "help": "compile the network"},
}


def add_parser(commands: Any) -> None:
    """Add the subcommand, which has two of its own."""
    parser = commands.add_parser(
        "teacher",
        help="train the teacher of a data set, or measure one",
        description="Train the teacher (observer) of a data set, or measure one before it is used.",
    )
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(inner)
    _add_measure(inner)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a teacher, and write it",
        description=fill(_TRAIN, 100),
        epilog=_TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_real_data_options(parser)
    parser.add_argument("--model", metavar="SPEC", required=True, help="network: conv3, resnet18_modified, …")
    parser.add_argument(
        "--out", metavar="FILE", required=True, type=Path, help="file to write, usually .safetensors"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there already")
    parser.add_argument(
        "--hold-out",
        metavar="SHARE",
        type=float,
        help="part of the training images of each class that is measured on and not trained on, to choose "
        "settings by (default: none)",
    )
    parser.add_argument(
        "--normalization",
        metavar="NAME",
        help=f"{_NORMALIZATION} or else mean and standard deviation of the training images)",
    )
    group = parser.add_argument_group("recipe", "settings in place of those of the reference recipe")
    for name, details in _RECIPE.items():
        group.add_argument(f"--{name.replace('_', '-')}", **details)
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.set_defaults(run=train)


def _add_measure(commands: Any) -> None:
    parser = commands.add_parser(
        "measure",
        help="measure a teacher on test images",
        description=fill(_MEASURE, 100),
        epilog=_MEASURE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a file of `train`, or weights")
    add_real_data_options(parser)
    parser.add_argument("--model", metavar="SPEC", help="network of weights as others publish them")
    parser.add_argument("--normalization", metavar="NAME", help=f"of such weights, {_NORMALIZATION})")
    parser.add_argument(
        "--tolerance",
        metavar="POINTS",
        type=float,
        default=2.0,
        help="percentage points of accuracy that may be missing (default: 2)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")
    parser.set_defaults(run=measure)


@joined()
def train(options: argparse.Namespace) -> None:
    """Train a teacher, write it into ``options.out``, and print what it reaches."""
    check_targets(options.out, overwrite=options.overwrite)
    device, card = find_device(options.device), find_card(options.dataset, options.model)
    with current().first_ahead(), progress_bar("reading") as progress:
        size = _image_size(options, card)
        data = load_real_data(options.dataset, root=options.root, image_size=size, progress=progress)
    held_out = None
    if options.hold_out is not None:
        parts = hold_out(data, options.hold_out, seed=HOLD_OUT_SEED)
        data, held_out = replace(parts, test=data.test), parts.test
    text, origin = _choose_normalization(options, card, data)
    normalization = build_normalization(text)
    given = {name: getattr(options, name) for name in _RECIPE}
    recipe = teacher_recipe(
        options.dataset,
        options.model,
        normalization=text,
        image_size=data.image_shape[-1],
        **{name: value for name, value in given.items() if value is not None},
    )
    if current().is_first and not options.json:
        said = f"{describe(normalization)}: {origin}"
        print(announce(options.model, data, recipe, device, said), flush=True)
    try:
        with progress_bar("training") as progress:
            network, history = train_teacher(data, options.model, recipe, device=device, progress=progress)
    except (DivergedError, MemoryError, torch.OutOfMemoryError) as error:
        raise ValueError(str(error)) from error
    reached, validation = history.curve[-1][1], None
    if held_out is not None:
        validation = accuracy.measure(
            network,
            held_out.images,
            held_out.labels,
            normalization=normalization,
            device=device,
            precision=recipe.precision,
        )
    if not current().is_first:
        return
    provenance = {
        "source": data.train.provenance.source,
        "settings": recipe.as_dict(),
        "validation": validation and asdict(validation),
        "seconds": history.seconds,
        "images_per_second": history.images_per_second,
        "microbatches": history.microbatches,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(torch.device(device)),
    }
    save_teacher(
        options.out,
        options.model,
        network,
        classes=data.train.classes,
        num_classes=data.num_classes,
        normalization=normalization,
        image_shape=data.image_shape,
        dataset=data.name,
        accuracy=reached,
        class_names=data.class_names,
        provenance=provenance,
    )
    facts = {
        "path": str(options.out),
        "bytes": options.out.stat().st_size,
        "sha256": sha256_of_file(options.out),
        "dataset": data.name,
        "model": options.model,
        "normalization": asdict(normalization) | {"origin": origin},
        "test": asdict(reached),
        "published": None if card is None else card.accuracy,
        **provenance,
    }
    print(json.dumps(facts, indent=2) if options.json else words(facts))


def measure(options: argparse.Namespace) -> None:
    """Print the accuracy of ``options.checkpoint``, if it is what is expected of it."""
    path, device, loaded = options.checkpoint, find_device(options.device), None
    card = None if options.model is None else find_card(options.dataset, options.model)
    size = _image_size(options, card)
    if not path.is_file() or is_teacher_file(path):  # without a file, the error says so
        loaded = load_teacher(path, device=device, model=options.model, normalization=options.normalization)
        size = options.image_size or loaded.image_shape[-1]
    with progress_bar("reading") as progress:
        test = load_split(options.dataset, "test", root=options.root, image_size=size, progress=progress)
    if loaded is None:
        loaded = load_teacher(
            path,
            device=device,
            model=options.model,
            normalization=options.normalization or (None if card is None else card.normalizations[0]),
            num_classes=test.num_classes,
            image_shape=test.encoded.image_shape,
        )
    reached = measure_teacher(loaded, test, card=card, tolerance=options.tolerance)
    expected, origin = (None, "") if card is None else (card.accuracy, "published")
    if loaded.accuracy is not None:
        expected, origin = loaded.accuracy.top1, "in its file"
    facts = {
        "path": str(path),
        "dataset": options.dataset,
        "model": loaded.model,
        "normalization": asdict(loaded.teacher.normalization),
        "test": asdict(reached),
        "expected": expected,
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    compared = "nothing to compare it with" if expected is None else f"{origin}: {expected:.2%}"
    print(f"{loaded.model}, normalization {describe(loaded.teacher.normalization)}")
    print(f"test accuracy: {shares(facts['test'])} images; {compared}")


def _image_size(options: argparse.Namespace, card: ObserverCard | None) -> int | None:
    asked: int | None = options.image_size
    return asked if asked is not None or card is None else card.image_size


def _choose_normalization(
    options: argparse.Namespace, card: ObserverCard | None, data: RealData
) -> tuple[str, str]:
    """A normalisation as a recipe writes it, and where it comes from."""
    if options.normalization is not None:
        return options.normalization, "as given"
    if card is not None:
        return card.normalizations[0], f"{card.normalizations[0]}, that of the published teacher"
    statistics = data.channel_statistics
    mean, std = (",".join(map(repr, values)) for values in (statistics.mean, statistics.std))
    return f"{mean}/{std}", "those of the training images"
