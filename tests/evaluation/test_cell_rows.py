import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest

from gift_cl.evaluation.rows import DiskFullError, Row, append_row, read_all_rows, read_rows


def make_row(cell_id: str = "a", **more: Any) -> Row:
    row = {"cell_id": cell_id, "method": "rded", "dataset": "digits", "model": "mlp", "loss": "gift"}
    return row | {"optimizer": "AdamW", "lr": 0.001, "seed": 0, "status": "done"} | more


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [make_row("b"), make_row("a"), make_row("c", curve=[[1, 0.5]])]
    for row in rows:
        append_row(tmp_path / "out", row)
    assert read_rows([tmp_path / "out"]) == rows
    assert read_rows([tmp_path / "out" / "rows.jsonl"]) == rows


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    row = make_row(train_loss_last=math.nan, curve=[[1, math.inf]], settings={"lr": -math.inf})
    append_row(tmp_path, row)
    (row,) = read_rows([tmp_path])
    assert (row["train_loss_last"], row["curve"], row["settings"]) == (None, [[1, None]], {"lr": None})
    assert "NaN" not in (tmp_path / "rows.jsonl").read_text()


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [(["failed", "failed"], 1), (["failed", "done"], 1), (["done", "failed"], 0), (["done", "done"], 1)],
)
def test_cell_that_was_done_again_counts_once(tmp_path: Path, statuses: list[str], kept: int) -> None:
    for attempt, status in enumerate(statuses):
        append_row(tmp_path, make_row(status=status, attempt=attempt))
    assert [row["attempt"] for row in read_rows([tmp_path])] == [kept]
    assert [row["attempt"] for row in read_all_rows(tmp_path)] == [0, 1]


def test_rows_of_several_folders_stand_together(tmp_path: Path) -> None:
    append_row(tmp_path / "x", make_row("a"))
    append_row(tmp_path / "y", make_row("b"))
    found = read_rows([tmp_path / "x", tmp_path / "y", tmp_path / "x"])
    assert [row["cell_id"] for row in found] == ["a", "b"]


def test_torn_line_costs_its_own_row_only(tmp_path: Path) -> None:
    append_row(tmp_path, make_row("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(make_row("b"))[:30])
    append_row(tmp_path, make_row("c"))
    with pytest.warns(UserWarning, match="line 2"):
        assert [row["cell_id"] for row in read_rows([tmp_path])] == ["a", "c"]


def test_folder_without_rows_has_none(tmp_path: Path) -> None:
    assert read_all_rows(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="gift-cl evaluate"):
        read_rows([tmp_path])


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match="found none"):
        read_rows([tmp_path])


@pytest.mark.parametrize("line", ['{"run_id": "a"}', "3", '["cell_id"]'])
def test_rows_of_something_else_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match="line 1 has no cell_id, method"):
        read_rows([tmp_path])


def test_full_disk_has_its_own_error_and_leaves_rows_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_row(tmp_path, make_row("a"))
    real = tmp_path / "rows.jsonl"
    full = tmp_path / "full"
    full.mkdir()
    (full / "rows.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=r"disk of `.*full` is full.*start the same command again"):
        append_row(full, make_row("b"))
    assert [row["cell_id"] for row in read_rows([real])] == ["a"]


def test_quota_counts_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("gift_cl.evaluation.rows.append_json_lines", refuse)
    with pytest.raises(DiskFullError, match="is full"):
        append_row(tmp_path, make_row())


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write rows into `.*file/out`.*Choose a folder"):
        append_row(tmp_path / "file" / "out", make_row())
