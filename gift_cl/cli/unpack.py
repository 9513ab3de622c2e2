"""`gift-cl unpack`: an archive from a stranger, unpacked inside its folder and nowhere else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gift_cl.archives import unpack
from gift_cl.cli.progress_bar import progress_bar

_PROGRAM = (
    "Unpack a zip or tar archive into a new folder. Entries that lead out of it, links, devices, and "
    "archives that swell beyond reason are refused, and a folder appears only when all of it is there."
)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "unpack",
        help="unpack an archive safely",
        description=_PROGRAM,
        epilog="example: gift-cl unpack FKD_cutmix_fp16.tar.gz labels",
    )
    parser.add_argument(
        "archive", metavar="ARCHIVE", type=Path, help="a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="where to: a folder that is not there yet"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Unpack ``options.archive``."""
    with progress_bar("unpacking", unit="bytes") as progress:
        unpack(options.archive, options.folder, progress=progress)
    print(f"unpacked into {options.folder}")
