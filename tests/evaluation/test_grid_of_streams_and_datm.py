"""Grids from files to rows, for what has labels of its own: streams as SRe2L publishes them, and DATM."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fkd_folders import write_fkd
from PIL import Image
from tensor_layouts import write_datm
from torch import Tensor
from torch.nn.functional import one_hot

from gift_cl.cli import main
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.rows import Row
from gift_cl.evaluation.run import evaluate
from gift_cl.label_streams import FKDStream, pack_stream
from gift_cl.readers import read_dataset
from gift_cl.real_data import load_real_data
from gift_cl.whitening import fit_zca

CLASSES, PER_CLASS, SIDE = 3, 8, 8
PIXEL_BYTES = CLASSES * PER_CLASS * 3 * SIDE * SIDE


def write_picture(path: Path, label: int, number: int) -> None:
    """Noise that is red, green or blue, which a crop does not change."""
    pixels = np.random.default_rng([label, number]).integers(0, 100, (SIDE, SIDE, 3), np.uint8)
    pixels[:, :, label] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in `real`, and distilled ones as SRe2L publishes them in `sre2l`."""
    root = tmp_path_factory.mktemp("data")
    for label in range(CLASSES):
        for number in range(20):
            write_picture(root / f"real/train/kind{label}/{number}.png", label, number)
            write_picture(root / f"real/test/kind{label}/{number}.png", label, 100 + number)
        for number in range(PER_CLASS):
            name = f"sre2l/new{label:03d}/class{label:03d}_id{number:03d}.png"
            write_picture(root / name, label, 200 + number)
    return root


@pytest.fixture(scope="module")
def stream(root: Path) -> Path:
    """Four epochs of labels of the images of `sre2l`, in three batches each, with cutmix."""
    write_fkd(root / "FKD", read_dataset(root / "sre2l"), epochs=4)
    return root / "FKD"


@pytest.fixture(scope="module")
def whitened(root: Path) -> Tensor:
    """What DATM distils: images of each class in turn, in the whitened space."""
    train = load_real_data(root / "real", root=root).train
    chosen = torch.cat([(train.labels == label).nonzero()[:PER_CLASS, 0] for label in range(CLASSES)])
    return fit_zca(train.images).apply(train.images[chosen])


def make_logits() -> Tensor:
    return 6.0 * one_hot(torch.arange(CLASSES).repeat_interleave(PER_CLASS), CLASSES)


def run(root: Path, out: Path, **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"dataset": str(root / "real"), "root": str(root), "ipc": PER_CLASS}
    settings |= {"model": "mlp:hidden=16", "epochs": 16, "evaluations": 2, "device": "cpu"}
    settings |= {"preset": "own", "out": str(out), "tracking": "disabled"}
    return evaluate(EvaluationConfig(**settings | more))


def run_stream(root: Path, stream: Path, out: Path, **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"method": "sre2l", "data": str(root / "sre2l"), "stream": str(stream)}
    settings |= {"labels": "stream", "view": "none", "mix": "none", "normalization": "0.5/0.25", "lr": 0.01}
    return run(root, out, **settings | more)


def run_datm(root: Path, folder: Path, out: Path, **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"method": "datm", "data": str(folder), "view": "none", "batch_size": 8}
    return run(root, out, **settings | more)


def test_grid_of_a_published_stream_ends_in_rows_that_count_its_files(
    root: Path, stream: Path, tmp_path: Path
) -> None:
    losses = ["kl:temperature=20", "mse_ce:ce_weight=0.1"]
    rows = run_stream(root, stream, tmp_path, criterion_name=losses, seed=[0, 1])
    assert [(row["seed"], row["loss"]) for row in rows] == [(s, loss) for s in (0, 1) for loss in losses]
    label_bytes = sum(file.stat().st_size for file in stream.rglob("*.tar"))
    png_bytes = sum(file.stat().st_size for file in (root / "sre2l").rglob("*.png"))
    for row in rows:
        assert (row["status"], row["reason"], row["labels"]) == ("done", None, "stream")
        assert 0.9 < row["accuracy_last"] <= row["accuracy_best"] <= 1
        assert [epoch for epoch, _ in row["curve"]] == [8, 16]
        assert row["bytes"]["soft_labels"] == label_bytes
        assert row["bytes"]["total"] == label_bytes + row["bytes"]["pixels"] + CLASSES * PER_CLASS
        assert row["bytes"]["pixels"] >= png_bytes  # and a table of their lengths
        assert (row["teacher_accuracy"], row["teacher_sha256"], row["batch_size"]) == (None, None, None)
    assert len({row["train_loss_last"] for row in rows}) == 4
    assert run_stream(root, stream, tmp_path, criterion_name=losses, seed=[0, 1]) == rows


