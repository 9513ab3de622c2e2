"""What two processes of `torchrun` do for the tests, and what one does to compare it with.

    python -m torch.distributed.run --nproc-per-node 2 parallel_jobs.py FOLDER

Each process leaves its results in FOLDER, by job.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_data import NORMALIZATION, make_dataset, make_images, make_model, make_recipe, make_teacher
from torch import Tensor, nn

from gift_cl.cli import main
from gift_cl.evaluation.accuracy import Accuracy, measure
from gift_cl.evaluation.processes import OtherProcessError, current, joined
from gift_cl.evaluation.training import History, train

NUM_PROCESSES = 2
CONV = "conv3:width=4"
CONV_WITHOUT_BATCH_NORM = "conv3:width=4,norm=instance"
TEACHER_FILE, ROWS_FOLDER = "teacher.safetensors", "rows"


def train_student(spec: str, num_images: int, **values: Any) -> dict[str, Any]:
    """Three epochs with a teacher on line; batches cannot be halved evenly."""
    student = make_model(spec)
    settings = {"epochs": 3, "evaluations": 3, "batch_size": 5, "optimizer": "SGD", "lr": 0.05, "view": "dsa"}
    recipe = make_recipe(**(settings | values))
    history = train(
        student, make_dataset(num_images), recipe, teacher=make_teacher(), measure=accuracy_of, device="cpu"
    )
    return results(student, history)


def results(student: nn.Module, history: History) -> dict[str, Any]:
    return {
        "weights": student.state_dict(),
        "curve": [(epoch, accuracy.top1, accuracy.top5) for epoch, accuracy in history.curve],
        "loss": history.train_loss_last,
        "num_images": history.num_images,
        "microbatches": history.microbatches,
    }


def accuracy_of(student: nn.Module) -> Accuracy:
    images, labels = make_images(31, seed=5)
    return measure(student, images, labels, normalization=NORMALIZATION, batch_size=4)


class Greedy(nn.Module):
    """A network whose second half, in the last process, takes no more than its share of three images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.second = nn.Sequential(nn.BatchNorm2d(2, momentum=None), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        processes = current()
        if processes.rank == processes.count - 1 and len(inputs) > (3 if processes.count == 1 else 2):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        logits: Tensor = self.second(hidden)
        return logits


def run_out_of_memory() -> dict[str, Any]:
    """In batches of ten; the first batch norm has seen them before the memory runs out."""
    settings = {"batch_size": 10, "epochs": 3, "labels": "hard", "loss": "ce", "optimizer": "SGD", "lr": 0.05}
    student, recipe = Greedy(), make_recipe(**settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(student, make_dataset(20), recipe)
    return results(student, history) | {"warnings": [str(warning.message) for warning in caught]}


def fail_alone() -> dict[str, Any]:
    """The last process fails while the first one waits for its number."""
    try:
        with current().together():
            if current().rank == 1:
                raise LookupError("no such thing")
            current().sum(torch.ones(2))
    except (LookupError, OtherProcessError) as error:
        return {"error": repr(error), "then": current().sum(torch.ones(2))}
    return {}


def talk(folder: Path) -> dict[str, Any]:
    said, mark = current().tell({"rank": current().rank}), folder / "mark"
    with current().first_ahead():
        seen = mark.exists()
        mark.touch()
    return {"said": said, "seen": seen}


def run_commands(folder: Path) -> dict[str, Any]:
    """A teacher of the digits, and two students of it, one of which diverges; files stay in the folder."""
    data = ("--dataset", "digits", "--model", CONV, "--device", "cpu", "--normalization", "none")
    teacher = folder / TEACHER_FILE
    short = ("--epochs", "2", "--batch-size", "33", "--lr", "0.03", "--hold-out", "0.1")
    codes = [main(["teacher", "train", *data, *short, "--out", str(teacher)])]
    grid = ["--method=random", "--ipc=10", "--epochs=9", "--evaluations=3", "--batch_size=19"]
    grid += ["--optimizer=SGD", "--lr=[0.03,1e30]", f"--teacher={teacher}", f"--out={folder / ROWS_FOLDER}"]
    codes += [main(["evaluate", *data, *grid, "--tracking=disabled"])]
    return {"codes": codes}


TRAININGS: dict[str, Callable[[], dict[str, Any]]] = {
    "batch norm": lambda: train_student(CONV, 13),
    "mixed": lambda: train_student(CONV, 13, mix="cutmix", loss="mse_ce"),
    "a single image at the end": lambda: train_student(CONV_WITHOUT_BATCH_NORM, 11),
    "bfloat16": lambda: train_student(CONV, 13, precision="bfloat16"),
    "out of memory": run_out_of_memory,
}


def run_all(folder: Path) -> None:
    with joined() as processes:
        assert processes.count == NUM_PROCESSES
        found = {name: job() for name, job in TRAININGS.items()}
        found |= {"failure": fail_alone(), "talk": talk(folder), "commands": run_commands(folder)}
        torch.save(found, folder / f"{processes.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(Path(sys.argv[1]))
