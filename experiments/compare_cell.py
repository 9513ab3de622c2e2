"""One cell of a comparison: exemplars that a distiller makes, and a student that learns them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.compare_settings import CompareConfig, Job
from experiments.compare_teacher import normalization_text
from gift_cl.codecs import build_codec, recode
from gift_cl.dataset import DistilledDataset
from gift_cl.distilling import distill_dataset
from gift_cl.evaluation.accuracy import measure
from gift_cl.evaluation.digests import dataset_digest, teacher_digest, text_digest
from gift_cl.evaluation.labelling import DrawnBatches, Stream, TeacherLabels, seeded
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.surroundings import commit, hardware, versions
from gift_cl.evaluation.training import train
from gift_cl.models import build_model
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.teacher_file import LoadedTeacher

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exemplars:
    """What a distiller has made.

    Args:
        dataset: As stored, without labels that the distiller may have learned.
        seconds: That it took.
        num_images: Images that it sent through networks, each as often as it did.
    """

    dataset: DistilledDataset
    seconds: float
    num_images: int

    @property
    def sha256(self) -> str:
        """The first 16 digits of the digest of what is stored."""
        return dataset_digest(self.dataset)[:16]


class Comparison:
    """Makes exemplars and trains students on them, under the settings of one configuration.

    Args:
        config: The settings.
        data: What is distilled, and what students are measured on.
        teacher: Of the distillers and of the losses that need one.
    """

    def __init__(self, config: CompareConfig, data: RealData, teacher: LoadedTeacher) -> None:
        self.config, self.data, self.teacher = config, data, teacher
        self._normalization = normalization_text(data.channel_statistics)

    def row_id(self, job: Job, loss: str) -> str:
        """Digest of everything that determines a row, but for machine and versions."""
        return text_digest(
            {
                "data": [dataset_digest(self.data.train), dataset_digest(self.data.test)],
                "teacher": teacher_digest(self.teacher.teacher),
                "distiller": job.distiller.spec,
                "per_class": job.per_class,
                "ipc": job.ipc,
                "codec": self.config.codec,
                "model": self.config.model,
                "steps": self.config.steps,
                "recipe": self._recipe(job, loss).as_dict(),
            }
        )

    def make(self, job: Job, *, progress: Progress = silent) -> Exemplars:
        """The exemplars of a job.

        Raises:
            ValueError: If the distiller cannot make them; the message says why.
        """
        counts = [0]

        def tell(done: int, total: int) -> None:
            counts.append(done)
            progress(done, total)

        start = time.perf_counter()
        made = distill_dataset(
            self.data,
            job.distiller,
            ipc=job.per_class,
            teacher=self.teacher.teacher,
            seed=job.seed,
            device=self.config.device,
            progress=tell,
        )
        seconds = time.perf_counter() - start
        assert made is not None
        encoded = made.encoded
        if job.distiller.codec is None:
            encoded = recode(encoded, build_codec(self.config.codec))
        if self.config.codec == "raw":
            most = job.ipc * self.data.num_classes * math.prod(self.data.image_shape)
            assert encoded.nbytes <= most
        return Exemplars(
            dataset=replace(made, encoded=encoded, soft_labels=None),
            seconds=seconds,
            num_images=max(counts),
        )

    def train(self, job: Job, exemplars: Exemplars, loss: str, *, progress: Progress = silent) -> Row:
        """The row of a student that learned exemplars; each is shown equally often in each round.

        Raises:
            DivergedError: If the loss was not finite.
            ValueError: If the teacher does not fit the exemplars.
        """
        started, recipe, stored = datetime.now(UTC), self._recipe(job, loss), exemplars.dataset
        num_shown = self.config.steps // self.config.rounds * self.config.batch_size
        shown = stored.select(torch.arange(len(stored)).repeat(num_shown // len(stored)))
        is_online = recipe.labels == "online"
        history = train(
            self._fresh_student(job.seed),
            shown,
            recipe.override(labels="stream", view="none") if is_online else recipe,
            stream=self._stream(stored, shown, recipe) if is_online else None,
            device=self.config.device,
            measure=partial(
                measure,
                images=self.data.test.images,
                labels=self.data.test.labels,
                normalization=self.data.channel_statistics,
                device=self.config.device,
            ),
            progress=progress,
        )
        accuracies = [accuracy.top1 for _, accuracy in history.curve]
        ledger = stored.ledger(teacher_bytes=self.teacher.teacher.nbytes if is_online else 0)
        speed = exemplars.num_images / exemplars.seconds if exemplars.num_images else None
        return self._what(job, loss) | {
            "status": "done",
            "reason": None,
            "num_exemplars": len(stored),
            "stored_as": stored.encoded.codec,
            "accuracy_last": accuracies[-1],
            "accuracy_best": max(accuracies),
            "curve": accuracies,
            "train_loss_last": history.train_loss_last,
            "bytes": ledger.by_part(),
            "distillation_seconds": exemplars.seconds,
            "distillation_images": exemplars.num_images,
            "distillation_images_per_second": speed,
            "training_seconds": history.seconds,
            "training_images_per_second": history.images_per_second,
            "exemplars_sha256": exemplars.sha256,
            "started": started.isoformat(timespec="seconds"),
        }

    def _stream(self, stored: DistilledDataset, shown: DistilledDataset, recipe: Recipe) -> Stream:
        """Views of the exemplars shown, and the teacher's answers to them.

        The training would ask the teacher itself, but compare its answers with the labels of the exemplars
        first: of repeated ones, as if each were new evidence that the teacher numbers the classes otherwise.
        """
        device = torch.device(self.config.device)
        batches = DrawnBatches(shown, recipe, device=device, keep_single=True)
        answers = TeacherLabels(
            self.teacher.teacher,
            stored,
            normalization=self.data.channel_statistics,
            device=device,
            precision=recipe.precision,
        )

        def epoch(number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for inputs, (target,) in batches.batches(number):
                yield inputs, answers(inputs), target.labels

        return Stream(epoch=epoch, nbytes=0, digest="online")

    def failed(self, job: Job, loss: str, reason: str) -> Row:
        """The row of what could not be done."""
        return self._what(job, loss) | {"status": "failed", "reason": reason}

    def _what(self, job: Job, loss: str) -> Row:
        recipe, accuracy = self._recipe(job, loss), self.teacher.accuracy
        return {
            "row_id": self.row_id(job, loss),
            "dataset": self.data.name,
            "evaluated_on": self.config.evaluate_on,
            "num_test_images": len(self.data.test),
            "distiller": job.name,
            "distiller_spec": job.distiller.spec,
            "ipc": job.ipc,
            "loss": loss,
            "labels": recipe.labels,
            "seed": job.seed,
            "model": self.config.model,
            "teacher_accuracy": accuracy and accuracy.top1,
            "teacher_sha256": teacher_digest(self.teacher.teacher)[:16],
            "settings": recipe.as_dict(),
            "config": asdict(self.config),
            "versions": versions(),
            "commit": commit(),
            "hardware": hardware(torch.device(self.config.device)),
        }

    def _recipe(self, job: Job, loss: str) -> Recipe:
        return self.config.recipe(loss, seed=job.seed, normalization=self._normalization)

    def _fresh_student(self, seed: int) -> nn.Module:
        channels, side, _ = self.data.image_shape
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeded("weights", seed).initial_seed())
            return build_model(
                self.config.model, in_channels=channels, image_size=side, num_classes=self.data.num_classes
            )
