import multiprocessing
import os
import random
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from tiny_grids import fake_row, fake_run, run_in_process, slow_run, tiny_cells, tiny_images

from gift_cl.evaluation import run as run_module
from gift_cl.evaluation.cell import Cell, run_cell
from gift_cl.evaluation.claims import Claim, take_claim
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.rows import DiskFullError, Row, append_row, read_all_rows
from gift_cl.evaluation.run import Standing, evaluate_dataset, run_grid
from gift_cl.models import build_model
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.teacher import Teacher

NUM_CELLS = 30


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start at once: what they import is loaded before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gift_cl.evaluation.run"])
    return context


def start(context: ForkServerContext, out: Path, kind: str, number: int = NUM_CELLS) -> ForkServerProcess:
    process = context.Process(target=run_in_process, args=(out, number, kind))
    process.start()
    return process


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_claimed(out: Path) -> bool:
    """Whether a claim is there, and written: of one that is not, nobody knows for minutes that it is dead."""
    with suppress(FileNotFoundError):  # it may go meanwhile
        return any(file.stat().st_size for file in (out / "claims").glob("*"))
    return False


def counts(out: Path) -> Counter[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about lines that were torn
        return Counter(row["cell_id"] for row in read_all_rows(out))


def seeds(rows: list[Row]) -> list[int]:
    return [row["seed"] for row in rows]


def test_cells_are_done_in_their_order_and_come_back_as_rows(tmp_path: Path) -> None:
    told: list[Row] = []
    rows = run_grid(tiny_cells(3), out=tmp_path, run=fake_run, on_row=told.append)
    assert seeds(rows) == [0, 1, 2]
    assert rows == told == read_all_rows(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []


def test_finished_cells_are_not_done_again(tmp_path: Path) -> None:
    first = run_grid(tiny_cells(2), out=tmp_path, run=fake_run)
    told: list[Row] = []
    rows = run_grid(tiny_cells(4), out=tmp_path, run=fake_run, on_row=told.append)
    assert rows[:2] == first
    assert seeds(rows) == [0, 1, 2, 3]
    assert seeds(told) == [2, 3]


def test_rows_of_other_grids_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    run_grid(tiny_cells(3), out=tmp_path, run=fake_run)
    assert seeds(run_grid(tiny_cells(1), out=tmp_path, run=fake_run)) == [0]
    assert len(read_all_rows(tmp_path)) == 3


def test_rows_say_which_images_they_are_about(tmp_path: Path) -> None:
    (row,) = run_grid(tiny_cells(1), out=tmp_path, run=fake_run)
    assert len(row["exemplars_sha256"]) == 16
    assert row["teacher_sha256"] is None


@pytest.mark.parametrize("error", [ValueError("they do not fit"), RuntimeError("no kernel")])
def test_cell_that_raises_is_kept_with_its_reason_and_the_grid_goes_on(
    tmp_path: Path, error: Exception
) -> None:
    def run(cell: Cell, *, progress: Progress = silent) -> Row:
        if cell.recipe.seed == 1:
            raise error
        return fake_row(cell)

    rows = run_grid(tiny_cells(3), out=tmp_path, run=run)
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["reason"] == str(error)
    assert (rows[1]["method"], rows[1]["loss"], rows[1]["num_images"]) == ("tiny", "ce", 4)


def test_failed_cells_are_done_again_when_asked_for(tmp_path: Path) -> None:
    def fail(cell: Cell, *, progress: Progress = silent) -> Row:
        raise ValueError("why")

    run_grid(tiny_cells(2), out=tmp_path, run=fail)
    assert [r["status"] for r in run_grid(tiny_cells(2), out=tmp_path, run=fake_run)] == ["failed"] * 2
    rows = run_grid(tiny_cells(2), out=tmp_path, run=fake_run, retry_failed=True)
    assert [row["status"] for row in rows] == ["done"] * 2
    assert len(read_all_rows(tmp_path)) == 4
    run_grid(tiny_cells(2), out=tmp_path, run=fail, retry_failed=True)
    assert len(read_all_rows(tmp_path)) == 4


def test_diverged_cell_is_kept_and_the_grid_goes_on(tmp_path: Path) -> None:
    good, bad = tiny_cells(2)
    settings = {"optimizer": "SGD", "lr": 1e9, "epochs": 5}
    bad = Cell(**{**vars(bad), "recipe": bad.recipe.override(**settings)})
    rows = run_grid([bad, good], out=tmp_path, run=run_cell)
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "NaN" in rows[0]["reason"]
    assert rows[0]["accuracy_last"] is None
    assert 0 <= rows[1]["accuracy_last"] <= 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, TypeError, OSError])
