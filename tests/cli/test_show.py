import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fkd_folders import write_fkd
from gray_levels import write_images, write_teacher
from PIL import Image

from gift_cl.cli import main
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.models import build_model, load_weights
from gift_cl.normalization import IDENTITY as IDENTITY_NORM
from gift_cl.readers import read_dataset
from gift_cl.teacher_file import save_teacher

IDENTITY, SWAPPED = (0, 1, 2, 3, 4), (0, 2, 1, 3, 4)
TEACHER = ("--model", "mlp:hidden=1", "--normalization", "none")


@pytest.fixture
def sre2l_folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "sre2l_tiny")


def show_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["show", *map(str, arguments), "--json", "--sheet", "none"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["show", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    return err


def test_a_published_folder_is_described(sre2l_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = show_json(capsys, sre2l_folder)
    assert (facts["method"], facts["num_images"], facts["num_classes"]) == ("sre2l", 200, 5)
    assert facts["images_per_class"] == {"min": 40, "max": 40}
    assert facts["image_shape"] == [3, 8, 8]
    files = list(sre2l_folder.rglob("*.png"))
    table = 2 * len(files)  # lengths
    assert facts["bytes"]["pixels"] == sum(file.stat().st_size for file in files) + table
    assert (facts["values"]["min"], facts["values"]["max"]) == pytest.approx((23 / 255, 233 / 255))
    assert facts["teacher"] is facts["stream"] is facts["sheet"] is None


def test_words_say_what_json_says(sre2l_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = show_json(capsys, sre2l_folder)
    assert main(["show", str(sre2l_folder), "--sheet", "none"]) == 0
    words = capsys.readouterr().out
    assert "200 of 8 x 8 pixels, 3 channels, 5 classes, 40 of each" in words
    assert f"{facts['bytes']['total']:,}" in words
    assert facts["provenance"]["hashes"]["tree"] in words


def test_the_contact_sheet_is_a_picture(
    sre2l_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", str(sre2l_folder)]) == 0
    assert "sre2l_tiny-sheet.png" in capsys.readouterr().out
    with Image.open(tmp_path / "sre2l_tiny-sheet.png") as picture:
        assert picture.format == "PNG"
    assert main(["show", str(sre2l_folder), "--sheet", "other/name.png"]) == 0
    assert (tmp_path / "other" / "name.png").is_file()


def test_only_the_sheet_is_written(
    sre2l_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    show_json(capsys, sre2l_folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_fewer_images_of_each_class_can_be_asked_for(
    sre2l_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_json(capsys, sre2l_folder, "--ipc", "3")["num_images"] == 15


def test_a_teacher_in_the_same_order_agrees(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_teacher(tmp_path / "teacher.pth", IDENTITY)
    teacher = show_json(capsys, sre2l_folder, "--teacher", tmp_path / "teacher.pth", *TEACHER)["teacher"]
    assert teacher["agreement"] == 1.0
    assert teacher["moved"] == {}


def test_a_teacher_in_another_order_is_found_out(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_teacher(tmp_path / "teacher.pth", SWAPPED)
    teacher = show_json(capsys, sre2l_folder, "--teacher", tmp_path / "teacher.pth", *TEACHER)["teacher"]
    assert teacher["agreement"] == pytest.approx(0.6)
    assert teacher["agreement_reordered"] == 1.0
    assert teacher["moved"] == {"1": 2, "2": 1}
    assert "--reorder" in teacher["text"]


def test_a_teacher_needs_its_architecture_and_normalisation(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_teacher(tmp_path / "teacher.pth", IDENTITY)
    assert "Expected `model`, `normalization` with" in failure(
        capsys, sre2l_folder, "--teacher", tmp_path / "teacher.pth"
    )


def test_a_teacher_of_our_own_says_itself_what_it_is(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_teacher(tmp_path / "teacher.pth", SWAPPED)
    model = build_model("mlp:hidden=1", in_channels=3, image_size=8, num_classes=5)
    load_weights(model, tmp_path / "teacher.pth")
    save_teacher(
        tmp_path / "teacher.safetensors",
        "mlp:hidden=1",
        model,
        classes=range(5),
        num_classes=5,
        normalization=IDENTITY_NORM,
        image_shape=(3, 8, 8),
        dataset="gray levels",
        accuracy=Accuracy(1.0, 1.0, 5),
        provenance={},
    )
    teacher = show_json(capsys, sre2l_folder, "--teacher", tmp_path / "teacher.safetensors")["teacher"]
    assert teacher["moved"] == {"1": 2, "2": 1}


def test_a_teacher_of_other_classes_is_refused(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.nn.Linear(192, 7).state_dict(), tmp_path / "teacher.pth")
    said = failure(capsys, sre2l_folder, "--teacher", tmp_path / "teacher.pth", *TEACHER)
    assert "do not fit this MLP" in said


def test_soft_labels_are_matched_with_the_images(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fkd(tmp_path / "labels", read_dataset(sre2l_folder), epochs=2, batch_size=64)
    stream = show_json(capsys, sre2l_folder, "--labels", tmp_path / "labels")["stream"]
    assert (stream["num_epochs"], stream["num_batches"], stream["num_classes"]) == (2, 4, 5)
    assert stream["order"] == "two draws"
    assert stream["agreement"] > 2 * stream["chance"]
    assert main(["show", str(sre2l_folder), "--labels", str(tmp_path / "labels"), "--sheet", "none"]) == 0
    assert "2 epochs of 4 batches of 64, 5 classes" in capsys.readouterr().out


def test_soft_labels_of_other_images_are_refused(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fkd(tmp_path / "labels", read_dataset(sre2l_folder), batch_size=64)
    said = failure(capsys, sre2l_folder, "--ipc", "20", "--labels", tmp_path / "labels")
    assert "Expected soft labels of 100 images" in said


def test_labels_without_images_are_explained(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fkd(tmp_path / "labels", read_dataset(sre2l_folder), batch_size=64)
    assert "holds soft labels (epoch_*/batch_*.tar) and no images" in failure(capsys, tmp_path / "labels")


def test_bad_input_is_told_to_people_and_to_machines(
    sre2l_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sre2l_folder / "new001" / "class001_id002.png"
    os.truncate(broken, 40)
    assert main(["show", str(sre2l_folder), "--json"]) == 2
    out, err = capsys.readouterr()
    assert str(broken) in err
    error = json.loads(out)["error"]
    assert error["kind"] == "DamagedFileError"
    assert str(broken) in error["message"]


def test_nothing_at_a_path_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No distilled data set at" in failure(capsys, tmp_path / "nowhere")


def test_an_unknown_layout_lists_the_known_ones(
    sre2l_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failure(capsys, sre2l_folder, "--layout", "mtt")
    assert "Unknown layout `mtt`. Known: gift-cl, datm, gift, rded, sre2l, cda, gvbsm, folder" in said