def test_packed_stream_ends_in_the_same_rows_with_the_bytes_of_its_file(
    root: Path, stream: Path, tmp_path: Path
) -> None:
    packed, images = tmp_path / "packed.safetensors", read_dataset(root / "sre2l")
    pack_stream(FKDStream.open(stream, images), packed, dataset=images)
    (published,) = run_stream(root, stream, tmp_path / "published")
    (row,) = run_stream(root, packed, tmp_path / "packed")
    assert row["bytes"]["soft_labels"] == packed.stat().st_size < published["bytes"]["soft_labels"]
    same = ("cell_id", "status", "curve", "accuracy_last", "accuracy_best", "train_loss_last", "settings")
    assert [row[name] for name in same] == [published[name] for name in same]


def test_stream_of_other_images_is_refused_before_any_training(
    root: Path, stream: Path, tmp_path: Path
) -> None:
    packed, images = tmp_path / "packed.safetensors", read_dataset(root / "sre2l")
    pack_stream(FKDStream.open(stream, images), packed, dataset=images)
    for label in range(CLASSES):
        for number in range(PER_CLASS):
            name = f"other/new{label:03d}/class{label:03d}_id{number:03d}.png"
            write_picture(tmp_path / name, label, 300 + number)
    with pytest.raises(ValueError, match="images that `.*packed.safetensors` was packed for"):
        run_stream(root, packed, tmp_path / "out", data=str(tmp_path / "other"))
    assert not (tmp_path / "out").exists()


def test_grid_of_datm_trains_at_the_learned_rate_on_the_stored_labels(
    root: Path, whitened: Tensor, tmp_path: Path
) -> None:
    folder = write_datm(tmp_path / "datm", whitened, make_logits(), torch.tensor(0.0625))
    rows = run_datm(root, folder, tmp_path / "out", seed=[0, 1])
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert (row["status"], row["reason"], row["labels"]) == ("done", None, "stored")
        assert (row["preset"], row["optimizer"], row["lr"]) == ("datm", "SGD", 0.0625)
        assert row["normalization"] == "none"
        assert 0.9 < row["accuracy_last"] <= row["accuracy_best"] <= 1
        logit_bytes = CLASSES * PER_CLASS * CLASSES * 4 + CLASSES  # and which classes they cover
        assert row["bytes"] == {
            "pixels": 4 * PIXEL_BYTES,
            "labels": CLASSES * PER_CLASS,
            "soft_labels": logit_bytes,
            "teacher": 0,
            "total": 4 * PIXEL_BYTES + CLASSES * PER_CLASS + logit_bytes,
        }


def test_learned_rate_is_what_trains_unless_another_is_given(
    root: Path, whitened: Tensor, tmp_path: Path
) -> None:
    fast, slow = (
        write_datm(tmp_path / name, whitened, make_logits(), torch.tensor(rate))
        for name, rate in (("fast", 0.0625), ("slow", 2.0**-30))
    )
    (learned,) = run_datm(root, fast, tmp_path / "a")
    (still,) = run_datm(root, slow, tmp_path / "b")
    (given,) = run_datm(root, slow, tmp_path / "c", lr=0.0625)
    assert [row["lr"] for row in (learned, still, given)] == [0.0625, 2.0**-30, 0.0625]
    assert learned["train_loss_last"] == given["train_loss_last"] < 0.5 * still["train_loss_last"]
    assert still["curve"][0][1] == still["curve"][1][1]  # it has not moved
    (gift,) = run_datm(root, fast, tmp_path / "d", preset="gift")
    assert (gift["status"], gift["labels"], gift["lr"]) == ("done", "stored", 1e-3)


def test_command_prints_the_rows_of_datm(
    root: Path, whitened: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_datm(tmp_path / "datm", whitened, make_logits(), torch.tensor(0.0625))
    given = {"method": "datm", "dataset": root / "real", "root": root, "data": folder, "ipc": PER_CLASS}
    given |= {"model": "conv3:width=4,norm=instance", "preset": "own", "criterion_name": "[softce, gift]"}
    given |= {"epochs": 2, "device": "cpu", "tracking": "disabled", "out": tmp_path / "out"}
    assert main(["evaluate", "--json", *(f"--{name}={value}" for name, value in given.items())]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["loss"], row["status"], row["lr"]) for row in rows] == [
        ("softce", "done", 0.0625),
        ("gift", "done", 0.0625),
    ]
    assert [row["settings"]["view"] for row in rows] == ["dsa:form=one"] * 2
    stored = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert rows == stored
