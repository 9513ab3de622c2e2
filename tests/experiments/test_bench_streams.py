import io
import itertools
import re
import time
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console

from experiments.bench_streams import QUICK, SETTINGS, compare, main, rates


def test_the_table_has_a_row_for_the_folder_and_one_for_the_packed_file() -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    compare(console, QUICK, rounds=1, seconds=0.01)
    rows = [line for line in console.export_text().splitlines() if "16x16" in line]
    assert len(rows) == 2
    for row, name in zip(rows, ("folder", "packed"), strict=True):
        assert name in row
        made, taken, ratio = (float(number.replace(",", "")) for number in re.findall(r"[\d,.]+", row)[-3:])
        assert made > 0
        assert ratio == pytest.approx(made / taken, abs=0.06, rel=0.1)


def test_a_rate_is_the_median_of_rounds_that_take_turns() -> None:
    calls = []

    def arm(name: str, pause: float) -> Iterator[int]:
        while True:
            calls.append(name)
            time.sleep(pause)
            yield 10

    found = rates({"fast": arm("fast", 0.002), "slow": arm("slow", 0.02)}, rounds=3, seconds=0.01)
    assert [name for name, _ in itertools.groupby(calls)] == ["fast", "slow"] * 4
    assert 0 < found["slow"] <= 10 / 0.02
    assert 0 < found["fast"] <= 10 / 0.002


def test_the_settings_are_those_of_the_published_streams() -> None:
    sizes = [(setting.side, setting.num_classes, setting.batch_size) for setting in SETTINGS]
    assert sizes == [(32, 100, 64), (64, 200, 256)]


def test_the_command_line_has_a_quick_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_streams", "--quick", "--threads", "1"])
    main()
    assert "16x16" in capsys.readouterr().out
    assert torch.get_num_threads() == 1
