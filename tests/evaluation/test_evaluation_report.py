import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gift_cl.evaluation.groups import group_rows
from gift_cl.evaluation.report import failures, flags, format_report
from gift_cl.evaluation.report_figures import accuracy_bars, heat_map, learning_curves, write_figures
from gift_cl.evaluation.rows import Row

BYTES = {"pixels": 1000, "labels": 10, "soft_labels": 0, "teacher": 200, "total": 1210}


def make_row(seed: int = 0, last: float = 0.5, **more: Any) -> Row:
    row: Row = {"method": "rded", "dataset": "digits", "model": "mlp", "loss": "gift", "optimizer": "AdamW"}
    row |= {"lr": 0.001, "seed": seed, "status": "done", "reason": None, "evaluated_on": "test"}
    row |= {"accuracy_last": last, "accuracy_best": last + 0.1, "bytes": BYTES, "ipc": 10, "commit": "abc"}
    row |= {"curve": [[1, last / 2], [2, last]], "hardware": "a machine", "microbatches": 1} | more
    return row | {"cell_id": str(sorted((k, str(v)) for k, v in row.items()))}


def table(rows: list[Row]) -> list[dict[str, str]]:
    lines = [line for line in format_report(rows).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


def test_table_has_means_and_sample_deviations_over_seeds() -> None:
    # 40, 50, 60: mean 50, squares 100 + 0 + 100, 200 / 2 = 100, sd 10
    rows = [make_row(seed, last) for seed, last in enumerate((0.4, 0.5, 0.6))]
    rows += [make_row(0, 0.25, loss="kl", accuracy_best=0.75)]
    first, second = table(rows)
    assert first == {
        "method": "rded",
        "loss": "gift",
        "optimizer": "AdamW",
        "lr": "0.001",
        "model": "mlp",
        "n": "3",
        "last (%)": "50.0 ± 10.0",
        "best (%)": "60.0 ± 10.0",
        "bytes": "1,210 (pixels 1,000, labels 10, teacher 200)",
    }
    assert (second["loss"], second["n"]) == ("kl", "1")
    assert (second["last (%)"], second["best (%)"]) == ("25.0", "75.0")


def test_table_shows_other_settings_where_they_differ_only() -> None:
    lines = table([make_row(ipc=ipc, settings={"momentum": 0.9}) for ipc in (1, 10)])
    assert [line["ipc"] for line in lines] == ["1", "10"]
    assert "momentum" not in lines[0]
    lines = table([make_row(settings={"momentum": momentum}) for momentum in (0.0, 0.9)])
    assert [line["momentum"] for line in lines] == ["0", "0.9"]


def test_validation_accuracy_and_top5_are_shown_where_they_were_measured() -> None:
    (line,) = table([make_row(validation_accuracy=0.4, top5_last=0.9)])
    assert (line["validation (%)"], line["top-5 (%)"]) == ("40.0", "90.0")
    assert "top-5 (%)" not in table([make_row()])[0]


def test_bytes_that_nobody_counted_are_said_to_be_unknown() -> None:
    assert table([make_row(bytes=None)])[0]["bytes"] == "unknown"


def test_bars_in_names_do_not_break_the_table() -> None:
    text = format_report([make_row(view="flip | dsa"), make_row(view="dsa")])
    assert r"| flip \| dsa |" in text


def test_csv_has_numbers_as_they_are() -> None:
    rows = [make_row(seed, last) for seed, last in enumerate((0.4, 0.5, 0.6))] + [make_row(lr=0.1)]
    lines = list(csv.DictReader(io.StringIO(format_report(rows, "csv"))))
    assert [line["n"] for line in lines] == ["3", "1"]
    assert float(lines[0]["accuracy_last_mean"]) == pytest.approx(0.5)
    assert float(lines[0]["accuracy_last_sd"]) == pytest.approx(0.1)
    assert lines[1]["accuracy_last_sd"] == lines[1]["validation_accuracy_mean"] == ""
    assert [float(lines[0][f"bytes_{part}"]) for part in BYTES] == list(BYTES.values())
    assert [line["lr"] for line in lines] == ["0.001", "0.1"]
    assert [line["evaluated_on"] for line in lines] == ["test", "test"]


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="markdown or csv, got 'html'"):
        format_report([make_row()], "html")  # type: ignore[arg-type]


def test_rows_evaluated_on_validation_are_flagged() -> None:
    rows = [make_row(), make_row(evaluated_on="validation")]
    (flag,) = flags(rows)
    assert "1 of 2 rows evaluated on validation" in flag
    assert "no test results" in flag
    assert flag in format_report(rows)
    assert "All rows evaluated on validation" in flags(rows[1:])[0]
    assert flags(rows[:1]) == []


