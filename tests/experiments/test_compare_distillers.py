from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from experiments import compare_cell, compare_distillers, compare_report, compare_teacher
from experiments.compare_cell import Comparison
from experiments.compare_distillers import main, run
from experiments.compare_report import accuracy_bars, format_table, group_rows
from experiments.compare_settings import CompareConfig, exemplars_per_class, make_jobs
from gift_cl.codecs import Downscale
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset
from gift_cl.distillers import DISTILLERS, RandomImages
from gift_cl.distilling import distill_dataset
from gift_cl.evaluation.accuracy import measure
from gift_cl.evaluation.labelling import seeded
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.training import train
from gift_cl.models import build_model
from gift_cl.real_data import RealData, load_real_data
from gift_cl.registry import Entry
from gift_cl.teacher_file import load_teacher

Finished = tuple[CompareConfig, list[dict[str, Any]]]

CLOCKS = ("distillation_seconds", "distillation_images_per_second", "training_seconds")
CHANGING = (*CLOCKS, "training_images_per_second", "started", "config")


@pytest.fixture(scope="module")
def digits() -> RealData:
    return load_real_data("digits")


def tiny(out: Path, **changes: Any) -> CompareConfig:
    settings: dict[str, Any] = {
        "distillers": ["random", "herding"],
        "ipc": [1, 2],
        "seeds": [0, 1],
        "model": "mlp:hidden=16",
        "steps": 4,
        "rounds": 2,
        "batch_size": 20,
        "teacher_epochs": 2,
        "images_per_class": 20,
        "tracking": "disabled",
        "out": str(out),
    }
    return CompareConfig(**(settings | changes))


@pytest.fixture(scope="module")
def finished(digits: RealData, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A comparison that is done, and its rows."""
    config = tiny(tmp_path_factory.mktemp("finished"))
    return config, run(config, digits)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a tiny comparison; `finished` has them."""
    monkeypatch.setattr(compare_report, "save_figure", lambda figure, path: None)
    monkeypatch.setattr(compare_report, "contact_sheet", lambda dataset: None)


def written(out: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "rows.jsonl").read_text().splitlines()]


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CHANGING} for row in rows]


@dataclass(frozen=True)
class HalfSize(RandomImages):
    """Random images at half the height and width, in a codec of its own."""

    spec: str = "half"
    codec: Any = "downscale:2"

    def distill(self, images: Tensor, labels: Tensor, **others: Any) -> DistilledDataset:
        made = RandomImages().distill(images, labels, **others)
        return replace(made, encoded=Downscale(2).encode(made.images))


@dataclass(frozen=True)
class Broken(RandomImages):
    """Cannot do anything."""

    spec: str = "broken"

    def distill(self, images: Tensor, labels: Tensor, **others: Any) -> DistilledDataset:
        raise ValueError("No image suits. Use `random`.")


@pytest.fixture
def more_distillers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, factory in (("half", HalfSize), ("broken", Broken)):
        entry: Entry[Any] = Entry(name, factory, "a test")
        monkeypatch.setitem(DISTILLERS._entries, name, entry)


# Rows


def test_each_finished_cell_is_a_line_of_a_spreadsheet(finished: Finished) -> None:
    config, rows = finished
    with Path(config.out, "cells.csv").open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert len(lines) == len(rows) == 16
    for line, row in zip(lines, rows, strict=True):
        assert [line[name] for name in ("distiller", "loss", "ipc", "seed")] == [
            str(row[name]) for name in ("distiller", "loss", "ipc", "seed")
        ]
        assert float(line["accuracy_last"]) == row["accuracy_last"]
        assert int(line["bytes_pixels"]) == row["bytes"]["pixels"] > 0
        assert line["images_per_s"].isdigit() == (line["distiller"] == "herding")  # random sees none


def test_there_is_a_row_for_each_distiller_ipc_loss_and_seed(finished: Finished) -> None:
    config, rows = finished
    assert [(r["seed"], r["distiller"], r["ipc"], r["loss"]) for r in rows] == [
        (seed, distiller, ipc, loss)
        for seed in (0, 1)
        for distiller in ("random", "herding")
        for ipc in (1, 2)
        for loss in ("ce", "gift")
    ]
    assert written(config.out) == rows
    assert len({row["row_id"] for row in rows}) == 16
    for row in rows:
        assert (row["status"], row["labels"]) == ("done", {"ce": "hard", "gift": "online"}[row["loss"]])
        assert len(row["curve"]) == 2
        assert row["accuracy_last"] == row["curve"][-1]
        assert row["accuracy_best"] == max(row["curve"])
        assert (row["evaluated_on"], row["num_test_images"]) == ("validation", 287)
    assert {row["distillation_images"] for row in rows} == {0, 200}  # herding asks a network once an image


