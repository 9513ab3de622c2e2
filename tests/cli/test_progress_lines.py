"""Progress in log files: plain lines, some time apart, where no bar can be drawn."""

from collections.abc import Callable

import pytest
from rich.console import Console

from gift_cl.cli import grid_bar as grid_bar_module
from gift_cl.cli import progress_bar as progress_bar_module
from gift_cl.cli import progress_lines
from gift_cl.cli.grid_bar import grid_bar
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.evaluation.processes import Processes
from gift_cl.evaluation.run import Standing

Said = Callable[[], list[str]]


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_lines, "monotonic", clock)
    return clock


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines on the standard error since the last call; the standard output has to be empty."""

    def lines() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return lines


def standing(cells_done: int, images_done: int) -> Standing:
    return Standing(cells_done=cells_done, cells=4, images_done=images_done, images=40_000)


def test_a_line_says_how_much_is_done_how_fast_and_what_is_left(clock: Clock, said: Said) -> None:
    with progress_bar("training") as progress:
        clock.wait(40)
        progress(50_000, 100_000)
    assert said() == ["training: 50,000/100,000 images, 1,250 images/s, 0:00:40 left"]


def test_lines_are_at_least_half_a_minute_apart(clock: Clock, said: Said) -> None:
    with progress_bar("packing", unit="batches") as progress:
        for done in range(101):  # two in a second
            progress(done, 100)
            clock.wait(0.5)
    assert said() == ["packing: 60/100 batches, 2 batches/s, 0:00:20 left"]


def test_short_work_says_nothing(clock: Clock, said: Said) -> None:
    with progress_bar("reading") as progress:
        for done in range(30):
            progress(done, 30)
            clock.wait(1)
    assert said() == []


def test_speed_is_that_since_the_line_before(clock: Clock, said: Said) -> None:
    with progress_bar("training") as progress:
        for done in (300, 3300):
            clock.wait(30)
            progress(done, 6300)
    assert said() == [
        "training: 300/6,300 images, 10 images/s, 0:10:00 left",
        "training: 3,300/6,300 images, 100 images/s, 0:00:30 left",
    ]


def test_time_in_which_nothing_has_begun_does_not_count(clock: Clock, said: Said) -> None:
    with progress_bar("training") as progress:
        clock.wait(500)
        progress(0, 900)
        clock.wait(30)
        progress(300, 900)
    assert said() == [
        "training: 0/900 images",
        "training: 300/900 images, 10 images/s, 0:01:00 left",
    ]


def test_a_count_that_begins_anew_has_its_own_speed(clock: Clock, said: Said) -> None:
    """As test images are read after training images."""
    with progress_bar("reading") as progress:
        clock.wait(29)
        progress(29_000, 29_000)
        progress(100, 2000)
        clock.wait(10)
        progress(1100, 2000)
    assert said() == ["reading: 1,100/2,000 images, 110 images/s, 0:00:08 left"]


def test_more_than_all_leaves_no_time(clock: Clock, said: Said) -> None:
    with progress_bar("distilling") as progress:
        clock.wait(60)
        progress(120, 100)
    assert said() == ["distilling: 120/100 images, 2 images/s, 0:00:00 left"]


def test_a_grid_says_its_cells_too(clock: Clock, said: Said) -> None:
    with grid_bar() as progress:
        clock.wait(600)  # images are read
        progress(standing(0, 0))
        clock.wait(20)
        progress(standing(1, 10_000))
        clock.wait(20)
        progress(standing(2, 20_000))
    assert said() == [
        "0/4 cells: 0/40,000 images",
        "2/4 cells: 20,000/40,000 images, 500 images/s, 0:00:40 left",
    ]


def test_a_terminal_has_a_bar_and_no_lines(clock: Clock, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    with progress_bar("training") as progress, grid_bar() as grid:
        clock.wait(60)
        progress(50, 100)
        grid(standing(1, 20_000))
    text = "\n".join(said())
    assert "training" in text
    assert "training:" not in text
    assert "cells:" not in text


def test_other_processes_than_the_first_say_nothing(
    clock: Clock, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (progress_bar_module, grid_bar_module):
        monkeypatch.setattr(module, "current", lambda: Processes(rank=1, count=2))
    with progress_bar("training") as progress, grid_bar() as grid:
        clock.wait(60)
        progress(50, 100)
        grid(standing(1, 20_000))
    assert said() == []
