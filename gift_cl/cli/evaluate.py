"""`gift-cl evaluate`: students trained on a distilled data set, tested on real images."""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gift_cl.cli.grid_bar import grid_bar
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.evaluation.processes import current, joined

if TYPE_CHECKING:
    from gift_cl.evaluation.config import EvaluationConfig
    from gift_cl.evaluation.rows import Row

_PROGRAM = """Train students on a distilled data set and test them on real images: losses x optimizers x
learning rates x networks x seeds, every setting that is a list crossed with all others.

Images are looked for in ROOT/syn_data/METHOD/DATASET_MODEL/ipcIPC (a data.pt, images in folders, or a
.safetensors), teachers in ROOT/pretrain_models/DATASET_MODEL.pth, real images in ROOT; or say where they are
with --data and --teacher. METHOD random, herding and coverage need no images: they are real ones, controls.
MODEL is the network that the images were distilled with and the teacher's; the student is the same unless
--tar_model says another.

Each cell of the grid becomes a row of OUT/rows.jsonl when it ends. The same command goes on where it was
stopped, several at once share the work, and a cell that fails is kept with its reason. `gift-cl report OUT`
makes a table and figures.

`torchrun --nproc-per-node N -m gift_cl evaluate ...` trains each student with N processes, which share the
images of each batch and have a card each, and comes to the same rows but for rounding. For small data sets
several commands at once, each with a device of its own, do a grid faster.

Options may be written with - for _, and stand in a YAML file (--config). In a list, put quotes around what
holds a comma: '[gift, "kl:temperature=4,t2=true"]'."""

_EXAMPLES = """examples:
  gift-cl evaluate --method rded --criterion_name gift --dataset imagenet-1k --model resnet18 --ipc 10
  gift-cl evaluate --method datm --dataset cifar100 --model conv3:norm=instance --ipc 10 --preset own \\
      --criterion_name '[softce, gift]' --seed '[0, 1, 2]' --data logged_files/CIFAR100/10/ConvNet/run/Normal
  gift-cl evaluate --method random --dataset digits --model mlp --ipc 10 --labels hard --normalization none \\
      --criterion_name ce --optimizer '[SGD, AdamW]' --lr '[0.1, 0.01, 0.001]' --evaluate_on validation
  gift-cl evaluate --config grid.yaml --device cuda:1 --retry-failed

presets, which every setting that is not given comes from:
"""


_SWITCHES = ("--retry_failed", "--decay_all", "--compile")


def add_parser(commands: Any) -> None:
    """Add the subcommand; what its arguments mean is found out when it runs."""
    parser = commands.add_parser(
        "evaluate",
        help="train students on a data set and test them on real images",
        add_help=False,
        prefix_chars="\0",  # so that all arguments come through
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


@joined()
def run(options: argparse.Namespace) -> None:
    """Do the cells that have no row yet, and print a line for each and the report."""
    options.json = "--json" in options.arguments
    config = parse(options.arguments)
    from gift_cl.evaluation.report import format_report
    from gift_cl.evaluation.run import evaluate

    def say(row: Row) -> None:
        if not options.json:
            print(_line(row), flush=True)

    with progress_bar("reading") as reading, grid_bar() as progress:
        rows = evaluate(config, reading=reading, progress=progress, on_row=say)
    if not current().is_first:
        return
    has_failed = bool(rows) and all(row["status"] == "failed" for row in rows)
    if not options.json:
        print(f"\n{format_report(rows)}\nrows in {Path(config.out) / 'rows.jsonl'}")
    elif not has_failed:  # the error is printed as JSON
        print(json.dumps(rows, indent=2))
    if has_failed:
        raise ValueError(f"All {len(rows)} cells failed, the first one with: {rows[0]['reason']}")


def parse(arguments: Sequence[str]) -> EvaluationConfig:
    """The configuration that a command line describes; ``--help`` ends the program.

    Raises:
        ValueError: If an option is unknown or a value cannot be used; the message lists the known options.
    """
    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    from gift_cl.evaluation.config import EvaluationConfig

    class Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Keeps lines as they are written."""

    parser = ArgumentParser(
        prog="gift-cl evaluate",
        description=_PROGRAM,
        epilog=_EXAMPLES + _describe_presets(),
        formatter_class=Formatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON for other programs")
    parser.add_class_arguments(EvaluationConfig)
    try:
        values = parser.parse_args(_spell_out(arguments)).as_dict()
    except ArgumentError as error:
        raise ValueError(_explain(str(error), EvaluationConfig.__annotations__)) from None
    for name in ("config", "json"):
        values.pop(name)
    return EvaluationConfig(**values)


def _spell_out(arguments: Sequence[str]) -> list[str]:
    """``--criterion-name=a-b`` as ``--criterion_name=a-b``, and ``--retry-failed`` alone with ``=true``."""
    spelled = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = f"--{name[2:].replace('-', '_')}"
        if name in _SWITCHES and not equals and following.startswith("--"):
            equals, value = "=", "true"
        spelled.append(name + equals + value)
    return spelled


def _describe_presets() -> str:
    """What each preset says of itself: its first line, and its sources."""
    from gift_cl.evaluation.presets import PRESETS

    lines = []
    for name, preset in PRESETS.items():
        text = inspect.getdoc(preset) or ""
        summary = text.partition("\n")[0]
        _, _, source = text.partition("Source:\n")
        source = " ".join(source.partition("\n\n")[0].split())
        source = textwrap.fill(source, 99, break_on_hyphens=False)
        lines += [f"  {name}: {summary}", textwrap.indent(source, " " * 6)]
    return "\n".join(lines)


def _line(row: Row) -> str:
    from gift_cl.evaluation.groups import short_name

    name = short_name(row)
    if row["status"] == "failed":
        return f"{name}: failed, {row['reason']}"
    where = "" if row["evaluated_on"] == "test" else " on validation images"
    return (
        f"{name}: {row['accuracy_last']:.1%}{where} (best {row['accuracy_best']:.1%}), {row['seconds']:.1f} s"
    )


def _explain(error: str, kinds: Mapping[str, str]) -> str:
    """What the parser says, in a sentence; an unknown option lists the known ones."""
    if match := re.search(r'key "(\w+)":.*(?:Given|Got) value: (.*)', error, re.DOTALL):
        name, value = match[1], match[2].rstrip(".")
        if name in kinds:
            return f"Expected `{name}` as {kinds[name]}, got {value!r}."
    sentence = f"{error[:1].upper()}{error[1:].rstrip('.')}."
    if "recognized" in error or "not accepted" in error:
        return f"{sentence} Known options: {', '.join(sorted(kinds))}."
    return sentence
