"""A bar on the standard error for a grid: its cells, the speed of training, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gift_cl.evaluation.processes import current

if TYPE_CHECKING:
    from gift_cl.evaluation.run import Standing


@contextmanager
def grid_bar() -> Iterator[Callable[[Standing], None]]:
    """A callback that draws a bar while the block runs, and takes it away afterwards.

    Nothing is drawn where the standard error is no terminal, and by other processes than the first.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[cells]} cells"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    is_hidden = not (console.is_terminal and current().is_first)
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as bar:
        task = bar.add_task("", total=None, rate="", cells="")

        def show(standing: Standing) -> None:
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            bar.update(
                task,
                completed=standing.images_done,
                total=standing.images,
                cells=f"{standing.cells_done}/{standing.cells}",
                rate=f"{speed:,.0f} images/s" if speed else "",
            )

        yield show
