"""The cells of a grid one after another: claimed, done, written down, tracked. Processes may share it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import REAL_IMAGES
from gift_cl.evaluation.cell import Cell, run_cell
from gift_cl.evaluation.claims import Claim, take_claim
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.digests import dataset_digest, teacher_digest
from gift_cl.evaluation.grid import make_cells
from gift_cl.evaluation.groups import COLUMNS
from gift_cl.evaluation.joint_cells import CELL_ERRORS, announced, follow
from gift_cl.evaluation.parts import Parts
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.row_tracking import track_row
from gift_cl.evaluation.rows import DiskFullError, Row, append_row, latest_rows, read_all_rows, write_error
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.teacher import Teacher
from gift_cl.tracking import Mode


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a grid is.

    Args:
        cells_done: Cells that have a row.
        cells: Of the grid.
        images_done: Images that this process has trained on, each as often as it was seen.
        images: The same when it has done all cells that are left.
    """

    cells_done: int
    cells: int
    images_done: int
    images: int


class RunCell(Protocol):
    """Does a cell: `gift_cl.evaluation.cell.run_cell`."""

    def __call__(self, cell: Cell, *, progress: Progress) -> Row:
        """The row; told are images trained on, so far and in all."""


def evaluate(
    config: EvaluationConfig,
    *,
    reading: Progress = silent,
    progress: Callable[[Standing], None] = lambda standing: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Train and measure students on a distilled data set: each cell of a grid that has no row yet.

    Args:
        config: What to do; the images are found as `gift_cl.evaluation.lookup` says.
        reading: Told of images that are read before the training.
        progress: Told how far the grid is.
        on_row: Told of each new row.

    Returns:
        The rows of the grid, those of earlier runs too, in its order. Cells that failed are among
        them, with their reasons; cells that another process is just doing are not.

    Raises:
        FileNotFoundError: If images or a teacher are missing; the message says where they were looked for.
        ValueError: If a setting is unknown, or the parts do not fit together.
        DiskFullError: If there is no space left for rows; what is finished is kept.
        OSError: If rows cannot be written.
    """
    cells = make_cells(config, Parts(config, progress=reading))
    return _run_config(cells, config, progress, on_row)


def evaluate_dataset(
    dataset: DistilledDataset,
    config: EvaluationConfig,
    *,
    real: RealData | None = None,
    teacher: Teacher | None = None,
    progress: Callable[[Standing], None] = lambda standing: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """The same for a data set in memory.

    Args:
        dataset: Distilled images, ``config.ipc`` of each class.
        config: What to do; its ``data`` is not used.
        real: Real images; loaded as ``config`` says without.
        teacher: For labels on line; loaded as ``config`` says without.
        progress: Told how far the grid is.
        on_row: Told of each new row.

    Returns:
        As `evaluate`.

    Raises:
        As `evaluate`.
    """
    parts = Parts(config, dataset=dataset, real=real, teacher=teacher)
    return _run_config(make_cells(config, parts), config, progress, on_row)


def _run_config(
    cells: Sequence[Cell],
    config: EvaluationConfig,
    progress: Callable[[Standing], None],
    on_row: Callable[[Row], None],
) -> list[Row]:
    return run_grid(
        cells,
        out=Path(config.out),
        tracking=config.tracking,
        group=config.group_name,
        retry_failed=config.retry_failed,
        progress=progress,
        on_row=on_row,
    )


def run_grid(
    cells: Sequence[Cell],
    *,
    out: Path,
    tracking: Mode = "disabled",
    group: str = "evaluation",
    retry_failed: bool = False,
    run: RunCell = run_cell,
    progress: Callable[[Standing], None] = lambda standing: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Do the cells that have no row yet.

    A row is on the disk when its cell ends. A cell is done by one process, or by those of `torchrun`; others
    that share the folder leave it alone while these live, and take it over when they have died.

    Args:
        cells: In the order in which they are done.
        out: Folder of rows, claims and W&B's files; made if missing.
        tracking: W&B, a run for each cell.
        group: Of these runs.
        retry_failed: Do cells again that failed before.
        run: What does a cell. If it raises because the parts of a cell do not fit, the cell has failed, and
            the grid goes on.
        progress: Told how far the grid is.
        on_row: Told of each new row.

    Returns:
        The rows of these cells, as `evaluate`.

    Raises:
        DiskFullError: If there is no space left for rows.
        OSError: If rows cannot be written.
    """
    processes = current()
    if not processes.is_first:
        return follow(cells, run)
    run = announced(run)
    earlier = read_all_rows(out)
    begun = Counter(row["cell_id"] for row in earlier)
    settled = {r["cell_id"] for r in latest_rows(earlier) if r["status"] == "done" or not retry_failed}
    left = [cell for cell in cells if cell.cell_id not in settled]
    images_done = 0

    def tell(images: int = 0) -> None:
        progress(
            Standing(
                cells_done=len(cells) - len(left),
                cells=len(cells),
                images_done=images_done + images,
                images=images_done + sum(map(_num_images, left)),
            )
        )

    tell()
    is_moving = True
    while is_moving:  # again as long as it helps: another process may have died in the meantime
        is_moving = False
        for cell in list(left):
            with _claimed(out, cell) as claim:
                if claim is None:
                    continue
                is_moving = True
                rows_now = Counter(row["cell_id"] for row in _read_again(out))
                if rows_now[cell.cell_id] == begun[cell.cell_id]:
                    row = _do(cell, run, lambda done, total: tell(done)) | _identity(cell)
                    _keep(row, out, claim)
                    images_done += _num_images(cell)
                    track_row(row, tracking, group=group, folder=out)
                    on_row(row)
            left.remove(cell)
            tell()
    found = {row["cell_id"]: row for row in latest_rows(_read_again(out))}
    return list(processes.tell([found[cell.cell_id] for cell in cells if cell.cell_id in found]))


@contextmanager
def _claimed(out: Path, cell: Cell) -> Iterator[Claim | None]:
    """A claim on the cell for the block; None if another process has it."""
    try:
        claim = take_claim(out / "claims", cell.cell_id)
    except OSError as error:
        raise write_error(error, out) from error
    if not isinstance(claim, Claim):
        yield None
        return
    with claim:
        yield claim


def _do(cell: Cell, run: RunCell, progress: Progress) -> Row:
    try:
        return run(cell, progress=progress)
    except CELL_ERRORS as error:
        return _failed(cell, str(error) or type(error).__name__)


def _failed(cell: Cell, reason: str) -> Row:
    """A row that has no results."""
    recipe = cell.recipe.as_dict()
    return {
        "cell_id": cell.cell_id,
        **{name: recipe[name] for name in (*COLUMNS, "seed") if name in recipe},
        "method": cell.method,
        "dataset": cell.dataset,
        "data": cell.data,
        "ipc": max(cell.exemplars.images_per_class.values(), default=0),
        "num_images": len(cell.exemplars),
        "batch_size": cell.recipe.batch_size_for(len(cell.exemplars)),
        "model": cell.model,
        "tar_model": cell.student,
        "preset": cell.preset,
        "device": cell.device,
        "evaluated_on": cell.evaluated_on,
        "status": "failed",
        "reason": reason,
        "settings": recipe,
    }


def _identity(cell: Cell) -> Row:
    """What tells images and teacher of a row from others; real images are drawn anew for each seed."""
    is_drawn = cell.exemplars.provenance.method.partition(":")[0] in REAL_IMAGES
    return {
        "exemplars_sha256": None if is_drawn else dataset_digest(cell.exemplars)[:16],
        "teacher_sha256": None if cell.teacher is None else teacher_digest(cell.teacher)[:16],
    }


def _keep(row: Row, out: Path, claim: Claim) -> None:
    """Write a row down; on a full disk into the space that its claim has kept for it."""
    try:
        append_row(out, row)
    except DiskFullError:
        claim.free_space()
        append_row(out, row)


def _read_again(out: Path) -> list[Row]:
    """All rows; what there is to say about torn lines was said at the first reading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_all_rows(out)


def _num_images(cell: Cell) -> int:
    return cell.recipe.epochs * len(cell.exemplars)
