"""Class-incremental runs: `python -m experiments.class_incremental --strategy gift --exemplars rded`.

Every option can stand in a YAML file (`--config experiments/configs/digits.yaml`) and be overridden on
the command line; unknown keys are errors. Rows go to `OUT/rows.jsonl`, one an experience; memories to
`OUT/memory/`. `python -m experiments.report OUT` makes a page of them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.avalanche_memory import count_memory, num_stored
from experiments.benchmark import Stream, make_stream
from experiments.build import avalanche_sample, build_strategy
from experiments.config import Config
from experiments.evaluation import evaluate, forgetting
from experiments.model_clock import ModelClock
from experiments.quiet import quiet_avalanche
from experiments.rows import FILE_NAME, Row, append_rows
from gift_cl.dataset_file import load_dataset, save_dataset
from gift_cl.evaluation.surroundings import commit, versions
from gift_cl.files import check_writable
from gift_cl.ledger import Ledger
from gift_cl.real_data import RealData
from gift_cl.tracking import make_tracker


def run(config: Config, data: RealData | None = None) -> list[Row]:
    """Train through the stream, and append a row for each experience.

    Args:
        config: All of it.
        data: What ``config.load()`` gives, when it has been loaded already.

    Returns:
        The rows.
    """
    out = Path(config.out)
    check_writable(out / FILE_NAME)
    seed_everything(config.seed)
    data = config.choose(data or config.load())
    stream = make_stream(
        data,
        experiences=config.experiences,
        class_order_seed=config.class_order_seed,
        augmentation=config.augmentation,
    )
    strategy = build_strategy(config, stream)
    clock = ModelClock(strategy)
    run_id = run_name(config)
    tracker = make_tracker(
        config.tracking,
        config=asdict(config),
        name=run_id,
        group=f"{data.name}-{config.strategy}",
        folder=out,
    )
    facts = _facts(config, data, run_id)
    history: list[list[float]] = []
    rows: list[Row] = []
    for experience in stream.benchmark.train_stream:
        start, model_start = time.perf_counter(), clock.seconds
        with quiet_avalanche():
            metrics = strategy.train(experience)
        seconds = time.perf_counter() - start
        number = experience.current_experience
        knowledge = evaluate(strategy, stream, number)
        history.append(knowledge.by_experience)
        is_last = number == config.experiences - 1
        row = facts | {
            "experience": number,
            "num_classes_seen": sum(len(c) for c in stream.classes[: number + 1]),
            "accuracy_seen": knowledge.seen,
            "accuracy_by_experience": knowledge.by_experience,
            "forgetting": forgetting(history),
            "seconds": seconds,
            "model_seconds": clock.seconds - model_start,
            "confusion": knowledge.confusion.tolist() if is_last else None,
            "class_names": list(data.class_names) if is_last else None,
            "memory_file": f"memory/{run_id}.safetensors" if is_last and config.is_gift else None,
        }
        row |= _memory_columns(config, stream, strategy)
        if row["memory_file"]:
            save_dataset(strategy.memory.exemplars.dataset, out / row["memory_file"])
        append_rows(out, [row])
        rows.append(row)
        tracker.log(_numbers(row, metrics), step=number)
    _finish(tracker, rows[-1], out)
    return rows


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, for the model and Avalanche's loaders."""
    random.seed(seed)
    np.random.seed(seed)  # Avalanche draws from numpy's global generator
    torch.manual_seed(seed)


def run_name(config: Config) -> str:
    """A name that is the same for the same configuration, wherever it is written to."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("root", "out", "tracking")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{Path(config.data).stem}-{config.strategy}-s{config.seed}-{digest}"


def _facts(config: Config, data: RealData, run_id: str) -> Row:
    """What is the same in every row of a run."""
    avalanche = {"replay": "ce", "er_ace": "er_ace", "gdumb": "ce", "der": "der++"}
    axes: dict[str, str] = {"exemplars": "-", "codec": "-", "labels": "-", "loss": "-"}
    if config.is_gift:
        axes = {name: getattr(config, name) for name in axes}
    elif config.strategy in avalanche:
        labels = "logits32" if config.strategy == "der" else "hard"
        axes = {"exemplars": "random", "codec": "raw", "labels": labels}
        axes["loss"] = avalanche[config.strategy]
    return {
        "run_id": run_id,
        "benchmark": f"{data.name}/{config.experiences}",
        "strategy": config.strategy,
        **axes,
        "protocol": config.effective_protocol,
        "model": config.model,
        "head": config.head,
        "seed": config.seed,
        "class_order_seed": config.class_order_seed,
        "num_experiences": config.experiences,
        "budget_bytes": None if config.strategy in ("naive", "joint") else config.budget_bytes,
        "evaluated_on": config.evaluate_on,
        "config": asdict(config),
        "versions": versions("avalanche-lib", "pillow", "wandb"),
        "commit": commit(),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, {config.device}",
    }


def _memory_columns(config: Config, stream: Stream, strategy: Any) -> Row:
    """What the memory costs now."""
    ledger, count, seconds, accuracy, is_oracle = Ledger(), 0, 0.0, None, False
    if config.is_gift:
        memory = strategy.memory
        is_oracle = memory.exemplars.dataset.provenance.oracle
        ledger, count = memory.ledger, len(memory)
        seconds, accuracy = memory.distillation_seconds, memory.teacher_accuracy
    elif (sample := avalanche_sample(config, stream)) is not None:
        count = num_stored(strategy)
        ledger = count_memory(count, sample)
    if config.budget_bytes is not None and config.strategy not in ("naive", "joint"):
        ledger.require_within(config.budget_bytes)
    return {
        "memory_bytes": ledger.total,
        "memory_bytes_by_part": ledger.by_part(),
        "num_exemplars": count,
        "distillation_seconds": seconds,
        "teacher_accuracy": accuracy,
        "oracle": is_oracle,
    }


def _numbers(row: Row, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an experience for a tracker."""
    names = ("accuracy_seen", "forgetting", "memory_bytes", "num_exemplars", "seconds")
    numbers = {name: float(row[name]) for name in names}
    numbers |= {f"memory_bytes/{k}": float(v) for k, v in row["memory_bytes_by_part"].items()}
    numbers |= {f"accuracy/{i}": v for i, v in enumerate(row["accuracy_by_experience"])}
    return numbers | {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}


def _finish(tracker: Any, row: Row, out: Path) -> None:
    """Hand the memory over as a file and as a picture, then close the run."""
    if row["memory_file"]:
        from gift_cl.pictures.canvas import save_figure
        from gift_cl.pictures.contact_sheet import contact_sheet

        memory = out / row["memory_file"]
        picture = memory.with_suffix(".png")
        save_figure(contact_sheet(load_dataset(memory), row["class_names"]), picture)
        tracker.picture("memory", picture)
        tracker.artifact(f"memory-{row['run_id']}", "memory", memory)
    tracker.finish({name: float(row[name]) for name in ("accuracy_seen", "forgetting", "memory_bytes")})


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m experiments.class_incremental", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(Config)
    values = parser.parse_args(arguments).as_dict()
    values.pop("config", None)
    try:
        rows = run(Config(**values))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(
            f"experience {row['experience']}: accuracy {row['accuracy_seen']:.3f} on "
            f"{row['num_classes_seen']} classes, memory {row['memory_bytes']} bytes, "
            f"{row['seconds']:.1f} s"
        )
    print(f"rows in {Path(values['out']) / 'rows.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
