from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import compare_streams, stream_report
from experiments.class_incremental import run as run_stream
from experiments.compare_streams import main, run
from experiments.config import Config
from experiments.rows import Row
from experiments.stream_report import (
    Result,
    accuracy_by_size,
    format_table,
    group_results,
    paired,
    short_names,
)
from experiments.stream_settings import MemoryChoice, StreamsConfig, make_runs
from gift_cl.real_data import RealData, load_real_data, subset

REAL = MemoryChoice(exemplars="random")
DISTILLED = MemoryChoice(exemplars="dm:iterations=2,real=4,width=4,strategy=none")
CIFAR: dict[str, Any] = {"num_classes": 100, "image_shape": (3, 32, 32)}


@pytest.fixture(scope="module")
def digits() -> RealData:
    return subset(load_real_data("digits"), per_class=6)


def tiny(out: Path, **changes: Any) -> StreamsConfig:
    stream = Config(experiences=2, model="mlp:hidden=8", epochs=1, tracking="disabled")
    settings: dict[str, Any] = {"memories": [REAL, DISTILLED], "ipc": [1, 2], "seeds": [0, 1]}
    return StreamsConfig(stream=stream, out=str(out), **(settings | changes))


def result(memory: MemoryChoice, seed: int, accuracy: float, **columns: Any) -> Result:
    row = {
        "seed": seed,
        "accuracy_seen": accuracy,
        "benchmark": "digits/5",
        "protocol": "rehearsal",
        "memory_bytes": 650,
        "memory_bytes_by_part": {"pixels": 640, "teacher": 0},
        "num_exemplars": 10,
        "run_seconds": 1.0,
        "run_distillation_seconds": 0.5,
        "hardware": "abacus",
        "commit": "c0ffee",
    }
    return Result(memory=memory, ipc=1, row=row | columns)


def test_every_memory_runs_in_every_order_with_the_same_bytes(digits: RealData, tmp_path: Path) -> None:
    told: list[Result] = []
    results = run(tiny(tmp_path), digits, on_result=told.append)
    assert len(results) == len(told) == 8
    assert {(r.memory, r.ipc, r.row["class_order_seed"]) for r in results} == {
        (memory, ipc, seed) for memory in (REAL, DISTILLED) for ipc in (1, 2) for seed in (0, 1)
    }
    for found in results:
        assert found.row["memory_bytes"] == 10 * found.ipc * (64 + 1)
    assert all(r.row["config"]["exemplars"] == r.memory.exemplars for r in results)
    assert all(0 < r.row["accuracy_seen"] <= 1 for r in results)
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    table = (tmp_path / "table.md").read_text()
    assert table.count("random · raw · hard · ce") == 2
    assert "dm:iterations=2" in table


def test_a_comparison_goes_on_where_it_was_stopped(
    digits: RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = tiny(tmp_path, ipc=[1], memories=[REAL])
    first = run(replace(comparison, shard="1/2"), digits)
    assert [found.row["seed"] for found in first] == [0]
    ran: list[int] = []

    def watched(config: Config, data: RealData) -> list[Row]:
        ran.append(config.seed)
        return run_stream(config, data)

    monkeypatch.setattr(compare_streams, "run_stream", watched)
    second = run(comparison, digits)
    assert ran == [1]
    assert [found.row["seed"] for found in second] == [0, 1]
    assert second[0].row == first[0].row


def test_each_run_is_a_line_of_a_spreadsheet(digits: RealData, tmp_path: Path) -> None:
    results = run(tiny(tmp_path), digits)
    with (tmp_path / "runs.csv").open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert len(lines) == len(results) == 8
    for line, found in zip(lines, results, strict=True):
        assert (line["exemplars"], line["codec"], line["loss"]) == (found.memory.exemplars, "raw", "ce")
        assert (int(line["ipc"]), int(line["class_order"])) == (found.ipc, found.row["class_order_seed"])
        assert float(line["accuracy"]) == found.row["accuracy_seen"]
        assert int(line["bytes"]) == 10 * found.ipc * (64 + 1)


def test_the_time_of_a_run_is_that_of_all_its_experiences(digits: RealData, tmp_path: Path) -> None:
    (found,) = run(tiny(tmp_path, ipc=[1], memories=[DISTILLED], seeds=[0]), digits)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert found.row["run_seconds"] == sum(row["seconds"] for row in rows)
    assert found.row["run_distillation_seconds"] == sum(row["distillation_seconds"] for row in rows) > 0


def test_a_run_that_was_begun_twice_counts_with_its_last_experience(digits: RealData, tmp_path: Path) -> None:
    comparison = tiny(tmp_path, ipc=[1], memories=[REAL], seeds=[0])
    (found,) = run(comparison, digits)
    file = tmp_path / "rows.jsonl"
    first, last = file.read_text().splitlines()
    file.write_text("\n".join([first, last, first, ""]))  # a second process began it anew
    assert run(comparison, digits)[0].row == found.row


def test_what_another_comparison_left_does_not_stand_beside_an_empty_table(
    digits: RealData, tmp_path: Path
) -> None:
    run(tiny(tmp_path, ipc=[1], memories=[REAL], seeds=[0]), digits)
    broken = MemoryChoice(exemplars="sre2l:iterations=1,jitter=0")  # its teacher has no batch norms
    assert not run(tiny(tmp_path, ipc=[1], memories=[broken], seeds=[0]), digits)
    assert "Nothing is finished" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "runs.csv").exists()
    assert not (tmp_path / "accuracy.png").exists()


