import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from gray_levels import LEVELS, write_teacher
from PIL import Image
from safetensors import SafetensorError

from gift_cl.cli import main, teacher
from gift_cl.errors import DamagedFileError
from gift_cl.evaluation.recipe import Recipe
from gift_cl.models import ObserverCard, TeacherMismatchError
from gift_cl.real_data import hold_out, load_real_data
from gift_cl.teacher_file import load_teacher

DIGITS = ("--dataset", "digits", "--device", "cpu")
TRAIN = ("train", *DIGITS, "--model", "mlp:hidden=32", "--epochs", "8")
CARD = ObserverCard("digits", "mlp:hidden=32", 0.99, 8, 10, ("none", "cifar"), "nobody")


def run(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    teacher.add_parser(parser.add_subparsers())
    options = parser.parse_args(["teacher", *map(str, arguments)])
    options.run(options)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    run(*arguments, "--json")
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def write_real(root: Path) -> Path:
    """Six images a split of each of five gray levels."""
    for split in ("train", "test"):
        for label, level in enumerate(LEVELS):
            folder = root / split / f"level{label}"
            folder.mkdir(parents=True)
            for number in range(6):
                shade = round(255 * level) + number - 3
                Image.new("RGB", (8, 8), (shade, shade, shade)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits have a published teacher."""

    def find_card(dataset: str, model: str) -> ObserverCard | None:
        return CARD if (dataset, model) == (CARD.dataset, CARD.model) else None

    monkeypatch.setattr(teacher, "find_card", find_card)


def test_a_teacher_is_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "digits.safetensors"
    trained = run_json(capsys, *TRAIN, "--out", path)
    assert trained["test"]["top1"] > 0.8
    assert (trained["dataset"], trained["model"], trained["published"]) == ("digits", "mlp:hidden=32", None)
    assert trained["bytes"] == path.stat().st_size
    measured = run_json(capsys, "measure", path, *DIGITS)
    assert measured["test"] == trained["test"]
    assert measured["expected"] == trained["test"]["top1"]
    loaded = load_teacher(path)
    assert loaded.teacher.classes == tuple(range(10))
    assert loaded.class_names == tuple("0123456789")
    assert loaded.provenance["settings"] == trained["settings"]


def test_words_end_with_the_test_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*TRAIN, "--out", tmp_path / "file", "--hold-out", "0.2")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "mlp:hidden=32 on cpu: 1,150 images of digits, 1 x 8 x 8, 10 classes"
    assert said[1].startswith("recipe: 8 epochs in batches of 128, SGD 0.1, weight decay 0.0005, cosine")
    assert re.fullmatch(r"normalization: mean 0\.30\d\d, deviation .*: those of the training images", said[2])
    assert re.fullmatch(r"validation accuracy: .* of 287 held-out images", said[-2])
    assert re.fullmatch(r"test accuracy: .* of 360 images", said[-1])
    run("measure", tmp_path / "file", *DIGITS)
    measured = capsys.readouterr().out.splitlines()[-1]
    accuracy = said[-1].split()[2]
    assert measured == f"{said[-1]}; in its file: {accuracy}"


def test_held_out_images_are_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = run_json(capsys, *TRAIN, "--out", tmp_path / "file", "--hold-out", "0.2", "--seed", "5")
    parts = hold_out(load_real_data("digits"), 0.2, seed=0)
    assert facts["source"] == parts.train.provenance.source
    assert facts["normalization"]["mean"] == list(parts.channel_statistics.mean)
    assert (facts["validation"]["n"], facts["test"]["n"]) == (len(parts.test), 360)


def test_settings_of_the_recipe_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = run_json(
        capsys,
        *("train", *DIGITS, "--model", "mlp:hidden=4", "--out", tmp_path / "file", "--epochs", "1"),
        *("--batch-size", "64", "--optimizer", "AdamW", "--lr", "0.01", "--weight-decay", "0.02"),
        *("--schedule", "constant", "--view", "none", "--seed", "3", "--precision", "bfloat16"),
        *("--normalization", "0.5/0.25"),
    )
    expected = Recipe(
        epochs=1,
        normalization="0.5/0.25",
        batch_size=64,
        optimizer="AdamW",
        lr=0.01,
        weight_decay=0.02,
        schedule="constant",
        view="none",
        loss="ce",
        labels="hard",
        precision="bfloat16",
        evaluations=1,
        seed=3,
    )
    assert facts["settings"] == expected.as_dict()
    assert facts["normalization"] == {"mean": [0.5], "std": [0.25], "origin": "as given"}


@pytest.mark.usefixtures("card")
def test_a_published_teacher_gives_its_normalisation_and_its_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*TRAIN, "--out", tmp_path / "file")
    said = capsys.readouterr().out
    assert "deviation 1.0000: none, that of the published teacher" in said
    assert said.rstrip().endswith("of 360 images; published: 99.00%")


def test_the_same_command_writes_the_same_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        run_json(capsys, *TRAIN, "--out", tmp_path / name)
    first, second = (load_teacher(tmp_path / name).teacher.model.state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ValueError, match="is there already.*--overwrite"):
        run(*TRAIN, "--out", path)
    assert path.read_text() == "precious"
    run(*TRAIN, "--out", path, "--overwrite")
    assert load_teacher(path).dataset == "digits"


def test_a_place_that_cannot_be_written_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "load_real_data", None)  # would be called next
    with pytest.raises(ValueError, match="Expected a file to write, got the folder"):
        run(*TRAIN, "--out", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Cannot write into `.*file`.*Choose a folder"):
        run(*TRAIN, "--out", tmp_path / "file" / "teacher")


def test_a_training_that_diverges_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NaN or infinite in epoch"):
        run(*TRAIN, "--out", tmp_path / "file", "--lr", "1e30")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    path = tmp_path / "file"
    assert main(["teacher", *TRAIN, "--epochs", "1", "--out", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: Cannot write `{path}`: No space left on device. Make space on its disk, or choose another.\n"
    )
    assert not list(tmp_path.iterdir())


def test_published_weights_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = write_real(tmp_path / "gray"), tmp_path / "gray_mlp.pth"
    write_teacher(path, (0, 1, 2, 3, 4))
    options = (
        *("measure", path, "--dataset", data, "--root", tmp_path, "--model", "mlp:hidden=1"),
        *("--normalization", "none", "--device", "cpu"),
    )
    facts = run_json(capsys, *options)
    assert (facts["test"], facts["expected"]) == ({"top1": 1.0, "top5": 1.0, "n": 30}, None)
    run(*options)
    assert capsys.readouterr().out.endswith("of 30 images; nothing to compare it with\n")


def test_published_weights_in_another_order_are_refused(tmp_path: Path) -> None:
    data, path = write_real(tmp_path / "gray"), tmp_path / "gray_mlp.pth"
    write_teacher(path, (1, 2, 3, 4, 0))
    with pytest.raises(TeacherMismatchError, match=r"level0 \(label 0\) is its output 1, level1"):
        run(
            *("measure", path, "--dataset", data, "--root", tmp_path, "--model", "mlp:hidden=1"),
            *("--normalization", "none", "--device", "cpu"),
        )


@pytest.mark.usefixtures("card")
def test_a_card_says_what_published_weights_need_and_reach(tmp_path: Path) -> None:
    """The expected accuracy and the normalisation are the card's; untrained weights do not reach it."""
    torch.manual_seed(0)
    run(*TRAIN, "--out", tmp_path / "file", "--epochs", "1", "--lr", "0")
    state = load_teacher(tmp_path / "file").teacher.model.state_dict()
    torch.save({"model": state}, tmp_path / "digits_mlp.pth")
    options = ("measure", tmp_path / "digits_mlp.pth", *DIGITS, "--model", "mlp:hidden=32")
    with pytest.raises(TeacherMismatchError, match=r"Expected a top-1 accuracy of 99.00% from `digits_mlp"):
        run(*options)
    run(*options, "--tolerance", "99")


def test_a_damaged_teacher_is_refused(tmp_path: Path) -> None:
    run(*TRAIN, "--out", tmp_path / "file", "--epochs", "1")
    data = bytearray((tmp_path / "file").read_bytes())
    data[-5] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DamagedFileError, match="Cannot read"):
        run("measure", tmp_path / "file", *DIGITS)
    with pytest.raises(FileNotFoundError, match="No teacher at"):
        run("measure", tmp_path / "nowhere", *DIGITS)


@pytest.mark.parametrize("command", ["train", "measure"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(command, "--help")
    said = capsys.readouterr().out
    assert f"gift-cl teacher {command} " in said.partition("examples:")[2]
    assert "starts anew" in said or command == "measure"
