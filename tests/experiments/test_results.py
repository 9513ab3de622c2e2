"""The tables and intervals of docs/distillers.md, held to the runs that they were made of."""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

import pytest

from experiments.stream_report import Difference, paired
from gift_cl.distillers import REAL_IMAGES
from gift_cl.statistic import mean_sd

Line = dict[str, str]

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "distillers.md").read_text()
LOSSES = {"CE": "ce", "GIFT": "gift:weight=0.8", "GIFT + CE": "gift_ce:weight=0.5"}


def runs(name: str) -> list[Line]:
    with (ROOT / "experiments" / "results" / f"{name}.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def table(heading: str, head: str) -> list[list[str]]:
    """Cells of the table of a section whose head begins so, without marks."""
    section = DOCUMENT.split(f"\n{heading}\n")[1].split("\n#")[0]
    unmarked = str.maketrans("", "", "*`")
    section = section.translate(unmarked)
    lines = section[section.index(f"| {head} ") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def belongs(spec: str, name: str) -> bool:
    """Whether a table calls a distiller so: by its name, with some of its options or without."""
    return spec == name or spec.startswith((f"{name}:", f"{name},", f"{name}/"))


def mean(lines: Iterable[Line], column: str = "accuracy") -> str:
    return mean_sd(float(line[column]) for line in lines).text(scale=100)


def over(ours: Iterable[Line], theirs: Iterable[Line]) -> str:
    """Paired difference over class orders, or over seeds."""
    difference = paired(*(map(seed_and_accuracy, side) for side in (ours, theirs)))
    assert isinstance(difference, Difference)
    return difference.text()


def seed_and_accuracy(line: Line) -> dict[str, object]:
    seed, accuracy = ("class_order", "accuracy") if "class_order" in line else ("seed", "accuracy_last")
    return {"seed": line[seed], "accuracy_seen": float(line[accuracy])}


def best(memories: Iterable[list[Line]]) -> list[Line]:
    return max(memories, key=lambda lines: statistics.fmean(float(line["accuracy"]) for line in lines))


def memories_of(lines: Iterable[Line]) -> list[list[Line]]:
    """Runs in several class orders, by memory."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        axes = ("exemplars", "codec", "labels", "loss", "memory_weight", "per_raw_image")
        found.setdefault(tuple(line[axis] for axis in axes), []).append(line)
    return list(found.values())


def is_real(memory: list[Line]) -> bool:
    return memory[0]["exemplars"] in REAL_IMAGES


def are_twins(memory: list[Line], other: list[Line]) -> bool:
    return all(memory[0][axis] == other[0][axis] for axis in ("codec", "labels", "loss", "memory_weight"))


# Streams of digits

DIGITS = runs("streams_digits")
SIZES = ("1", "2", "5", "10", "20", "50")


STORED = runs("streams_digits_stored")


def digits(name: str, codec: str, loss: str, size: str) -> list[Line]:
    return [
        line
        for line in DIGITS
        if (line["ipc"], line["codec"], line["loss"]) == (size, codec, LOSSES[loss])
        and belongs(line["exemplars"], name)
    ]


def stored(name: str, codec: str, size: str) -> list[Line]:
    return [
        line
        for line in STORED
        if (line["ipc"], line["codec"]) == (size, codec) and belongs(line["exemplars"], name)
    ]


def test_accuracies_in_streams_of_digits_are_those_of_the_runs() -> None:
    cells = table("### Split digits, 5 experiences, 5 class orders", "exemplars")
    for name, codec, loss, *accuracies in cells:
        found = [digits(name, codec, loss, size) for size in SIZES]
        assert [len(lines) for lines in found] == [5] * 6
        assert [mean(lines) for lines in found] == accuracies
    assert 6 * 5 * len(cells) == len(DIGITS)


@pytest.mark.parametrize(
    ("heading", "lines", "count"),
    [
        ("### Split digits, 5 experiences, 5 class orders", DIGITS, 18),
        ("#### With the teacher's labels", STORED, 10),
    ],
)
def test_differences_in_streams_of_digits_are_those_of_the_runs(
    heading: str, lines: list[Line], count: int
) -> None:
    cells = table(heading, "IPC")
    assert len(cells) == count
    for size, rival, ours, *differences in cells:
        name, _, accuracy = ours.partition(": ")
        all_of_size = memories_of(line for line in lines if line["ipc"] == size)
        (own,) = (memory for memory in all_of_size if belongs(memory[0]["exemplars"], name))
        real = [memory for memory in all_of_size if is_real(memory)]
        first, twin = best(real), best(memory for memory in real if are_twins(own, memory))
        assert rival == f"{first[0]['exemplars']}, {first[0]['codec']}: {mean(first)}"
        assert accuracy == mean(own)
        is_plain = {"exemplars": "herding", "codec": "raw", "loss": LOSSES["GIFT"]}.items()
        (herding,) = (memory for memory in real if is_plain <= memory[0].items())
        assert [over(own, other) for other in (first, twin, herding)] == differences


def test_accuracies_with_stored_labels_are_those_of_the_runs() -> None:
    cells = table("#### With the teacher's labels", "exemplars")
    for name, codec, *accuracies in cells:
        found = [stored(name, codec, size) for size in SIZES[1:]]
        assert [len(lines) for lines in found] == [5] * 5
        assert [mean(lines) for lines in found] == accuracies
    assert 5 * 5 * len(cells) == len(STORED)


# Streams of CIFAR-100

CIFAR = memories_of(runs("streams_cifar100"))


def cifar(
    name: str, codec: str, size: str, *, labels: str = "hard", loss: str = "gift_ce:weight=0.5"
) -> list[Line]:
    """Runs of a memory of a size."""
    found = [
        [line for line in memory if line["ipc"] == size]
        for memory in CIFAR
        if (memory[0]["codec"], memory[0]["labels"], memory[0]["loss"]) == (codec, labels, loss)
        and belongs(memory[0]["exemplars"], name)
    ]
    (lines,) = filter(None, found)
    return lines


def test_accuracies_in_streams_of_cifar100_are_those_of_the_runs() -> None:
    section, of_others = "### Split CIFAR-100, 10 experiences", "#### Other labels and losses"
    rows = [(cifar(cells[1], cells[2], cells[0]), cells[3:]) for cells in table(section, "size")]
    for name, codec, labels, loss, *cells in table(of_others, "exemplars"):
        spec = {"GIFT + CE": "gift_ce:weight=0.5", "CE": "ce"}[loss]
        rows.append((cifar(name, codec, "1", labels=labels, loss=spec), cells))
    for lines, (number, nbytes, accuracy, count) in rows:
        assert (mean(lines), str(len(lines))) == (accuracy, count)
        assert f"{statistics.fmean(int(line['bytes']) for line in lines):,.0f}" == nbytes
        if number not in ("as many as fit", "all 200"):
            assert {int(line["num_exemplars"]) for line in lines} == {100 * int(number)}
    assert sum(len(lines) for lines, _ in rows) == sum(map(len, CIFAR))


def test_differences_in_streams_of_cifar100_are_those_of_the_runs() -> None:
    cells = table("### Split CIFAR-100, 10 experiences", "idc over")
    assert len(cells) == 4
    for rival, *differences in cells:
        name, codec, *size = rival.split(", ")
        for of_size, difference in zip(("1", "2", "5"), differences, strict=True):
            rivals = cifar(name, codec, size[0] if size else of_size)
            assert over(cifar("idc", "webp:10", of_size), rivals) == difference


# Side by side


@pytest.mark.parametrize(
    ("name", "heading", "extra"),
    [
        ("compare_digits", "### Digits", 0),
        ("compare_cifar10classes", "### Ten classes of CIFAR-100", 1),
    ],
)
def test_accuracies_side_by_side_are_those_of_the_runs(name: str, heading: str, extra: int) -> None:
    cells, lines = table(heading, "distiller"), runs(name)
    specs = {line["distiller"] for line in lines}
    assert len(cells) == len(specs) + extra
    for title, *values in cells:
        called, _, stored = title.partition(", four times as many in ")
        spec = called if called in specs else next(spec for spec in specs if belongs(spec, called))
        sizes = ("4", "40", "200") if stored else ("1", "10", "50")
        own = [line for line in lines if line["distiller"] == spec]
        found = [
            [line for line in own if (line["ipc"], line["loss"]) == (size, loss)]
            for size in sizes
            for loss in ("ce", "gift")
        ]
        assert [mean(cell, "accuracy_last") if cell else "-" for cell in found] == values[:6]
        assert {str(len(cell)) for cell in found if cell} == {values[6]}
        seconds = statistics.fmean(float(line["distilling_s"]) for line in found[2])
        assert f"{seconds:.1f}" == values[7]


# Sentences

TEN_CLASSES = runs("compare_cifar10classes")


def ten_classes(name: str, ipc: str, loss: str) -> list[Line]:
    """Runs of a distiller on ten classes of CIFAR-100; "small" are real images, stored as those of IDC."""
    spec, size = ("coverage", str(4 * int(ipc))) if name == "small" else (name, ipc)
    return [
        line
        for line in TEN_CLASSES
        if belongs(line["distiller"], spec) and (line["ipc"], line["loss"]) == (size, loss)
    ]


MEANS, RIDGE = "idc:iterations=100", "idc:match=ridge"


def claims() -> dict[str, list[str]]:
    """What the sentences before each heading say, by heading."""
    four_grey = {size: digits("idc:factor=1,bits=2", "quantize:2", "GIFT", size) for size in SIZES}
    ten_raw = cifar("herding", "raw", "10")
    return {
        "### Split digits, 5 experiences, 5 class orders": [
            over(ours, theirs)
            for ours, theirs in [
                (four_grey["1"], digits("herding", "quantize:2", "GIFT", "1")),
                (four_grey["2"], digits("herding", "quantize:2", "GIFT", "2")),
                (four_grey["5"], digits("coverage", "quantize:2", "GIFT", "5")),
                (four_grey["10"], digits("herding", "raw", "GIFT", "10")),
                (digits("dm", "raw", "GIFT", "10"), digits("herding", "raw", "GIFT", "10")),
                (stored("idc", "quantize:2", "10"), stored("herding", "raw", "10")),
                (stored("dm", "raw", "10"), stored("herding", "raw", "10")),
                (cifar("idc", "webp:10", "1"), cifar("herding", "raw", "1")),
                (cifar("idc", "webp:10", "1"), cifar("herding", "webp:50", "1")),
                (cifar("idc", "webp:10", "1"), ten_raw),
                (cifar("idc", "webp:10", "2"), cifar("herding", "raw", "2")),
                (cifar("idc", "webp:10", "2"), cifar("herding", "webp:50", "2")),
                (cifar("rded", "webp:50", "10"), ten_raw),
                (cifar("idc", "webp:10", "1"), cifar("coverage", "webp:10", "1")),
                (cifar("herding", "webp:50", "10"), ten_raw),
            ]
        ],
        "## Side by side": [
            over(stored("dm", "raw", "10"), stored("herding", "raw", "10")),
            over(stored("dm", "raw", "10"), stored("coverage", "raw", "10")),
            over(stored("idc", "quantize:2", "5"), stored("herding", "quantize:2", "5")),
            over(cifar("coverage", "raw", "10"), ten_raw),
            over(
                cifar("idc", "webp:10", "1", loss="ce"),
                cifar("coverage", "webp:10", "1", loss="ce"),
            ),
        ],
        "## Speed": [
            over(ten_classes(ours, size, loss), ten_classes(theirs, size, loss))
            for ours, theirs, size, loss in [
                (MEANS, "herding", "1", "ce"),
                (MEANS, "herding", "10", "ce"),
                (MEANS, "coverage", "10", "ce"),
                (MEANS, "small", "10", "ce"),
                (MEANS, "small", "1", "ce"),
                (MEANS, "small", "1", "gift"),
                (MEANS, "small", "10", "gift"),
                (MEANS, "small", "50", "gift"),
                (RIDGE, MEANS, "1", "gift"),
                (RIDGE, "herding", "1", "gift"),
                (RIDGE, MEANS, "10", "ce"),
                (RIDGE, MEANS, "10", "gift"),
                ("dm", "coverage", "10", "ce"),
            ]
        ],
    }


def said(text: str) -> list[str]:
    """Differences with intervals, as sentences say them: a sign in words, "points" between."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return [
        f"{number} {interval}"
        for number, interval in re.findall(r"(\d+\.\d)(?: points)? (\[[-+]\d+\.\d, [-+]\d+\.\d\])", prose)
    ]


def test_intervals_in_sentences_are_those_of_the_runs() -> None:
    text = DOCUMENT
    for heading, expected in claims().items():
        before, _, text = text.partition(f"\n{heading}\n")
        assert said(before) == [difference.lstrip("+-") for difference in expected]
    assert not said(text)
