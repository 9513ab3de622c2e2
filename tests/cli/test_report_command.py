import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gift_cl.cli import report
from gift_cl.evaluation.rows import Row, append_row


def make_row(lr: float = 0.1, seed: int = 0, last: float = 0.5, **more: Any) -> Row:
    row: Row = {"cell_id": f"{lr} {seed} {more}", "method": "rded", "dataset": "digits", "model": "mlp"}
    row |= {"loss": "gift", "optimizer": "SGD", "lr": lr, "seed": seed, "status": "done", "reason": None}
    row |= {"accuracy_last": last, "accuracy_best": last, "curve": [[1, last]], "evaluated_on": "test"}
    return row | {"bytes": {"pixels": 10, "total": 10}} | more


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    report.add_parser(parser.add_subparsers())
    options = parser.parse_args(["report", *arguments])
    options.run(options)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for lr, last, validation in ((0.1, 0.9, 0.2), (0.2, 0.5, 0.8)):
        for seed in (0, 1):
            row = make_row(lr, seed, last + 0.02 * seed, validation_accuracy=validation)
            append_row(tmp_path / "out", row)
    append_row(tmp_path / "out", make_row(0.3, status="failed", reason="the loss was NaN"))
    return tmp_path / "out"


def test_table_and_failures_are_printed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(out))
    text = capsys.readouterr().out
    assert (
        "| rded | gift | SGD | 0.1 | mlp | 2 | 91.0 ± 1.4 | 91.0 ± 1.4 | 20.0 ± 0.0 | 10 (pixels 10) |"
        in text
    )
    assert "4 of 5 cells finished" in text
    assert "lr=0.3 · mlp · seed=0: the loss was NaN" in text


def test_csv_can_be_read_by_programs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(out), "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["lr"] for line in lines] == ["0.1", "0.2"]
    assert float(lines[0]["accuracy_last_mean"]) == pytest.approx(0.91)


def test_best_learning_rate_is_the_one_of_the_validation(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(str(out), "--best-lr", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["lr"] for line in lines] == ["0.2"]


def test_learning_rate_is_never_chosen_by_test_accuracy(tmp_path: Path) -> None:
    append_row(tmp_path, make_row())
    with pytest.raises(ValueError, match="the test accuracy must not choose"):
        run(str(tmp_path), "--best-lr")


def test_figures_are_written_and_named(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(out), "--figures", str(tmp_path / "figures"))
    names = ["bars.png", "curves.png", "heat_map.png"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    said = capsys.readouterr().err
    assert all(f"wrote {tmp_path / 'figures' / name}" in said for name in names)


def test_rows_as_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(out), "--json")
    assert [row["lr"] for row in json.loads(capsys.readouterr().out)] == [0.1, 0.1, 0.2, 0.2, 0.3]


def test_folders_stand_in_one_table(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_row(tmp_path / "more", make_row(loss="kl"))
    run(str(out), str(tmp_path / "more"))
    assert "5 of 6 cells finished" in capsys.readouterr().out


def test_torn_line_is_a_note_on_the_standard_error(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (out / "rows.jsonl").open("a") as file:
        file.write('{"cell_id"')
    run(str(out))
    captured = capsys.readouterr()
    assert "note: Skipped what is no whole row" in captured.err
    assert "4 of 5 cells" in captured.out


def test_folder_without_rows_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gift-cl evaluate"):
        run(str(tmp_path))
