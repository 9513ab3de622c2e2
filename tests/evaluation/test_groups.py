import math
from typing import Any

import pytest

from gift_cl.evaluation.groups import always_shown, group_rows, label, settings_of, short_name, varying
from gift_cl.evaluation.rows import Row


def make_row(**more: Any) -> Row:
    row: Row = {"cell_id": "a", "method": "rded", "dataset": "digits", "model": "mlp", "loss": "gift"}
    row |= {"optimizer": "AdamW", "lr": 0.001, "seed": 0, "status": "done", "evaluated_on": "test"}
    row |= {"settings": {"lr": 0.001, "seed": 0, "momentum": 0.9}}
    return row | more


def test_groups_differ_in_anything_but_the_seed() -> None:
    rows = [make_row(seed=seed, settings={"seed": seed, "momentum": 0.9}) for seed in (0, 1)]
    rows += [make_row(loss="kl"), make_row(evaluated_on="validation"), make_row(lr=0.01)]
    rows += [make_row(settings={"momentum": 0.5})]
    assert [len(group.rows) for group in group_rows(rows)] == [2, 1, 1, 1, 1]


def test_outcomes_do_not_split_a_group() -> None:
    rows = [make_row(seed=s, seconds=s, accuracy_last=s, microbatches=s + 1, device="cpu") for s in (0, 1)]
    assert len(group_rows(rows)) == 1


def test_failed_rows_are_in_no_group() -> None:
    rows = [make_row(status="failed", seed=0), make_row(seed=1)]
    (group,) = group_rows(rows)
    assert [row["seed"] for row in group.rows] == [1]
    assert group_rows(rows[:1]) == []


def test_statistics_agree_with_hand_calculation() -> None:
    # 0.2, 0.4, 0.9: mean 0.5, squares 0.09 + 0.01 + 0.16 = 0.26, 0.26 / 2 = 0.13
    rows = [make_row(seed=s, accuracy_last=a) for s, a in enumerate((0.2, 0.4, 0.9))]
    (group,) = group_rows(rows)
    found = group.statistic("accuracy_last")
    assert found.mean == pytest.approx(0.5)
    assert found.sd == pytest.approx(math.sqrt(0.13))
    assert found.n == 3
    assert found.text(scale=100) == "50.0 ± 36.1"
    assert group.statistic("validation_accuracy").text() == "-"


def test_curve_is_the_mean_at_each_epoch() -> None:
    rows = [make_row(seed=0, curve=[[1, 0.1], [2, 0.3]]), make_row(seed=1, curve=[[1, 0.3], [2, None]])]
    curve = group_rows(rows)[0].curve()
    assert list(curve) == [1, 2]
    assert [point.mean for point in curve.values()] == pytest.approx([0.2, 0.3])
    assert [point.n for point in curve.values()] == [2, 1]


def test_bytes_are_means_by_part() -> None:
    sizes = [{"pixels": 10, "teacher": 4, "total": 14}, {"pixels": 20, "teacher": 4, "total": 24}]
    rows = [make_row(seed=seed, bytes=size) for seed, size in enumerate(sizes)]
    assert group_rows(rows)[0].mean_bytes() == {"pixels": 15, "teacher": 4, "total": 19}
    assert group_rows([make_row()])[0].mean_bytes() == {}


def test_varying_names_what_differs_in_the_order_of_the_settings() -> None:
    one, two = settings_of(make_row()), settings_of(make_row(lr=0.1, method="datm"))
    assert varying([one, two]) == ["method", "lr"]
    assert varying([one]) == []


def test_labels_name_numbers_and_leave_names_bare() -> None:
    settings = settings_of(make_row())
    assert label(settings, ["lr", "loss", "momentum"]) == "gift · lr=0.001 · momentum=0.9"


def test_paths_and_digests_are_named_only_where_nothing_else_tells_settings_apart() -> None:
    def settings(**more: Any) -> dict[str, Any]:
        return settings_of(make_row(**more))

    paths = [settings(method=m, data=m, exemplars_sha256=m) for m in ("rded", "datm")]
    assert varying(paths) == ["method"]
    assert varying([settings(data=d, exemplars_sha256=d) for d in "ab"]) == ["data"]
    assert varying([settings(exemplars_sha256=d) for d in "ab"]) == ["exemplars_sha256"]
    assert varying([settings(teacher_sha256=d, ipc=i) for d, i in zip("aab", (1, 2, 2), strict=True)]) == [
        "ipc",
        "teacher_sha256",
    ]


def test_student_is_shown_where_it_is_not_the_model() -> None:
    assert short_name(make_row(seed=3)) == "rded · gift · AdamW · lr=0.001 · mlp · seed=3"
    row = make_row(tar_model="conv3")
    assert short_name(row) == "rded · gift · AdamW · lr=0.001 · mlp · conv3 · seed=0"
    assert always_shown([settings_of(make_row(tar_model="mlp"))])[-1] == "model"
