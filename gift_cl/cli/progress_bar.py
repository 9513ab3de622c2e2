"""A bar on the standard error, with the speed and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gift_cl.evaluation.processes import current
from gift_cl.progress import Progress


@contextmanager
def progress_bar(description: str, *, unit: str = "images") -> Iterator[Progress]:
    """A callback that draws a bar while the block runs, and takes it away afterwards.

    Nothing is drawn where the standard error is no terminal, and by other processes than the first.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    is_hidden = not (console.is_terminal and current().is_first)
    with Bar(*columns, console=console, transient=True, disable=is_hidden) as bar:
        task = bar.add_task(description, total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
