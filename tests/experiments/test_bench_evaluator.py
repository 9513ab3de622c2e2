import pytest
import torch
from rich.console import Console

from experiments.bench_evaluator import (
    CONTIGUOUS,
    FLOOR,
    OURS,
    PLAIN,
    Setting,
    main,
    ratio,
    table_of,
    time_recipe,
)
from experiments.device_clock import now

TINY = Setting(model="mlp:hidden=4", num_images=12, batch_size=4, workers=0, epochs=2)


@pytest.mark.parametrize("name", ["float32", "float32, DSA", "float32, compiled", "bfloat16"])
def test_all_take_as_many_steps_as_the_evaluator_but_the_first(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # takes long, and is torch's affair
    recipe = TINY.recipes[name]
    seconds = time_recipe(TINY, recipe)
    assert list(seconds) == [OURS, FLOOR, CONTIGUOUS, PLAIN]
    assert {len(times) for times in seconds.values()} == {3 * recipe.epochs - 1}
    assert all(time > 0 for times in seconds.values() for time in times)


def test_networks_are_on_the_device_and_the_clock_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    weights = Setting(model="mlp:hidden=4", device="meta").new_model(0).parameters()
    assert {weight.device.type for weight in weights} == {"meta"}
    assert 0 < now("cpu") <= now("cuda:1")
    assert waited == ["cuda:1"]


def test_compiled_networks_and_bfloat16_can_be_left_out() -> None:
    assert list(Setting(with_bfloat16=False).recipes) == ["float32", "float32, DSA", "float32, compiled"]
    assert list(Setting(with_compiled=False).recipes) == ["float32", "float32, DSA", "bfloat16"]


def test_student_and_teacher_are_compiled_in_the_compiled_recipe_alone() -> None:
    assert [recipe.compile for recipe in TINY.recipes.values()] == [False, False, True, False]


def test_a_ratio_is_that_of_steps_that_were_taken_one_after_the_other() -> None:
    # The machine was ten times slower in the second turn, and the medians of either do not show it.
    assert ratio({"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 4.0]}, "a", "b") == 0.5


def test_the_table_shows_speeds_and_ratios() -> None:
    seconds = {OURS: [0.5] * 3, FLOOR: [0.4] * 3, CONTIGUOUS: [0.25] * 3, PLAIN: [1.0] * 3}
    console = Console(width=200, record=True)
    console.print(table_of(Setting(batch_size=100), {"float32": seconds}))
    (line,) = (line for line in console.export_text().splitlines() if "float32 " in line and "│" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["float32", "200.0", "250.0", "400.0", "100.0", "1.25x", "2.00x"]


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--quick" in text
    assert "is the floor" in text


def test_a_quick_run_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--no-compiled", "--no-bfloat16", "--threads", "1"])
    text = capsys.readouterr().out
    assert "conv3:width=4" in text
    assert "images/s" in text
