"""What the cells of a configuration share: images, teachers and streams, each loaded once."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS, REAL_IMAGES
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.labelling import Stream
from gift_cl.evaluation.lookup import find_data, find_teacher
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.stored_streams import open_label_stream
from gift_cl.evaluation.teacher_recipe import measure_teacher
from gift_cl.models import find_card
from gift_cl.normalization import build_normalization
from gift_cl.progress import Progress, silent
from gift_cl.readers import read_dataset
from gift_cl.real_data import HOLD_OUT_SEED, RealData, data_root, hold_out, load_real_data, real_exemplars
from gift_cl.teacher import Teacher
from gift_cl.teacher_file import is_teacher_file, load_teacher
from gift_cl.whitening import ZCA, cached_zca


class Parts:
    """Loads what a configuration names, and checks it.

    Args:
        config: What to load.
        dataset: The distilled images, if they are in memory.
        real: The real images, if they are in memory.
        teacher: The teacher, if it is in memory.
        progress: Told of images that are read.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        *,
        dataset: DistilledDataset | None = None,
        real: RealData | None = None,
        teacher: Teacher | None = None,
        progress: Progress = silent,
    ) -> None:
        self._config = config
        self._root = data_root(config.root)
        self._dataset = dataset
        self._real = real
        self._teacher = teacher
        self._progress = progress
        # Keyed by arguments; the caches live as long as these parts.
        self.distilled = lru_cache(None)(self._load_distilled)
        self.real = lru_cache(None)(self._load_real)
        self.control = lru_cache(None)(self._choose_control)
        self.teacher = lru_cache(None)(self._load_teacher)
        self.stream = lru_cache(None)(self._open_stream)
        self.whitening = lru_cache(None)(self._fit_whitening)

    @property
    def is_control(self) -> bool:
        """Whether exemplars are real images, chosen anew for each seed."""
        name = self._config.method.partition(":")[0]
        return self._dataset is None and self._config.data is None and name in REAL_IMAGES

    def where(self, model: str) -> str:
        """Where the distilled images come from, for rows."""
        if self._dataset is not None:
            return self._dataset.provenance.source
        return str(self._find_data(model))

    def _find_data(self, model: str) -> Path:
        config = self._config
        if config.data is not None:
            return Path(config.data)
        return find_data(
            root=self._root, method=config.method, dataset=config.dataset, model=model, ipc=config.ipc
        )

    def _load_distilled(self, model: str) -> DistilledDataset:
        """The distilled images.

        Raises:
            FileNotFoundError: If there are none; the message says where they were looked for.
            ValueError: If they are no such images, or not ``ipc`` of each class.
        """
        config = self._config
        dataset = self._dataset
        if dataset is None:
            path = self._find_data(model)
            dataset = read_dataset(path, config.layout, ipc=config.ipc, progress=self._progress)
        counts = set(dataset.images_per_class.values())
        if counts != {config.ipc}:
            got = " to ".join(map(str, sorted({min(counts, default=0), max(counts, default=0)})))
            raise ValueError(
                f"Expected `ipc` = {config.ipc} images of each class in {self.where(model)}, got {got}."
            )
        return dataset

    def image_size(self, model: str) -> int | None:
        """Side of the images; None to leave real ones as they are."""
        asked = self._config.image_size
        if not self.is_control:
            if asked is not None:
                raise ValueError(
                    f"Expected `image_size` for {', '.join(REAL_IMAGES)} only, got {asked} for "
                    f"{self._config.method}: distilled images have their own."
                )
            return self.distilled(model).encoded.image_shape[-1]
        card = find_card(self._config.dataset, model.partition(":")[0])
        return asked or (None if card is None else card.image_size)

    def _load_real(self, image_size: int | None) -> tuple[RealData, DistilledDataset | None]:
        """Real images: those to train and test on, and those that are held out of the training images."""
        data, share = self._all_real(image_size), self._config.held_out
        if share is None:
            return data, None
        parts = hold_out(data, share, seed=HOLD_OUT_SEED)
        return replace(parts, test=data.test), parts.test

    def _all_real(self, image_size: int | None) -> RealData:
        config = self._config
        with current().first_ahead():
            return self._real or load_real_data(
                config.dataset, root=config.root, image_size=image_size, progress=self._progress
            )

    def _choose_control(self, image_size: int | None, seed: int, teacher: Teacher | None) -> DistilledDataset:
        """Real training images in the place of distilled ones."""
        config = self._config
        data, _ = self.real(image_size)
        return real_exemplars(data, config.method, ipc=config.ipc, teacher=teacher, seed=seed)

    def _load_teacher(self, model: str, real: RealData, normalization: str) -> Teacher:
        """The teacher, which knows all classes, once it has been measured on the test images.

        Args:
            model: Spec of its network.
            real: Images of its data set.
            normalization: Of the student, for published weights of which no other is known.

        Raises:
            FileNotFoundError: If there is none; the message says where it was looked for.
            ValueError: If its weights do not fit the network, the images or the number of classes.
            TeacherMismatchError: If it is far less accurate than its file or its card says.
        """
        if self._teacher is not None:
            return self._teacher
        config, device = self._config, find_device(self._config.device)
        path = Path(config.teacher or self._find_teacher(model))
        card = find_card(config.dataset, model)
        if path.is_file() and is_teacher_file(path):
            loaded = load_teacher(path, device=device, normalization=config.teacher_normalization)
        else:
            published = card.normalizations[0] if card and path.name == card.file_name else None
            loaded = load_teacher(
                path,
                device=device,
                model=model,
                normalization=config.teacher_normalization or published or normalization,
                num_classes=real.num_classes,
                image_shape=real.image_shape,
            )
        measure_teacher(loaded, real.test, card=card)
        return loaded.teacher

    def _find_teacher(self, model: str) -> Path:
        cure = "say where they are with `teacher`, or choose `labels` that need none: stored, stream or hard"
        if self.is_control and DISTILLERS.create(self._config.method).needs_teacher:  # whatever the labels
            cure = "or say where they are with `teacher`"
        return find_teacher(root=self._root, dataset=self._config.dataset, model=model, cure=cure)

    def _open_stream(self, model: str, normalization: str) -> Stream:
        """The stored soft labels of the distilled images."""
        config = self._config
        if config.stream is None:
            raise ValueError("Expected `stream` for `labels` stream: the folder or file of the soft labels.")
        return open_label_stream(
            Path(config.stream),
            self.distilled(model),
            normalization=build_normalization(normalization),
            progress=self._progress,
        )

    def _fit_whitening(self, image_size: int | None) -> ZCA:
        """What real images go through where the distilled ones are whitened, fitted to training images."""
        data = self._all_real(image_size)
        with current().first_ahead():
            return cached_zca(data.train.images, self._root / ".gift-cl-cache", progress=self._progress)


def find_device(name: str) -> str:
    """A device that works: ``auto`` is CUDA if there is one; of several processes each has its own card.

    Raises:
        ValueError: If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = current().device(name)
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"Expected a `device` of this machine, got `{name}`: {reason}.") from error
    return name
