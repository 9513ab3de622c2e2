from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from gift_cl import load_dataset
from gift_cl.cli import distill, main
from gift_cl.cli.distill_report import Waiting
from gift_cl.distillers import RandomImages
from gift_cl.evaluation.claims import Claim, Owner, take_claim
from gift_cl.readers import read_dataset
from gift_cl.real_data import RealData, hold_out, load_real_data
from gift_cl.teacher_file import load_teacher

Facts = dict[str, Any]
RANDOM = ("--method", "random", "--dataset", "digits", "--ipc", "3", "--device", "cpu")
RDED = ("--method", "rded:crops=2", "--dataset", "digits", "--ipc", "3", "--device", "cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of data with a teacher of the digits."""
    root = tmp_path_factory.mktemp("root")
    path = root / "pretrain_models" / "digits_mlp.safetensors"
    train = ("--dataset", "digits", "--model", "mlp:hidden=32", "--epochs", "8", "--device", "cpu")
    assert main(["teacher", "train", *train, "--out", str(path)]) == 0
    return path


@pytest.fixture
def run_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Facts]:
    def run(*arguments: str | Path) -> Facts:
        assert main(["distill", *map(str, arguments), "--json"]) == 0
        facts: Facts = json.loads(capsys.readouterr().out)
        return facts

    return run


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, which has to fail, and returns what it says."""

    def run(*arguments: str | Path) -> str:
        assert main(["distill", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_exemplars_are_written_with_a_picture(tmp_path: Path, run_json: Callable[..., Facts]) -> None:
    out = tmp_path / "new" / "digits.safetensors"
    facts = run_json(*RANDOM, "--out", out, "--seed", "4")
    assert names(out.parent) == ["digits-sheet.png", "digits.safetensors"]
    dataset, data = load_dataset(out), out.read_bytes()
    assert dataset.images_per_class == dict.fromkeys(range(10), 3)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.provenance.source.endswith(", distilled with seed 4")
    assert (facts["bytes"], facts["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (facts["num_images"], facts["num_classes"], facts["ipc"], facts["seed"]) == (30, 10, 3, 4)
    assert facts["ledger"] == {"pixels": 1920, "labels": 30, "soft_labels": 0, "teacher": 0, "total": 1950}
    assert (facts["teacher"], facts["files"], facts["agreement"]["stored"]) == (None, None, None)
    assert (out.parent / "digits-sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_teacher_is_found_by_its_network_and_measured(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts]
) -> None:
    root = teacher.parents[1]
    facts = run_json(*RDED, "--model", "mlp", "--root", root, "--out", tmp_path / "a.safetensors")
    loaded = load_teacher(teacher)
    assert loaded.accuracy is not None
    assert facts["teacher"]["path"] == str(teacher)
    assert facts["teacher"]["model"] == "mlp:hidden=32"
    assert facts["teacher"]["test"]["top1"] == loaded.accuracy.top1
    dataset = load_dataset(tmp_path / "a.safetensors")
    assert dataset.provenance.teacher == "mlp:hidden=32"
    assert dataset.provenance.teacher_classes == tuple(range(10))
    assert dataset.normalization == loaded.teacher.normalization
    again = run_json(*RDED, "--teacher", teacher, "--out", tmp_path / "b.safetensors")
    assert again["sha256"] == facts["sha256"]
    assert facts["images"] == sum(2 * min(300, n) for n in train_counts())
    assert facts["images_per_second"] > 0


def train_counts() -> list[int]:
    return list(load_real_data("digits").train.images_per_class.values())


def test_the_teacher_judges_exemplars_before_and_after_they_are_encoded(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts]
) -> None:
    """The codec is so bad that it has to show; the pixels are those of the raw exemplars, encoded."""
    raw = run_json(*RDED, "--teacher", teacher, "--out", tmp_path / "raw.safetensors")
    facts = run_json(
        *RDED, "--teacher", teacher, "--codec", "downscale:8,bits=1", "--out", tmp_path / "a.safetensors"
    )
    assert facts["codecs"] == {"made": "raw", "stored": "downscale:8,bits=1"}
    asked = load_teacher(teacher).teacher
    made, stored = (load_dataset(tmp_path / f"{name}.safetensors") for name in ("raw", "a"))
    for dataset, name in ((made, "made"), (stored, "stored")):
        right = asked.logits(dataset.images).argmax(1) == dataset.labels
        assert facts["agreement"][name] == pytest.approx(float(right.float().mean()), abs=1e-6)
    assert raw["agreement"]["stored"] == facts["agreement"]["made"] > facts["agreement"]["stored"]
    assert facts["ledger"]["pixels"] == 30  # a bit of one byte for each


def test_a_teacher_only_judges_where_none_is_needed(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts]
) -> None:
    facts = run_json(*RANDOM, "--teacher", teacher, "--out", tmp_path / "a.safetensors")
    assert facts["agreement"]["stored"] > 0.5
    run_json(*RANDOM, "--out", tmp_path / "b.safetensors")
    judged, alone = (load_dataset(tmp_path / f"{name}.safetensors") for name in "ab")
    assert torch.equal(judged.images, alone.images)
    assert judged.provenance.hashes == alone.provenance.hashes
    assert judged.provenance.teacher == "none"
    root = ("--root", teacher.parents[1])
    found = run_json(*RANDOM, *root, "--model", "mlp", "--out", tmp_path / "c.safetensors")
    assert found["agreement"] == facts["agreement"]
    missing = run_json(*RANDOM, *root, "--model", "mobilenet_v2", "--out", tmp_path / "d.safetensors")
    assert (missing["teacher"], missing["agreement"]["stored"]) == (None, None)


def test_the_words_say_what_came_out(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    arguments = (
        *RDED,
        "--teacher",
        str(teacher),
        "--codec",
        "jpeg:75",
        "--layout",
        "rded",
        "--out",
        str(out),
    )
    assert main(["distill", *arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    patterns = [
        r"rded:factor=1,crops=2,.* on cpu: 1,437 images of digits, 1 x 8 x 8, 10 classes",
        r"teacher mlp:hidden=32 \(.*digits_mlp.safetensors\): \d+\.\d\d% of 360 test images",
        r".*/a.safetensors  [\d,]+ bytes  sha256 [0-9a-f]{64}",
        r"30 exemplars, 3 of each of 10 classes",
        r"bytes of a memory: [\d,]+ \(pixels [\d,]+, labels 30; images as `jpeg:75`\)",
        r"distilled for \d+\.\d s, [\d,]+ images/s",
        r"the teacher agrees with [\d.]+% of the exemplars before encoding, [\d.]+% as `jpeg:75`",
        r"picture: .*/a-sheet.png",
        r"files: .*/a-files",
    ]
    assert len(said) == len(patterns)
    for line, pattern in zip(said, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_held_out_images_are_left_out(tmp_path: Path, run_json: Callable[..., Facts]) -> None:
    run_json(*RANDOM, "--hold-out", "0.5", "--out", tmp_path / "a.safetensors")
    kept = hold_out(load_real_data("digits"), 0.5, seed=0).train
    images = {image.numpy().tobytes() for image in kept.images}
    assert all(image.numpy().tobytes() in images for image in load_dataset(tmp_path / "a.safetensors").images)


def test_another_size_of_images_can_be_asked_for(tmp_path: Path, run_json: Callable[..., Facts]) -> None:
    arguments = (*RANDOM, "--root", tmp_path / "root", "--image-size", "16", "--out", tmp_path / "a")
    run_json(*arguments)
    assert load_dataset(tmp_path / "a").encoded.image_shape == (1, 16, 16)


def test_files_for_the_code_of_others_can_be_read(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts]
) -> None:
    arguments = (*RDED, "--teacher", teacher, "--layout", "rded:png", "--out", tmp_path / "a.safetensors")
    facts = run_json(*arguments)
    assert names(Path(facts["files"])) == ["digits_mlp_f1_mipc300_ipc3_cr2"]
    read = read_dataset(facts["files"])
    assert torch.equal(read.images, load_dataset(tmp_path / "a.safetensors").images)


def test_a_file_is_evaluated_where_it_is_looked_for(
    tmp_path: Path, run_json: Callable[..., Facts], capsys: pytest.CaptureFixture[str]
) -> None:
    run_json(*RANDOM, "--out", tmp_path / "syn_data" / "mine" / "digits_mlp" / "ipc3.safetensors")
    settings = ("--labels=hard", "--criterion_name=ce", "--normalization=none", "--view=none", "--epochs=1")
    where = (f"--root={tmp_path}", f"--out={tmp_path / 'rows'}", "--tracking=disabled", "--device=cpu")
    named = ("--method=mine", "--dataset=digits", "--model=mlp:hidden=8", "--ipc=3")
    assert main(["evaluate", *named, *settings, *where, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["status"], row["num_images"]) == ("done", 30)


@pytest.mark.slow
def test_two_processes_of_torchrun_make_the_same_file(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts]
) -> None:
    out = tmp_path / "two" / "a.safetensors"
    arguments = (*RDED, "--teacher", str(teacher), "--codec", "jpeg:75", "--seed", "2")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    both = subprocess.run(
        [sys.executable, *launch, "gift_cl", "distill", *arguments, "--json", "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert names(out.parent) == ["a-sheet.png", "a.safetensors"]
    alone = run_json(*arguments, "--out", tmp_path / "a.safetensors")
    assert out.read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert json.loads(both.stdout)["sha256"] == alone["sha256"]  # one of them speaks


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")


def test_a_rank_that_comes_late_leaves_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    as_rank(monkeypatch, 0)
    assert main(["distill", *RANDOM, "--out", str(out)]) == 0
    before = out.stat().st_mtime_ns
    capsys.readouterr()
    as_rank(monkeypatch, 1)
    assert main(["distill", *RANDOM, "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    assert out.stat().st_mtime_ns == before
    assert names(tmp_path) == ["a-sheet.png", "a.safetensors"]


def test_a_rank_helps_to_replace_a_file_of_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.safetensors"
    assert main(["distill", *RANDOM, "--out", str(out)]) == 0
    as_rank(monkeypatch, 1)
    assert main(["distill", *RANDOM, "--seed", "1", "--overwrite", "--out", str(out)]) == 0
    assert len(list((tmp_path / "a.safetensors.parts").glob("*.safetensors"))) == 10
    as_rank(monkeypatch, 0)
    assert main(["distill", *RANDOM, "--seed", "1", "--overwrite", "--out", str(out)]) == 0
    assert load_dataset(out).provenance.source.endswith("seed 1")
    assert names(tmp_path) == ["a-sheet.png", "a.safetensors"]


def test_a_rank_waits_a_while_for_an_equal_file_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works as soon as rank 0 has begun, and leaves when rank 0 does not."""
    out, parts = tmp_path / "a.safetensors", tmp_path / "a.safetensors.parts"
    assert main(["distill", *RANDOM, "--out", str(out)]) == 0
    as_rank(monkeypatch, 1)
    monkeypatch.setattr(distill, "_GRACE_S", 0.3)
    assert main(["distill", *RANDOM, "--overwrite", "--out", str(out)]) == 0
    assert not parts.exists()
    monkeypatch.setattr(distill, "_GRACE_S", 60.0)
    monkeypatch.setattr("time.sleep", lambda seconds: parts.mkdir())  # as rank 0 does
    assert main(["distill", *RANDOM, "--overwrite", "--out", str(out)]) == 0
    assert len(list(parts.glob("*.safetensors"))) == 10


