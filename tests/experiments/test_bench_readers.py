from pathlib import Path

import pytest
import torch
from rich.console import Console

from experiments.bench_readers import (
    CONTESTANTS,
    QUICK,
    SECTIONS,
    main,
    read_ours,
    read_torchvision,
    time_decoding,
    time_images,
    time_opening,
    write_folder,
)


def test_all_readers_are_timed_and_read_the_same_pixels(tmp_path: Path) -> None:
    assert write_folder(tmp_path, QUICK) > 100
    rates = time_images(tmp_path, QUICK)
    assert set(rates) == {(name, workers) for name in CONTESTANTS for workers in QUICK.workers}
    assert min(rates.values()) > 0
    assert time_decoding(tmp_path) > 0
    reference = read_torchvision(tmp_path, 0)
    assert reference.shape == (12, 3, 16, 16)
    for codec in ("raw", "files"):
        assert torch.equal(read_ours(tmp_path, 0, codec=codec).images, reference)


def test_both_ways_to_open_a_file_are_measured(tmp_path: Path) -> None:
    results = time_opening(tmp_path, QUICK)
    assert set(results) == {"open_dataset", "load_dataset"}
    assert all(result.open_s > 0 and result.batch_s > 0 for result in results.values())


def test_the_command_prints_the_sections_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECTIONS, "images", lambda console, sizes, folder: console.print("a table"))
    main(["--quick", "images"])
    assert "a table" in capsys.readouterr().out


def test_unknown_sections_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "Unknown sections: nothing. Known: images, opening." in capsys.readouterr().err


def test_tables_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for report in SECTIONS.values():
        report(Console(width=100), QUICK, tmp_path)
    printed = capsys.readouterr().out
    for name in (*CONTESTANTS, "open_dataset", "load_dataset"):
        assert name in printed