def test_batches_that_were_split_for_want_of_memory_are_flagged() -> None:
    assert "1 of 2 rows trained in smaller parts" in flags([make_row(), make_row(1, microbatches=4)])[0]


def test_teacher_below_the_published_accuracy_is_flagged() -> None:
    published: dict[str, Any] = {"dataset": "cifar100", "model": "conv3:width=128", "evaluated_on": "test"}
    rows = [make_row(seed, teacher_accuracy=0.5, **published) for seed in (0, 1)]
    (flag,) = flags(rows)
    assert "teacher of cifar100 with conv3:width=128 reaches 50.0%**, the published one 61.3%" in flag
    assert flags([make_row(teacher_accuracy=0.6, **published)]) == []
    assert flags([make_row(teacher_accuracy=0.5)]) == []


def test_failed_cells_are_listed_with_their_reasons() -> None:
    rows = [make_row(), make_row(3, loss="kl", status="failed", reason="the loss is NaN in epoch 2")]
    assert failures(rows) == ["rded · kl · AdamW · lr=0.001 · mlp · seed=3: the loss is NaN in epoch 2"]
    text = format_report(rows)
    assert "- rded · kl · AdamW" in text
    assert "1 of 2 cells finished" in text
    assert len(table(rows)) == 1


def test_report_of_failures_alone_has_no_table() -> None:
    text = format_report([make_row(status="failed", reason="why")])
    assert "0 of 1 cells finished" in text
    assert "| ---" not in text


def test_report_says_what_the_numbers_come_from() -> None:
    text = format_report([make_row(), make_row(1, commit="def+")])
    assert "commit: abc | def+" in text
    assert "hardware: a machine" in text


def grid() -> list[Row]:
    return [
        make_row(seed, 0.5 + 0.1 * seed, loss=loss, optimizer=optimizer)
        for loss in ("gift", "kl:temperature=4")
        for optimizer in ("SGD", "AdamW")
        for seed in (0, 1)
        if (loss, optimizer) != ("kl:temperature=4", "SGD")
    ]


def test_heat_map_has_means_at_their_places() -> None:
    axes: Any = heat_map(group_rows(grid())).axes[0]
    values = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(values, np.array([[55, 55], [np.nan, 55]]))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["gift", "kl:temperature=4"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["SGD 0.001", "AdamW 0.001"]
    assert [text.get_text() for text in axes.texts] == ["55.0 ± 7.1", "55.0 ± 7.1", "-", "55.0 ± 7.1"]


def test_each_learning_rate_has_its_own_column_in_the_heat_map() -> None:
    rows = [make_row(lr=lr, last=lr) for lr in (0.1, 0.2)]
    axes: Any = heat_map(group_rows(rows)).axes[0]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[10, 20]])


def test_bars_have_means_and_a_dot_for_each_seed() -> None:
    axes: Any = accuracy_bars(group_rows(grid())).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([55, 55, 55])
    dots = [np.asarray(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.array(dots), np.array([[50, 60]] * 3))


def test_curves_are_means_with_a_band() -> None:
    axes: Any = learning_curves(group_rows(grid())).axes[0]
    assert len(axes.lines) == 3
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1.0, 27.5], [2.0, 55.0]])
    assert len(axes.collections) == 3


def test_only_the_ten_best_curves_are_drawn() -> None:
    rows = [make_row(lr=lr, last=0.01 * lr) for lr in range(1, 13)]
    figure: Any = learning_curves(group_rows(rows))
    assert len(figure.axes[0].lines) == 10
    assert "the best 10 of 12" in figure.axes[0].get_title()
    lasts = [np.asarray(line.get_ydata())[-1] for line in figure.axes[0].lines]
    np.testing.assert_allclose(lasts, range(3, 13))


def test_figures_are_written_for_each_setting_of_the_other_axes(tmp_path: Path) -> None:
    written = write_figures([*grid(), make_row(model="conv3")], tmp_path / "figures")
    assert [path.name for path in written] == [
        *("heat_map-1.png", "bars-1.png", "curves-1.png"),
        *("heat_map-2.png", "bars-2.png", "curves-2.png"),
    ]
    for path in written:
        with Image.open(path) as image:
            assert image.width > 500
    names = [path.name for path in write_figures(grid(), tmp_path)]
    assert names == ["heat_map.png", "bars.png", "curves.png"]


def test_failed_cells_alone_make_no_figures(tmp_path: Path) -> None:
    assert write_figures([make_row(status="failed")], tmp_path) == []
