import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gift_cl.cli import main


def test_an_archive_is_unpacked_into_a_new_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("new000/class000_id000.jpg", b"data")
    assert main(["unpack", str(tmp_path / "a.zip"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "new000" / "class000_id000.jpg").read_bytes() == b"data"
    assert "unpacked into" in capsys.readouterr().out


def test_an_archive_that_leads_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../escaped", b"data")
    assert main(["unpack", str(tmp_path / "a.zip"), str(tmp_path / "out")]) == 2
    assert "leads out of its folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("command", ["show", "convert", "unpack"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"gift-cl {command} " in capsys.readouterr().out.partition("example")[2]


def test_the_program_runs_as_a_module_and_by_its_name() -> None:
    script = Path(sys.executable).with_name("gift-cl")
    for command in ([sys.executable, "-m", "gift_cl"], [str(script)]):
        run = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert "show" in run.stdout
