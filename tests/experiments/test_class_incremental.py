import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.benchmark import make_stream
from experiments.class_incremental import main, run, run_name
from experiments.config import Config
from gift_cl.dataset_file import load_dataset
from gift_cl.normalization import Normalization
from gift_cl.real_data import RealData, load_real_data

NAMES = ["naive", "replay", "der", "er_ace", "gdumb", "gift", "gift_dumb", "joint"]


@pytest.fixture(scope="module")
def digits() -> RealData:
    return load_real_data("digits")


def tiny(out: Path, **changes: Any) -> Config:
    return replace(Config(out=str(out)).smoke(), **changes)


@pytest.mark.parametrize("strategy", NAMES)
def test_every_strategy_writes_a_row_for_each_experience(
    strategy: Any, digits: RealData, tmp_path: Path
) -> None:
    rows = run(tiny(tmp_path, strategy=strategy), digits)
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert written == rows
    assert [row["experience"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["num_classes_seen"] for row in rows] == [2, 4, 6, 8, 10]
    for row in rows:
        assert 0 <= row["accuracy_seen"] <= 1
        assert 0 < row["model_seconds"] < row["seconds"]
        assert len(row["accuracy_by_experience"]) == row["experience"] + 1
        assert row["memory_bytes"] == sum(row["memory_bytes_by_part"].values())
        if row["budget_bytes"] is not None:
            assert 0 < row["memory_bytes"] <= row["budget_bytes"]
    assert {"benchmark", "exemplars", "codec", "labels", "loss", "protocol", "model", "seed"} <= rows[
        0
    ].keys()
    assert {"class_order_seed", "forgetting", "seconds", "versions", "commit"} <= rows[0].keys()
    confusion = torch.tensor(rows[-1]["confusion"])
    assert int(confusion.sum()) == len(digits.test)
    assert rows[-1]["accuracy_seen"] == pytest.approx(float(confusion.diagonal().sum() / confusion.sum()))


def test_all_memories_of_a_comparison_are_of_the_bytes_of_fifty_samples_of_der(
    digits: RealData, tmp_path: Path
) -> None:
    rows = {name: run(tiny(tmp_path, strategy=name), digits)[-1] for name in NAMES[1:6]}
    assert rows["der"]["num_exemplars"] == 50
    assert rows["der"]["memory_bytes"] == 5250
    assert rows["replay"]["num_exemplars"] == 5250 // 65
    assert all(row["memory_bytes"] > 0.97 * 5250 for row in rows.values())


def test_the_same_configuration_gives_the_same_numbers(digits: RealData, tmp_path: Path) -> None:
    changing = ("seconds", "model_seconds", "distillation_seconds")
    first, second = (
        [{k: v for k, v in row.items() if k not in changing} for row in run(tiny(tmp_path), digits)]
        for _ in range(2)
    )
    assert first == second


def test_the_memory_is_written_as_it_is_counted(digits: RealData, tmp_path: Path) -> None:
    row = run(tiny(tmp_path), digits)[-1]
    dataset = load_dataset(tmp_path / row["memory_file"])
    assert len(dataset) == row["num_exemplars"]
    assert dataset.ledger().by_part() == row["memory_bytes_by_part"]


def test_a_growing_head_and_the_memory_only_protocol_run(digits: RealData, tmp_path: Path) -> None:
    rows = run(tiny(tmp_path, head="growing", protocol="memory_only"), digits)
    assert rows[-1]["protocol"] == "memory_only"


def test_validation_leaves_the_test_images_out(digits: RealData, tmp_path: Path) -> None:
    row = run(tiny(tmp_path, evaluate_on="validation"), digits)[-1]
    assert row["evaluated_on"] == "validation"
    assert sum(map(sum, row["confusion"])) == pytest.approx(0.2 * len(digits.train), rel=0.02)


def test_a_few_classes_and_images_make_a_benchmark_of_their_own(digits: RealData, tmp_path: Path) -> None:
    row = run(tiny(tmp_path, classes=4, images_per_class=20, experiences=2), digits)[-1]
    assert row["benchmark"] == "digits-4classes-20each/2"
    assert (row["num_classes_seen"], row["class_names"]) == (4, ["0", "1", "2", "3"])
    assert sum(map(sum, row["confusion"])) == int((digits.test.labels < 4).sum())


def test_pixels_are_normalised_with_the_statistics_of_the_training_images(digits: RealData) -> None:
    stream = make_stream(digits, experiences=5, class_order_seed=-1, augmentation="none")
    assert stream.normalization == Normalization((0.3054,), (0.376,))  # of 1,437 images, four digits
    inputs = torch.stack([image for image, *_ in stream.benchmark.train_stream[0].dataset.eval()])
    pixels = digits.train.images[digits.train.labels < 2].float() / 255
    sums = ((pixels - 0.3054) / 0.376).sum((1, 2, 3))
    torch.testing.assert_close(inputs.sum((1, 2, 3)).sort().values, sums.sort().values)


def test_offline_tracking_holds_the_numbers_of_the_rows(
    digits: RealData, tmp_path: Path, read_offline_run: Any
) -> None:
    rows = run(tiny(tmp_path, tracking="offline", seed=3), digits)
    config, history, summary = read_offline_run(tmp_path)
    assert config["seed"] == 3
    logged = [row["accuracy_seen"] for row in history if "accuracy_seen" in row]
    assert logged == pytest.approx([row["accuracy_seen"] for row in rows])
    assert [row["GIFT/memory_bytes/total"] for row in history if "accuracy_seen" in row] == [
        row["memory_bytes"] for row in rows
    ]
    assert summary["accuracy_seen"] == pytest.approx(rows[-1]["accuracy_seen"])


def test_run_names_differ_by_what_is_configured() -> None:
    assert run_name(Config()) == run_name(Config(root="there", out="elsewhere", tracking="disabled"))
    assert run_name(Config()) != run_name(Config(lr=0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codec", "jepg:75"], "Unknown codec `jepg`. Known: raw, png"),
        (["--exemplars", "best"], "Unknown distiller `best`. Known: random, herding, coverage, rded"),
        (["--loss", "kl", "--labels", "hard"], "needs soft labels"),
        (["--budget_bytes", "90"], "one exemplar of each"),
        (["--labels", "online"], "Raise the budget"),
        (["--experiences", "3"], "divide 10 classes"),
        (["--data", "nowhere"], "Unknown data set `nowhere`. Known: cifar10, cifar100"),
        (["--model", "vgg"], "Unknown model `vgg`"),
        (["--exemplars", "rded:factor=2"], "patches of at least 8 pixels"),
        (["--per_class", "3"], "Set the other one to null"),
    ],
)
def test_bad_input_is_one_line_with_the_cure(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--epochs", "1", "--tracking", "disabled", "--out", str(tmp_path)]
    assert main(quick + arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_an_unknown_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("stratgy: gift\n")
    with pytest.raises(SystemExit) as stop:
        main(["--config", str(file)])
    assert stop.value.code == 2
    assert "stratgy" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "runs"), "--tracking", "disabled"]) == 2
    assert "Cannot write into" in capsys.readouterr().err


def test_the_command_line_overrides_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"epochs: 1\nseed: 4\ntracking: disabled\nout: {tmp_path / 'runs'}\n")
    assert main(["--config", str(file), "--seed", "5"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs" / "rows.jsonl").read_text().splitlines()]
    assert {row["seed"] for row in rows} == {5}
    assert "experience 4: accuracy" in capsys.readouterr().out
