from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gift_cl.label_streams import Cutmix, Mixup, StreamBatch, StreamShape
from gift_cl.label_streams.stream import check_epoch

ROWS, CLASSES = 3, 4


def make() -> StreamBatch:
    return StreamBatch(
        coords=torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.5], [0.5, 0.125, 0.125, 0.25]]),
        flips=torch.tensor([True, False, True]),
        mix=Cutmix(torch.tensor([2, 0, 1]), 0.5, (1, 2, 3, 8)),
        logits=torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(0)).half(),
        indices=torch.tensor([5, 0, 4]),
    )


def with_entry(tensor: Tensor, value: float, *, row: int = 0, column: int = 0) -> Tensor:
    changed = tensor.clone()
    changed[row, column] = value
    return changed


def test_parts_of_a_mixed_view() -> None:
    partner = torch.tensor([1, 0])
    assert Mixup(partner, 0.25).own_share(8) == 0.25
    assert Cutmix(partner, 0.9, (1, 2, 3, 8)).own_share(8) == 1 - 2 * 6 / 64
    assert Cutmix(partner, 0.9, (3, 3, 3, 8)).own_share(8) == 1


def test_crops_may_end_at_the_edge_whatever_their_rounding() -> None:
    for side in (32, 64, 224, 333):
        start = torch.arange(side) / side
        coords = torch.stack([start, start, 1 - start, (side - torch.arange(side)) / side], 1)
        assert len(
            StreamBatch(
                coords=coords,
                flips=torch.zeros(side, dtype=torch.bool),
                mix=None,
                logits=torch.zeros(side, 2).half(),
                indices=torch.arange(side),
            )
        ) == side  # fmt: skip


def test_the_largest_logits_are_finite() -> None:
    logits = torch.full((ROWS, 10_000), 65504.0).half()
    assert torch.equal(replace(make(), logits=logits).logits, logits)