def test_a_process_that_others_have_overtaken_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = take_claim(tmp_path / "a.safetensors.parts" / "claims", "all")
    assert isinstance(claim, Claim)
    with claim:
        assert main(["distill", *RANDOM, "--out", str(tmp_path / "a.safetensors")]) == 0
    assert "another process has all parts, and writes" in capsys.readouterr().err


def test_it_says_once_whom_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    """An owner of one group after another is one process."""
    a, b, c = (partial(Owner, pid=pid, machine="host 1", birth="") for pid in (1, 2, 3))
    waiting = Waiting()
    for owners in ({b(started=1.0), a(started=2.0)}, {a(started=3.0)}, {a(started=4.0), c(started=5.0)}):
        waiting(owners)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "".join(f"waiting for process {n} on host\n" for n in (1, 2, 3)))


def test_the_same_command_goes_on(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts], failure: Callable[..., str]
) -> None:
    arguments = (*RDED, "--teacher", teacher, "--out", tmp_path / "a.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gift_cl.pictures.canvas.save_figure", _full)
        assert "No space left" in failure(*arguments)
    assert len(list((tmp_path / "a.safetensors.parts").glob("*.safetensors"))) == 10
    said = failure(*RDED, "--teacher", teacher, "--seed", "1", "--out", tmp_path / "a.safetensors")
    assert "its `seed` is 0, not 1. Finish that one, remove the folder" in said
    assert run_json(*arguments)["images"] == 0  # through networks, this time
    assert names(tmp_path) == ["a-sheet.png", "a.safetensors"]


