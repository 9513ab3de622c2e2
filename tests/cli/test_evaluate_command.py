import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from gift_cl.cli import evaluate
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.presets import PRESETS

PAPER = ["--method", "rded", "--dataset", "imagenet-1k", "--model", "resnet18", "--ipc", "10"]


def read(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    return parser.parse_args(["evaluate", *arguments])


def parse(*arguments: str) -> EvaluationConfig:
    return evaluate.parse(read(*arguments).arguments)


def run(*arguments: str) -> None:
    options = read(*arguments)
    options.run(options)


def digits(out: Path, *more: str) -> list[str]:
    """A grid that takes a second."""
    fixed = {"method": "random", "dataset": "digits", "model": "mlp:hidden=8", "ipc": "2", "labels": "hard"}
    fixed |= {"criterion_name": "ce", "normalization": "none", "view": "none", "epochs": "2", "out": str(out)}
    fixed |= {"tracking": "disabled", "device": "cpu"}
    return [*(f"--{name}={value}" for name, value in fixed.items()), *more]


@pytest.mark.parametrize("flag", ["--criterion_name", "--criterion-name"])
def test_flags_of_the_papers_script_are_understood(flag: str) -> None:
    config = parse(*PAPER, flag, "gift", "--tar_model", "swin_v2_t")
    assert config == EvaluationConfig(
        method="rded",
        dataset="imagenet-1k",
        model="resnet18",
        ipc=10,
        criterion_name="gift",
        tar_model="swin_v2_t",
    )


def test_dashes_in_values_are_kept() -> None:
    assert parse(*PAPER, "--evaluate-on=validation", "--out=my-runs").out == "my-runs"


def test_lists_make_a_grid() -> None:
    config = parse(*PAPER, "--criterion-name", '[gift, "kl:temperature=4,t2=true"]', "--lr", "[1e-3, 0.1]")
    assert config.criterion_name == ["gift", "kl:temperature=4,t2=true"]
    assert config.lr == [0.001, 0.1]


def test_switches_need_no_value() -> None:
    assert parse(*PAPER, "--retry-failed").retry_failed
    assert parse("--retry-failed", *PAPER).retry_failed
    assert not parse(*PAPER, "--retry_failed", "false").retry_failed
    assert parse(*PAPER, "--decay-all", "--compile").compile is True
    assert parse(*PAPER).compile is None


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("method: datm\ndataset: cifar100\nmodel: conv3\nipc: 10\nlr: [1e-3, 1e-2]\nseed: 1\n")
    config = parse("--config", str(file), "--seed", "7", "--batch-size", "auto")
    assert (config.method, config.lr, config.seed, config.batch_size) == ("datm", [0.001, 0.01], 7, "auto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--mehtod", "rded"],
            r"--mehtod rded\. Known options: batch_size, compile, .*method",
        ),
        (["--ip", "3"], "--ip 3. Known options"),
        (PAPER[2:], "required: method"),
        ([*PAPER, "--lr", "fast"], r"Expected `lr` as list\[float\] \| float \| None, got 'fast'"),
        ([*PAPER, "--ipc", "1.5"], "Expected `ipc` as int, got '1.5'"),
        ([*PAPER, "--evaluate-on", "train"], "Expected `evaluate_on` as Literal.*got 'train'"),
        ([*PAPER, "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_unusable_options_are_explained(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*arguments)


def test_unknown_key_of_a_file_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("method: rded\nlosses: [gift]\n")
    with pytest.raises(ValueError, match=r"'losses' is not accepted\. Known options: batch_size, .*view"):
        parse("--config", str(tmp_path / "grid.yaml"))


def test_help_has_examples_and_the_sources_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "gift-cl evaluate --method rded --criterion_name gift --dataset imagenet-1k" in text
    assert "ROOT/syn_data/METHOD/DATASET_MODEL/ipcIPC" in text
    for name in PRESETS:
        assert f"\n  {name}: " in text
    assert "LINs-lab/GIFT@38db552" in text
    assert "NUS-HPC-AI-Lab/DATM@97ae510" in text
    assert max(map(len, text.partition("presets,")[2].splitlines())) <= 110


def test_grid_prints_a_line_a_cell_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*digits(tmp_path, "--lr=[0.01, 1e30]", "--optimizer=SGD", "--seed=[0, 1]"))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("random · ce · SGD · lr=0.01 · mlp:hidden=8 · seed=0: ")
    assert "lr=1e+30 · mlp:hidden=8 · seed=0: failed, The loss was NaN" in lines[1]
    assert "2 of 4 cells finished" in text
    assert "| random | ce | SGD | 0.01 | mlp:hidden=8 | 2 |" in text
    assert f"rows in {tmp_path / 'rows.jsonl'}" in text
    run(*digits(tmp_path, "--lr=[0.01, 1e30]", "--optimizer=SGD", "--seed=[0, 1]"))
    assert "seed=0: " not in capsys.readouterr().out.partition("cells finished")[0]


def test_rows_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*digits(tmp_path, "--json", "--validation-share=0.2"))
    (row,) = json.loads(capsys.readouterr().out)
    stored = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row] == stored
    assert 0 <= row["accuracy_last"] <= 1
    assert 0 <= row["validation_accuracy"] <= 1
    assert (row["method"], row["num_images"], row["status"]) == ("random", 20, "done")


def test_grid_without_a_finished_cell_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"All 1 cells failed, the first one with: The loss was NaN"):
        run(*digits(tmp_path, "--lr=1e30", "--optimizer=SGD"))
    assert "0 of 1 cells finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match="All 1 cells failed"):
        run(*digits(tmp_path, "--lr=1e30", "--optimizer=SGD", "--json"))
    assert capsys.readouterr().out == ""


def test_missing_images_say_where_they_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data/syn_data/rded/digits_mlp/ipc2"):
        run(*digits(tmp_path, "--method=rded"))


def test_json_is_known_before_the_options_are_read(tmp_path: Path) -> None:
    options: Any = read("--json", "--nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        options.run(options)
    assert options.json is True
