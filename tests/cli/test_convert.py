import hashlib
import json
import os
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fkd_folders import write_fkd
from gray_levels import write_images, write_teacher
from safetensors import SafetensorError

from gift_cl import load_dataset, open_dataset
from gift_cl.cli import main
from gift_cl.label_streams import open_stream, verify_stream
from gift_cl.readers import read_dataset


@pytest.fixture
def sre2l_folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "sre2l_tiny")


def convert_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["convert", *map(str, arguments), "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["convert", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_files_are_kept_as_published(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = convert_json(capsys, sre2l_folder, tmp_path / "out.safetensors")
    dataset = load_dataset(tmp_path / "out.safetensors")
    files = sorted(sre2l_folder.rglob("*.png"))
    assert dataset.encoded.streams() == [file.read_bytes() for file in files]
    assert torch.equal(dataset.images, read_dataset(sre2l_folder).images)
    data = (tmp_path / "out.safetensors").read_bytes()
    written = said["written"]["images"]
    assert (written["bytes"], written["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_sources_are_hashed_as_a_shell_does(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_json(capsys, sre2l_folder, tmp_path / "out.safetensors")
    names = sorted(file.relative_to(sre2l_folder).as_posix() for file in sre2l_folder.rglob("*.png"))
    lines = (f"{hashlib.sha256((sre2l_folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names)
    tree = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert load_dataset(tmp_path / "out.safetensors").provenance.hashes == {"tree": tree}


def test_an_archive_is_read_and_hashed(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "sre2l.zip", "w") as archive:
        for file in sre2l_folder.rglob("*.png"):
            archive.write(file, f"inner/{file.relative_to(sre2l_folder)}")
    convert_json(capsys, tmp_path / "sre2l.zip", tmp_path / "out.safetensors")
    dataset, data = load_dataset(tmp_path / "out.safetensors"), (tmp_path / "sre2l.zip").read_bytes()
    assert torch.equal(dataset.images, read_dataset(sre2l_folder).images)
    assert dataset.provenance.hashes["sre2l.zip"] == hashlib.sha256(data).hexdigest()


def test_an_archive_leaves_nothing_behind(
    sre2l_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with zipfile.ZipFile(tmp_path / "sre2l.zip", "w") as archive:
        for file in sre2l_folder.rglob("class00[0-3]_id000.png"):
            archive.write(file, str(file.relative_to(sre2l_folder)))
        archive.writestr("new004/class004_id000.png", b"")  # not whole
    said = failure(capsys, tmp_path / "sre2l.zip", tmp_path / "out.safetensors")
    assert f"{tmp_path / 'sre2l.zip'}/new004/class004_id000.png" in said
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("codec", ["raw", "png", "quantize:2"])
def test_images_may_be_stored_otherwise(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], codec: str
) -> None:
    convert_json(capsys, sre2l_folder, tmp_path / "out.safetensors", "--codec", codec)
    dataset = open_dataset(tmp_path / "out.safetensors")
    assert dataset.encoded.codec == codec
    if codec != "quantize:2":
        assert torch.equal(dataset.images, read_dataset(sre2l_folder).images)


def test_an_old_file_is_kept_unless_told(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    assert "is there already. Choose another name, or pass `--overwrite`" in failure(
        capsys, sre2l_folder, out
    )
    assert out.read_bytes() == b"old"
    convert_json(capsys, sre2l_folder, out, "--overwrite")
    assert len(load_dataset(out)) == 200


def test_bad_input_leaves_the_old_file(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    os.truncate(sre2l_folder / "new004" / "class004_id039.png", 50)
    assert "class004_id039.png" in failure(capsys, sre2l_folder, out, "--overwrite")
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.safetensors"]


def test_soft_labels_are_packed_beside_the_images(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fkd(tmp_path / "labels", read_dataset(sre2l_folder), epochs=2, batch_size=64)
    said = convert_json(capsys, sre2l_folder, tmp_path / "out.safetensors", "--labels", tmp_path / "labels")
    packed = tmp_path / "out.labels.safetensors"
    assert said["written"]["labels"]["path"] == str(packed)
    verify_stream(packed, dataset=load_dataset(tmp_path / "out.safetensors"))
    assert open_stream(packed).shape.num_epochs == 2
    assert main(["show", str(tmp_path / "out.safetensors"), "--labels", str(packed), "--sheet", "none"]) == 0


def test_classes_are_reordered_only_when_asked(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_teacher(tmp_path / "teacher.pth", (0, 2, 1, 3, 4))
    teacher = ("--teacher", tmp_path / "teacher.pth", "--model", "mlp:hidden=1", "--normalization", "none")
    said = convert_json(capsys, sre2l_folder, tmp_path / "a.safetensors", *teacher)
    assert said["teacher"]["moved"] == {"1": 2, "2": 1}
    plain = load_dataset(tmp_path / "a.safetensors")
    assert torch.equal(plain.labels, read_dataset(sre2l_folder).labels)
    convert_json(capsys, sre2l_folder, tmp_path / "b.safetensors", *teacher, "--reorder")
    reordered = load_dataset(tmp_path / "b.safetensors")
    assert torch.equal(reordered.labels, torch.tensor([0, 2, 1, 3, 4])[plain.labels])
    assert "reordered to those of teacher.pth" in reordered.provenance.source


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--reorder",), "Expected `--teacher` with `--reorder`"),
        (("--reorder", "--teacher", "t.pth", "--labels", "x"), "Expected no `--labels` with `--reorder`"),
        (("--codec", "gif"), "Unknown codec `gif`"),
        (("--ipc", "0"), "Expected `ipc` of at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    sre2l_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    match: str,
) -> None:
    assert match in failure(capsys, sre2l_folder, tmp_path / "out.safetensors", *options)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_folder_is_no_place_for_the_file(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Expected a file to write, got the folder" in failure(capsys, sre2l_folder, tmp_path)


def test_a_full_disk_is_said_in_one_line(
    sre2l_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    out = tmp_path / "out.safetensors"
    assert failure(capsys, sre2l_folder, out) == (
        f"error: Cannot write `{out}`: No space left on device. Make space on its disk, or choose another.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["sre2l_tiny"]


def test_a_disk_that_runs_full_while_labels_are_packed_is_said_in_one_line(
    sre2l_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's limit on the size of files stands for the disk."""
    write_fkd(tmp_path / "labels", read_dataset(sre2l_folder), epochs=2, batch_size=64)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        said = failure(
            capsys, sre2l_folder, tmp_path / "out.safetensors", "--labels", str(tmp_path / "labels")
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    packed = tmp_path / "out.labels.safetensors"
    assert said.startswith(f"error: Cannot write `{packed}`: File too large. Make space on its disk")
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "sre2l_tiny"]


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no data set, which would be said next."""
    (tmp_path / "file").touch()
    (tmp_path / "out.labels.safetensors").mkdir()
    nowhere = tmp_path / "nowhere"
    assert "Choose a folder that you may write to" in failure(capsys, nowhere, tmp_path / "file" / "out")
    labels = ("--labels", tmp_path / "labels", "--overwrite")
    said = failure(capsys, nowhere, tmp_path / "out.safetensors", *labels)
    assert "Expected a file to write, got the folder" in said