def test_interruption_leaves_earlier_rows_and_no_claim(tmp_path: Path, error: type[BaseException]) -> None:
    def run(cell: Cell, *, progress: Progress = silent) -> Row:
        if cell.recipe.seed == 1:
            raise error
        return fake_row(cell)

    with pytest.raises(error):
        run_grid(tiny_cells(3), out=tmp_path, run=run)
    assert seeds(read_all_rows(tmp_path)) == [0]
    assert list((tmp_path / "claims").iterdir()) == []


def test_cell_that_another_process_is_doing_is_left_to_it(tmp_path: Path) -> None:
    cells = tiny_cells(3)
    claim = take_claim(tmp_path / "claims", cells[1].cell_id)
    assert isinstance(claim, Claim)
    with claim:
        assert seeds(run_grid(cells, out=tmp_path, run=fake_run)) == [0, 2]
    assert seeds(run_grid(cells, out=tmp_path, run=fake_run)) == [0, 1, 2]


def test_cell_that_another_process_finished_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    cells = tiny_cells(2)
    done = []

    def run(cell: Cell, *, progress: Progress = silent) -> Row:
        done.append(cell.recipe.seed)
        append_row(tmp_path, fake_row(cells[1], by="another"))
        return fake_row(cell)

    rows = run_grid(cells, out=tmp_path, run=run)
    assert done == [0]
    assert rows[1]["by"] == "another"


def test_progress_counts_cells_and_images(tmp_path: Path) -> None:
    run_grid(tiny_cells(1), out=tmp_path, run=fake_run)
    told: list[Standing] = []
    run_grid(tiny_cells(3), out=tmp_path, run=fake_run, progress=told.append)
    # A cell trains for 2 epochs on 4 images; one of the three is done already.
    assert [(s.cells_done, s.images_done) for s in told] == [
        *((1, 0), (1, 4), (1, 8), (2, 8)),
        *((2, 12), (2, 16), (3, 16)),
    ]
    assert {(s.cells, s.images) for s in told} == {(3, 16)}


def test_row_finds_space_on_a_disk_that_ran_full_while_its_cell_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(out: Path, row: Row) -> None:
        (claim,) = (tmp_path / "claims").iterdir()
        if claim.stat().st_size > 10_000:
            raise DiskFullError("full")
        append_row(out, row)

    monkeypatch.setattr(run_module, "append_row", append)
    assert len(run_grid(tiny_cells(2), out=tmp_path, run=fake_run)) == 2


def test_full_disk_stops_the_grid_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_grid(tiny_cells(1), out=tmp_path, run=fake_run)

    def append(out: Path, row: Row) -> None:
        raise DiskFullError("full")

    monkeypatch.setattr(run_module, "append_row", append)
    with pytest.raises(DiskFullError):
        run_grid(tiny_cells(2), out=tmp_path, run=fake_run)
    monkeypatch.undo()
    assert seeds(run_grid(tiny_cells(2), out=tmp_path, run=fake_run)) == [0, 1]


def test_disk_that_is_full_before_a_cell_is_found_before_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gift_cl.evaluation.claims.os.fsync", refuse)
    with pytest.raises(DiskFullError, match=r"is full.*start the same command again"):
        run_grid(tiny_cells(1), out=tmp_path, run=slow_run)


def test_folder_that_cannot_be_written_is_named_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write rows into `.*file/out`"):
        run_grid(tiny_cells(1), out=tmp_path / "file" / "out", run=slow_run)


def test_torn_line_is_healed_and_its_cell_done_again(tmp_path: Path) -> None:
    run_grid(tiny_cells(2), out=tmp_path, run=fake_run)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="line 2") as caught:
        rows = run_grid(tiny_cells(2), out=tmp_path, run=fake_run)
    assert seeds(rows) == [0, 1]
    assert len(caught) == 1


