"""The command line `gift-cl`: one program, a subcommand a job."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from gift_cl.cli import convert, distill, evaluate, report, show, teacher, unpack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0; 2 if something is wrong with the input, which is said on the standard error, and with ``--json``
        on the standard output too; 130 if the user stopped it.
    """
    parser = argparse.ArgumentParser(
        prog="gift-cl",
        description="Look at distilled data sets, convert them into one safe format, make and evaluate them.",
        epilog="Each command has its own help: gift-cl show --help",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (show, convert, unpack, teacher, distill, evaluate, report):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if getattr(options, "json", False):
            print(json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}))
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
