"""Distillers side by side: `python -m experiments.compare_distillers --distillers '[random, herding, rded]'`.

One teacher learns the training images; each distiller makes exemplars of them, of the same bytes (or, with
a codec of files, as many: the table says what they take); and students with the network of the teacher learn
the exemplars, all with as many steps, images a step, the same augmentation and learning rate. Every option
can stand in a YAML file (`--config experiments/configs/compare_digits.yaml`) and be overridden on the command
line; unknown keys are errors.

A row goes to `OUT/rows.jsonl` as soon as its student is trained. A command that is started again goes on
where it was stopped, and tries again what failed. Two processes share the work with `--shard 1/2` and
`--shard 2/2`. At the end there are `OUT/table.md`, `OUT/cells.csv` with a line for each student,
`OUT/accuracy.png`, and pictures of exemplars.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.compare_cell import Comparison, Row
from experiments.compare_report import exemplars_file, sentence, write_report
from experiments.compare_settings import CompareConfig, Job, make_jobs
from experiments.compare_teacher import find_teacher
from experiments.rows import FILE_NAME
from gift_cl.cli.progress_bar import progress_bar
from gift_cl.dataset_file import save_dataset
from gift_cl.files import check_writable
from gift_cl.json_lines import append_json_lines, read_json_lines
from gift_cl.real_data import RealData
from gift_cl.tracking import make_tracker

_TRACKED = ("accuracy_last", "accuracy_best", "distillation_seconds")
_FAILURES = (ValueError, ArithmeticError, RuntimeError, MemoryError)


def run(
    config: CompareConfig,
    data: RealData | None = None,
    *,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Do what is left of a comparison, and write its table and pictures.

    Args:
        config: All of it.
        data: What ``config.load()`` gives, when it has been loaded already.
        on_row: Told of each new row.

    Returns:
        The rows of the configuration that are there now, those of other shards too, in its order.

    Raises:
        ValueError: If a setting does not fit the data or the others.
        OSError: If results cannot be written.
    """
    out = Path(config.out)
    check_writable(out / FILE_NAME)
    data = config.choose(data or config.load())
    jobs = make_jobs(config, num_classes=data.num_classes, image_shape=data.image_shape)
    with progress_bar("teacher") as progress:
        teacher = find_teacher(config, data, progress=progress)
    comparison = Comparison(config, data, teacher)
    done = {row["row_id"] for row in _read(out) if row["status"] == "done"}
    tracker = make_tracker(
        config.tracking,
        config=asdict(config),
        name=f"{data.name}-{config.shard.replace('/', '-of-')}",
        group=f"compare-{data.name}",
        folder=out,
    )
    step = 0
    for job in _share(jobs, *config.shard_parts):
        losses = [loss for loss in config.losses if comparison.row_id(job, loss) not in done]
        for row in _do(comparison, job, losses, out):
            append_json_lines(out / FILE_NAME, [row])
            on_row(row)
            if row["status"] == "done":
                name = f"{job.name}/ipc{job.ipc}/{row['loss']}"
                tracker.log({f"{name}/{number}": row[number] for number in _TRACKED}, step=step)
                step += 1
    latest = {row["row_id"]: row for row in _read(out)}
    ids = [comparison.row_id(job, loss) for job in jobs for loss in config.losses]
    rows = [latest[row_id] for row_id in ids if row_id in latest]
    for name, picture in write_report(config, rows, out).items():
        tracker.picture(name, picture)
    tracker.finish({"rows": len(rows), "rows_in_all": len(ids)})
    return rows


def _share(jobs: Sequence[Job], number: int, count: int) -> list[Job]:
    """The jobs of a shard; they are dealt out at random, alike in all processes."""
    order = list(range(len(jobs)))
    random.Random(0).shuffle(order)
    return [jobs[index] for index in sorted(order[number - 1 :: count])]


def _do(comparison: Comparison, job: Job, losses: Sequence[str], out: Path) -> Iterator[Row]:
    """Rows of a job, as they are finished; nothing is distilled where none is left."""
    if not losses:
        return
    name = f"{job.name}, IPC {job.ipc}, seed {job.seed}"
    try:
        with progress_bar(f"{name}: distilling") as progress:
            exemplars = comparison.make(job, progress=progress)
    except _FAILURES as error:
        yield from (comparison.failed(job, loss, str(error)) for loss in losses)
        return
    cell = {"distiller": job.name, "ipc": job.ipc, "seed": job.seed}
    save_dataset(exemplars.dataset, exemplars_file(out, cell, exemplars.sha256))
    for loss in losses:
        try:
            with progress_bar(f"{name}: {loss}") as progress:
                row = comparison.train(job, exemplars, loss, progress=progress)
        except _FAILURES as error:
            row = comparison.failed(job, loss, str(error))
        yield row


def _read(out: Path) -> list[Row]:
    """Every row of a folder as it was appended; none without a file.

    Raises:
        ValueError: If it holds other rows.
    """
    file = out / FILE_NAME
    rows = [row for _, row in read_json_lines(file)] if file.is_file() else []
    if any("row_id" not in row for row in rows):
        raise ValueError(f"Expected rows of this command in `{file}`, got others. Choose another `out`.")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit code is 1 if something failed, and 2 if nothing could be done."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m experiments.compare_distillers", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(CompareConfig)
    values = parser.parse_args(arguments).as_dict()
    values.pop("config", None)
    try:
        rows = run(CompareConfig(**values), on_row=lambda row: print(sentence(row), flush=True))
    except (ValueError, ArithmeticError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{Path(values['out'], 'table.md').read_text(encoding='utf-8')}")
    print(f"table, figure and pictures in {values['out']}")
    return int(any(row["status"] == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
