import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fkd_folders import (
    Elements,
    Kind,
    all_batches,
    batch_path,
    epoch_orders,
    is_same,
    make_dataset,
    rewrite_pickle,
    write_fkd,
)

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import DamagedFileError, LayoutError, ReadError, UnsafeFileError
from gift_cl.label_streams import Cutmix, FKDStream, Mixup, StreamBatch, StreamShape

DATASET = make_dataset()  # 20 images of 5 classes: batches of 8, 8 and 4
KINDS: list[Kind] = ["none", "mixup", "cutmix"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two epochs, cut-mixed, without indices."""
    write_fkd(tmp_path / "labels", DATASET)
    return tmp_path / "labels"


def refused(folder: Path, kind: type[ReadError], message: str, dataset: DistilledDataset = DATASET) -> None:
    """All that comes out is an error of exactly that kind, and nothing is written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(ReadError, match=message) as caught:
        all_batches(FKDStream.open(folder, dataset))
    assert type(caught.value) is kind
    assert sorted(folder.rglob("*")) == before


def expected_batch(elements: Elements, indices: torch.Tensor) -> StreamBatch:
    coords, flips, partner, lam, box, logits, *_ = elements
    mix: Mixup | Cutmix | None = None
    if box is not None:
        top, left, bottom, right = (int(edge) for edge in box)
        mix = Cutmix(partner, lam, (top, left, bottom, right))
    elif partner is not None:
        mix = Mixup(partner, lam)
    return StreamBatch(coords, flips, mix, logits, indices)


@pytest.mark.parametrize("has_indices", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_what_was_published(tmp_path: Path, kind: Kind, has_indices: bool) -> None:
    written = write_fkd(tmp_path, DATASET, epochs=3, kind=kind, has_indices=has_indices)
    stream = FKDStream.open(tmp_path, DATASET)
    assert stream.shape == StreamShape(3, 20, 5, batch_size=8, size=8)
    orders = epoch_orders(20, seed=42, draws=2)
    for epoch, (files, order) in enumerate(zip(written, orders, strict=False)):
        assert [len(elements[0]) for elements in files] == [8, 8, 4]
        for number, indices in enumerate(order.split(8)):
            found = stream.batch(epoch, number)
            assert is_same(found, expected_batch(files[number], indices))


def test_facts_tell_the_order_and_the_agreement(tmp_path: Path) -> None:
    write_fkd(tmp_path / "FKD_no_mix", DATASET, kind="none")
    facts = FKDStream.open(tmp_path / "FKD_no_mix", DATASET).facts
    assert (facts.source, facts.order, facts.seed) == ("FKD files of `FKD_no_mix`", "two draws", 42)
    assert (facts.agreement, facts.rows_compared) == (1.0, 40)
    assert facts.chance == pytest.approx(0.2)
    labels = np.repeat(np.arange(5), 4).astype("<i8").tobytes()
    assert facts.labels_sha256 == hashlib.sha256(labels).hexdigest()
    assert facts.pixels_sha256 is None


def test_facts_of_given_indices_have_no_seed(tmp_path: Path) -> None:
    write_fkd(tmp_path, DATASET, has_indices=True)
    facts = FKDStream.open(tmp_path, DATASET).facts
    assert (facts.order, facts.seed, facts.rows_compared) == ("given", None, 40)
    assert facts.agreement > 0.6


def test_bytes_are_those_of_the_files(folder: Path) -> None:
    stream = FKDStream.open(folder, DATASET)
    assert stream.nbytes == sum(path.stat().st_size for path in folder.rglob("*.tar"))
    content = batch_path(folder, 1, 2).read_bytes()
    assert stream.source_sha256(1, 2) == hashlib.sha256(content).digest()


def test_folders_around_the_epochs_are_allowed(tmp_path: Path) -> None:
    write_fkd(tmp_path / "release" / "FKD_cutmix_fp16", DATASET)
    (tmp_path / "release" / "README.txt").touch()
    assert FKDStream.open(tmp_path, DATASET).shape.num_epochs == 2


def test_other_files_beside_the_labels_are_not_minded(folder: Path) -> None:
    (folder / "epoch_0" / ".batch_3.tar.part").touch()
    (folder / "epoch_00").mkdir()
    (folder / "epoch_2").touch()
    assert FKDStream.open(folder, DATASET).shape.num_epochs == 2


def test_files_of_late_epochs_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    large = make_dataset(per_class=40)
    write_fkd(tmp_path, large, epochs=30, batch_size=100)
    batch_path(tmp_path, 14, 1).write_bytes(b"damaged")
    stream = FKDStream.open(tmp_path, large)
    assert stream.facts.rows_compared == 200 + 2 * 2100
    assert len(stream.batch(14, 0)) == 100
    with pytest.raises(DamagedFileError, match="epoch_14/batch_1.tar"):
        stream.batch(14, 1)


def test_progress_counts_the_files_that_are_read(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    FKDStream.open(folder, DATASET, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_a_stream_goes_to_another_process_and_is_the_same(folder: Path) -> None:
    stream = FKDStream.open(folder, DATASET)
    copy = pickle.loads(pickle.dumps(stream))
    assert all(is_same(*pair) for pair in zip(all_batches(stream), all_batches(copy), strict=True))


@pytest.mark.parametrize(("epoch", "number", "name"), [(2, 0, "epoch"), (-1, 0, "epoch"), (0, 3, "number")])
def test_a_batch_that_is_not_there_is_named(folder: Path, epoch: int, number: int, name: str) -> None:
    stream = FKDStream.open(folder, DATASET)
    with pytest.raises(ValueError, match=f"Expected `{name}`"):
        stream.batch(epoch, number)
    with pytest.raises(ValueError, match=f"Expected `{name}`"):
        stream.source_sha256(epoch, number)


# The order of rows


@pytest.mark.parametrize(("draws", "order"), [(2, "two draws"), (1, "one draw")])
def test_the_rule_of_the_sampler_is_told_from_epoch_1(tmp_path: Path, draws: int, order: str) -> None:
    write_fkd(tmp_path, DATASET, epochs=4, draws=draws)
    stream = FKDStream.open(tmp_path, DATASET)
    assert stream.facts.order == order
    for epoch, indices in zip(range(4), epoch_orders(20, seed=42, draws=draws), strict=False):
        found = [stream.batch(epoch, number).indices for number in range(3)]
        assert torch.equal(torch.cat(found), indices)


def test_one_epoch_cannot_tell_the_rules_apart_and_need_not(tmp_path: Path) -> None:
    write_fkd(tmp_path, DATASET, epochs=1, draws=1, kind="none")
    stream = FKDStream.open(tmp_path, DATASET)
    assert stream.facts.order == "either"
    indices = torch.cat([stream.batch(0, number).indices for number in range(3)])
    assert torch.equal(indices, next(epoch_orders(20, seed=42, draws=1)))


def test_another_seed_is_an_option(tmp_path: Path) -> None:
    write_fkd(tmp_path, DATASET, seed=7)
    refused(tmp_path, LayoutError, "drawn anew with seed 42.*another `seed`")
    assert FKDStream.open(tmp_path, DATASET, seed=7).facts.seed == 7


def test_images_in_another_order_are_refused(folder: Path) -> None:
    other = DATASET.select(torch.randperm(20, generator=torch.Generator().manual_seed(3)))
    refused(folder, LayoutError, r"more often than by chance, got .*% of 40 rows \(by chance 20.00%\)", other)


def test_another_class_order_is_refused(folder: Path) -> None:
    refused(folder, LayoutError, "another class order", DATASET.reordered([1, 2, 3, 4, 0]))


def test_given_indices_do_not_save_another_class_order(tmp_path: Path) -> None:
    write_fkd(tmp_path, DATASET, has_indices=True)
    other = DATASET.reordered([1, 2, 3, 4, 0])
    refused(tmp_path, LayoutError, "The files say their images, so these are others", other)


def test_later_epochs_of_another_run_are_refused(tmp_path: Path) -> None:
    large = make_dataset(per_class=40)
    write_fkd(tmp_path / "first", large, epochs=1, batch_size=100)
    write_fkd(tmp_path / "second", large, epochs=2, batch_size=100, seed=5)
    shutil.move(tmp_path / "second" / "epoch_1", tmp_path / "first")
    refused(
        tmp_path / "first",
        LayoutError,
        "answers in the epochs after epoch 0 of .* of 200 rows.*files of several runs",
        large,
    )


def test_last_epochs_of_a_run_that_began_again_are_refused(tmp_path: Path) -> None:
    large = make_dataset(per_class=40)
    write_fkd(tmp_path, large, epochs=30, batch_size=100)
    for epoch in range(12):
        shutil.copytree(tmp_path / f"epoch_{epoch}", tmp_path / f"epoch_{18 + epoch}", dirs_exist_ok=True)
    refused(tmp_path, LayoutError, "answers in the last epochs of .* of 2100 rows.*that was resumed", large)


def test_answers_that_know_nothing_are_refused(tmp_path: Path) -> None:
    large = make_dataset(per_class=100)
    written = write_fkd(tmp_path, large, epochs=1, batch_size=100)
    for number, elements in enumerate(written[0]):
        generator = torch.Generator().manual_seed(number)
        elements[5] = torch.randn(100, 5, generator=generator).half()
        torch.save(elements, batch_path(tmp_path, 0, number))
    refused(tmp_path, LayoutError, "more often than by chance", large)


def test_labels_of_50_images_a_class_serve_no_data_set_of_10(tmp_path: Path) -> None:
    write_fkd(tmp_path, make_dataset(per_class=50), batch_size=100)
    message = "soft labels of 50 images.*got 3 files of 100 rows.*mixed with partners from all images"
    refused(tmp_path, LayoutError, message, make_dataset(per_class=10))


def test_a_data_set_of_almost_the_same_size_is_refused(folder: Path) -> None:
    refused(folder, LayoutError, r"Expected 3 rows in .*batch_2.tar", DATASET.select(torch.arange(19)))


def test_another_number_of_classes_is_refused(folder: Path) -> None:
    other = make_dataset(num_classes=4, per_class=5)
    refused(folder, LayoutError, "logits of 4 classes, as the data set has.*got 5", other)


def test_a_size_smaller_than_the_boxes_is_refused(folder: Path) -> None:
    with pytest.raises(DamagedFileError, match="Open the stream with the `size` that its teacher saw"):
        FKDStream.open(folder, DATASET, size=4)


def test_another_size_of_views_is_an_option(tmp_path: Path) -> None:
    write_fkd(tmp_path, DATASET, size=16)
    assert FKDStream.open(tmp_path, DATASET, size=16).shape.size == 16
    refused(tmp_path, DamagedFileError, "views of 8 x 8 pixels")


# Files that do not fit together


def remove(epoch: int, number: int | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if number is None:
            shutil.rmtree(folder / f"epoch_{epoch}")
        else:
            batch_path(folder, epoch, number).unlink()

    return change


def swap(first: tuple[int, int], second: tuple[int, int]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        spare = folder / "spare"
        batch_path(folder, *first).rename(spare)
        batch_path(folder, *second).rename(batch_path(folder, *first))
        spare.rename(batch_path(folder, *second))

    return change


def resave(
    change: Callable[[Elements], object], *, epoch: int = 1, number: int = 1
) -> Callable[[Path], None]:
    """Change what a file holds; whatever ``change`` returns is saved, or the changed list."""

    def apply(folder: Path) -> None:
        path = batch_path(folder, epoch, number)
        allowed: list[Any] = [np.dtype, type(np.dtype("int64")), np.int64(0).__reduce__()[0]]
        with torch.serialization.safe_globals(allowed):
            elements = torch.load(path, weights_only=True)
        result = change(elements)
        torch.save(elements if result is None else result, path)

    return apply


def put(element: int, value: Any) -> Callable[[Path], None]:
    """Change one element, to a value or by a function of it."""

    def change(elements: Elements) -> None:
        elements[element] = value(elements[element]) if callable(value) else value

    return resave(change)


MISFITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no first epoch": (remove(0), "Expected `epoch_0` in"),
    "first batch": (remove(0, 0), r"Expected `batch_0.tar` in .*epoch_0`, got none"),
    "later batch": (remove(1, 0), r"Expected `batch_0.tar` in .*epoch_1`, got none"),
    "last batch": (remove(1, 2), "Expected 3 batch files in every epoch.*got 2 in `epoch_1`"),
    "empty epoch": (lambda folder: (folder / "epoch_2").mkdir(), r"Expected `batch_0.tar` in .*epoch_2`"),
    "gap": (lambda folder: shutil.copytree(folder / "epoch_1", folder / "epoch_3"), "Expected `epoch_2`"),
    "last batch first": (swap((0, 0), (0, 2)), "got 3 files of 4 rows"),
    "last batch second": (swap((0, 1), (0, 2)), r"Expected 8 rows in .*epoch_0/batch_1.tar`, got 4"),
    "later last batch": (swap((1, 1), (1, 2)), r"Expected 8 rows in .*epoch_1/batch_1.tar`, got 4"),
    "five elements": (resave(lambda e: e[:5]), "6 elements .* or 7 .*, got 5 elements"),
    "eight elements": (resave(lambda e: [*e, 1, 2]), "got 8 elements"),
    "a state dict": (resave(lambda e: {"model": e[0]}), "got dict"),
    "a tensor": (resave(lambda e: e[5]), "got Tensor"),
    "seven for once": (resave(lambda e: [*e, torch.arange(8)]), "Expected 6 elements in .*got 7"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_files_that_do_not_fit_together_are_refused(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    refused(folder, LayoutError, message)


IMPOSSIBLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "coords as list": (put(0, lambda t: t.tolist()), "`coords` as a tensor, got list"),
    "coords of other rows": (put(0, lambda t: t[:7]), "`coords` of torch.float32"),
    "coords double": (put(0, lambda t: t.double()), "`coords` of torch.float32"),
    "coords NaN": (put(0, lambda t: t * float("nan")), "`coords` in"),
    "coords negative": (put(0, lambda t: t - 1), "`coords` in"),
    "crop outside": (put(0, lambda t: t * 0 + 0.75), "ends at 1.5"),
    "flips missing": (put(1, None), "`flips` as a tensor, got NoneType"),
    "flips int": (put(1, lambda t: t.long()), "`flips` of torch.bool"),
    "partner missing": (put(2, None), "`mix.partner` as a tensor, got NoneType"),
    "partner outside": (put(2, lambda t: t + 1), r"`mix.partner` in \[0, 8\)"),
    "partner float": (put(2, lambda t: t.float()), "`mix.partner` of torch.int64"),
    "lam missing": (put(3, None), "`lam` as a number"),
    "lam above 1": (put(3, 1.5), r"`lam` in \[0, 1\], got 1.5"),
    "lam NaN": (put(3, float("nan")), r"`lam` in \[0, 1\], got nan"),
    "lam true": (put(3, True), "`lam` as a number"),
    "box of three": (put(4, [1, 2, 3]), "`box` as four whole numbers"),
    "box of floats": (put(4, [0.0, 0.0, 1.0, 1.0]), "`box` as four whole numbers"),
    "box a tensor": (put(4, torch.zeros(4)), "`box` as four whole numbers"),
    "box outside": (put(4, [0, 0, 9, 1]), "`box` inside views of 8 x 8"),
    "box inverted": (put(4, [5, 0, 1, 1]), "`box` as"),
    "box without partner": (resave(lambda e: [*e[:2], None, None, *e[4:]]), "`mix.partner` as a tensor"),
    "logits wide": (put(5, lambda t: t.float()), "`logits` of torch.float16"),
    "logits NaN": (put(5, lambda t: t * float("nan")), "finite `logits`"),
    "logits flat": (put(5, lambda t: t[0]), r"`logits` of shape \(B, C\)"),
    "logits scalar": (put(5, torch.tensor(1.0).half()), r"`logits` of shape \(B, C\)"),
    "logits of other classes": (put(5, lambda t: t[:, :4]), r"`logits` of shape \(8, 5\), got \(8, 4\)"),
}


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_values_that_cannot_be_are_refused(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    refused(folder, DamagedFileError, message)
    refused(folder, DamagedFileError, re.escape(f"The file `{batch_path(folder, 1, 1)}` holds no usable"))


def test_gradients_and_strides_of_their_own_do_no_harm(folder: Path) -> None:
    expected = all_batches(FKDStream.open(folder, DATASET))
    put(5, lambda t: torch.nn.Parameter(t.T.contiguous().T))(folder)
    put(0, lambda t: t.clone().requires_grad_())(folder)
    found = all_batches(FKDStream.open(folder, DATASET))
    assert all(is_same(*pair) for pair in zip(found, expected, strict=True))
    assert not found[4].logits.requires_grad
    assert not found[4].coords.requires_grad


def test_whole_numbers_of_python_are_as_good_as_numpys(folder: Path) -> None:
    expected = all_batches(FKDStream.open(folder, DATASET))
    put(4, lambda box: [int(edge) for edge in box])(folder)
    assert all(
        is_same(*pair) for pair in zip(all_batches(FKDStream.open(folder, DATASET)), expected, strict=True)
    )


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Two epochs whose files say their images."""
    write_fkd(tmp_path / "given", DATASET, has_indices=True)
    return tmp_path / "given"


def test_an_image_that_is_in_two_files_of_epoch_0_is_refused(given: Path) -> None:
    shutil.copy(batch_path(given, 0, 0), batch_path(given, 0, 1))
    refused(given, LayoutError, r"files in .*epoch_0` do not fit together.*image \d+ [02] times")


def test_an_image_twice_in_a_file_is_refused(given: Path) -> None:
    put(6, lambda t: t.index_fill(0, torch.tensor([0]), int(t[1])))(given)
    refused(given, DamagedFileError, "got one twice")


def test_an_image_that_the_data_set_has_not_is_refused(given: Path) -> None:
    put(6, lambda t: t + 20)(given)
    refused(given, DamagedFileError, r"`indices` in \[0, 20\)")


def test_a_file_that_says_no_images_among_those_that_do_is_refused(given: Path) -> None:
    resave(lambda e: e[:6])(given)
    refused(given, LayoutError, "Expected 7 elements in .*got 6")


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, LayoutError, "Expected folders `epoch_0`.*got none. Unpack the archive")


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fkd(tmp_path / "{0} {name}", DATASET)
    monkeypatch.chdir(tmp_path / "{0} {name}")
    assert FKDStream.open(".", DATASET).facts.source == "FKD files of `{0} {name}`"
    remove(1, 0)(Path())
    refused(tmp_path, LayoutError, r"Expected `batch_0.tar` in .*\{0\} \{name\}/epoch_1`")


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    batch_path(folder, 1, 1).unlink()
    os.mkfifo(batch_path(folder, 1, 1))  # opening it would wait for ever
    refused(folder, LayoutError, r"Expected `batch_1.tar`")


def test_a_choice_between_streams_is_left_to_the_caller(tmp_path: Path) -> None:
    for name in ("mixup", "cutmix"):
        write_fkd(tmp_path / name, DATASET)
    refused(tmp_path, LayoutError, "got 2 others: `cutmix`, `mixup`, ... Choose the one")


def test_a_missing_folder_is_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FKDStream.open(tmp_path / "nowhere", DATASET)


@pytest.mark.parametrize("name", ["epoch_1", "epoch_1/batch_2.tar"])
def test_links_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, UnsafeFileError, f"`{folder / name}` is a symbolic link and was not followed")


def test_a_link_around_the_epochs_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "inner").symlink_to(folder)
    refused(tmp_path / "outer", LayoutError, "got none")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert FKDStream.open(tmp_path / "link", DATASET).shape.num_epochs == 2


# What is in a file


@pytest.fixture
def cutmixed(folder: Path) -> Iterator[Path]:
    """A file of the folder whose box is of numpy's numbers."""
    expected = all_batches(FKDStream.open(folder, DATASET))
    yield batch_path(folder, 1, 0)
    found = all_batches(FKDStream.open(folder, DATASET))
    assert all(is_same(*pair) for pair in zip(found, expected, strict=True))


def test_files_of_numpy_1_and_of_numpy_2_are_read(cutmixed: Path) -> None:
    old, new = b"cnumpy.core.multiarray\nscalar", b"cnumpy._core.multiarray\nscalar"
    names = (old, new) if old in cutmixed.read_bytes() else (new, old)
    rewrite_pickle(cutmixed, *names)
    assert names[0] not in cutmixed.read_bytes()
    assert names[1] in cutmixed.read_bytes()


class Explosive:
    """What a pickle could do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("element", range(6))
def test_code_in_a_file_is_not_run(folder: Path, tmp_path: Path, element: int) -> None:
    planted = tmp_path / "exploded"
    put(element, Explosive(planted))(folder)
    refused(folder, UnsafeFileError, r"epoch_1/batch_1.tar` wants to run code")
    assert not planted.exists()
    torch.load(batch_path(folder, 1, 1), weights_only=False)
    assert planted.exists()  # it would have been run


@pytest.mark.parametrize(
    "value",
    [np.float64(0.5), np.int32(1), np.zeros(2, dtype="V8")[0], np.zeros(3), np.dtype("int64")],
    ids=["float64", "int32", "void", "array", "dtype"],
)
def test_nothing_of_numpy_but_int64_is_read(folder: Path, value: Any) -> None:
    put(3, value)(folder)
    with pytest.raises(ReadError, match=r"epoch_1/batch_1.tar"):
        all_batches(FKDStream.open(folder, DATASET))


def test_numbers_of_a_foreign_byte_order_are_not_read(folder: Path) -> None:
    rewrite_pickle(batch_path(folder), b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>")
    refused(folder, DamagedFileError, "a number of byte order '>'")


def test_a_file_of_another_kind_is_refused(folder: Path) -> None:
    batch_path(folder).write_bytes(b"<html>Quota exceeded</html>")
    refused(folder, DamagedFileError, r"batch_0.tar` is no readable torch checkpoint")


def test_a_file_far_too_large_is_not_opened(folder: Path) -> None:
    os.truncate(batch_path(folder), (512 << 20) + 1)  # takes no space on the disk
    refused(folder, UnsafeFileError, "has 536870913 bytes, far more than a batch")