def test_bytes_become_exemplars_by_their_codec() -> None:
    memories = [
        MemoryChoice(exemplars="herding"),
        MemoryChoice(exemplars="herding", codec="downscale:2"),
        MemoryChoice(exemplars="idc:factor=2", codec="downscale:2"),
        MemoryChoice(exemplars="herding", codec="webp:50"),
        MemoryChoice(exemplars="herding", codec="webp:50", per_raw_image=7),
    ]
    runs = make_runs(StreamsConfig(memories=memories, ipc=[10], seeds=[3]), **CIFAR)
    assert [one.config.per_class for one in runs] == [10, 39, 39, None, 70]
    assert 39 * (768 + 1) <= 10 * (3072 + 1) < 40 * (768 + 1)
    assert [one.config.budget_bytes for one in runs] == [None, None, None, 100 * (30720 + 10), None]
    assert {(one.config.seed, one.config.class_order_seed) for one in runs} == {(3, 3)}


def test_sizes_may_be_smaller_than_a_raw_image() -> None:
    memories = [
        MemoryChoice(exemplars="herding", codec="downscale:2"),
        MemoryChoice(exemplars="herding", codec="webp:50"),
    ]
    small, budget = make_runs(StreamsConfig(memories=memories, ipc=[0.5], seeds=[0]), **CIFAR)
    assert small.config.per_class == 1  # of 769 bytes in 1536.5
    assert budget.config.budget_bytes == 153_650
    message = (
        "`ipc` with the bytes of an exemplar at least, which takes 3073 in raw with hard labels, "
        "got 0.5, which is 1536.5"
    )
    with pytest.raises(ValueError, match=message):
        make_runs(StreamsConfig(memories=[REAL], ipc=[0.5]), **CIFAR)


@pytest.mark.parametrize("labels", ["stored", "stored:views=2", "stored:refresh=true"])
def test_stored_labels_count_among_the_bytes(tmp_path: Path, digits: RealData, labels: str) -> None:
    memory = MemoryChoice(exemplars="random", codec="quantize:2", labels=labels, loss="gift")
    (only,) = run(tiny(tmp_path, memories=[memory], ipc=[3], seeds=[0]), digits)
    taken, each = only.row["memory_bytes"], only.row["memory_bytes"] / only.row["num_exemplars"]
    assert only.row["memory_bytes_by_part"]["soft_labels"] > 0
    assert taken <= 10 * 3 * 65 < taken + 10 * each


def test_a_teacher_that_is_kept_needs_a_budget() -> None:
    memory = MemoryChoice(exemplars="random", labels="online", loss="gift")
    with pytest.raises(ValueError, match="`labels` hard or stored .* got online.* Use a codec of files"):
        make_runs(StreamsConfig(memories=[memory]), **CIFAR)


def test_files_may_be_given_as_many_as_a_raw_image_holds() -> None:
    files = MemoryChoice(exemplars="herding", codec="webp:50", per_raw_image=5)
    half, two = make_runs(StreamsConfig(memories=[files], ipc=[0.5, 2], seeds=[0]), **CIFAR)
    assert (half.config.per_class, two.config.per_class) == (2, 10)
    many = MemoryChoice(exemplars="herding", codec="webp:50", per_raw_image=100)
    (exact,) = make_runs(StreamsConfig(memories=[many], ipc=[0.29], seeds=[0]), **CIFAR)
    assert exact.config.per_class == 29
    with pytest.raises(ValueError, match="`per_raw_image` of at least 10, got 5"):
        make_runs(StreamsConfig(memories=[files], ipc=[0.1]), **CIFAR)


def test_a_twin_has_as_many_exemplars_as_its_bytes_hold() -> None:
    ours = MemoryChoice(exemplars="idc:factor=1,webp=10", codec="webp:10", per_raw_image=18)
    twin = MemoryChoice(exemplars="coverage", codec="webp:10", per_raw_image=22)
    assert twin.is_real_twin(ours)
    assert not MemoryChoice(exemplars="coverage", codec="webp:50", per_raw_image=18).is_real_twin(ours)
    assert not ours.is_real_twin(ours)


def test_a_codec_that_is_not_that_of_the_distiller_is_refused() -> None:
    memory = MemoryChoice(exemplars="idc:factor=2")
    with pytest.raises(ValueError, match="`codec: downscale:2` for `idc:factor=2`, got raw"):
        make_runs(StreamsConfig(memories=[memory], ipc=[1]), **CIFAR)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ipc": [0]}, "`ipc` above 0, got 0"),
        ({"seeds": []}, "`seeds`"),
        ({"memories": [REAL, REAL]}, "different values in `memories`"),
        ({"shard": "3/2"}, "`shard`"),
        ({"stream": Config(strategy="der")}, "`stream.strategy`"),
        ({"stream": Config(seed=3)}, "no `stream.seed`, which `seeds` say, got 3. Leave it out"),
        ({"stream": Config(codec="raw")}, "no `stream.codec`, which `memories` say, got 'raw'"),
        ({"stream": Config(budget_bytes=None, per_class=3)}, "no `stream.budget_bytes`, which `ipc` says"),
    ],
)
def test_unusable_comparisons_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamsConfig(**values)


