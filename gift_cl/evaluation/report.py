"""A report of an evaluation as text: a table of means over seeds, what to know before it, and failures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Literal

from gift_cl.evaluation.groups import Group, always_shown, group_rows, label, settings_of, text, varying
from gift_cl.evaluation.rows import Row
from gift_cl.models import TeacherMismatchError, check_against_card, find_card

Format = Literal["markdown", "csv"]

_MEASURED = {
    "accuracy_last": "last (%)",
    "accuracy_best": "best (%)",
    "top5_last": "top-5 (%)",
    "validation_accuracy": "validation (%)",
}
_PARTS = ("pixels", "labels", "soft_labels", "teacher", "total")


def format_report(rows: Sequence[Row], form: Format = "markdown") -> str:
    """The whole report: the table, and in Markdown what to know before it and failures after it.

    Args:
        rows: Rows of cells, finished and failed.
        form: ``markdown`` to read, ``csv`` for other programs: the table with numbers as they are.

    Raises:
        ValueError: If the form is unknown.
    """
    if form == "csv":
        return _csv(group_rows(rows))
    if form != "markdown":
        raise ValueError(f"Expected `form` markdown or csv, got {form!r}.")
    groups = group_rows(rows)
    parts = [_facts(rows), *flags(rows)]
    if groups:
        parts.append(_markdown(groups))
    if failed := failures(rows):
        parts.append("Failed:\n\n" + "\n".join(f"- {line}" for line in failed))
    return "\n\n".join(parts) + "\n"


def flags(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know before the numbers."""
    done = [row for row in rows if row["status"] == "done"]
    found = []
    if validated := [row for row in done if row.get("evaluated_on") == "validation"]:
        found.append(
            f"**{_share(validated, done)} evaluated on validation**: images held out of the training images. "
            "Such numbers choose settings; they are no test results."
        )
    if split := [row for row in done if (row.get("microbatches") or 1) > 1]:
        found.append(
            f"**{_share(split, done)} trained in smaller parts of a batch** for want of memory: gradients "
            "are those of the whole batch, statistics of batch normalisation are not."
        )
    return found + [text for text in dict.fromkeys(map(_weak_teacher, done)) if text]


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each failed cell: how it differs from the others, its seed, and the reason."""
    settings = [settings_of(row) for row in rows]
    names = [*always_shown(settings), *varying(settings)]
    return [
        f"{label(settings_of(row), names)} · seed={row['seed']}: {row.get('reason') or 'no reason given'}"
        for row in rows
        if row["status"] == "failed"
    ]


def columns(groups: Sequence[Group]) -> list[str]:
    """Settings that a table of these groups shows: some always, others where they differ."""
    settings = [group.settings for group in groups]
    always = always_shown(settings)
    return [*always, *(name for name in varying(settings) if name not in always)]


def _facts(rows: Sequence[Row]) -> str:
    done = sum(row["status"] == "done" for row in rows)
    words = [
        f"{done} of {len(rows)} cells finished; mean ± sample standard deviation over n seeds; best is the "
        "best measurement of a run, chosen on the images that it is measured on"
    ]
    for name in ("dataset", "hardware", "commit"):
        values = dict.fromkeys(str(row[name]) for row in rows if row.get(name))
        words.append(f"{name}: {' | '.join(values) or 'unknown'}")
    return ". ".join(words) + "."


def _markdown(groups: Sequence[Group]) -> str:
    settings = columns(groups)
    measured = [name for name in _MEASURED if _is_always(name) or _is_known(name, groups)]
    heads = [name.replace("_", " ") for name in settings] + ["n", *(_MEASURED[n] for n in measured), "bytes"]
    lines = [heads, ["---"] * len(settings) + ["---:"] * (len(heads) - len(settings))]
    for group in groups:
        line = [text(group.settings.get(name)) for name in settings]
        line.append(str(len(group.rows)))
        line += [group.statistic(name).text(scale=100) for name in measured]
        lines.append([*line, _bytes(group)])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _csv(groups: Sequence[Group]) -> str:
    settings = list(dict.fromkeys([*columns(groups), "evaluated_on"]))
    heads = [*settings, "n"]
    heads += [f"{name}_{part}" for name in _MEASURED for part in ("mean", "sd")]
    heads += [f"bytes_{part}" for part in _PARTS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    for group in groups:
        line = [group.settings.get(name) for name in settings] + [len(group.rows)]
        for name in _MEASURED:
            statistic = group.statistic(name)
            line += [_number(statistic.mean), _number(statistic.sd)]
        size = group.mean_bytes()
        writer.writerow(line + [_number(size.get(part)) for part in _PARTS])
    return out.getvalue()


def _bytes(group: Group) -> str:
    """``1,234 (pixels 1,000, labels 234)``."""
    size = group.mean_bytes()
    if "total" not in size:
        return "unknown"
    parts = ", ".join(f"{n.replace('_', ' ')} {v:,.0f}" for n, v in size.items() if v and n != "total")
    return f"{size['total']:,.0f} ({parts})"


def _number(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value


def _is_always(name: str) -> bool:
    return name in ("accuracy_last", "accuracy_best")


def _is_known(name: str, groups: Sequence[Group]) -> bool:
    return any(group.statistic(name).n for group in groups)


def _weak_teacher(row: Row) -> str:
    """What is to be said of a teacher well below the published one; empty if there is nothing."""
    card = find_card(row["dataset"], row["model"].partition(":")[0])
    accuracy = row.get("teacher_accuracy")
    if card is None or accuracy is None or row.get("evaluated_on") != "test":
        return ""
    try:
        check_against_card(card, accuracy)
    except TeacherMismatchError:
        return (
            f"**The teacher of {row['dataset']} with {row['model']} reaches {accuracy:.1%}**, the published "
            f"one {card.accuracy:.1%}: other weights, another normalisation, or another order of the classes."
        )
    return ""


def _share(some: Sequence[Row], rows: Sequence[Row]) -> str:
    return "All rows" if len(some) == len(rows) else f"{len(some)} of {len(rows)} rows"