def test_bytes_are_those_of_raw_images_labels_and_the_teacher_that_labels(finished: Finished) -> None:
    for row in finished[1]:
        network = 64 * 16 + 16 + 16 * 10 + 10
        teacher = 4 * network if row["loss"] == "gift" else 0
        count = 10 * row["ipc"]
        assert row["num_exemplars"] == count
        assert row["bytes"] == {"pixels": 64 * count, "labels": count, "soft_labels": 0, "teacher": teacher}


def test_the_students_of_a_job_learn_the_same_exemplars(finished: Finished) -> None:
    hashes: dict[Any, set[str]] = {}
    for row in finished[1]:
        key = (row["distiller"], row["ipc"], row["seed"])
        hashes.setdefault(key, set()).add(row["exemplars_sha256"])
    assert all(len(found) == 1 for found in hashes.values())
    drawn = [found for (distiller, *_), found in hashes.items() if distiller == "random"]
    assert len(set.union(*drawn)) == 4


@pytest.mark.parametrize("loss", ["ce", "gift"])
def test_a_row_is_what_training_by_hand_gives(finished: Finished, digits: RealData, loss: str) -> None:
    config, rows = finished
    (row,) = (r for r in rows if (r["distiller"], r["ipc"], r["seed"], r["loss"]) == ("random", 2, 1, loss))
    data = config.choose(digits)
    made = distill_dataset(data, RandomImages(), ipc=2, seed=1)
    assert made is not None
    (teacher_file,) = Path(config.out).glob("teacher-*.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(seeded("weights", 1).initial_seed())
        student = build_model("mlp:hidden=16", in_channels=1, image_size=8, num_classes=10)
    (mean,), (std,) = data.channel_statistics.mean, data.channel_statistics.std
    recipe = Recipe(
        epochs=2,
        evaluations=1,
        batch_size=20,
        normalization=f"{mean}/{std}",
        lr=1e-3,
        schedule="cosine",
        view="none",
        loss=loss,
        labels="hard" if loss == "ce" else "online",
        seed=1,
    )
    teacher = load_teacher(teacher_file).teacher if loss == "gift" else None
    train(student, made.select(torch.arange(40) % 20), recipe, teacher=teacher)
    accuracy = measure(student, data.test.images, data.test.labels, normalization=data.channel_statistics)
    assert row["accuracy_last"] == accuracy.top1


def test_every_student_gets_as_many_steps_and_each_exemplar_equally_often(
    digits: RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Counter[bytes]] = []

    def spy(student: nn.Module, exemplars: DistilledDataset, recipe: Recipe, **others: Any) -> Any:
        shown.append(Counter(image.numpy().tobytes() for image in exemplars.images))
        history = train(student, exemplars, recipe, **others)
        assert recipe.batch_size_for(len(exemplars)) == 20
        assert history.num_images == 4 * 20
        return history

    monkeypatch.setattr(compare_cell, "train", spy)
    run(tiny(tmp_path, distillers=["random"], ipc=[1, 2, 4], seeds=[0]), digits)
    assert [set(counts.values()) for counts in shown] == [{4}, {4}, {2}, {2}, {1}, {1}]
    assert [len(counts) for counts in shown] == [10, 10, 20, 20, 40, 40]


def test_repeated_exemplars_are_no_evidence_of_another_order_of_the_classes(
    digits: RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one exemplar of each class looks like the next class: too few to tell, however often shown."""
    made = distill_dataset(digits, RandomImages(), ipc=1)
    assert made is not None
    exemplars = replace(made.select(torch.arange(10).roll(1)), labels=torch.arange(10))
    monkeypatch.setattr(compare_cell, "distill_dataset", lambda *_, **__: exemplars)
    config = tiny(tmp_path, distillers=["random"], ipc=[1], seeds=[0], images_per_class=None)
    rows = run(replace(config, steps=40, teacher_epochs=10), digits)
    assert [row["status"] for row in rows] == ["done", "done"]


def test_exemplars_are_kept_as_they_were_learned(finished: Finished) -> None:
    config, rows = finished
    (file,) = Path(config.out, "exemplars").glob("herding-ipc2-seed1-*.safetensors")
    dataset = load_dataset(file)
    assert dataset.images_per_class == dict.fromkeys(range(10), 2)
    assert dataset.provenance.method == "herding"
    (teacher,) = {row["teacher_sha256"] for row in rows}
    assert dataset.provenance.hashes["teacher"].startswith(teacher)


# Teacher


def test_exemplars_of_another_codec_do_not_replace_those_of_a_row(digits: RealData, tmp_path: Path) -> None:
    config = tiny(tmp_path, distillers=["random"], ipc=[1], seeds=[0])
    for codec in ("raw", "jpeg:5", "raw"):
        run(replace(config, codec=codec), digits)
    files = [load_dataset(file).encoded.codec for file in (tmp_path / "exemplars").glob("*.safetensors")]
    assert sorted(files) == ["jpeg:5", "raw"]
    for row in written(tmp_path):
        kept = load_dataset(compare_report.exemplars_file(tmp_path, row, row["exemplars_sha256"]))
        assert kept.encoded.codec == row["stored_as"]


def test_rows_of_another_command_are_refused(digits: RealData, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"run_id": "digits-gift"}\n')
    with pytest.raises(ValueError, match="rows of this command in `.*`, got others"):
        run(tiny(tmp_path), digits)


def test_the_teacher_is_trained_once_and_its_accuracy_is_that_on_the_images_measured(
    finished: Finished, digits: RealData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = finished
    monkeypatch.setattr(compare_teacher, "train_teacher", None)
    data = config.choose(digits)
    loaded = compare_teacher.find_teacher(config, data)
    accuracy = measure(
        loaded.teacher.model, data.test.images, data.test.labels, normalization=data.channel_statistics
    ).top1
    assert {row["teacher_accuracy"] for row in rows} == {accuracy}
    assert loaded.teacher.classes == tuple(range(10))


def test_another_teacher_is_trained_for_other_images(finished: Finished, digits: RealData) -> None:
    config, _ = finished
    changed = replace(config, images_per_class=15)
    other = compare_teacher.find_teacher(changed, changed.choose(digits))
    assert len(list(Path(config.out).glob("teacher-*.safetensors"))) == 2
    assert other.provenance["source"].endswith("the first 15 of each class only")


# Going on, and sharing


def test_what_is_finished_is_not_done_again(
    finished: Finished, digits: RealData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = finished
    monkeypatch.setattr(Comparison, "make", None)
    assert run(config, digits) == rows
    assert written(config.out) == rows


def test_what_a_killed_run_left_is_done_by_the_next(
    finished: Finished, digits: RealData, tmp_path: Path
) -> None:
    config, rows = finished
    lines = Path(config.out, "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    with pytest.warns(UserWarning, match="A run was stopped there"):
        again = run(replace(config, out=str(tmp_path)), digits)
    assert lasting(again) == lasting(rows)
    assert again[:5] == rows[:5]


def test_shards_do_everything_once_and_what_one_process_does(
    finished: Finished, digits: RealData, tmp_path: Path
) -> None:
    config, rows = finished
    first = run(replace(config, out=str(tmp_path), shard="1/2"), digits)
    assert 0 < len(first) < 16
    both = run(replace(config, out=str(tmp_path), shard="2/2"), digits)
    assert len(written(tmp_path)) == 16
    assert lasting(both) == lasting(rows)


def test_other_settings_make_other_rows(finished: Finished, digits: RealData, tmp_path: Path) -> None:
    config, rows = finished
    small = replace(config, out=str(tmp_path), distillers=["random"], ipc=[1], losses=["ce"], seeds=[0])
    ids = {rows[0]["row_id"], *(row["row_id"] for row in run(small, digits))}
    assert len(ids) == 1
    for change in ({"lr": 0.01}, {"steps": 8}, {"codec": "quantize:4"}, {"teacher_epochs": 3}):
        ids |= {row["row_id"] for row in run(replace(small, **change), digits)}
    assert len(ids) == 5


# Bytes


@pytest.mark.usefixtures("more_distillers")
def test_a_distiller_with_a_codec_of_its_own_makes_exemplars_of_the_same_bytes(
    digits: RealData, tmp_path: Path
) -> None:
    config = tiny(tmp_path, distillers=["random", "half"], ipc=[1], seeds=[0], losses=["ce"])
    raw, half = run(config, digits)
    assert (raw["num_exemplars"], raw["stored_as"]) == (10, "raw")
    assert (half["num_exemplars"], half["stored_as"]) == (40, "downscale:2")
    assert raw["bytes"]["pixels"] == half["bytes"]["pixels"] == 640


def test_exemplars_are_stored_with_the_codec(digits: RealData, tmp_path: Path) -> None:
    config = tiny(tmp_path, distillers=["random"], codec="quantize:4", ipc=[1], seeds=[0], losses=["ce"])
    (row,) = run(config, digits)
    assert (row["stored_as"], row["bytes"]["pixels"]) == ("quantize:4", 320)


def test_bytes_that_do_not_divide_are_never_exceeded() -> None:
    for factor, ipc, count in ((2, 3, 12), (4, 1, 16)):
        distiller = HalfSize(codec=f"downscale:{factor}")
        assert exemplars_per_class(distiller, ipc, codec="raw", image_shape=(3, 8, 8)) == count
    distiller = HalfSize(codec="quantize:3")  # 72 bytes for an image of 192
    assert exemplars_per_class(distiller, 1, codec="raw", image_shape=(3, 8, 8)) == 2


def test_whitened_exemplars_are_refused() -> None:
    with pytest.raises(ValueError, match="got whitened ones of `half`. Turn its whitening off"):
        exemplars_per_class(HalfSize(codec="float32"), 8, codec="raw", image_shape=(3, 8, 8))


def test_files_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="got files of `webp:10` from `half`.*compare_streams` takes them"):
        exemplars_per_class(HalfSize(codec="webp:10"), 8, codec="raw", image_shape=(3, 8, 8))


# Failures


@pytest.mark.usefixtures("more_distillers")
def test_a_distiller_that_fails_does_not_stop_the_others_and_is_tried_again(
    digits: RealData, tmp_path: Path
) -> None:
    config = tiny(tmp_path, distillers=["broken", "random"], ipc=[1], seeds=[0])
    rows = run(config, digits)
    assert [row["status"] for row in rows] == ["failed", "failed", "done", "done"]
    assert rows[0]["reason"] == "No image suits. Use `random`."
    assert "- broken (2): No image suits. Use `random`." in (tmp_path / "table.md").read_text()
    run(config, digits)
    assert [row["status"] for row in written(tmp_path)].count("failed") == 4
    assert [row["status"] for row in written(tmp_path)].count("done") == 2


def test_a_student_that_diverges_has_a_row_that_says_so(digits: RealData, tmp_path: Path) -> None:
    config = tiny(tmp_path, distillers=["random"], ipc=[1], seeds=[0], losses=["ce"])
    (row,) = run(replace(config, optimizer="SGD", lr=1e30), digits)
    assert row["status"] == "failed"
    assert "The loss was NaN or infinite in epoch" in row["reason"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillers": []}, "different values in `distillers`, at least one"),
        ({"seeds": [1, 1]}, r"different values in `seeds`, at least one, got \[1, 1\]"),
        ({"ipc": [0, 1]}, "`ipc` of at least 1, got 0"),
        ({"steps": 0}, "`steps` of at least 1"),
        ({"steps": 5}, "`steps` as a multiple of `rounds`, 2, got 5"),
        ({"losses": ["gif"]}, "Unknown loss `gif`"),
        ({"codec": "gif"}, "Unknown codec `gif`"),
        ({"view": "gif"}, "Unknown view `gif`"),
        ({"optimizer": "gif"}, "Unknown optimizer `gif`"),
        ({"shard": "0/2"}, "`shard` as 1/2 and 2/2 of two processes, got `0/2`"),
        ({"shard": "3/2"}, "got `3/2`"),
        ({"shard": "1"}, "got `1`"),
        ({"validation_share": 1.0}, "`validation_share`"),
    ],
)
def test_unusable_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path, **changes)


@pytest.mark.usefixtures("more_distillers")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillers": ["best"]}, "Unknown distiller `best`"),
        ({"distillers": ["rded", "rded:factor=1"]}, "got rded and rded:factor=1, which are the same"),
        ({"distillers": ["half"], "codec": "webp:75"}, "`codec` raw beside `half`.*got webp:75"),
        ({"ipc": [3]}, "show each of 30 exemplars equally often, got rounds of 2 steps with 20 images"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make_jobs(tiny(tmp_path, **changes), num_classes=10, image_shape=(1, 8, 8))


# Reports


def made_row(distiller: str, loss: str, seed: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    teacher = 1234 if loss == "gift" else 0
    return {
        "status": "done",
        "dataset": "digits",
        "num_test_images": 287,
        "teacher_accuracy": 0.9,
        "hardware": "a machine",
        "commit": "abc",
        "distiller": distiller,
        "ipc": 1,
        "loss": loss,
        "seed": seed,
        "num_exemplars": 10,
        "accuracy_last": accuracy,
        "accuracy_best": accuracy + 0.01,
        "bytes": {"pixels": 640, "labels": 10, "soft_labels": 0, "teacher": teacher},
        "distillation_seconds": 2.0,
        "distillation_images_per_second": None if distiller == "random" else 3210.0,
    } | changes


def make_rows() -> list[dict[str, Any]]:
    rows = [
        made_row(d, loss, seed, accuracy + seed / 10)
        for d, accuracy in (("random", 0.3), ("herding", 0.4))
        for loss in ("ce", "gift")
        for seed in (0, 1)
    ]
    return [*rows[:-1], rows[-1] | {"status": "failed", "reason": "It diverged."}]


def test_the_table_has_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    config = tiny(tmp_path, ipc=[1], evaluate_on="test")
    text = format_table(config, make_rows())
    assert "7 of 8 cells finished: mlp:hidden=16 on digits, measured on 287 test images" in text
    assert "the teacher gets 90.0%" in text
    assert "validation" not in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[2:] == [
        "| random | 1 | 10 | ce | 35.0 ± 7.1 | 36.0 ± 7.1 | 2 | 640 | 10 | - | 2.0 ± 0.0 | - |",
        "| herding | 1 | 10 | ce | 45.0 ± 7.1 | 46.0 ± 7.1 | 2 | 640 | 10 | - | 2.0 ± 0.0 | 3,210 |",
        "| random | 1 | 10 | gift | 35.0 ± 7.1 | 36.0 ± 7.1 | 2 | 640 | 10 | 1,234 | 2.0 ± 0.0 | - |",
        "| herding | 1 | 10 | gift | 40.0 | 41.0 | 1 | 640 | 10 | 1,234 | 2.0 | 3,210 |",
    ]
    assert text.endswith("Failed (cells):\n\n- herding (1): It diverged.\n")


def test_validation_numbers_say_that_they_are(tmp_path: Path) -> None:
    text = format_table(tiny(tmp_path, ipc=[1]), make_rows())
    assert "**Measured on validation images**" in text


def test_the_bars_are_the_means_by_distiller_loss_and_ipc(tmp_path: Path) -> None:
    config = tiny(tmp_path, ipc=[1])
    groups = group_rows(config, make_rows())
    axes = accuracy_bars(groups, config, 0.9).axes[0]
    bars = [round(bar.get_height(), 6) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert bars == [35.0, 35.0, 45.0, 40.0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["IPC 1\nce", "IPC 1\ngift"]
    names = axes.get_legend_handles_labels()[1]
    assert sorted(names) == ["herding", "random", "teacher (90.0%)"]


def test_there_are_a_table_bars_and_a_picture_of_the_exemplars_of_each_distiller(finished: Finished) -> None:
    out = Path(finished[0].out)
    for name in ("table.md", "accuracy.png", "exemplars-random.png", "exemplars-herding.png"):
        assert (out / name).stat().st_size > 500


def test_offline_tracking_holds_the_numbers_of_the_rows(
    digits: RealData, tmp_path: Path, read_offline_run: Any
) -> None:
    config = tiny(tmp_path, distillers=["random"], ipc=[1], seeds=[0, 1], losses=["ce"], tracking="offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_distillers, "write_report", lambda *_: {})
        rows = run(config, digits)
    settings, history, summary = read_offline_run(tmp_path)
    assert settings["steps"] == 4
    logged = [entry["random/ipc1/ce/accuracy_last"] for entry in history]
    assert logged == pytest.approx([row["accuracy_last"] for row in rows])
    assert (summary["rows"], summary["rows_in_all"]) == (2, 2)


# Command line


def test_the_command_line_ends_with_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(
        "distillers: [random]\nipc: [1]\nlosses: [ce]\nseeds: [0]\nmodel: mlp:hidden=16\nsteps: 2\n"
        "rounds: 1\nbatch_size: 10\nteacher_epochs: 1\nimages_per_class: 20\ntracking: disabled\n"
    )
    assert main(["--config", str(file), "--out", str(tmp_path / "runs"), "--classes", "5"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("random, IPC 1, seed 0, ce: ")
    assert "| random | 1 | 5 | ce |" in text
    assert "digits-5classes-20each" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distillers", "[best]"], "Unknown distiller `best`"),
        (["--data", "nowhere"], "Unknown data set `nowhere`"),
        (["--classes", "11"], "`classes` in [1, 10]"),
        (["--shard", "x"], "Expected `shard`"),
    ],
)
def test_bad_input_is_one_line_with_the_cure(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--tracking", "disabled", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.usefixtures("more_distillers")
def test_the_exit_code_says_that_something_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [made_row("random", "ce", 0, 0.5), made_row("broken", "ce", 0, 0.0, status="failed", reason="No.")]
    (tmp_path / "table.md").write_text("A table.")
    monkeypatch.setattr(compare_distillers, "run", lambda config, on_row: rows)
    assert main(["--tracking", "disabled", "--out", str(tmp_path)]) == 1
    assert "A table." in capsys.readouterr().out
