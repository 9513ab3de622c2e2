"""The page of a report: one file of HTML, with its figures inside; they lie beside it as PNGs too."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from experiments import report_text
from experiments.arms import PARTS, Arm, make_arms
from experiments.report_pictures import Picture, make_pictures
from experiments.rows import Row, group_by_benchmark
from gift_cl.files import replacing
from gift_cl.pictures.canvas import save_figure

_COLUMNS = {
    "Arm": "arm",
    "n": "n",
    "Final accuracy (%)": "accuracy",
    "Forgetting (points)": "forgetting",
    "Memory (bytes)": "bytes",
    **{part.replace("_", " ").capitalize(): part for part in PARTS},
    "Of budget": "of_budget",
    "Exemplars": "exemplars",
    "Seconds": "seconds",
}
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


def write_page(rows: Sequence[Row], notes: Sequence[str], out: Path) -> list[str]:
    """Write ``report.html`` and its figures into ``out``.

    Args:
        rows: Rows of all runs.
        notes: What there is to say about how they were read.
        out: Folder of the page; made if missing.

    Returns:
        The notes of the page: ``notes``, and more on what it leaves out.

    Raises:
        OSError: If ``out`` cannot be written.
    """
    notes = list(notes)
    sections = []
    benchmarks = group_by_benchmark(rows)
    for benchmark, own in benchmarks.items():
        prefix = "" if len(benchmarks) == 1 else re.sub(r"[^\w.-]+", "-", benchmark) + "-"
        section, more = _section(benchmark, own, out, prefix)
        sections.append(section)
        notes += [f"{benchmark}: {note}" for note in more]
    title = "Class-incremental runs: " + ", ".join(benchmarks)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _paragraph("facts", report_text.facts(rows)),
        *(_paragraph("note", note) for note in notes),
        *sections,
    ]
    with replacing(out / "report.html") as temporary:
        temporary.write_text(_document(title, "\n".join(parts)), encoding="utf-8")
    return notes


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _section(benchmark: str, rows: Sequence[Row], out: Path, prefix: str) -> tuple[str, list[str]]:
    """A benchmark: its flags, its table and its figures, which are written on the way; and notes."""
    arms = make_arms(rows)
    pictures, notes = make_pictures(arms)
    if left_out := report_text.unfinished(rows):
        notes = [left_out, *notes]
    parts = [
        f"<h2>{escape(benchmark)}</h2>",
        *(_paragraph("flag", flag) for flag in report_text.flags(rows)),
        _table(arms),
        _paragraph("facts", report_text.settings(rows)),
        *(_figure(picture, benchmark, out / f"{prefix}{picture.name}.png") for picture in pictures),
    ]
    return "\n".join(parts), notes


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def _table(arms: Sequence[Arm]) -> str:
    lines = ["".join(f"<th>{escape(head)}</th>" for head in _COLUMNS)]
    for arm in arms:
        cells = report_text.cells(arm)
        lines.append("".join(f"<td>{escape(cells[name])}</td>" for name in _COLUMNS.values()))
    rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{rows}\n</table></div>'


def _figure(picture: Picture, benchmark: str, file: Path) -> str:
    """The picture, which is written to ``file`` too."""
    save_figure(picture.figure, file)
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    name = escape(f"{benchmark}: {picture.name.replace('_', ' ')}")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{name}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
