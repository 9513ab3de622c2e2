"""A bar on the standard error, with the speed and the time left; plain lines where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from gift_cl.cli.progress_lines import ProgressLines
from gift_cl.evaluation.processes import current
from gift_cl.progress import Progress, silent


@contextmanager
def progress_bar(description: str, *, unit: str = "images") -> Iterator[Progress]:
    """A callback that draws a bar while the block runs, and takes it away afterwards.

    Where the standard error is no terminal, it prints a line now and then. Other processes than the first
    say nothing.
    """
    if not current().is_first:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield partial(ProgressLines(unit=unit), description)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
