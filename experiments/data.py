"""Which images an experiment trains on and is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gift_cl.real_data import RealData, hold_out, load_real_data, subset

_HOLD_OUT_SEED = 0  # the same images whatever the seed of the run


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """The part of a configuration that says which images there are.

    Args:
        data: A name, as digits or cifar100; or a folder or zip with train/<class>/ and test/<class>/.
        root: Folder of all data sets: what GIFT_CL_DATA says, or `data`, without.
        image_size: Side in pixels to which images are resized; as they are without.
        classes: The first so many classes only; all without. Experiments of CPU size need few.
        images_per_class: The first so many training images of each class only; all without. It does not
            change which images are held out or tested on.
        evaluate_on: ``validation`` holds out a part of the training images in the place of the test images.
        validation_share: That part.
    """

    data: str = "digits"
    root: str | None = None
    image_size: int | None = None
    classes: int | None = None
    images_per_class: int | None = None
    evaluate_on: Literal["test", "validation"] = "test"
    validation_share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"Expected `validation_share` in (0, 1), got {self.validation_share}.")

    def load(self) -> RealData:
        """The whole data set; `choose` takes the images of the experiment from it.

        Raises:
            FileNotFoundError: If it is not there; the message says where it should be.
            ValueError: If the name is unknown, or something is wrong with the files.
        """
        return load_real_data(self.data, root=self.root, image_size=self.image_size)

    def choose(self, data: RealData) -> RealData:
        """The images of the experiment, of all those of its data set.

        Raises:
            ValueError: If there are not as many classes or images.
        """
        if self.classes is not None:
            if not 1 <= self.classes <= data.num_classes:
                raise ValueError(
                    f"Expected `classes` in [1, {data.num_classes}], the classes of {data.name}, got "
                    f"{self.classes}."
                )
            data = subset(data, classes=range(self.classes))
        if self.evaluate_on == "validation":
            data = hold_out(data, self.validation_share, seed=_HOLD_OUT_SEED)
        if self.images_per_class is not None:
            data = subset(data, per_class=self.images_per_class)
        return data
