"""From a configuration to its cells: the product of its lists, in an order that does not change."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS
from gift_cl.evaluation.cell import Cell
from gift_cl.evaluation.config import CROSSED, EvaluationConfig, as_list
from gift_cl.evaluation.parts import Parts, find_device
from gift_cl.evaluation.presets import PRESETS, Case, build_recipe
from gift_cl.evaluation.recipe import Recipe
from gift_cl.real_data import RealData


@dataclass(frozen=True, kw_only=True)
class Point:
    """One choice of each setting that may be a list; None is what the preset says.

    Args:
        seed: Of all draws.
        model: Network that the images were distilled with.
        tar_model: Student, if another one.
        criterion_name: Loss.
        optimizer: Optimizer.
        lr: Learning rate.
    """

    seed: int
    model: str
    tar_model: str | None
    criterion_name: str | None
    optimizer: str | None
    lr: float | None

    def overrides(self) -> dict[str, Any]:
        """Settings of a recipe, as far as they are chosen."""
        chosen = {"seed": self.seed, "loss": self.criterion_name, "optimizer": self.optimizer, "lr": self.lr}
        return {name: value for name, value in chosen.items() if value is not None}


def expand(config: EvaluationConfig) -> list[Point]:
    """All points of a grid: one seed after another, then models, losses, optimizers and learning rates.

    Example:
        >>> lists = {"criterion_name": ["gift", "kl"], "seed": [0, 1]}
        >>> config = EvaluationConfig(method="rded", dataset="digits", model="mlp", ipc=1, **lists)
        >>> [(point.seed, point.criterion_name) for point in expand(config)]
        [(0, 'gift'), (0, 'kl'), (1, 'gift'), (1, 'kl')]
    """
    values = [as_list(getattr(config, name)) for name in CROSSED]
    return [Point(**dict(zip(CROSSED, choice, strict=True))) for choice in itertools.product(*values)]


def make_cells(config: EvaluationConfig, parts: Parts) -> list[Cell]:
    """A cell for each point, in the order of `expand`; everything is loaded and checked.

    Raises:
        FileNotFoundError: If images or a teacher are missing; the message says where they were looked for.
        ValueError: If a setting is unknown, or the parts do not fit together.
    """
    device = find_device(config.device)
    return [_make_cell(config, parts, point, device) for point in expand(config)]


def _make_cell(config: EvaluationConfig, parts: Parts, point: Point, device: str) -> Cell:
    size = parts.image_size(point.model)
    real, held_out = parts.real(size)
    distilled = None if parts.is_control else parts.distilled(point.model)
    recipe = _recipe(config, point, distilled, real)
    needs_chooser = distilled is None and DISTILLERS.create(config.method).needs_teacher
    _check_given(config, recipe, needs_teacher=needs_chooser or recipe.labels == "online")
    teacher = None
    if needs_chooser or recipe.labels == "online":
        teacher = parts.teacher(point.model, real, recipe.normalization)
    if distilled is None:
        exemplars = parts.control(size, point.seed, teacher if needs_chooser else None)
        data = exemplars.provenance.source
    else:
        exemplars, data = distilled, parts.where(point.model)
    on_test = config.evaluate_on == "test"
    return Cell(
        recipe=recipe,
        exemplars=exemplars,
        test=real.test if on_test or held_out is None else held_out,
        evaluated_on=config.evaluate_on,
        validation=held_out if on_test else None,
        teacher=teacher if recipe.labels == "online" else None,
        stream=parts.stream(point.model, recipe.normalization) if recipe.labels == "stream" else None,
        whitening=parts.whitening(size) if exemplars.space == "zca" else None,
        method=config.method,
        dataset=config.dataset,
        data=data,
        model=point.model,
        tar_model=point.tar_model,
        preset=_preset(config),
        device=device,
    )


def _recipe(
    config: EvaluationConfig, point: Point, distilled: DistilledDataset | None, real: RealData
) -> Recipe:
    """The preset for this case, and what the configuration says otherwise."""
    case = Case(
        method=config.method.partition(":")[0],
        dataset=config.dataset,
        model=point.model,
        tar_model=point.tar_model,
        ipc=config.ipc,
        num_images=config.ipc * real.num_classes if distilled is None else len(distilled),
        factor=1 if distilled is None else distilled.factor,
        learned_lr=None if distilled is None else distilled.learned_lr,
        normalization=_normalization(distilled),
        whitened=distilled is not None and distilled.space == "zca",
    )
    return build_recipe(_preset(config), case, **config.overrides | point.overrides())


def _check_given(config: EvaluationConfig, recipe: Recipe, *, needs_teacher: bool) -> None:
    """Refuse what would not be used."""
    unused = {
        "teacher": config.teacher is not None and not needs_teacher,
        "stream": config.stream is not None and recipe.labels != "stream",
    }
    for name in (name for name, is_unused in unused.items() if is_unused):
        raise ValueError(
            f"Expected no `{name}` for `labels` {recipe.labels}, which do without. Leave it out, or choose "
            f"`labels` {'online' if name == 'teacher' else 'stream'}."
        )


def _preset(config: EvaluationConfig) -> str:
    if config.preset != "own":
        return config.preset
    name = config.method.partition(":")[0]
    if name not in PRESETS:
        raise ValueError(
            f"The method `{name}` has no recipe of its own. Choose a `preset`: {', '.join(PRESETS)}."
        )
    return name


def _normalization(distilled: DistilledDataset | None) -> str | None:
    """What a data set says of itself, in the words of `build_normalization`."""
    if distilled is None or distilled.normalization is None:
        return None
    mean, std = distilled.normalization.mean, distilled.normalization.std
    return f"{','.join(map(str, mean))}/{','.join(map(str, std))}"
