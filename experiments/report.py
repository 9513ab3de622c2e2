"""A page of class-incremental runs: `python -m experiments.report RUNS...`.

The page is one file, `report.html`, with its figures inside; the figures lie beside it as PNGs.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import plots
from experiments.rows import PARTS, Arm, Row, final_rows, make_arms, read_rows, shared_settings
from gift_cl.files import replacing

_MAX_CURVES = 10
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem 1.25rem 4rem; background: #fff;
       color: #1c1c1c; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 1rem 0 0.25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.25rem; border-top: 1px solid #ddd; padding-top: 1rem; }
p { margin: 0.4rem 0; }
.facts, figcaption { color: #555; font-size: 0.9rem; }
.flag { background: #fff3d6; border-left: 4px solid #d98e00; padding: 0.5rem 0.75rem; }
.note { background: #f2f2f2; border-left: 4px solid #999; padding: 0.4rem 0.75rem; }
.flag, .note, .facts { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
td { border-bottom: 1px solid #e6e6e6; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 11rem; }
figure { margin: 2rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto 0.5rem; }
figcaption { max-width: 50rem; margin: 0 auto; }
"""


@dataclass(frozen=True)
class _Picture:
    name: str
    figure: Figure
    caption: str


def write_report(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and its figures.

    Args:
        folders: Folders of runs, or their ``rows.jsonl``.
        out: Folder of the page; made if missing.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: If a folder holds no rows.
        ValueError: If no run is finished, or a file holds other things than rows.
        OSError: If ``out`` cannot be written.
    """
    rows, notes = _read(folders)
    return _write(rows, notes, Path(out))


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print a table of the arms for each benchmark: mean ± sample standard deviation over runs."""
    console = console or Console()
    for benchmark, own in _by_benchmark(rows).items():
        title = Text(f"{benchmark}: accuracy and forgetting in %, mean ± sd over n runs")
        table = Table(title=title, title_justify="left", box=SIMPLE, padding=0)
        table.add_column("arm", overflow="fold", min_width=12)
        for name in ("final\naccuracy", "n", "forgetting", "bytes", "of\nbudget", "exemplars", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        for arm in make_arms(own):
            cells = (
                _percent(arm, "accuracy_seen"),
                str(arm.accuracy.n),
                _percent(arm, "forgetting"),
                _bytes(arm),
                _of_budget(arm),
                _exemplars(arm),
                f"{arm.seconds.mean:.1f}",
            )
            table.add_row(Text(arm.label), *cells)
        console.print(table)
        for flag in _flags(own):
            console.print(Text(flag, style="yellow"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code is 2 when there is nothing to report or nowhere to write it."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Make a page of class-incremental runs: a table of all arms (mean ± sample standard "
        "deviation over seeds), accuracy after each experience, accuracy against bytes, confusion, "
        "forgetting, bytes by part, and a picture of a memory. Runs that differ in anything but "
        "their seeds are different arms. The page needs no other file and no network.",
        epilog="example: python -m experiments.report runs/class_incremental --out page",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="folders that experiments.class_incremental wrote (its --out), or their rows.jsonl",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of report.html and its PNGs (default: the folder `report` beside the first rows)",
    )
    options = parser.parse_args(arguments)
    try:
        rows, notes = _read(options.runs)
        page = _write(rows, notes, Path(options.out or Path(rows[0]["folder"], "report")))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print_table(rows)
    print(f"report in {page}")
    return 0


def _read(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[Row], list[str]]:
    """Rows, and what there is to say about how they were read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_rows(folders)
    return rows, list(dict.fromkeys(str(warning.message) for warning in caught))


def _write(rows: Sequence[Row], notes: list[str], out: Path) -> Path:
    """Write the page; notes about figures that could not be made are added to ``notes``."""
    if not final_rows(rows):
        raise ValueError(
            "Expected a finished run, but none reached its last experience. Let a run of "
            "`python -m experiments.class_incremental` end first."
        )
    sections = []
    benchmarks = _by_benchmark(rows)
    for benchmark, own in benchmarks.items():
        prefix = "" if len(benchmarks) == 1 else re.sub(r"[^\w.-]+", "-", benchmark) + "-"
        sections.append(_section(benchmark, own, notes, out, prefix))
    finals = final_rows(rows)
    title = "Class-incremental runs: " + ", ".join(benchmarks)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="facts">{escape(_facts(finals))}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        *sections,
    ]
    body = "\n".join(parts)
    page = out / "report.html"
    with replacing(page) as temporary:
        temporary.write_text(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
            f"<body>\n{body}\n</body>\n</html>\n",
            encoding="utf-8",
        )
    return page


def _section(benchmark: str, rows: Sequence[Row], notes: list[str], out: Path, prefix: str) -> str:
    """A benchmark: its flags, its table and its figures, which are written on the way."""
    arms = make_arms(rows)
    started = {(row["run_id"], row["seed"], row.get("class_order_seed")) for row in rows}
    unfinished = len(started) - sum(arm.accuracy.n for arm in arms)
    if unfinished:
        verb = "run did not reach its" if unfinished == 1 else "runs did not reach their"
        rest = "is left out" if unfinished == 1 else "are left out"
        notes.append(f"{benchmark}: {unfinished} {verb} last experience and {rest}.")
    parts = [
        f"<h2>{escape(benchmark)}</h2>",
        *(f'<p class="flag">{escape(flag)}</p>' for flag in _flags(rows)),
        _table(arms),
        f'<p class="facts">{escape(_settings_line(rows))}</p>',
    ]
    for picture in _pictures(arms, benchmark, notes) if arms else ():
        file = out / f"{prefix}{picture.name}.png"
        plots.save_figure(picture.figure, file)
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        name = escape(f"{benchmark}: {picture.name.replace('_', ' ')}")
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{name}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    return "\n".join(parts)


def _pictures(arms: Sequence[Arm], benchmark: str, notes: list[str]) -> Iterator[_Picture]:
    """The figures of a benchmark, with captions."""
    count = _count(arms)
    images = "images held out for validation" if _is_validation(arms) else "test images"
    has_spread = any(arm.accuracy.n > 1 for arm in arms)
    bar = "bars are ± 1 sample standard deviation" if has_spread else "one run has no deviation"
    leading = [arm for arm in arms if not arm.is_reference][:_MAX_CURVES]
    drawn = [arm for arm in arms if arm.is_reference or arm in leading]
    some = "" if len(drawn) == len(arms) else f" (the best {len(leading)} and the references)"
    yield _Picture(
        "accuracy",
        plots.accuracy_curves(drawn),
        f"Accuracy on the {images} of all classes seen so far after each experience{some}: mean over "
        f"{count}; " + ("the band is ± 1 sample standard deviation." if has_spread else f"{bar}."),
    )
    stored = [arm for arm in arms if not arm.is_reference and arm.memory_bytes.mean > 0]
    if stored:
        yield _Picture(
            "bytes",
            plots.accuracy_against_bytes(arms),
            f"Final accuracy against the bytes of all that is kept between experiences: mean over {count}; "
            f"{bar}; points are set a little apart sideways so that none hides another, and naive (no "
            "memory) and joint (all data) training are lines.",
        )
    best = _best(arms)
    if any(row.get("confusion") for row in best.finals):
        yield _Picture(
            "confusion",
            plots.confusion_matrix(best),
            f"Confusion of {best.label} after the last experience: share of each true class, mean over "
            f"{_count([best])}.",
        )
    yield _Picture(
        "forgetting",
        plots.forgetting_bars(arms),
        "Forgetting, the mean drop of past experiences from their best accuracy to the final one: mean "
        f"over {count}; {bar}.",
    )
    if stored:
        yield _Picture(
            "memory_bytes",
            plots.memory_bytes_bars(arms),
            f"What the memory costs after the last experience, by part: mean over {count}; the tick is "
            "the budget.",
        )
    yield from _memory_picture(best, benchmark, notes)


def _memory_picture(arm: Arm, benchmark: str, notes: list[str]) -> Iterator[_Picture]:
    """What is in the memory of a run, or a note that says why it cannot be seen."""
    row = next((row for row in arm.finals if row.get("memory_file")), None)
    if row is None:
        return
    try:
        sheet = plots.memory_sheet(Path(row["folder"], row["memory_file"]), row.get("class_names"))
    except (ValueError, OSError) as error:
        notes.append(f"{benchmark}: no picture of the memory of {row['run_id']}. {error}")
        return
    yield _Picture(
        "memory",
        sheet,
        f"The memory of {arm.label} after the last experience (n = 1 run, seed {row['seed']}): exemplars "
        "as the student sees them, decoded; a row for each class.",
    )


def _table(arms: Sequence[Arm]) -> str:
    heads = ["Arm", "n", "Final accuracy (%)", "Forgetting (points)", "Memory (bytes)"]
    heads += [part.replace("_", " ").capitalize() for part in PARTS]
    heads += ["Of budget", "Exemplars", "Seconds"]
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    for arm in arms:
        cells = [
            arm.label,
            str(arm.accuracy.n),
            _percent(arm, "accuracy_seen"),
            _percent(arm, "forgetting"),
            _bytes(arm),
            *("-" if arm.is_reference else f"{arm.part_bytes(part):,.0f}" for part in PARTS),
            _of_budget(arm),
            _exemplars(arm),
            arm.seconds.text(),
        ]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _facts(finals: Sequence[Row]) -> str:
    """How many runs, and what they ran on."""
    runs = f"{len(finals)} {'run' if len(finals) == 1 else 'runs'}"
    versions = [
        " ".join(f"{name} {number}," for name, number in (row.get("versions") or {}).items())
        for row in finals
    ]
    facts: dict[str, list[Any]] = {
        "commit": [row.get("commit") for row in finals],
        "hardware": [row.get("hardware") for row in finals],
        "versions": [text.rstrip(",") for text in versions],
    }
    words = [f"{runs}, mean ± sample standard deviation over the runs of an arm"]
    for name, values in facts.items():
        known = list(dict.fromkeys(str(value) for value in values if value))
        words.append(f"{name}: {' | '.join(known) or 'unknown'}")
    return ". ".join(words) + "."


def _settings_line(rows: Sequence[Row]) -> str:
    """The settings that no label shows."""
    hidden = ("strategy", "benchmark", "oracle")
    shared = {k: v for k, v in shared_settings(rows).items() if k not in hidden}
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shared.items())
    return f"The same in all arms that have it: {words}." if words else ""


def _flags(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know before the numbers."""
    finals = final_rows(rows)
    flags = []
    validated = [row for row in finals if row.get("evaluated_on", "test") != "test"]
    if validated:
        flags.append(
            f"{_share(validated, finals)} evaluated on validation: images held out of the training "
            "images. Such numbers choose settings; they are no test results."
        )
    oracles = [row for row in finals if row.get("oracle")]
    if oracles:
        flags.append(
            f"{_share(oracles, finals)} with an oracle teacher: leaky. It had seen classes that its "
            "student had not met yet."
        )
    return flags


def _share(some: Sequence[Row], rows: Sequence[Row]) -> str:
    return "All runs" if len(some) == len(rows) else f"{len(some)} of {len(rows)} runs"


def _is_validation(arms: Sequence[Arm]) -> bool:
    return any(row.get("evaluated_on") == "validation" for arm in arms for row in arm.finals)


def _best(arms: Sequence[Arm]) -> Arm:
    """The best of our arms without an oracle; without one, the best that there is."""
    ours = [arm for arm in arms if arm.is_ours]
    honest = [arm for arm in ours if not arm.rows[0].get("oracle")]
    others = [arm for arm in arms if not arm.is_reference]
    return (honest or ours or others or list(arms))[0]


def _count(arms: Sequence[Arm]) -> str:
    counts = sorted({arm.accuracy.n for arm in arms})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {number} {'run' if number == '1' else 'runs'}" + " of each arm" * (len(arms) > 1)


def _by_benchmark(rows: Sequence[Row]) -> dict[str, list[Row]]:
    benchmarks: dict[str, list[Row]] = {}
    for row in rows:
        benchmarks.setdefault(str(row["benchmark"]), []).append(row)
    return benchmarks


def _percent(arm: Arm, name: str) -> str:
    return arm.final(name).text(scale=100)


def _bytes(arm: Arm) -> str:
    return "all data" if arm.strategy == "joint" else f"{arm.memory_bytes.mean:,.0f}"


def _of_budget(arm: Arm) -> str:
    if not arm.budget_bytes:
        return "-"
    return f"{arm.memory_bytes.mean / arm.budget_bytes * 100:.0f} %"


def _exemplars(arm: Arm) -> str:
    return "-" if arm.is_reference else f"{arm.final('num_exemplars').mean:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