def test_grid_that_is_killed_again_and_again_ends_with_the_rows_of_one_that_is_not(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    whole = run_grid(tiny_cells(NUM_CELLS), out=tmp_path / "whole", run=slow_run)
    out, draws, num_killed = tmp_path / "killed", random.Random(0), 0
    for _ in range(8):
        before = counts(out).total()
        process = start(processes, out, "slow")
        wait_for(lambda: is_claimed(out))
        time.sleep(draws.uniform(0, 0.06))
        num_killed += process.is_alive()
        process.kill()
        process.join()
        assert counts(out).total() >= before
    assert num_killed >= 5
    assert counts(out).total() < NUM_CELLS
    last = start(processes, out, "slow")
    last.join()
    assert last.exitcode == 0
    assert set(counts(out).values()) == {1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = run_grid(tiny_cells(NUM_CELLS), out=out, run=slow_run)
    assert [row | {"process": 0} for row in rows] == [row | {"process": 0} for row in whole]


def test_training_that_is_killed_ends_with_the_numbers_of_one_that_is_not(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    def numbers(rows: list[Row]) -> list[Any]:
        names = ("cell_id", "curve", "accuracy_last", "accuracy_best", "train_loss_last", "bytes")
        return [[row[name] for name in names] for row in rows]

    whole = run_grid(tiny_cells(4), out=tmp_path / "whole", run=run_cell)
    out = tmp_path / "killed"
    for _ in range(2):
        process = start(processes, out, "real", 4)
        wait_for(lambda: is_claimed(out))
        process.kill()
        process.join()
    assert numbers(run_grid(tiny_cells(4), out=out, run=run_cell)) == numbers(whole)


def test_two_processes_do_each_cell_of_a_grid_once(tmp_path: Path, processes: ForkServerContext) -> None:
    both = [start(processes, tmp_path, "slow") for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = counts(tmp_path)
    assert len(found) == NUM_CELLS
    assert set(found.values()) == {1}
    assert len({row["process"] for row in read_all_rows(tmp_path)}) == 2


def test_cell_of_a_process_that_dies_is_taken_over_by_one_that_lives(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    stuck = start(processes, tmp_path, "stuck")
    wait_for(lambda: is_claimed(tmp_path))
    living = start(processes, tmp_path, "slow")
    wait_for(lambda: counts(tmp_path).total() > 0)
    stuck.kill()
    living.join()
    stuck.join()
    first = tiny_cells(1)[0].cell_id
    assert set(counts(tmp_path).values()) == {1}
    assert [row["cell_id"] for row in read_all_rows(tmp_path)][-1] == first


def test_each_cell_is_a_run_of_wandb(
    tmp_path: Path, wandb_home: Path, read_offline_run: Any, read_offline_records: Any
) -> None:
    rows = run_grid(tiny_cells(2), out=tmp_path, run=fake_run, tracking="offline", group="a group")
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"), key=os.path.getmtime)
    assert len(folders) == 2
    for row, folder in zip(rows, folders, strict=True):
        alone = tmp_path / f"alone{row['seed']}"
        shutil.copytree(folder, alone / "wandb" / folder.name)
        config, history, summary = read_offline_run(alone)
        assert (config["seed"], config["loss"], config["status"]) == (row["seed"], "ce", "done")
        assert config["settings"]["epochs"] == 2
        assert [(h["_step"], h["accuracy"]) for h in history] == [(1, 0.25), (2, row["seed"] / 100)]
        assert (summary["accuracy_last"], summary["bytes/total"]) == (row["accuracy_last"], 64)
        (record,) = [r.run for r in read_offline_records(alone) if r.WhichOneof("record_type") == "run"]
        assert record.run_group == "a group"
        assert record.display_name == f"tiny · ce · AdamW · lr=0.001 · mlp:hidden=4 · seed={row['seed']}"


def test_grid_of_the_same_images_in_another_object_has_the_same_cells() -> None:
    (cell,) = tiny_cells(1)
    again = Cell(**{**vars(cell), "exemplars": tiny_images()})
    other = Cell(**{**vars(cell), "exemplars": tiny_images(seed=5)})
    assert cell.cell_id == again.cell_id != other.cell_id


def test_data_set_in_memory_is_evaluated_with_what_is_in_memory(tmp_path: Path) -> None:
    real = RealData(name="made up", train=tiny_images(40, seed=2), test=tiny_images(20, seed=3))
    network = build_model("mlp:hidden=4", in_channels=1, image_size=4, num_classes=2)
    config = EvaluationConfig(
        method="mine",
        dataset="made up",
        model="mlp:hidden=4",
        ipc=2,
        criterion_name=["gift", "kl"],
        normalization="none",
        view="none",
        epochs=2,
        evaluations=1,
        out=str(tmp_path),
        tracking="disabled",
        device="cpu",
    )
    rows = evaluate_dataset(tiny_images(), config, real=real, teacher=Teacher(network, classes=range(2)))
    assert [(row["loss"], row["labels"], row["status"]) for row in rows] == [
        ("gift", "online", "done"),
        ("kl", "online", "done"),
    ]
    assert rows[0]["bytes"]["teacher"] == 4 * sum(p.numel() for p in network.parameters())
    assert 0 <= rows[0]["teacher_accuracy"] <= 1
    assert rows[0]["data"] == "a generator"
    assert rows[0]["teacher_sha256"] == rows[1]["teacher_sha256"]
    assert rows[0]["teacher_sha256"] is not None
    again = evaluate_dataset(tiny_images(), config, real=real, teacher=Teacher(network, classes=range(2)))
    assert again == rows
