import json
import math
from pathlib import Path
from typing import Any

import pytest

from experiments.arm_settings import arm_key, arm_labels, group_by_arm, shared_settings
from experiments.arms import make_arms
from experiments.rows import Row, append_rows, final_rows, read_rows

GIFT = {
    "strategy": "gift",
    "exemplars": "herding",
    "codec": "webp:75",
    "labels": "stored",
    "loss": "gift:weight=0.5",
    "protocol": "rehearsal",
    "budget_bytes": 5250,
}
NAIVE = {"strategy": "naive", "exemplars": "-", "codec": "-", "labels": "-", "loss": "-"} | {
    "protocol": "no_memory",
    "budget_bytes": None,
}
REPLAY = {"strategy": "replay", "exemplars": "random", "codec": "raw", "labels": "hard"} | {
    "loss": "ce",
    "protocol": "rehearsal",
    "budget_bytes": 5250,
}


def make_row(settings: dict[str, Any], *, seed: int = 0, experience: int = 1, **more: Any) -> Row:
    return {
        "run_id": f"{settings['strategy']}-s{seed}",
        "benchmark": "digits/2",
        **settings,
        "model": "mlp",
        "seed": seed,
        "class_order_seed": seed,
        "experience": experience,
        "num_experiences": 2,
        "accuracy_seen": 0.5,
        "seconds": 2.0,
        "evaluated_on": "test",
        "oracle": False,
        **more,
    }


def test_rows_come_back_with_their_folder(tmp_path: Path) -> None:
    append_rows(tmp_path / "runs", [make_row(NAIVE, experience=0)])
    append_rows(tmp_path / "runs", [make_row(NAIVE, experience=1)])
    rows = read_rows([tmp_path / "runs"])
    assert rows == [make_row(NAIVE, experience=e) | {"folder": str(tmp_path / "runs")} for e in (0, 1)]
    assert read_rows([tmp_path / "runs" / "rows.jsonl"]) == rows


def test_torn_last_line_is_skipped_and_later_rows_are_not_glued_to_it(tmp_path: Path) -> None:
    append_rows(tmp_path, [make_row(NAIVE, experience=0)])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(make_row(NAIVE))[:40])
    with pytest.warns(UserWarning, match=r"rows\.jsonl`: line 2\."):
        assert [row["experience"] for row in read_rows([tmp_path])] == [0]
    append_rows(tmp_path, [make_row(NAIVE, experience=1)])
    with pytest.warns(UserWarning, match="line 2"):
        assert [row["experience"] for row in read_rows([tmp_path])] == [0, 1]


def test_run_that_was_started_again_counts_once_with_its_last_rows(tmp_path: Path) -> None:
    append_rows(tmp_path, [make_row(NAIVE, accuracy_seen=0.1)])
    append_rows(tmp_path, [make_row(NAIVE, accuracy_seen=0.2)])
    assert [row["accuracy_seen"] for row in read_rows([tmp_path, tmp_path])] == [0.2]


def test_same_run_in_two_folders_counts_once_with_a_warning(tmp_path: Path) -> None:
    for name in ("a", "b"):
        append_rows(tmp_path / name, [make_row(NAIVE)])
    with pytest.warns(UserWarning, match=r"naive-s0 is in .*counts once"):
        assert len(read_rows([tmp_path / "a", tmp_path / "b"])) == 1


def test_missing_rows_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.class_incremental"):
        read_rows([tmp_path])


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match="found none"):
        read_rows([tmp_path])


@pytest.mark.parametrize("line", ['{"run_id": "a"}', "3"])
def test_rows_of_something_else_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"line 1 has no accuracy_seen, benchmark"):
        read_rows([tmp_path])


def test_append_error_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write rows into `.*file/runs`.*Choose a folder"):
        append_rows(tmp_path / "file" / "runs", [make_row(NAIVE)])


def test_labels_drop_axes_that_are_equal() -> None:
    rows = [make_row(s) for s in (NAIVE, REPLAY, GIFT, GIFT | {"codec": "raw"})]
    assert list(arm_labels(rows).values()) == ["naive", "replay", "gift · webp:75", "gift · raw"]
    assert list(arm_labels(rows[:3]).values()) == ["naive", "replay", "gift"]


def test_labels_show_budgets_that_differ() -> None:
    rows = [make_row(s) for s in (NAIVE, REPLAY, REPLAY | {"budget_bytes": 10500})]
    assert list(arm_labels(rows).values()) == ["naive", "replay · 5,250 B", "replay · 10,500 B"]
    ignoring = arm_labels(rows, ignore=("budget_bytes",))
    assert list(ignoring.values()) == ["naive", "replay", "replay"]


def test_runs_that_differ_in_a_setting_without_a_column_are_different_arms() -> None:
    rows = [
        make_row(GIFT, config={"lr": lr, "memory_weight": 1.0, "seed": seed, "out": f"runs/{seed}"})
        for lr in (0.1, 0.05)
        for seed in (0, 1)
    ]
    assert list(arm_labels(rows).values()) == ["gift · lr=0.1", "gift · lr=0.05"]
    assert [len(group) for group in group_by_arm(rows).values()] == [2, 2]


def test_labels_of_different_arms_differ() -> None:
    variants: list[dict[str, Any]] = [{}, {"codec": "raw"}, {"loss": "ce"}, {"oracle": True}]
    variants += [{"budget_bytes": None}, {"evaluated_on": "validation"}, {"model": "conv3"}]
    rows = [make_row(settings) | change for settings in (GIFT, REPLAY) for change in variants]
    labels = arm_labels(rows)
    assert len(labels) == 12  # replay is raw and has the loss ce already
    assert len(set(labels.values())) == 12


def test_seeds_are_no_part_of_an_arm() -> None:
    assert arm_key(make_row(GIFT, seed=0)) == arm_key(make_row(GIFT, seed=1))
    assert arm_key(make_row(GIFT)) != arm_key(make_row(GIFT, evaluated_on="validation"))


def test_shared_settings_look_at_memories_that_have_them() -> None:
    shared = shared_settings([make_row(NAIVE), make_row(REPLAY), make_row(GIFT)])
    assert shared["codec"] == "webp:75"
    assert shared["model"] == "mlp"
    assert "protocol" not in shared


def test_arms_are_ordered_by_accuracy_and_leave_unfinished_runs_out() -> None:
    rows = [make_row(NAIVE, seed=s, accuracy_seen=0.1, experience=e) for s in (0, 1) for e in (0, 1)]
    rows += [make_row(GIFT, seed=s, accuracy_seen=a) for s, a in ((0, 0.6), (1, 0.8))]
    rows += [make_row(GIFT, seed=2, accuracy_seen=0.9, experience=0)]
    gift, naive = make_arms(rows)
    assert (gift.label, gift.accuracy.n, naive.label) == ("gift", 2, "naive")
    assert gift.accuracy.mean == pytest.approx(0.7)
    assert gift.accuracy.sd == pytest.approx(math.sqrt(0.02))
    assert naive.seconds.mean == pytest.approx(4.0)
    assert list(naive.curve()) == [0, 1]
    assert final_rows(rows) == [row for row in rows if row["experience"] == 1]
