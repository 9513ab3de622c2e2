"""What a preset goes by: the data set, the student, and how many images there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a preset goes by.

    Args:
        method: What distilled the images: ``rded``, ``sre2l``, ``cda``, ``datm``, ``gvbsm``, or another name.
        dataset: As the papers' code spells it: ``cifar10``, ``cifar100``, ``tinyimagenet``, ``imagenet-1k``,
            ``imagenet-100``, ``imagenet-10``, ``imagenet-nette``, ``imagenet-woof``; or another name.
        model: Network that the images were distilled with.
        tar_model: Student; none is the same as ``model``.
        ipc: Images a class, at least 1.
        num_images: Exemplars in all, at least 1.
        factor: Mosaic factor.
        learned_lr: Learning rate that was distilled with the images, if any (DATM).
        normalization: Of a data set that the papers do not have; for the others the papers' own.
        whitened: Whether the images are ZCA-whitened (DATM); they are not normalised again.

    Raises:
        ValueError: If a count is below 1.
    """

    method: str
    dataset: str
    model: str
    tar_model: str | None = None
    ipc: int
    num_images: int
    factor: int = 1
    learned_lr: float | None = None
    normalization: str | None = None
    whitened: bool = False

    def __post_init__(self) -> None:
        if min(self.ipc, self.num_images, self.factor) < 1:
            raise ValueError(
                f"Expected `ipc`, `num_images` and `factor` of at least 1, got {self.ipc}, "
                f"{self.num_images} and {self.factor}."
            )

    @property
    def student(self) -> str:
        """Name of the student, without options."""
        return (self.tar_model or self.model).partition(":")[0]

    @property
    def num_classes(self) -> int:
        """Classes that have exemplars, if each has ``ipc``."""
        return -(-self.num_images // self.ipc)

    def normalization_of(self, published: dict[str, str]) -> str:
        """The paper's normalisation of the data set, or that of the case if the paper has no such data."""
        if self.whitened:
            return "none"
        found = published.get(self.dataset, self.normalization)
        if found is None:
            raise ValueError(
                f"No paper says how to normalise `{self.dataset}`. Known: {', '.join(published)}. "
                "Give `normalization`, a name or means and standard deviations: 0.5,0.5,0.5/0.2,0.2,0.2."
            )
        return found
