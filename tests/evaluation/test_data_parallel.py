"""Two processes of `torchrun` against one; `parallel_jobs.py` says what they do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import parallel_jobs
import pytest
import torch
from parallel_jobs import NUM_PROCESSES, ROWS_FOLDER, TEACHER_FILE, TRAININGS, run_commands
from torch import Tensor

from gift_cl.evaluation.rows import Row, read_all_rows
from gift_cl.teacher_file import load_teacher

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes have left: results by job, a teacher, rows."""
    folder = tmp_path_factory.mktemp("parallel")
    script = Path(parallel_jobs.__file__)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(NUM_PROCESSES))
    done = subprocess.run(
        [sys.executable, *launch, script.name, folder],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    """What each process has found, by job."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(NUM_PROCESSES)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and rows of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run_commands(folder)
    return folder


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("job", "atol"),
    [
        ("batch norm", 1e-5),
        ("mixed", 1e-5),
        ("a single image at the end", 1e-5),
        ("bfloat16", 1e-2),  # has 8 bits of mantissa, and sums of gradients are rounded by process
    ],
)
def test_processes_come_to_the_student_of_one(results: list[dict[str, Any]], job: str, atol: float) -> None:
    expected = TRAININGS[job]()
    for found in (result[job] for result in results):
        assert_same_weights(found["weights"], expected["weights"], atol)
        assert found["loss"] == pytest.approx(expected["loss"], rel=atol)
        assert found["num_images"] == expected["num_images"]
        assert found["curve"] == expected["curve"] or job == "bfloat16"


@pytest.mark.parametrize("job", ["batch norm", "mixed", "a single image at the end", "out of memory"])
def test_all_processes_have_the_same_student_to_the_last_bit(results: list[dict[str, Any]], job: str) -> None:
    first, second = (result[job]["weights"] for result in results)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_memory_that_runs_out_in_one_process_cuts_the_batches_of_all(results: list[dict[str, Any]]) -> None:
    expected = TRAININGS["out of memory"]()
    assert [result["out of memory"]["microbatches"] for result in results] == [4, 4]
    assert expected["microbatches"] == 4
    for result in results:
        assert_same_weights(result["out of memory"]["weights"], expected["weights"])
    told = [result["out of memory"]["warnings"] for result in results]
    assert told == [expected["warnings"], []]  # the first process speaks for all


def test_what_one_process_raises_ends_the_block_in_all_and_they_can_go_on(
    results: list[dict[str, Any]],
) -> None:
    errors = [result["failure"]["error"] for result in results]
    assert errors == [
        "OtherProcessError('Process 1 failed with LookupError: no such thing')",
        "LookupError('no such thing')",
    ]
    assert [result["failure"]["then"].tolist() for result in results] == [[2, 2], [2, 2]]


def test_the_first_process_is_heard_and_goes_ahead(results: list[dict[str, Any]]) -> None:
    assert [result["talk"]["said"] for result in results] == [{"rank": 0}] * 2
    assert [result["talk"]["seen"] for result in results] == [False, True]


def test_a_teacher_is_the_one_of_a_single_process(folder: Path, alone: Path) -> None:
    together, single = (load_teacher(path / TEACHER_FILE) for path in (folder, alone))
    assert_same_weights(together.teacher.model.state_dict(), single.teacher.model.state_dict())
    assert together.accuracy == single.accuracy
    assert together.provenance["validation"] == single.provenance["validation"]
    assert together.provenance["hardware"] == f"2 processes of {single.provenance['hardware']}"


def test_rows_are_those_of_a_single_process_and_written_once(folder: Path, alone: Path) -> None:
    together, single = (read_all_rows(path / ROWS_FOLDER) for path in (folder, alone))
    assert [row["status"] for row in together] == ["done", "failed"]
    for ours, theirs in zip(together, single, strict=True):
        assert without(ours) == without(theirs)
    assert together[0]["train_loss_last"] == pytest.approx(single[0]["train_loss_last"], rel=1e-4)
    assert together[0]["curve"][-1][1] > together[0]["curve"][0][1]


def test_a_student_that_diverges_ends_in_all_processes_with_its_row(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    row = read_all_rows(folder / ROWS_FOLDER)[1]
    assert "NaN or infinite in epoch 1" in row["reason"]
    assert [result["commands"]["codes"] for result in results] == [[0, 0], [0, 0]]
    assert list((folder / ROWS_FOLDER / "claims").iterdir()) == []


def test_the_first_process_alone_prints(folder: Path) -> None:
    said = (folder / "said").read_text()
    assert said.count("test accuracy:") == 1
    assert said.count("lr=1e+30 · conv3:width=4 · seed=0: failed") == 1


def without(row: Row) -> Row:
    """A row without what differs from run to run: clocks, memory, rounding, the weights of the teacher."""
    varying = ("train_loss_last", "seconds", "images_per_second", "peak_memory_bytes", "hardware", "started")
    named = ("cell_id", "teacher_sha256")  # follow from the bits of the teacher
    return {name: value for name, value in row.items() if name not in (*varying, *named)}
