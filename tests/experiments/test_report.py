import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from experiments.plots import format_bytes
from experiments.report import main, print_table, write_report
from experiments.rows import Row, append_rows, read_rows
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import save_dataset

ACCURACIES = {"naive": (0.2, 0.2), "replay": (0.5, 0.6), "gift": (0.7, 0.9)}


def make_rows(strategy: str, **more: Any) -> list[Row]:
    """Two seeds of two experiences."""
    is_gift, size = strategy == "gift", 0 if strategy == "naive" else 100
    names = ["<b>bold</b>", "plain", "$a$", "&"]
    return [
        {
            "run_id": f"{strategy}-s{seed}",
            "benchmark": "digits/2",
            "strategy": strategy,
            "exemplars": "herding" if is_gift else "-",
            "codec": "raw" if is_gift else "-",
            "labels": "hard" if is_gift else "-",
            "loss": "ce" if is_gift else "-",
            "protocol": "rehearsal",
            "model": "mlp",
            "seed": seed,
            "class_order_seed": seed,
            "experience": experience,
            "num_experiences": 2,
            "num_classes_seen": 2 * experience + 2,
            "accuracy_seen": last if experience else 0.95,
            "accuracy_by_experience": [last] * (experience + 1),
            "forgetting": 0.0,
            "memory_bytes": size,
            "memory_bytes_by_part": {"pixels": size, "labels": 0, "soft_labels": 0, "teacher": 0},
            "num_exemplars": 7,
            "budget_bytes": 200 if size else None,
            "seconds": 1.5,
            "evaluated_on": "test",
            "oracle": False,
            "confusion": [[5, 1, 0, 0]] * 4 if experience else None,
            "class_names": names if experience else None,
            "memory_file": "memory/gift.safetensors" if experience and is_gift else None,
            "versions": {"torch": "2.6"},
            "commit": "abc123",
            "hardware": "<script>alert(1)</script>",
        }
        | more
        for seed, last in enumerate(ACCURACIES[strategy])
        for experience in (0, 1)
    ]


def make_runs(folder: Path) -> Path:
    for strategy in ACCURACIES:
        append_rows(folder, make_rows(strategy))
    images = torch.arange(12 * 64).view(12, 1, 8, 8).remainder(256).to(torch.uint8)
    dataset = DistilledDataset.from_images(images, torch.arange(12) % 4, num_classes=4)
    save_dataset(dataset, folder / "memory" / "gift.safetensors")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path / "runs")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of ordinary runs, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("report")
    return write_report([make_runs(folder / "runs")], folder / "out")


def test_page_holds_numbers_calculated_by_hand(report: Path) -> None:
    page = report.read_text()
    # gift: mean of 0.7 and 0.9 is 0.8, sd is 0.2 / sqrt(2); replay: 0.55 and 0.1 / sqrt(2).
    assert "<td>gift</td><td>2</td><td>80.0 ± 14.1</td>" in page
    assert "<td>replay</td><td>2</td><td>55.0 ± 7.1</td>" in page
    assert "<td>50 %</td><td>7</td><td>3.0 ± 0.0</td>" in page
    assert "6 runs" in page
    assert "commit: abc123" in page
    assert "validation" not in page
    assert "oracle" not in page


def test_page_is_one_file_without_resources_and_escapes_text(report: Path) -> None:
    page = report.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []


def test_figures_are_pictures_in_the_page_and_beside_it(report: Path) -> None:
    page = report.read_text()
    files = sorted(report.parent.glob("*.png"))
    names = ["accuracy", "bytes", "confusion", "forgetting", "memory", "memory_bytes"]
    assert [file.stem for file in files] == names
    embedded = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert sorted(embedded) == sorted(file.read_bytes() for file in files)
    for content in embedded:
        with Image.open(io.BytesIO(content)) as picture:
            colors = picture.convert("RGB").getcolors(1 << 20)
            assert picture.width >= 600
        assert colors is not None
        assert len(colors) > 2


