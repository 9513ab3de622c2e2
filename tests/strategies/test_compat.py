from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from avalanche.checkpointing import maybe_load_checkpoint
from avalanche.evaluation.metrics import StreamConfusionMatrix, accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from toys import make_benchmark, make_strategy

from strategies import DistilledMemory, GIFTReplay
from strategies.compat import CompatWandBLogger, save_strategy


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_home")
def test_the_logger_works_offline_with_metrics_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_offline_run: Callable[[Path], Any]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    logger = CompatWandBLogger(project_name="gift-cl", run_name="toy")
    evaluator = EvaluationPlugin(
        accuracy_metrics(minibatch=True, epoch=True, stream=True),
        loss_metrics(epoch=True),
        StreamConfusionMatrix(num_classes=6),
        loggers=[logger],
    )
    memory = DistilledMemory(per_class=2, num_classes=6)
    strategy = make_strategy(GIFTReplay, memory=memory, evaluator=evaluator)
    benchmark = make_benchmark()
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
    save_strategy(strategy, tmp_path / "checkpoint.pt")
    run_id = logger.wandb.run.id
    logger.wandb.finish()
    _, _, logged = read_offline_run(tmp_path)
    assert logged["GIFT/memory_bytes/total"] == memory.ledger.total
    assert logged["GIFT/loss"] > 0
    assert 0 <= logged["Top1_Acc_Stream/eval_phase/test_stream/Task000"] <= 1

    fresh = make_strategy(GIFTReplay, memory=DistilledMemory(per_class=2, num_classes=6))
    loaded, _ = maybe_load_checkpoint(fresh, tmp_path / "checkpoint.pt")
    loaded.train(benchmark.train_stream[2])
    assert loaded.evaluator.loggers[0].wandb.run.id == run_id
    loaded.evaluator.loggers[0].wandb.finish()


@pytest.mark.usefixtures("tiny_files")
def test_a_full_disk_is_named_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=r"Cannot write `.*checkpoint.pt`: .*Make space on its disk"):
        save_strategy(make_strategy(GIFTReplay, memory=DistilledMemory(per_class=2, num_classes=6)), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, b"old")]


def test_names_that_moved_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = make_wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logger = CompatWandBLogger.__new__(CompatWandBLogger)
    logger.import_wandb()
    assert logger.wandb is wandb
    assert wandb.util.generate_id() == "new"
    assert wandb.viz.CustomChart == "chart"


def test_names_that_are_there_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = make_wandb()
    wandb.util.generate_id = lambda: "old"
    wandb.viz = SimpleNamespace(CustomChart="old chart")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logger = CompatWandBLogger.__new__(CompatWandBLogger)
    logger.import_wandb()
    assert wandb.util.generate_id() == "old"
    assert wandb.viz.CustomChart == "old chart"


def make_wandb() -> Any:
    """What the logger needs of a recent wandb."""
    wandb: Any = ModuleType("wandb")
    wandb.util = SimpleNamespace()
    wandb.sdk = SimpleNamespace(lib=SimpleNamespace(runid=SimpleNamespace(generate_id=lambda: "new")))
    wandb.plot = SimpleNamespace(CustomChart="chart")
    return wandb