WRONG: dict[str, tuple[Callable[[StreamBatch], StreamBatch], str]] = {
    "flat logits": (lambda b: replace(b, logits=b.logits[0]), r"`logits` of shape \(B, C\)"),
    "no rows": (lambda b: replace(b, logits=b.logits[:0]), r"`logits` of shape \(B, C\)"),
    "wide logits": (lambda b: replace(b, logits=b.logits.float()), "`logits` of torch.float16"),
    "NaN": (lambda b: replace(b, logits=with_entry(b.logits, float("nan"))), "finite `logits`"),
    "infinite": (lambda b: replace(b, logits=with_entry(b.logits, float("-inf"))), "finite `logits`"),
    "short coords": (lambda b: replace(b, coords=b.coords[:2]), r"`coords` of torch.float32 \(3, 4\)"),
    "narrow coords": (lambda b: replace(b, coords=b.coords[:, :3]), "`coords` of torch.float32"),
    "double coords": (lambda b: replace(b, coords=b.coords.double()), "`coords` of torch.float32"),
    "NaN coords": (lambda b: replace(b, coords=with_entry(b.coords, float("nan"))), r"`coords` in \[0, 1\]"),
    "negative coords": (lambda b: replace(b, coords=with_entry(b.coords, -0.1)), r"`coords` in \[0, 1\]"),
    "pixels as coords": (
        lambda b: replace(b, coords=b.coords * 224),
        r"`coords` in \[0, 1\], got \[0, 224\]",
    ),
    "flat crop": (lambda b: replace(b, coords=with_entry(b.coords, 0, column=2)), "an empty crop"),
    "crop below": (lambda b: replace(b, coords=with_entry(b.coords, 0.01)), "ends at 1.01 of it"),
    "crop beside": (lambda b: replace(b, coords=with_entry(b.coords, 0.6, row=1, column=1)), "ends at 1.1"),
    "flips as bytes": (lambda b: replace(b, flips=b.flips.byte()), "`flips` of torch.bool"),
    "short flips": (lambda b: replace(b, flips=b.flips[:2]), r"`flips` of torch.bool \(3,\)"),
    "short indices": (lambda b: replace(b, indices=b.indices[:2]), r"`indices` of torch.int64 \(3,\)"),
    "narrow indices": (lambda b: replace(b, indices=b.indices.int()), "`indices` of torch.int64"),
    "an image twice": (lambda b: replace(b, indices=torch.tensor([5, 0, 5])), "one twice"),
    "negative index": (lambda b: replace(b, indices=torch.tensor([5, 0, -1])), "a negative one"),
    "short partners": (
        lambda b: replace(b, mix=Mixup(torch.tensor([0, 1]), 0.5)),
        r"`mix.partner` of torch.int64 \(3,\)",
    ),
    "float partners": (lambda b: replace(b, mix=Mixup(torch.rand(3), 0.5)), "`mix.partner` of torch.int64"),
    "partner outside": (
        lambda b: replace(b, mix=Mixup(torch.tensor([0, 3, 1]), 0.5)),
        r"`mix.partner` in \[0, 3\), got \[0, 3\]",
    ),
    "negative partner": (
        lambda b: replace(b, mix=Mixup(torch.tensor([0, -1, 1]), 0.5)),
        r"`mix.partner` in \[0, 3\), got \[-1, 1\]",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_batch_that_cannot_be_is_refused(
    change: Callable[[StreamBatch], StreamBatch], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        change(make())


@pytest.mark.parametrize("lam", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_weight_outside_0_to_1_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match=r"`lam` in \[0, 1\]"):
        Mixup(torch.tensor([0]), lam)
    with pytest.raises(ValueError, match=r"`lam` in \[0, 1\]"):
        Cutmix(torch.tensor([0]), lam, (0, 0, 1, 1))


@pytest.mark.parametrize("box", [(3, 0, 2, 1), (0, 3, 1, 2), (-1, 0, 1, 1), (0, -1, 1, 1)])
def test_a_box_that_is_inverted_or_negative_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="`box` as"):
        Cutmix(torch.tensor([0]), 0.5, box)


def test_the_last_batch_has_what_is_left() -> None:
    shape = StreamShape(2, 10, CLASSES, batch_size=4, size=8)
    assert [shape.rows(number) for number in range(shape.num_batches)] == [
        slice(0, 4),
        slice(4, 8),
        slice(8, 10),
    ]


@pytest.mark.parametrize("name", ["num_epochs", "num_images", "num_classes", "batch_size", "size"])
def test_a_stream_of_nothing_is_refused(name: str) -> None:
    shape = StreamShape(2, 10, CLASSES, batch_size=4, size=8)
    with pytest.raises(ValueError, match=f"`{name}` in"):
        replace(shape, **{name: 0})


def test_sizes_beyond_the_format_are_refused() -> None:
    shape = StreamShape(2, 10, CLASSES, batch_size=4, size=8)
    with pytest.raises(ValueError, match=r"`batch_size` in \[1, 10\], got 11"):
        replace(shape, batch_size=11)
    with pytest.raises(ValueError, match=r"`size` in \[1, 32767\], got 32768"):
        replace(shape, size=1 << 15)


def test_a_batch_has_to_fit_its_stream() -> None:
    batch, shape = make(), StreamShape(2, 6, CLASSES, batch_size=3, size=8)
    shape.check_batch(1, batch)
    with pytest.raises(ValueError, match=r"`logits` of shape \(2, 4\), got \(3, 4\)"):
        replace(shape, num_images=5).check_batch(1, batch)
    with pytest.raises(ValueError, match=r"`logits` of shape \(3, 5\)"):
        replace(shape, num_classes=5).check_batch(0, batch)
    with pytest.raises(ValueError, match=r"`indices` in \[0, 6\), got 6"):
        shape.check_batch(0, replace(batch, indices=torch.tensor([0, 6, 1])))
    with pytest.raises(ValueError, match=r"`box` inside views of 7 x 7 pixels, got \(1, 2, 3, 8\)"):
        replace(shape, size=7).check_batch(0, batch)


def test_an_epoch_has_every_image_once() -> None:
    first, second = torch.tensor([3, 0]), torch.tensor([1, 2])
    check_epoch([first, second], num_images=4)
    with pytest.raises(ValueError, match="got image 1 0 times"):
        check_epoch([first, torch.tensor([3, 2])], num_images=4)
    with pytest.raises(ValueError, match="got image 3 2 times"):
        check_epoch([first, torch.tensor([3, 1, 2])], num_images=4)
    with pytest.raises(ValueError, match="got image 4 0 times"):
        check_epoch([first, second], num_images=5)