def test_caption_names_curves_that_leave_the_axes(report: Path, runs: Path, tmp_path: Path) -> None:
    assert "leaves the axes below" not in report.read_text()
    # Four memories at 48 % and above: the axes end far above the 20 % of naive.
    for name in ("der", "gdumb"):
        rows = make_rows("replay")
        append_rows(runs, [r | {"strategy": name, "run_id": f"{name}-s{r['seed']}"} for r in rows])
    page = write_report([runs], tmp_path / "out").read_text()
    assert "The curve of naive leaves the axes below; the legend has the final accuracies." in page


def test_each_benchmark_has_a_section(runs: Path, tmp_path: Path) -> None:
    append_rows(runs, make_rows("naive", benchmark="other/2"))
    page = write_report([runs], tmp_path / "out").read_text()
    assert re.findall(r"<h2>(.*)</h2>", page) == ["digits/2", "other/2"]
    assert (tmp_path / "out" / "other-2-accuracy.png").is_file()


def test_page_flags_validation_and_oracles(tmp_path: Path) -> None:
    append_rows(tmp_path, make_rows("replay", evaluated_on="validation"))
    append_rows(tmp_path, make_rows("gift", oracle=True, memory_file=None))
    page = write_report([tmp_path], tmp_path / "out").read_text()
    assert "2 of 4 runs evaluated on validation" in page
    assert "2 of 4 runs with an oracle teacher: leaky" in page
    assert "<td>gift · on test · oracle teacher</td>" in page


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No distilled data set at"), (b"junk", "Cannot read")]
)
def test_memory_that_cannot_be_read_is_noted(
    runs: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = runs / "memory" / "gift.safetensors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    page = write_report([runs], tmp_path / "out").read_text()
    assert f"no picture of the memory of gift-s0. {message}" in page
    assert not (tmp_path / "out" / "memory.png").exists()


def test_unfinished_runs_are_noted(runs: Path, tmp_path: Path) -> None:
    append_rows(runs, [row | {"seed": 9, "run_id": "naive-s9"} for row in make_rows("naive")[:1]])
    page = write_report([runs], tmp_path / "out").read_text()
    assert "1 run did not reach its last experience and is left out" in page
    assert "<td>naive</td><td>2</td>" in page


def test_one_run_has_no_deviation(tmp_path: Path) -> None:
    append_rows(tmp_path, make_rows("replay")[:2])
    page = write_report([tmp_path], tmp_path / "out").read_text()
    assert "<td>replay</td><td>1</td><td>50.0</td>" in page
    assert "one run has no deviation" in page


def test_table_holds_the_arms(runs: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_table(read_rows([runs]), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert lines["gift"] == ["80.0", "±", "14.1", "2", "0.0", "±", "0.0", "100", "50", "%", "7", "3.0"]
    assert lines["naive"][-3:] == ["-", "-", "3.0"]


def test_command_writes_the_page_and_prints_the_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (runs / "rows.jsonl").open("a") as file:
        file.write('{"torn": ')
    assert main([str(runs), "--out", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr()
    assert "80.0 ± 14.1" in printed.out
    assert "Skipped what is no whole row" in printed.err
    assert "Skipped what is no whole row" in (tmp_path / "page" / "report.html").read_text()


@pytest.mark.parametrize("case", ["missing", "empty", "unfinished", "not writable"])
def test_errors_are_one_line_and_exit_code_2(
    case: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if case == "missing":
        runs = tmp_path / "nothing"
    elif case == "empty":
        (runs / "rows.jsonl").write_text("")
    elif case == "unfinished":
        (runs / "rows.jsonl").unlink()
        append_rows(runs, make_rows("naive")[:1])
    else:
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out"
    assert main([str(runs), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1


def test_help_explains_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"), [(331, "331 B"), (5250, "5.25 kB"), (1_200_000, "1.2 MB"), (2e9, "2 GB")]
)
def test_bytes_are_formatted_in_powers_of_a_thousand(count: float, text: str) -> None:
    assert format_bytes(count) == text
