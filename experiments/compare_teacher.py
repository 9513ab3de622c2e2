"""The teacher of a comparison: trained once on the training images, and kept in a file."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.compare_settings import CompareConfig
from gift_cl.evaluation.digests import dataset_digest, text_digest
from gift_cl.evaluation.surroundings import commit, hardware, versions
from gift_cl.evaluation.teacher_recipe import teacher_recipe, train_teacher
from gift_cl.normalization import Normalization
from gift_cl.progress import Progress, silent
from gift_cl.real_data import RealData
from gift_cl.teacher_file import LoadedTeacher, load_teacher, save_teacher


def find_teacher(config: CompareConfig, data: RealData, *, progress: Progress = silent) -> LoadedTeacher:
    """The teacher in the folder of the comparison; it is trained and written if it is not there.

    Its accuracy is that on the images that students are measured on. Processes that begin together train it
    each, which takes no longer, and get the same.

    Args:
        config: Network, epochs, device and folder.
        data: The images of the comparison.
        progress: Told of images trained on.

    Raises:
        ValueError: If the images are not square, or the network cannot be built for them.
        DivergedError: If its loss was not finite.
        OSError: If it cannot be written.
    """
    recipe = teacher_recipe(
        config.data,
        config.model,
        normalization=normalization_text(data.channel_statistics),
        image_size=data.image_shape[-1],
        epochs=config.teacher_epochs,
    )
    digest = text_digest(
        {
            "data": [dataset_digest(data.train), dataset_digest(data.test)],
            "model": config.model,
            "recipe": recipe.as_dict(),
        }
    )
    path = Path(config.out, f"teacher-{digest}.safetensors")
    if not path.exists():
        network, history = train_teacher(data, config.model, recipe, device=config.device, progress=progress)
        save_teacher(
            path,
            config.model,
            network,
            classes=data.train.classes,
            num_classes=data.num_classes,
            normalization=data.channel_statistics,
            image_shape=data.image_shape,
            dataset=data.name,
            accuracy=history.curve[-1][1],
            class_names=data.class_names,
            provenance={
                "source": data.train.provenance.source,
                "measured_on": data.test.provenance.source,
                "settings": recipe.as_dict(),
                "seconds": history.seconds,
                "versions": versions(),
                "commit": commit(),
                "hardware": hardware(torch.device(config.device)),
            },
        )
    return load_teacher(path, device=config.device)


def normalization_text(normalization: Normalization) -> str:
    """The spelling that `gift_cl.normalization.build_normalization` reads.

    Example:
        >>> normalization_text(Normalization((0.5, 0.25), (0.2, 0.1)))
        '0.5,0.25/0.2,0.1'
    """
    return "/".join(",".join(map(str, values)) for values in (normalization.mean, normalization.std))
