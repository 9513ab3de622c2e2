import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gift_cl.tracking import NoTracker, Tracker, WandbTracker, make_tracker

ROOT = Path(__file__).parents[2]
CONFIG = {"strategy": "gift", "budget_bytes": 3072, "options": {"weight": 0.5, "sizes": [1, 2]}, "none": None}
ReadRun = Callable[[Path], tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]]
ReadRecords = Callable[[Path], list[Any]]


def make(folder: Path, mode: Any = "offline") -> Tracker:
    return make_tracker(mode, config=CONFIG, name="digits-s0", group="digits", folder=folder)


def make_picture(folder: Path) -> Path:
    from PIL import Image

    path = folder / "sheet.png"
    Image.new("RGB", (8, 4), (255, 0, 0)).save(path)
    return path


@pytest.mark.usefixtures("wandb_home")
def test_an_offline_run_holds_all_that_was_reported(
    tmp_path: Path, read_offline_run: ReadRun, read_offline_records: ReadRecords
) -> None:
    picture = make_picture(tmp_path)
    tracker = make(tmp_path / "out")
    tracker.log({"accuracy_seen": 0.5, "memory_bytes/pixels": 1000}, step=0)
    tracker.log({"accuracy_seen": 0.25}, step=1)
    tracker.picture("memory", picture)
    tracker.artifact("memory-s0", "memory", picture)
    tracker.finish({"accuracy_seen": 0.25, "forgetting": 0.125})

    config, history, summary = read_offline_run(tmp_path / "out")
    assert config == CONFIG
    assert [row["_step"] for row in history] == [0, 1]
    assert [row["accuracy_seen"] for row in history] == [0.5, 0.25]
    assert history[0]["memory_bytes/pixels"] == 1000
    assert (history[1]["memory._type"], history[1]["memory.width"]) == ("image-file", 8)
    assert (summary["accuracy_seen"], summary["forgetting"]) == (0.25, 0.125)

    run = next((tmp_path / "out" / "wandb").glob("offline-run-*"))
    assert (run / "files" / history[1]["memory.path"]).read_bytes() == picture.read_bytes()
    records = read_offline_records(tmp_path / "out")
    (started,) = (record.run for record in records if record.HasField("run"))
    assert (started.project, started.run_group, started.display_name) == ("gift-cl", "digits", "digits-s0")
    (artifact,) = (record.artifact for record in records if record.HasField("artifact"))
    assert (artifact.name, artifact.type) == ("memory-s0", "memory")
    (kept,) = artifact.manifest.contents
    assert kept.path == "sheet.png"
    assert Path(kept.local_path).read_bytes() == picture.read_bytes()


@pytest.mark.usefixtures("wandb_home")
def test_a_picture_does_not_close_the_step(tmp_path: Path, read_offline_run: ReadRun) -> None:
    tracker = make(tmp_path)
    tracker.log({"before": 1}, step=3)
    tracker.picture("memory", make_picture(tmp_path))
    tracker.log({"after": 2}, step=3)
    tracker.log({"before": 3}, step=4)
    tracker.finish({})
    _, history, _ = read_offline_run(tmp_path)
    assert [(row["_step"], row.get("before"), row.get("after")) for row in history] == [
        (3, 1, 2),
        (4, 3, None),
    ]


@pytest.mark.usefixtures("wandb_home")
def test_many_numbers_survive(tmp_path: Path, read_offline_run: ReadRun) -> None:
    """Records that cross the blocks of the file are put together again."""
    tracker = make(tmp_path)
    for step in range(60):
        tracker.log({f"metric/{i}": step * i / 7 for i in range(40)}, step=step)
    tracker.finish({})
    _, history, _ = read_offline_run(tmp_path)
    assert [row["metric/39"] for row in history] == [step * 39 / 7 for step in range(60)]


@pytest.mark.usefixtures("wandb_home")
def test_without_a_key_the_run_goes_on_off_line(tmp_path: Path, read_offline_run: ReadRun) -> None:
    with pytest.warns(UserWarning, match=r"cannot be reached \(No API key.*`wandb login`.*`wandb sync`"):
        tracker = make(tmp_path, "online")
    tracker.log({"accuracy_seen": 0.5}, step=0)
    tracker.finish({"accuracy_seen": 0.5})
    config, history, summary = read_offline_run(tmp_path)
    assert config == CONFIG
    assert [row["accuracy_seen"] for row in history] == [0.5]
    assert summary["accuracy_seen"] == 0.5


@pytest.mark.usefixtures("wandb_home")
def test_without_a_server_the_run_goes_on_off_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_offline_run: ReadRun
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.perf_counter()
    with pytest.warns(UserWarning, match=f"cannot be reached .*kept off line in `{tmp_path}`"):
        tracker = WandbTracker(
            mode="online", config=CONFIG, name="n", group="g", folder=tmp_path, timeout_s=0.5
        )
    assert time.perf_counter() - start < 15  # one or two seconds on an idle machine
    tracker.log({"accuracy_seen": 0.5}, step=0)
    tracker.finish({})
    _, history, _ = read_offline_run(tmp_path)
    assert [row["accuracy_seen"] for row in history] == [0.5]


@pytest.mark.usefixtures("wandb_home")
def test_nobody_is_asked_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, where W&B would ask, the run goes on without an answer."""
    code = (
        "import pathlib, runpy; "  # the file alone: without its package, it does not wait for torch
        f"make = runpy.run_path({str(ROOT / 'gift_cl' / 'tracking.py')!r})['make_tracker']; "
        f"folder = pathlib.Path({str(tmp_path)!r}); "
        "make('online', config={}, name='n', group='g', folder=folder).finish({})"
    )
    monkeypatch.setenv("TERM", "xterm")  # W&B does not ask at a dumb one
    terminal, end = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", code], stdin=end, stdout=end, stderr=end, cwd=ROOT)
    os.close(end)
    try:
        assert run.wait(timeout=30) == 0
        said = os.read(terminal, 100_000).decode()
    finally:
        run.kill()
        os.close(terminal)
    assert "cannot be reached (No API key" in said
    assert "choice" not in said


def test_disabled_tracking_writes_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    tracker = make(tmp_path / "out", "disabled")
    assert isinstance(tracker, NoTracker)
    tracker.log({"accuracy_seen": 0.5}, step=0)
    tracker.picture("memory", tmp_path / "none.png")
    tracker.artifact("memory", "memory", tmp_path / "none")
    tracker.finish({})
    assert os.listdir(tmp_path) == []


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`tracking` offline, online or disabled, got 'on'"):
        make(tmp_path, "on")
    assert os.listdir(tmp_path) == []
