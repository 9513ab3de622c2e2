"""A bar on the standard error for a grid: its cells, the speed of training, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gift_cl.cli.progress_lines import ProgressLines
from gift_cl.evaluation.processes import current

if TYPE_CHECKING:
    from gift_cl.evaluation.run import Standing


@contextmanager
def grid_bar() -> Iterator[Callable[[Standing], None]]:
    """A callback that draws a bar while the block runs, and takes it away afterwards.

    Where the standard error is no terminal, it prints a line now and then. Other processes than the first
    say nothing.
    """
    if not current().is_first:
        yield lambda standing: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.fields[cells]} cells"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
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


def _lines() -> Callable[[Standing], None]:
    lines = ProgressLines()

    def show(standing: Standing) -> None:
        cells = f"{standing.cells_done}/{standing.cells} cells"
        lines(cells, standing.images_done, standing.images)

    return show