def test_paired_differences_have_the_interval_of_student() -> None:
    ours = [{"seed": s, "accuracy_seen": a} for s, a in ((0, 0.5), (1, 0.6), (2, 0.7), (9, 0.0))]
    theirs = [{"seed": s, "accuracy_seen": a} for s, a in ((2, 0.6), (0, 0.5), (1, 0.4))]
    found = paired(ours, theirs)
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(0.1)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    assert found.text() == "+10.0 [-14.8, +34.8]"
    assert paired(ours, []) is None
    alone = paired(ours[:1], theirs)
    assert alone is not None
    assert alone.text() == "+0.0"


def test_the_table_compares_with_the_best_real_memory_and_with_the_twin(tmp_path: Path) -> None:
    twin = MemoryChoice(exemplars="herding", loss="gift")
    best = MemoryChoice(exemplars="random", codec="quantize:2")
    ours = MemoryChoice(exemplars="dm", loss="gift")
    comparison = StreamsConfig(memories=[twin, best, ours], ipc=[1], seeds=[0, 1])
    accuracies = {twin: (0.5, 0.52), best: (0.6, 0.62), ours: (0.53, 0.57)}
    results = [result(m, seed, a) for m, found in accuracies.items() for seed, a in enumerate(found)]
    groups = group_results(comparison, results)
    *_, line = format_table(comparison, groups).strip().splitlines()
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == "dm · raw · hard · gift"
    assert cells[3:5] == ["55.0 ± 2.8", "2"]
    assert cells[5].startswith("-6.0 [")
    assert cells[6].startswith("+4.0 [")
    figure = accuracy_by_size(comparison, groups)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "herding · raw · hard · gift",
        "random · quantize:2 · hard · ce",
        "dm · raw · hard · gift",
    ]


def test_memories_are_compared_over_the_class_orders_that_both_have() -> None:
    """The rival that is best where it has run, in one order, is not the best of all."""
    other, lucky, ours = (MemoryChoice(exemplars=name) for name in ("herding", "random", "dm"))
    accuracies = {other: (0.9, 0.5, 0.5), lucky: (0.8,), ours: (0.85, 0.6, 0.6)}
    comparison = StreamsConfig(memories=[other, lucky, ours], ipc=[1], seeds=[0, 1, 2])

    def difference(*memories: MemoryChoice) -> str:
        results = [result(m, seed, a) for m in memories for seed, a in enumerate(accuracies[m])]
        *_, line = format_table(comparison, group_results(comparison, results)).strip().splitlines()
        return line.split("|")[5].strip()

    assert difference(other, lucky, ours).startswith("+5.0 [")
    assert "n =" not in difference(other, lucky, ours)
    assert difference(lucky, ours) == "+5.0 (n = 1)"


def test_names_in_a_legend_are_short_where_that_tells_memories_apart() -> None:
    few, many = (MemoryChoice(exemplars=f"dm:iterations={n}") for n in (1, 2))
    real = MemoryChoice(exemplars="herding", loss="gift:weight=0.8", memory_weight=10)
    names = short_names([few, many, real])
    assert names == {few: few.name, many: many.name, real: "herding · raw · hard · gift"}


def test_a_run_that_fails_is_named_and_the_others_go_on(digits: RealData, tmp_path: Path) -> None:
    broken = MemoryChoice(exemplars="sre2l:iterations=1,jitter=0")  # its teacher has no batch norms
    failures: list[str] = []
    comparison = tiny(tmp_path, ipc=[1], memories=[broken, REAL], seeds=[0])
    results = run(comparison, digits, on_failure=failures.append)
    assert [found.memory for found in results] == [REAL]
    (failure,) = failures
    assert failure.startswith(f"IPC 1, {broken.name}, class order 0: failed. ")
    assert "`BatchNorm2d`" in failure


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--ipc", "[0]", "--out", str(tmp_path)])
    assert code == 2
    assert "`ipc`" in capsys.readouterr().err


def test_the_command_prints_results_and_the_table(
    digits: RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Config, "load", lambda self: digits)
    monkeypatch.setattr(stream_report, "save_figure", lambda figure, path: None)
    settings = tmp_path / "tiny.yaml"
    settings.write_text(
        "stream: {experiences: 2, model: 'mlp:hidden=8', epochs: 1, tracking: disabled}\n"
        "memories: [{exemplars: random}]\nseeds: [0]\nipc: [1]\n"
    )
    assert main(["--config", str(settings), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "IPC 1, random · raw · hard · ce, class order 0: " in said
    assert "| 1 | random · raw · hard · ce |" in said
