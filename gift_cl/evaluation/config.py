"""What an evaluation is: one frozen configuration, read from YAML and the command line; lists make a grid."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from gift_cl.evaluation.precision import Precision
from gift_cl.evaluation.recipe import HardLabel, Labels, Recipe

CROSSED = ("seed", "model", "tar_model", "criterion_name", "optimizer", "lr")
"""Settings that may be lists, the slowest first: a grid is their product, and ends one seed after another."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Students trained on one distilled data set and tested on real images.

    A setting that is null is what the preset says. Lists are written as in [0, 1, 2].

    Args:
        method: What made the images: rded, sre2l, cda, datm, gvbsm or another name; or `random`, `herding` or
            `coverage`, real training images at the same number a class.
        dataset: Name of the real data, as digits, cifar10, cifar100, tinyimagenet, imagenet-1k; or a folder
            or zip with train/<class>/ and test/<class>/.
        model: Network that the images were distilled with, which is the teacher's, and the student's too
            unless tar_model says another; or a list.
        tar_model: Student, if it is another network than the model; or a list.
        ipc: Images a class.
        criterion_name: Loss with options, as gift, kl:temperature=20, mse_ce:ce_weight=0.1; or a list.
        preset: Recipe that all settings come from that are not given: gift, sre2l, cda, rded, datm, gvbsm, or
            `own` for the one of the method.
        optimizer: Any of torch.optim with options, as AdamW or SGD:nesterov=true; or a list.
        lr: Learning rate at the start; or a list.
        seed: Of the weights, the order of images and all draws; or a list.
        data: Where the distilled images are: a folder, file or archive. Looked for below the root without.
        layout: How they are laid out, as rded:factor=2. Found by looking without.
        stream: Folder or packed file of soft labels by epoch and batch, for `labels: stream`.
        root: Folder of all data: what GIFT_CL_DATA says, or `data`, without.
        teacher: Weights of the teacher. Looked for below the root without.
        teacher_normalization: What it expects of pixels, if that is not the normalization of the student.
        evaluate_on: The test images; or images held out of the training images, to choose settings by (what
            was distilled from all training images has seen those too).
        validation_share: Part of the training images of each class that is held out; 0.1 where they are
            evaluated on. If it is given for the test images, students are measured on held-out images too.
        image_size: Side of real images of a method, in pixels. As the published teacher takes them, or
            as they are, without.
        epochs: Passes over the images.
        batch_size: Images a step, or auto for the rule of GIFT.
        weight_decay: Of the optimizer.
        momentum: Of optimizers that have one.
        decay_all: Weight decay on all parameters, or on those with at least two dimensions.
        schedule: Of the learning rate: multistep, cosine, half_cosine, step or constant; `warmup:5 | cosine`.
        view: Augmentation that teacher and student share: none, flip, crop_flip:pad=4, rrc:min_scale=0.08,
            factor_crop:2, shuffle_patches:2, dsa, dsa:form=one; several with | between.
        mix: none, mixup:alpha=0.8 or cutmix:alpha=1.0.
        hard_label: Of a mixed image: those of both images, or that of its own.
        labels: From a teacher on line, stored with the images, from a stream, or none but hard ones.
        normalization: Name, or means and standard deviations as in 0.5,0.5,0.5/0.2,0.2,0.2.
        precision: Of forward passes.
        compile: Compile student and teacher.
        evaluations: How often the student is measured, evenly spaced; the last time is the end.
        device: Where students are trained: cpu, cuda, cuda:1; auto for cuda if there is one. Each process of
            torchrun takes a card of its own.
        out: Folder of the rows.
        tracking: W&B, a run for each cell: offline, online or disabled.
        group: Of these runs in W&B. Method, data set and IPC without.
        retry_failed: Do cells again that failed before.
    """

    method: str
    dataset: str
    model: list[str] | str
    ipc: int
    tar_model: list[str] | str | None = None
    criterion_name: list[str] | str | None = None
    preset: str = "gift"
    optimizer: list[str] | str | None = None
    lr: list[float] | float | None = None
    seed: list[int] | int = 0
    data: str | None = None
    layout: str | None = None
    stream: str | None = None
    root: str | None = None
    teacher: str | None = None
    teacher_normalization: str | None = None
    evaluate_on: Literal["test", "validation"] = "test"
    validation_share: float | None = None
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int | Literal["auto"] | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    decay_all: bool | None = None
    schedule: str | None = None
    view: str | None = None
    mix: str | None = None
    hard_label: HardLabel | None = None
    labels: Labels | None = None
    normalization: str | None = None
    precision: Precision | None = None
    compile: bool | None = None
    evaluations: int | None = None
    device: str = "auto"
    out: str = "runs/evaluation"
    tracking: Literal["offline", "online", "disabled"] = "offline"
    group: str | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.ipc, int) or self.ipc < 1:
            raise ValueError(f"Expected `ipc` as an integer of at least 1, got {self.ipc!r}.")
        if self.evaluate_on not in ("test", "validation"):
            raise ValueError(f"Expected `evaluate_on` test or validation, got {self.evaluate_on!r}.")
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise ValueError(f"Expected `validation_share` in (0, 1), got {self.validation_share}.")
        for name in CROSSED:
            values = as_list(getattr(self, name))
            if not values:
                raise ValueError(f"Expected `{name}` with at least one value, got an empty list.")
            if twice := [value for number, value in enumerate(values) if value in values[:number]]:
                raise ValueError(f"Expected different values in `{name}`, got {twice[0]!r} twice.")

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of the recipe that are given, less those that may be lists."""
        names = [f.name for f in fields(Recipe) if f.name not in (*CROSSED, "loss")]
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def held_out(self) -> float | None:
        """Part of the training images of each class that is held out; None if none are."""
        if self.validation_share is None and self.evaluate_on == "validation":
            return 0.1
        return self.validation_share

    @property
    def group_name(self) -> str:
        """Group of the runs in W&B."""
        return self.group or f"{self.method}-{self.dataset}-ipc{self.ipc}"

    def smoke(self) -> EvaluationConfig:
        """The same grid, tiny, on the CPU and untracked: one epoch, one seed."""
        return replace(
            self,
            epochs=1,
            evaluations=1,
            seed=as_list(self.seed)[0],
            compile=False,
            device="cpu",
            tracking="disabled",
        )


def as_list(value: Any) -> list[Any]:
    """The values of a setting that may be a list."""
    return list(value) if isinstance(value, list | tuple) else [value]
