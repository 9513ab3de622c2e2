import sys
from pathlib import Path

import pytest

from experiments import demo
from experiments.rows import read_rows


def test_the_demo_ends_with_a_table_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [arm for arm in demo.ARMS if arm.strategy in ("der", "gift")]
    monkeypatch.setattr(demo, "ARMS", [arm.smoke() for arm in arms])
    arguments = ["demo", "--seeds", "2", "--tracking", "disabled", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    demo.main()
    text = capsys.readouterr().out
    assert "final" in text
    assert "herding" in text
    assert str(tmp_path / "report.html") in text.replace("\n", "")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    rows = read_rows([tmp_path])
    assert len(rows) == len(arms) * 2 * 5
    assert {row["budget_bytes"] for row in rows} == {5250}


def test_all_arms_have_the_bytes_of_fifty_samples_of_der() -> None:
    assert demo.BUDGET == 5250
    assert {arm.strategy for arm in demo.ARMS} == {
        "naive",
        "replay",
        "der",
        "er_ace",
        "gdumb",
        "gift",
        "joint",
    }
    assert {arm.exemplars for arm in demo.ARMS if arm.is_gift} == {"random", "herding", "rded"}