def test_it_goes_on_after_all_but_the_file_was_written(
    tmp_path: Path, run_json: Callable[..., Facts], failure: Callable[..., str]
) -> None:
    arguments = (*RANDOM, "--layout", "sre2l:png", "--out", tmp_path / "a.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "save_or_explain", _full)
        failure(*arguments)
    assert names(tmp_path) == ["a-files", "a-sheet.png", "a.safetensors.parts"]
    facts = run_json(*arguments)
    assert names(tmp_path) == ["a-files", "a-sheet.png", "a.safetensors"]
    assert torch.equal(read_dataset(facts["files"]).images, load_dataset(facts["path"]).images)


def test_a_command_that_made_nothing_leaves_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomImages, "distill", _interrupted)
    assert main(["distill", *RANDOM, "--out", str(tmp_path / "a.safetensors")]) != 0
    assert names(tmp_path) == []


def test_too_little_memory_is_said(
    tmp_path: Path, failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomImages, "distill", _too_large)
    said = failure(*RANDOM, "--out", tmp_path / "a.safetensors")
    assert "The memory of cpu is too small for `random`: " in said
    assert names(tmp_path) == []


def _interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def _too_large(*arguments: object, **options: object) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _full(*arguments: object) -> None:
    raise OSError("No space left on device")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--method", "nothing"), "Unknown distiller `nothing`. Known: random, herding, coverage, rded"),
        (("--method", "rded:corps=5"), "Bad options in distiller `rded:corps=5`"),
        (("--method", "rded"), "Expected `--teacher` or `--model` for `rded`, which needs a teacher"),
        (
            ("--method", "rded", "--model", "mlp"),
            r"No teacher mlp for digits; looked at `.*digits_mlp.pth`.* say where they are with "
            r"`--teacher`, or train one with `gift-cl teacher train`\.\n",
        ),
        (("--teacher", "nowhere.safetensors"), "No teacher at `nowhere.safetensors`"),
        (("--codec", "gif"), "Unknown codec `gif`"),
        (("--codec", "downscale:3"), "multiples of 3"),
        (("--codec", "float32"), "Expected a `codec` for the uint8 images of `random`, got `float32`. Leave"),
        (
            ("--method", "idc:factor=1,bits=2", "--codec", "raw"),
            "Expected `codec` quantize:2 for `idc:.*`, whose exemplars are made for it, got `raw`. Leave",
        ),
        (("--layout", "nothing"), "Unknown layout to write `nothing`"),
        (("--layout", "rded"), "Expected images of `rded` for its layout, got some of `random`"),
        (("--model", "nothing"), "Unknown model `nothing`"),
        (("--normalization", "cifar10"), "`--normalization` with weights of a teacher, got cifar10 without"),
        (("--method", "datm", "--layout", "datm"), "whitened images for the layout `datm`, got pixels of"),
        (("--dataset", "nothing"), "Unknown data set `nothing`"),
        (("--ipc", "0"), "Expected `ipc` of at least 1, got 0"),
        (("--ipc", "145"), "Expected at most 139 for `ipc`, as many as `random` makes .* `8`, got 145"),
        (("--hold-out", "2"), r"Expected `share` in \(0, 1\)"),
        (("--device", "nothing"), "Expected a `device` of this machine, got `nothing`"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(
    changed: tuple[str, ...], message: str, tmp_path: Path, failure: Callable[..., str]
) -> None:
    arguments = (*RANDOM, "--root", tmp_path / "root", "--out", tmp_path / "a.safetensors", *changed)
    assert re.search(message, failure(*arguments))
    assert names(tmp_path) == []


def test_a_teacher_that_is_not_what_its_file_says_is_refused(
    teacher: Path, tmp_path: Path, failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images of other classes make it look bad."""

    def load(*arguments: Any, **options: Any) -> RealData:
        data = load_real_data(*arguments, **options)
        data.test.labels.copy_((data.test.labels + 1) % 10)
        return data

    monkeypatch.setattr("gift_cl.cli.distill_inputs.load_real_data", load)
    said = failure(*RDED, "--teacher", teacher, "--out", tmp_path / "a.safetensors")
    assert "which its file says it had on `digits`" in said
    assert names(tmp_path) == []


def test_a_network_that_is_not_the_teachers_is_refused(
    teacher: Path, tmp_path: Path, failure: Callable[..., str]
) -> None:
    said = failure(*RDED, "--teacher", teacher, "--model", "conv3", "--out", tmp_path / "a.safetensors")
    assert "Expected `--model` mlp:hidden=32, which `" in said


def test_published_weights_need_a_normalisation(
    teacher: Path, tmp_path: Path, run_json: Callable[..., Facts], failure: Callable[..., str]
) -> None:
    loaded = load_teacher(teacher)
    torch.save(loaded.teacher.model.state_dict(), tmp_path / "weights.pth")
    arguments = (*RDED, "--teacher", tmp_path / "weights.pth", "--model", "mlp:hidden=32")
    said = failure(*arguments, "--out", tmp_path / "a.safetensors")
    assert "Expected `normalization` with `" in said
    (mean,), (std,) = loaded.teacher.normalization.mean, loaded.teacher.normalization.std
    facts = run_json(*arguments, "--normalization", f"{mean}/{std}", "--out", tmp_path / "a.safetensors")
    assert facts["teacher"]["test"]["top1"] > 0.8


def test_nothing_is_overwritten_unless_asked(
    tmp_path: Path, run_json: Callable[..., Facts], failure: Callable[..., str]
) -> None:
    out = tmp_path / "a.safetensors"
    arguments = (*RANDOM, "--layout", "sre2l", "--out", out)
    (tmp_path / "a-files").mkdir()
    assert "a-files` is there already. Choose another name, or pass `--overwrite`" in failure(*arguments)
    (tmp_path / "a-files").rmdir()
    (tmp_path / "a-sheet.png").write_text("precious")
    assert "a-sheet.png` is there already" in failure(*arguments)
    out.write_text("precious")
    assert "a.safetensors` is there already" in failure(*RANDOM, "--out", out)
    assert out.read_text() == "precious"
    run_json(*arguments, "--overwrite")
    assert len(load_dataset(out)) == 30
    assert read_dataset(tmp_path / "a-files").images_per_class == dict.fromkeys(range(10), 3)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
    tmp_path: Path, failure: Callable[..., str]
) -> None:
    """The data set is unknown, which would be said next."""
    nowhere = (*RANDOM, "--dataset", "nothing", "--out")
    assert "Expected a file to write, got the folder" in failure(*nowhere, tmp_path)
    (tmp_path / "file").touch()
    assert re.search(
        r"Cannot write into `.*file`: .*Choose a folder", failure(*nowhere, tmp_path / "file" / "a")
    )


def test_a_disk_that_is_too_small_is_said_before_anything_is_made(
    tmp_path: Path, failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts and file, 10 classes of 3 images of 64 bytes each."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=2 * 30 * 64 - 1))
    said = failure(*RANDOM, "--out", tmp_path / "a.safetensors")
    assert "Expected 3,840 bytes free in `" in said
    assert "got 3,839. Make space" in said
    assert names(tmp_path) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=2 * 30 * 64))
    assert main(["distill", *RANDOM, "--out", str(tmp_path / "a.safetensors")]) == 0


def test_too_small_a_memory_is_said_in_words(
    tmp_path: Path, failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def distill(*arguments: Any, **options: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("gift_cl.distillers.random_images.RandomImages.distill", distill)
    said = failure(*RANDOM, "--out", tmp_path / "a.safetensors")
    assert "error: The memory of cpu is too small for `random`: no room. Choose smaller batches" in said


def test_a_failure_of_another_process_is_told(
    tmp_path: Path, failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has removed its folder, and there is no file."""
    monkeypatch.setattr(distill, "distill_dataset", lambda *arguments, **options: None)
    said = failure(*RANDOM, "--out", tmp_path / "a.safetensors")
    assert "Another process with this command has failed. Start it again" in said


def test_an_error_is_json_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *RANDOM, "--ipc", "0", "--json", "--out", str(tmp_path / "a")]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"kind": "ValueError", "message": "Expected `ipc` of at least 1, got 0."}


def test_help_explains_ipc_and_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    said = capsys.readouterr().out
    assert "as a student sees them" in " ".join(said.split())
    assert "torchrun --nproc-per-node 8 -m gift_cl distill " in said.partition("examples:")[2]
