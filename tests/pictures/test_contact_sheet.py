from dataclasses import replace

import numpy as np
import pytest
import torch

from gift_cl.codecs import EncodedImages, build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.pictures.contact_sheet import contact_sheet


def shown(dataset: DistilledDataset) -> np.ndarray:
    """The pixels of the sheet."""
    (axes,) = contact_sheet(dataset).axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def constant(values: list[int], labels: list[int], *, num_classes: int) -> DistilledDataset:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 12, 12)
    return DistilledDataset.from_images(
        images.contiguous(),
        torch.tensor(labels, dtype=torch.int64),
        num_classes=num_classes,
        provenance=Provenance(method="rded"),
    )


def test_each_class_has_a_row_of_its_exemplars() -> None:
    sheet = shown(constant([10, 20, 30, 40], [1, 0, 1, 0], num_classes=2))
    assert sheet.shape == (2 * 13, 2 * 13, 3)
    centers = sheet[6::13, 6::13, 0]
    assert centers.tolist() == [[20, 40], [10, 30]]


def test_rows_may_differ_in_length() -> None:
    sheet = shown(constant([10, 20, 30], [0, 0, 1], num_classes=2))
    assert sheet[6::13, 6::13, 0].tolist() == [[10, 20], [30, 255]]


def test_no_more_is_decoded_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = constant([7] * 3000, [i % 100 for i in range(3000)], num_classes=100)
    decoded: list[int] = []

    def decode(encoded: EncodedImages) -> torch.Tensor:
        decoded.append(len(encoded))
        return build_codec("raw").decode(encoded)

    monkeypatch.setattr(EncodedImages, "decode", decode)
    figure = contact_sheet(dataset)
    assert decoded == [200]
    assert "20 of 100 classes, the first 10 of each class" in figure.axes[0].get_title().replace("\n", " ")


@pytest.mark.parametrize("columns", [1, 10])
def test_a_long_title_stays_within_the_picture(columns: int) -> None:
    method = "idc:" + ",".join(f"embedding_number_{index}=0.0{index}" for index in range(12))
    dataset = constant([7] * columns, [0] * columns, num_classes=1)
    figure = contact_sheet(replace(dataset, provenance=Provenance(method=method)), ["mammal of the woods"])
    figure.draw_without_rendering()
    box = figure.axes[0].title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_whitened_images_are_stretched_around_their_mean() -> None:
    values = torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 12, 12) + 5
    dataset = DistilledDataset(
        encoded=build_codec("float32").encode(values.contiguous()),
        labels=torch.tensor([0, 1]),
        num_classes=2,
        space="zca",
    )
    sheet = shown(dataset)[6::13, 6, 0]
    assert sheet.tolist() == [round(255 * 0.3), round(255 * 0.7)]  # a deviation is a fifth of the range


def test_float_pixels_are_shown_as_they_are() -> None:
    values = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 12, 12).contiguous()
    encoded = build_codec("float32").encode(values)
    dataset = DistilledDataset(encoded=encoded, labels=torch.tensor([0, 0, 0]), num_classes=1)
    assert shown(dataset)[6, 6::13, 0].tolist() == [0, 128, 255]


def test_an_empty_data_set_has_a_sheet_too() -> None:
    figure = contact_sheet(constant([], [], num_classes=3))
    assert "0 exemplars" in figure.axes[0].get_title()


def test_names_of_classes_are_shown() -> None:
    figure = contact_sheet(constant([1, 2], [0, 1], num_classes=2), ["cat", "dog"])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["cat", "dog"]
