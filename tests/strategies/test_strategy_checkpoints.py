# Avalanche's classes are untyped.
# mypy: allow-subclassing-any

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.checkpointing import maybe_load_checkpoint
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from toys import make_benchmark, make_strategy, weights

from strategies import DistilledMemory, GIFTDumb, GIFTReplay
from strategies.compat import save_strategy

FOLDER = Path(__file__).parent

# The memory, and the strategy around it, of each kind that is checkpointed.
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "hard": (GIFTReplay, {"labels": "hard"}),
    "stored": (GIFTReplay, {"labels": "stored:views=2", "augmentation": "crop", "codec": "webp:75"}),
    "online": (GIFTReplay, {"labels": "online"}),
    "dumb": (GIFTDumb, {"labels": "stored"}),
}


def start(kind: str) -> Any:
    """A strategy with a growing head at its beginning."""
    strategy, settings = KINDS[kind]
    extra: dict[str, Any] = {"student_epochs": 3} if strategy is GIFTDumb else {}
    memory = DistilledMemory(per_class=3, num_classes=6, **settings)
    metrics = accuracy_metrics(stream=True)
    return make_strategy(strategy, memory=memory, growing=True, metrics=metrics, **extra)


def go_on(strategy: Any, benchmark: Any, first: int, last: int) -> dict[str, float]:
    """Train on some experiences; the numbers that a checkpoint must not change."""
    for experience in benchmark.train_stream[first:last]:
        metrics = strategy.train(experience)
    evaluated = strategy.eval(benchmark.test_stream)
    return {
        "accuracy": evaluated["Top1_Acc_Stream/eval_phase/test_stream/Task000"],
        "loss": metrics["GIFT/loss"],
        "bytes": metrics["GIFT/memory_bytes/total"],
        "weights": float(weights(strategy).double().sum()),
    }


RESUME = """
import json, sys, warnings
warnings.filterwarnings("ignore", message="no QP solver")
sys.path.insert(0, sys.argv[1])
import torch
import test_strategy_checkpoints as here
from avalanche.checkpointing import maybe_load_checkpoint
from strategies.compat import save_strategy
from toys import make_benchmark

torch.set_num_threads(1)
results = {}
for kind in here.KINDS:
    path = f"{sys.argv[2]}/{kind}.pt"
    strategy, first = maybe_load_checkpoint(here.start(kind), path)
    assert first == 2, first
    save_strategy(strategy, f"{sys.argv[2]}/again/{kind}.pt")
    results[kind] = here.go_on(strategy, make_benchmark(), 2, 3)
print(json.dumps(results))
"""


def test_a_run_that_is_resumed_in_a_new_process_equals_the_straight_one(tmp_path: Path) -> None:
    straight = {}
    for kind in KINDS:
        strategy, benchmark = start(kind), make_benchmark()
        go_on(strategy, benchmark, 0, 2)
        save_strategy(strategy, tmp_path / f"{kind}.pt")
        straight[kind] = go_on(strategy, benchmark, 2, 3)
    command = [sys.executable, "-c", RESUME, str(FOLDER), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parents[1])
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == straight
    for kind in KINDS:
        sizes = [(tmp_path / folder / f"{kind}.pt").stat().st_size for folder in ("", "again")]
        assert sizes[1] == pytest.approx(sizes[0], abs=500), kind


def test_a_checkpoint_holds_exemplars_and_none_of_the_original_data(tmp_path: Path) -> None:
    sizes = []
    for per_class in (12, 120):
        strategy = start("stored")
        benchmark = make_benchmark(per_class=per_class)
        for experience in benchmark.train_stream:
            strategy.train(experience)
        save_strategy(strategy, tmp_path / "checkpoint.pt")
        sizes.append((tmp_path / "checkpoint.pt").stat().st_size)
    data = 120 * 6 * 64 * 4
    assert max(sizes) < data
    assert abs(sizes[1] - sizes[0]) < 1000


def test_a_loaded_strategy_is_whole(tmp_path: Path) -> None:
    strategy, benchmark = start("online"), make_benchmark()
    go_on(strategy, benchmark, 0, 2)
    save_strategy(strategy, tmp_path / "checkpoint.pt")
    loaded, counter = maybe_load_checkpoint(start("online"), tmp_path / "checkpoint.pt")
    assert counter == 2
    assert loaded.gift in loaded.plugins
    assert loaded.gift.rehearsal.memory is loaded.memory.exemplars
    assert loaded.memory.ledger == strategy.memory.ledger
    images = [s.memory.exemplars.dataset.images for s in (loaded, strategy)]
    torch.testing.assert_close(images[0], images[1])


def test_saving_does_not_disturb_the_run(tmp_path: Path) -> None:
    results = []
    for is_saved in (False, True):
        strategy, benchmark = start("stored"), make_benchmark()
        go_on(strategy, benchmark, 0, 2)
        if is_saved:
            save_strategy(strategy, tmp_path / "checkpoint.pt")
        results.append(go_on(strategy, benchmark, 2, 3))
    assert results[0] == results[1]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    class Stubborn(SupervisedPlugin):
        def __getstate__(self) -> Any:
            raise RuntimeError("cannot be saved")

    path = tmp_path / "checkpoint.pt"
    strategy = start("hard")
    strategy.train(make_benchmark().train_stream[0])
    save_strategy(strategy, path)
    before = path.read_bytes()
    strategy.plugins.append(Stubborn())
    with pytest.raises(RuntimeError, match="cannot be saved"):
        save_strategy(strategy, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_file_a_run_begins(tmp_path: Path) -> None:
    strategy = start("hard")
    loaded, counter = maybe_load_checkpoint(strategy, tmp_path / "none.pt")
    assert loaded is strategy
    assert counter == 0
